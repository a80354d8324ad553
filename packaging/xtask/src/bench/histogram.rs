//! Latencies, counted in steps of about one and a half per cent.

use std::fmt;

/// Steps in each power of two.
const STEPS: u64 = 64;
/// Latencies from 1 ns to 2^40 ns (18 minutes).
const SIZE: usize = 40 * STEPS as usize;

/// How often which latency was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; SIZE] }
    }
}

impl Histogram {
    /// Counts one operation of so many nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        if let Some(count) = self.counts.get_mut(index(nanoseconds)) {
            *count += 1;
        }
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency that this share of the operations did not exceed, in nanoseconds; 0 if there were none.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return value(place);
            }
        }
        0
    }

    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut histogram = Self::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (place, count) = pair.split_once(':')?;
            *histogram.counts.get_mut(place.parse::<usize>().ok()?)? = count.parse().ok()?;
        }
        Some(histogram)
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        for (place, count) in seen {
            write!(f, "{place}:{count},")?;
        }
        Ok(())
    }
}

/// Below 64 ns every nanosecond has its place; above, each power of two has 64.
fn index(nanoseconds: u64) -> usize {
    let bits = u64::BITS - nanoseconds.leading_zeros();
    let place = match bits.checked_sub(7) {
        None => nanoseconds,
        Some(shift) => (u64::from(shift) + 1) * STEPS + (nanoseconds >> shift) - STEPS,
    };
    usize::try_from(place).unwrap_or(SIZE).min(SIZE - 1)
}

/// The middle of a place.
fn value(place: usize) -> u64 {
    let place = place as u64;
    match (place / STEPS).checked_sub(1) {
        None => place,
        Some(shift) => ((place % STEPS + STEPS) << shift) + ((1 << shift) >> 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_reads_back_within_one_per_cent() {
        for nanoseconds in [1, 63, 64, 100, 127, 128, 999, 35_000, 1_000_003, 30_000_000_000] {
            let read = value(index(nanoseconds)) as f64;
            assert!((read / nanoseconds as f64 - 1.0).abs() < 0.01, "{nanoseconds} reads as {read}");
        }
    }

    #[test]
    fn quantiles_count_from_below_and_text_reads_back() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|nanoseconds| histogram.record(nanoseconds * 1000));
        let (median, last) = (histogram.quantile(0.5) as f64, histogram.quantile(0.99) as f64);
        assert!((median / 50_000.0 - 1.0).abs() < 0.01, "{median}");
        assert!((last / 99_000.0 - 1.0).abs() < 0.01, "{last}");
        assert_eq!(Histogram::parse(&histogram.to_string()), Some(histogram));
    }
}
