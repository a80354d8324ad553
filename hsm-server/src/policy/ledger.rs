//! The ledger: how often each key signed within the last minute.
//!
//! It is kept in memory and rebuilt from the audit log, whose records name what they charged: the record
//! and the charge are one write, so neither outlives the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use strongroom_shared::object::ObjectId;

/// The window of a limit, in microseconds.
pub const WINDOW: u64 = 60_000_000;

/// When each limited key signed, within the last minute.
#[derive(Debug, Default)]
pub struct Ledger {
    signatures: Mutex<HashMap<ObjectId, VecDeque<u64>>>,
}

impl Ledger {
    /// Counts one signature at `now` (microseconds since 1970) if fewer than `limit` were made in the minute before.
    ///
    /// # Errors
    /// How many were made, if the limit is reached; nothing is counted then.
    pub fn charge(&self, key: ObjectId, limit: u32, now: u64) -> Result<(), usize> {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        let times = signatures.entry(key).or_default();
        // A clock that was set back must not empty the window early: time does not run backwards here.
        let now = times.back().map_or(now, |last| now.max(*last));
        while times.front().is_some_and(|first| first.saturating_add(WINDOW) <= now) {
            times.pop_front();
        }
        if times.len() >= limit as usize {
            return Err(times.len());
        }
        times.push_back(now);
        Ok(())
    }

    /// Forgets keys that have not signed within the minute before `now`.
    pub fn prune(&self, now: u64) {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        signatures.retain(|_, times| times.back().is_some_and(|last| last.saturating_add(WINDOW) > now));
    }

    /// Counts a signature that the audit log remembers.
    pub fn remember(&self, key: ObjectId, time: u64) {
        self.signatures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .push_back(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ObjectId = ObjectId([1; 16]);

    #[test]
    fn the_window_slides() {
        let ledger = Ledger::default();
        assert_eq!(ledger.charge(KEY, 2, 0), Ok(()));
        assert_eq!(ledger.charge(KEY, 2, 30_000_000), Ok(()));
        assert_eq!(ledger.charge(KEY, 2, 59_999_999), Err(2));
        assert_eq!(ledger.charge(KEY, 2, 60_000_000), Ok(()));
        assert_eq!(ledger.charge(KEY, 2, 60_000_001), Err(2));
    }

    #[test]
    fn a_clock_set_back_gives_nothing_away() {
        let ledger = Ledger::default();
        assert_eq!(ledger.charge(KEY, 1, 100 * WINDOW), Ok(()));
        assert_eq!(ledger.charge(KEY, 1, 5), Err(1));
    }

    #[test]
    fn threads_share_one_limit() {
        let ledger = Ledger::default();
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100).filter(|_| ledger.charge(KEY, 137, 1).is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 137);
    }
}
