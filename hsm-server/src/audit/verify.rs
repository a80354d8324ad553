//! Proving the whole log, from the first record to the head, even while it is being written.

use std::{thread, time::Duration};

use strongroom_shared::secret::Secret;

use super::{
    chain::{Chain, Head},
    error::{Error, Tampering},
    sink::AuditSource,
    walk::{Step, Walk},
};

/// A log that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many records it has, as far as they were written when the proof began.
    pub records: u64,
    /// The link of the last one: whoever notes it can tell later that the log was not made anew.
    pub head: [u8; 32],
}

/// Proves every record of a log.
///
/// # Errors
/// `Tampered` with the first record that was changed, dropped, reordered, inserted or cut off; `HeadMissing`,
/// `HeadChanged`, `Empty`; what the source says.
pub fn verify<S: AuditSource + ?Sized>(source: &S, key: &Secret<[u8; 32]>) -> Result<Summary, Error> {
    let chain = Chain::new(key);
    let head = read_head(source, &chain)?;
    verify_to(source, &chain, &head)
}

/// Reads the head. While it is being rewritten, a reader may see a mixture of two: it looks again.
fn read_head<S: AuditSource + ?Sized>(source: &S, chain: &Chain) -> Result<Head, Error> {
    const LOOKS: u32 = 20;
    for _ in 0..LOOKS {
        match source.read_head()? {
            Some(bytes) => {
                if let Some(head) = Head::decode(&bytes, chain) {
                    return Ok(head);
                }
            }
            None if source.segments()?.is_empty() => return Err(Error::Empty),
            None => return Err(Error::HeadMissing),
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(Error::HeadChanged)
}

/// Proves every record up to the head, and whatever stands behind it.
pub(super) fn verify_to<S: AuditSource + ?Sized>(
    source: &S,
    chain: &Chain,
    head: &Head,
) -> Result<Summary, Error> {
    let mut walk = Walk::from(source, chain, 1)?;
    loop {
        let step = walk.step()?;
        let sequence = walk.mark().sequence.saturating_add(1);
        match step {
            Step::Record(record) if record.sequence == head.written && walk.mark().link != head.link => {
                return Err(Error::HeadChanged);
            }
            Step::Record(_) => {}
            Step::Wrong(what) => return Err(Error::Tampered { sequence, what }),
            Step::Torn if sequence <= head.written => {
                return Err(Error::Tampered { sequence, what: Tampering::CutOff });
            }
            Step::End if sequence <= head.written => {
                return Err(Error::Tampered { sequence, what: Tampering::Missing });
            }
            Step::Torn | Step::End => return Ok(Summary { records: head.written, head: head.link }),
        }
    }
}
