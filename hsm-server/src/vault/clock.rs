//! The time of day, which people set, watched beside the uptime, which nobody sets.
//!
//! Limits and graces are measured by the uptime, so that a step of the clock neither stops a key nor gives it a
//! signature too many. Opening hours, tickets, certificates and the times of records follow the clock: whoever
//! reads the log is told of a step.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use crate::platform::Time;

/// A clock that is off by less than this from one look to the next was not set, in microseconds.
const STEP: u64 = 1_000_000;

/// How the clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Back, by so many microseconds.
    Back(u64),
    /// Forward, by so many microseconds; or the machine slept.
    Forward(u64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, by) = match self {
            Self::Back(by) => ("back", by),
            Self::Forward(by) => ("forward", by),
        };
        write!(f, "{way} by {} s", by / 1_000_000)
    }
}

/// How far the clock of `now` is from where it should be, if that is no accident.
pub fn step(expected: Time, now: Time) -> Option<Step> {
    match (expected.checked_sub(now), now.checked_sub(expected)) {
        (Some(back), _) if back >= STEP => Some(Step::Back(back)),
        (_, Some(forward)) if forward >= STEP => Some(Step::Forward(forward)),
        (Some(_) | None, Some(_) | None) => None,
    }
}

/// The clock and the uptime, when they were last looked at.
#[derive(Debug)]
pub struct Watch {
    last: Mutex<(Time, Time)>,
}

impl Watch {
    /// A watch that begins now.
    pub fn new(now: Time, uptime: Time) -> Self {
        Self { last: Mutex::new((now, uptime)) }
    }

    /// Looks at both, and tells if the clock was set since it last did.
    pub fn look(&self, now: Time, uptime: Time) -> Option<Step> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, since) = std::mem::replace(&mut *last, (now, uptime));
        step(then.saturating_add(uptime.saturating_sub(since)), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Time = 1_000_000;
    const NOON: Time = 43_200 * SECOND;

    #[test]
    fn a_step_is_told_once_and_a_clock_that_runs_is_not() {
        let watch = Watch::new(NOON, 0);
        assert_eq!(watch.look(NOON + SECOND / 20, SECOND / 20), None);
        // Slow ticks and a clock that is steered.
        assert_eq!(watch.look(NOON + 9 * SECOND, 10 * SECOND - SECOND / 2), None);
        assert_eq!(
            watch.look(NOON - 3600 * SECOND, 10 * SECOND),
            Some(Step::Back(3609 * SECOND + SECOND / 2))
        );
        assert_eq!(watch.look(NOON - 3599 * SECOND, 11 * SECOND), None);
        assert_eq!(watch.look(NOON, 12 * SECOND), Some(Step::Forward(3598 * SECOND)));
        assert_eq!(Step::Back(3600 * SECOND).to_string(), "back by 3600 s");
    }
}
