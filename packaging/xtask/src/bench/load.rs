//! The same load for everybody: so many threads, each repeating one operation for a while.

use std::{
    io::{BufRead, Write, stdin, stdout},
    sync::Barrier,
    time::{Duration, Instant},
};

use xtask::Outcome;

use crate::{
    histogram::Histogram,
    plan::{Algorithm, Cell, Keys},
};

/// What a worker can do for the driver.
pub trait Subject {
    /// One thread's own connection or session.
    type Lane: Send;

    /// Makes ready so many lanes and the key of this cell.
    ///
    /// # Errors
    /// The module or server refuses.
    fn prepare(&mut self, cell: Cell) -> Outcome<&mut [Self::Lane]>;

    /// One operation on one lane.
    ///
    /// # Errors
    /// The module or server refuses.
    fn operate(lane: &mut Self::Lane, input: &[u8; 32]) -> Outcome;
}

/// Answers the driver's questions until it hangs up: `ALGORITHM KEYS THREADS MILLISECONDS`, each answered by
/// `NANOSECONDS HISTOGRAM`.
///
/// # Errors
/// An operation failed, or the driver does not speak like that.
pub fn answer<S: Subject>(mut subject: S) -> Outcome {
    say("ready")?;
    for line in stdin().lock().lines() {
        let line = line?;
        let (cell, slice) = question(&line).ok_or_else(|| format!("not a question: {line}"))?;
        let lanes = subject.prepare(cell)?.get_mut(..cell.threads).ok_or("too few lanes")?;
        let (elapsed, histogram) = measure::<S>(lanes, slice)?;
        say(&format!("{} {histogram}", elapsed.as_nanos()))?;
    }
    Ok(())
}

/// Writes a line to the other process at once.
///
/// # Errors
/// It hung up.
pub fn say(line: &str) -> Outcome {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn question(line: &str) -> Option<(Cell, Duration)> {
    let [algorithm, keys, threads, milliseconds] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let algorithm = Algorithm::from_name(algorithm)?;
    let keys = [Keys::Token, Keys::Session, Keys::Shared].into_iter().find(|each| each.name() == keys)?;
    let cell = Cell { algorithm, keys, threads: threads.parse().ok()? };
    Some((cell, Duration::from_millis(milliseconds.parse().ok()?)))
}

fn measure<S: Subject>(lanes: &mut [S::Lane], slice: Duration) -> Outcome<(Duration, Histogram)> {
    let start = Barrier::new(lanes.len() + 1);
    std::thread::scope(|scope| {
        let start = &start;
        let threads: Vec<_> = lanes
            .iter_mut()
            .enumerate()
            .map(|(number, lane)| scope.spawn(move || repeat::<S>(lane, number, start, slice)))
            .collect();
        start.wait();
        let begun = Instant::now();
        let mut all = Histogram::default();
        for thread in threads {
            let histogram = thread.join().map_err(|_| "a thread of the load panicked")??;
            all.merge(&histogram);
        }
        Ok((begun.elapsed(), all))
    })
}

fn repeat<S: Subject>(
    lane: &mut S::Lane,
    number: usize,
    start: &Barrier,
    slice: Duration,
) -> Outcome<Histogram> {
    let mut histogram = Histogram::default();
    let mut input = [0x5a; 32];
    let mut counter = (number as u64) << 32;
    start.wait();
    let begun = Instant::now();
    let mut before = begun;
    while before - begun < slice {
        counter += 1;
        for (byte, value) in input.iter_mut().zip(counter.to_be_bytes()) {
            *byte = value;
        }
        S::operate(lane, &input)?;
        let after = Instant::now();
        histogram.record(u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX));
        before = after;
    }
    Ok(histogram)
}
