//! What is measured beside the checks and decides nothing: times that might tell an attacker something, and how many
//! values a check looked at.
//!
//! Two kinds of calls are compared by Welch's t-test. A difference that the test is sure of is no flaw by itself: whether
//! it can be used depends on its size and on who can measure it.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Beyond this |t| leakage is assessed as seen (ISO/IEC 17825): chance gives it once in 100,000 measurements.
const SURE: f64 = 4.5;

/// Standard errors to either side that hold the true difference 95 times of 100.
const NINETY_FIVE: f64 = 1.96;

/// Of the slowest calls this share is left out: they were interrupted.
const SLOWEST: usize = 20;

/// What was measured beside a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The check.
    pub check: String,
    /// What was measured.
    pub what: String,
    /// What came of it.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What came of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Measured {
    /// Values that the module chose.
    Values {
        /// How many.
        looked_at: usize,
        /// How many different ones.
        distinct: usize,
    },
    /// The times of two kinds of calls.
    Times(Times),
    /// Published vectors.
    Vectors {
        /// How many a file has.
        all: usize,
        /// How many of them have a length or a parameter that tokens may decline, and this one did.
        beyond: usize,
    },
}

/// Two kinds of calls, made in random order, and how their times differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// One kind.
    pub first: Sample,
    /// The other.
    pub second: Sample,
    /// How much longer the first takes, in nanoseconds.
    pub difference_ns: f64,
    /// How far the true difference may be from that, with a confidence of 95 %.
    pub margin_ns: f64,
    /// Welch's t.
    pub t: f64,
    /// Its degrees of freedom.
    pub degrees: f64,
    /// How sure it is that there is a difference, of 1.
    pub confidence: f64,
    /// The difference in standard deviations (Cohen's d): 0.2 is small, 0.8 large.
    pub effect: f64,
}

/// The times of one kind of calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What kind.
    pub name: String,
    /// How many.
    pub samples: usize,
    /// Their mean in nanoseconds.
    pub mean_ns: f64,
    /// Their standard deviation in nanoseconds.
    pub deviation_ns: f64,
}

impl Times {
    /// Compares the times of two kinds of calls. `None` if there are too few, or all are equal.
    pub fn compare(names: [&str; 2], [first, second]: [&[Duration]; 2]) -> Option<Self> {
        let most = slowest_kept(first, second)?;
        let (first, second) = (Sample::of(names[0], first, most)?, Sample::of(names[1], second, most)?);
        let [one, other] = [&first, &second].map(|sample| sample.deviation_ns.powi(2));
        let [of_one, of_other] = [one / first.samples as f64, other / second.samples as f64];
        let error = (of_one + of_other).sqrt();
        if error <= 0.0 {
            return None;
        }
        let freedom = |part: f64, samples: usize| part.powi(2) / (samples as f64 - 1.0);
        let degrees = (of_one + of_other).powi(2)
            / (freedom(of_one, first.samples) + freedom(of_other, second.samples));
        let difference_ns = first.mean_ns - second.mean_ns;
        let t = difference_ns / error;
        Some(Self {
            difference_ns,
            margin_ns: NINETY_FIVE * error,
            t,
            degrees,
            confidence: within(t.abs()),
            effect: difference_ns / ((one + other) / 2.0).sqrt(),
            first,
            second,
        })
    }

    /// Whether the difference is more than chance.
    pub fn differ(&self) -> bool {
        self.t.abs() > SURE
    }
}

/// The longest time that is kept: beyond it are the slowest of both kinds together.
fn slowest_kept(first: &[Duration], second: &[Duration]) -> Option<Duration> {
    let mut all = [first, second].concat();
    all.sort_unstable();
    all.truncate(all.len() - all.len() / SLOWEST);
    all.last().copied()
}

