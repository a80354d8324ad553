//! The nonce commitments that were read of late, by their bytes.
//!
//! Whoever signs and then combines meets the same commitments twice, and to read one takes as long as to sign with it:
//! the point must be found from one coordinate, and shown to be in the group of prime order.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use frost_core::round1::SigningCommitments;

use super::Suite;

/// How many are kept: those of as many signers as sign at once with one key, and more than that cost time alone.
const KEPT: usize = 64;

/// Public, so nothing of it is wiped.
pub struct ReadCommitments<S: Suite>(Mutex<VecDeque<(Vec<u8>, SigningCommitments<S>)>>);

impl<S: Suite> Default for ReadCommitments<S> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<S: Suite> ReadCommitments<S> {
    /// Keeps what these bytes were read as, in place of the oldest.
    pub fn keep(&self, bytes: &[u8], commitments: SigningCommitments<S>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((bytes.to_vec(), commitments));
    }

    /// What exactly these bytes were read as; it is kept no longer.
    pub fn take(&self, bytes: &[u8]) -> Option<SigningCommitments<S>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| known == bytes)?;
        kept.remove(place).map(|(_, commitments)| commitments)
    }
}

#[cfg(test)]
mod tests {
    use frost_core::{keys::SigningShare, round1::SigningNonces};
    use rand_core::OsRng;

    use super::{super::Ed25519, *};

    #[test]
    fn what_was_read_is_found_once_by_its_bytes_and_the_oldest_goes() {
        let share = SigningShare::<Ed25519>::deserialize(&[1; 32]).unwrap();
        let commitments = || *SigningNonces::new(&share, &mut OsRng).commitments();
        let read = ReadCommitments::<Ed25519>::default();
        let all: Vec<_> = (0..=KEPT).map(|_| commitments()).collect();
        for commitments in &all {
            read.keep(&commitments.serialize().unwrap(), *commitments);
        }
        let take = |place: usize| read.take(&all[place].serialize().unwrap());
        assert_eq!(take(0), None);
        assert_eq!(take(KEPT), Some(all[KEPT]));
        assert_eq!(take(KEPT), None);
        assert_eq!(take(1), Some(all[1]));
    }
}
