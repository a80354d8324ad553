//! What encryption and decryption share: how a multi-part operation proceeds.
//!
//! Block modes stream: whole blocks travel as they come, each call chained to the one before, CBC by its last
//! ciphertext block and CTR by its counter. Everything else is collected and travels once, at the end; so a GCM
//! plaintext is never seen before its tag was checked.

use strongroom_shared::{
    mechanism::{Length, Params},
    secret::Wiped,
};

use crate::{operation::Keyed, rv::Error};

/// The block of every cipher that streams.
pub(crate) const BLOCK: usize = 16;
/// The most that one function takes at once: a length beyond it is taken for a mistake.
pub(crate) const MOST: usize = 1 << 28;

/// How a mechanism's updates proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Everything travels at the end.
    Collect,
    /// Whole blocks only (CBC).
    Blocks,
    /// Whole blocks, and padding at the end (CBC with PKCS#7).
    Padded,
    /// Whole blocks, and what is left at the end (CTR).
    Stream,
}

/// An active encryption or decryption.
pub(crate) struct Crypt {
    pub keyed: Keyed,
    pub chain: Chain,
    /// The parameter of the next call; none when the counter is used up.
    next: Option<Params>,
    /// What has not travelled yet; none before the first update.
    pub pending: Option<Wiped>,
}

impl Crypt {
    pub fn new(keyed: Keyed) -> Self {
        let chain = match (&keyed.params, keyed.row().length) {
            (Params::Iv(_), Length::PaddedBlocks) => Chain::Padded,
            (Params::Iv(_), _) => Chain::Blocks,
            (Params::Ctr { .. }, _) => Chain::Stream,
            (
                Params::None
                | Params::Gcm { .. }
                | Params::Pss { .. }
                | Params::Oaep { .. }
                | Params::Path(_),
                _,
            ) => Chain::Collect,
        };
        let next = Some(keyed.params.clone());
        Self { keyed, chain, next, pending: None }
    }

    /// Fails after an update: the one-shot function is not for it.
    pub fn require_whole(&self) -> Result<(), Error> {
        if self.pending.is_none() { Ok(()) } else { Err(Error::OperationActive) }
    }

    /// How much the one-shot function takes: a chain of calls has no limit of its own.
    pub const fn most(&self, limit: usize) -> usize {
        match self.chain {
            Chain::Collect => limit,
            Chain::Blocks | Chain::Padded | Chain::Stream => MOST,
        }
    }

    /// How many bytes wait to travel.
    pub fn waiting(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.len())
    }

    /// What waits to travel, for the last call.
    pub fn take_pending(&mut self) -> Wiped {
        self.pending.take().unwrap_or_default()
    }

    /// The parameter of the next call.
    ///
    /// # Errors
    /// `DataLenRange` if the counter is used up.
    pub fn params(&self) -> Result<Params, Error> {
        self.next.clone().ok_or(Error::DataLenRange)
    }

    /// Goes back to where a call began that is to be made again.
    pub fn rewind(&mut self, params: Params) {
        self.next = Some(params);
    }

    /// Takes note of blocks that were processed; `ciphertext` is theirs.
    pub fn advance(&mut self, ciphertext: &[u8]) {
        self.next = match self.next.take() {
            Some(Params::Iv(_)) => ciphertext.last_chunk::<BLOCK>().copied().map(Params::Iv),
            Some(Params::Ctr { bits, block }) => {
                add(block, bits, ciphertext.len() / BLOCK).map(|block| Params::Ctr { bits, block })
            }
            collected @ (None
            | Some(
                Params::None
                | Params::Gcm { .. }
                | Params::Pss { .. }
                | Params::Oaep { .. }
                | Params::Path(_),
            )) => collected,
        };
    }
}

/// Adds to the lowest `bits` of a counter block; none if they overflow, for a key stream must not repeat.
fn add(block: [u8; BLOCK], bits: u32, blocks: usize) -> Option<[u8; BLOCK]> {
    let block = u128::from_be_bytes(block);
    let mask = u128::MAX.checked_shr(128_u32.saturating_sub(bits)).unwrap_or(0);
    let counter = (block & mask).checked_add(blocks as u128).filter(|counter| *counter <= mask)?;
    Some(((block & !mask) | counter).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_keeps_to_its_bits_and_never_wraps() {
        let mut block = [0xff; BLOCK];
        block[15] = 0xfe;
        let next = add(block, 8, 1).unwrap();
        assert_eq!((next[14], next[15]), (0xff, 0xff));
        assert_eq!(add(block, 8, 2), None);
        assert_eq!(add(block, 128, 2), None);
        assert_eq!(add([0; BLOCK], 128, 256).unwrap()[14], 1);
        assert_eq!(add([0; BLOCK], 1, 2), None);
    }
}