impl Sample {
    fn of(name: &str, times: &[Duration], most: Duration) -> Option<Self> {
        let kept = times.iter().filter(|time| **time <= most);
        let kept: Vec<f64> = kept.map(|time| time.as_nanos() as f64).collect();
        if kept.len() < 2 {
            return None;
        }
        let count = kept.len() as f64;
        let mean_ns = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean_ns).powi(2)).sum::<f64>() / (count - 1.0);
        Some(Self { name: name.to_owned(), samples: kept.len(), mean_ns, deviation_ns: variance.sqrt() })
    }
}

/// The share of a normal distribution within so many deviations of its mean, to seven digits (Abramowitz and Stegun,
/// 7.1.26). With more than a hundred degrees of freedom Student's is as good as normal.
fn within(deviations: f64) -> f64 {
    let x = deviations / std::f64::consts::SQRT_2;
    let part = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.iter().fold(0.0, |sum, term| (sum + term) * part);
    1.0 - sum * (-x * x).exp()
}

impl Measured {
    /// What came of it, in one sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Values { looked_at, distinct } => format!("{looked_at} looked at, {distinct} different"),
            Self::Vectors { all, beyond } => format!("{beyond} of {all} are beyond what the token offers"),
            Self::Times(times) => {
                let Times { first, second, difference_ns, margin_ns, t, confidence, effect, .. } = times;
                let verdict = if times.differ() { "they differ" } else { "no difference seen" };
                let kind = |sample: &Sample| {
                    format!("{} {:.1} µs ({} times)", sample.name, sample.mean_ns / 1e3, sample.samples)
                };
                format!(
                    "{verdict}: {}, {}; {:+.2} ± {:.2} µs, t = {t:.2}, confidence {:.2} %, effect {effect:.2}",
                    kind(first),
                    kind(second),
                    difference_ns / 1e3,
                    margin_ns / 1e3,
                    confidence * 100.0,
                )
            }
        }
    }
}

/// Writes a line for each.
///
/// # Errors
/// When the output cannot be written.
pub fn write(observations: &[Observation], output: &mut dyn Write) -> io::Result<()> {
    for Observation { check, what, measured } in observations {
        writeln!(output, "SEEN {check}: {what}: {}", measured.sentence())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(nanoseconds: &[u64]) -> Vec<Duration> {
        nanoseconds.iter().map(|time| Duration::from_nanos(*time)).collect()
    }

    fn near(seen: f64, expected: f64) -> bool {
        (seen - expected).abs() < 1e-3 * expected.abs().max(1.0)
    }

    /// The expected values were worked out by another program from Welch's formulas.
    #[test]
    fn welchs_test_is_that_of_a_worked_example() {
        let (one, other) = (times(&[30, 29, 31, 30, 28, 32]), times(&[20, 22, 19, 21, 20, 24]));
        let seen = Times::compare(["a", "b"], [&one, &other]);
        let is_right = |seen: &Times| {
            near(seen.t, 9.667_55)
                && near(seen.degrees, 9.494_38)
                && near(seen.effect, 5.581_56)
                && near(seen.difference_ns, 9.0)
                && seen.differ()
        };
        assert!(seen.as_ref().is_some_and(is_right), "{seen:?}");
    }

    #[test]
    fn what_is_alike_does_not_differ_and_an_interruption_is_left_out() {
        let mut one = times(&[100, 101, 99, 100, 102, 98, 100, 101, 99, 100, 100]);
        let other = one.clone();
        one.push(Duration::from_millis(5));
        let seen = Times::compare(["a", "b"], [&one, &other]);
        assert!(seen.is_some_and(|seen| !seen.differ() && seen.first.samples == 11));
        assert_eq!(Times::compare(["a", "b"], [&one, &[]]), None);
        let equal = times(&[5; 40]);
        assert_eq!(Times::compare(["a", "b"], [&equal, &equal]), None);
    }

    #[test]
    fn confidence_is_that_of_the_normal_distribution() {
        for (deviations, share) in [(0.0, 0.0), (1.0, 0.682_689), (1.96, 0.950_004), (4.5, 0.999_993)] {
            assert!((within(deviations) - share).abs() < 1e-6, "{deviations}: {}", within(deviations));
        }
    }
}
