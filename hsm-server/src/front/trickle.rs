//! What strangers can have the server write down: a burst of it, then one line a second with a count.

use std::{
    mem,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many events in a row are told one by one.
pub const BURST: u32 = 20;
/// How long it takes until one more may be told.
const PAUSE: Duration = Duration::from_secs(1);

/// A bound for one kind of event, over all threads.
#[derive(Debug, Default)]
pub struct Trickle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many were told that no pause has made good for.
    told: u32,
    /// When the last pause that counted ended.
    since: Option<Instant>,
    untold: u32,
    /// Who caused the last one that was not told.
    last: Option<SocketAddr>,
}

impl Trickle {
    /// Counts one event. If it is to be told: how many before it were not.
    pub fn count(&self, address: SocketAddr, now: Instant) -> Option<u32> {
        let mut state = self.state();
        if state.may_tell(now) {
            return Some(mem::take(&mut state.untold));
        }
        state.untold = state.untold.saturating_add(1);
        state.last = Some(address);
        None
    }

    /// How many were not told, and who caused the last of them, if that may be told now.
    pub fn rest(&self, now: Instant) -> Option<(u32, SocketAddr)> {
        let mut state = self.state();
        let last = state.last.filter(|_| state.untold > 0)?;
        state.may_tell(now).then(|| (mem::take(&mut state.untold), last))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_tell(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let pauses = now.saturating_duration_since(since).as_secs() / PAUSE.as_secs();
        if pauses > 0 {
            self.told = self.told.saturating_sub(u32::try_from(pauses).unwrap_or(u32::MAX));
            self.since = Some(now);
        }
        let may = self.told < BURST;
        self.told += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = PAUSE;

    #[test]
    fn a_flood_is_told_in_part_and_counted_in_whole() {
        let (trickle, start) = (Trickle::default(), Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let (mut told, mut counted) = (0, 0);
        // A thousand a second for ten seconds.
        for event in 0..10_000 {
            if let Some(before) = trickle.count(address, start + SECOND * event / 1000) {
                (told, counted) = (told + 1, counted + before + 1);
            }
        }
        assert!((BURST..=BURST + 10).contains(&told), "{told}");
        let (rest, last) = trickle.rest(start + SECOND * 11).unwrap();
        assert_eq!((counted + rest, last), (10_000, address));
        assert_eq!(trickle.rest(start + SECOND * 20), None);
    }

    #[test]
    fn after_a_quiet_while_a_burst_is_told_again() {
        let (trickle, start) = (Trickle::default(), Instant::now());
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let burst = |now| (0..100).filter_map(|_| trickle.count(address, now)).count();
        assert_eq!(burst(start), BURST as usize);
        assert_eq!(burst(start + SECOND / 2), 0);
        assert_eq!(trickle.rest(start + SECOND / 2), None);
        assert_eq!(burst(start + SECOND * 60), BURST as usize);
    }
}
