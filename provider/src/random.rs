//! Random numbers (PKCS#11 3.1, section 5.21): the vault's.

use strongroom_shared::{
    message::{GenerateRandom, SecretBytes, SeedRandom},
    secret::Wiped,
};

use crate::{hsm, rv::Error, session::Context};

/// The most that one `C_GenerateRandom` gives, in bytes: a length beyond it is taken for a mistake.
pub const MOST: usize = 1 << 24;

/// `C_SeedRandom`. An empty seed is mixed in without asking anybody.
///
/// # Errors
/// `DataLenRange` if it does not fit into a call; the server's word.
pub fn seed(context: &Context<'_>, seed: &[u8]) -> Result<(), Error> {
    if seed.is_empty() {
        return Ok(());
    }
    context.call(&SeedRandom { seed: seed.to_vec() }).map(drop)
}

/// `C_GenerateRandom`, in as many calls as it takes.
///
/// # Errors
/// `ArgumentsBad` beyond [`MOST`]; the server's word.
pub fn generate(context: &Context<'_>, length: usize) -> Result<Wiped, Error> {
    if length > MOST {
        return Err(Error::ArgumentsBad);
    }
    let mut random = Wiped::from(Vec::with_capacity(length));
    while random.len() < length {
        let piece = (length - random.len()).min(context.slot.hsm.input_limit());
        let request = GenerateRandom { length: u32::try_from(piece).map_err(|_| Error::ArgumentsBad)? };
        let SecretBytes(bytes) = context.call(&request)?.bytes;
        if bytes.len() != piece {
            return Err(hsm::malformed("random bytes of another length"));
        }
        random.extend_from_slice(&bytes);
    }
    Ok(random)
}
