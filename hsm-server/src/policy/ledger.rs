//! The ledger: how often each key signed within the last minute.
//!
//! It is kept in memory and rebuilt from the audit log, whose records name what they charged: the record
//! and the charge are one write, so neither outlives the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use strongroom_shared::object::ObjectId;

/// The window of a limit, in microseconds.
const WINDOW: u64 = 60_000_000;

/// When the signatures of each limited key stop counting, by the platform's uptime: no step of the clock makes a
/// key wait for longer than a minute, or gives it a signature too many.
#[derive(Debug, Default)]
pub struct Ledger {
    ends: Mutex<HashMap<ObjectId, VecDeque<u64>>>,
}

impl Ledger {
    /// Counts one signature at `uptime` (microseconds) if fewer than `limit` were made in the minute before.
    ///
    /// # Errors
    /// How many were made, if the limit is reached; nothing is counted then.
    pub fn charge(&self, key: ObjectId, limit: u32, uptime: u64) -> Result<(), usize> {
        let mut keys = self.keys();
        let ends = keys.entry(key).or_default();
        while ends.front().is_some_and(|first| *first <= uptime) {
            ends.pop_front();
        }
        if ends.len() >= limit as usize {
            return Err(ends.len());
        }
        append(ends, uptime.saturating_add(WINDOW));
        Ok(())
    }

    /// Forgets keys that have not signed within the minute before `uptime`.
    pub fn prune(&self, uptime: u64) {
        self.keys().retain(|_, ends| ends.back().is_some_and(|last| *last > uptime));
    }

    /// Counts a signature that the audit log remembers and that was made `age` microseconds before `uptime`.
    pub fn remember(&self, key: ObjectId, uptime: u64, age: u64) {
        if age < WINDOW {
            append(self.keys().entry(key).or_default(), uptime.saturating_add(WINDOW - age));
        }
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<ObjectId, VecDeque<u64>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two threads may come in another order than they looked at the clock in: the later end counts for both.
fn append(ends: &mut VecDeque<u64>, end: u64) {
    ends.push_back(ends.back().map_or(end, |last| end.max(*last)));
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
    fn what_the_log_remembers_counts_for_the_rest_of_its_minute() {
        let ledger = Ledger::default();
        // A process that has just begun, and signatures of the one before it.
        for age in [70_000_000, 50_000_000, 10_000_000, 0] {
            ledger.remember(KEY, 5, age);
        }
        assert_eq!(ledger.charge(KEY, 3, 5), Err(3));
        assert_eq!(ledger.charge(KEY, 3, 10_000_005), Ok(()));
        assert_eq!(ledger.charge(KEY, 3, 50_000_004), Err(3));
        assert_eq!(ledger.charge(KEY, 3, 50_000_005), Ok(()));
        ledger.prune(110_000_004);
        assert_eq!(ledger.charge(KEY, 1, 110_000_004), Err(1));
    }

    #[test]
    fn threads_that_come_out_of_order_gain_nothing() {
        let ledger = Ledger::default();
        assert_eq!(ledger.charge(KEY, 2, 100), Ok(()));
        assert_eq!(ledger.charge(KEY, 2, 90), Ok(()));
        assert_eq!(ledger.charge(KEY, 2, 95 + WINDOW), Err(2));
        assert_eq!(ledger.charge(KEY, 2, 100 + WINDOW), Ok(()));
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
