//! Times of two kinds of calls, as observations beside a check. They never decide anything.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::observations::{Measured, Times};

/// How many calls of each kind are timed at most.
const SAMPLES: usize = 1000;

/// With fewer of each nothing is said.
const LEAST: usize = 100;

/// How long one comparison lasts at most.
const SPAN: Duration = Duration::from_millis(1500);

/// How many calls come first and are not counted.
const WARM: usize = 16;

/// Makes calls of two kinds in random order until there are enough of both, and observes how their times differ. `time`
/// makes a call of the first kind (0) or the second (1) and says how long it took, unless the module does not go on.
pub fn compare(bench: &Bench, what: &str, names: [&str; 2], mut time: impl FnMut(usize) -> Option<Duration>) {
    let mut times: [Vec<Duration>; 2] = Default::default();
    let since = Instant::now();
    bench.module.recorder().pause();
    for round in 0.. {
        let kind = bench.random().below(2);
        let Some(took) = time(kind) else { break };
        if let Some(kept) = times.get_mut(kind).filter(|kept| round >= WARM && kept.len() < SAMPLES) {
            kept.push(took);
        }
        if since.elapsed() > SPAN || times.iter().all(|kept| kept.len() == SAMPLES) {
            break;
        }
    }
    bench.module.recorder().resume();
    let [first, second] = &times;
    if first.len().min(second.len()) >= LEAST
        && let Some(times) = Times::compare(names, [first, second])
    {
        bench.observe(what, Measured::Times(times));
    }
}

/// How long something takes.
pub fn of<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = act();
    (begun.elapsed(), result)
}
