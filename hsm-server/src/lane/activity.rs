//! Whether one connection has the process to itself: then, and only then, spinning helps.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How long an end of a lone connection's lane looks for the next frame before it sleeps. Waking an idle
/// processor takes about 30 µs, more than everything else on the way of a signature.
pub const SPIN: Duration = Duration::from_micros(50);
/// For how long after a second connection was active nobody spins: under load it only takes time from others.
pub const CROWDED: Duration = Duration::from_micros(300);

/// Who was active in this process, and when it last was more than one.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    last: AtomicU64,
    crowded_until: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), crowded_until: AtomicU64::new(0) }
    }
}

impl Activity {
    /// A connection was active. `who` tells it from every other one of this process and is not 0.
    pub fn touch(&self, who: u64) {
        if self.last.load(Ordering::Relaxed) != who && self.last.swap(who, Ordering::Relaxed) != 0 {
            self.crowded_until.store(self.micros(CROWDED), Ordering::Relaxed);
        }
    }

    /// Whether no second connection was active lately.
    pub fn alone(&self) -> bool {
        self.micros(Duration::ZERO) >= self.crowded_until.load(Ordering::Relaxed)
    }

    /// The time in this struct's own count, and then some.
    fn micros(&self, later: Duration) -> u64 {
        u64::try_from((self.start.elapsed() + later).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_connection_is_alone_and_two_are_not() {
        let activity = Activity::default();
        activity.touch(7);
        activity.touch(7);
        assert!(activity.alone());
        activity.touch(8);
        assert!(!activity.alone());
        thread::sleep(CROWDED * 2);
        activity.touch(8);
        assert!(activity.alone());
    }
}
