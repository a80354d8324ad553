//! Which messages of a session have come: calls overtake one another, and none is taken twice.

/// How far behind the newest message one may arrive.
const WIDTH: u64 = 1024;

/// The newest message that came, and which of the ones before it.
#[derive(Debug)]
pub(super) struct Window {
    /// One more than the newest number; 0 before the first.
    end: u64,
    /// For each number modulo the width, whether it came.
    seen: [u64; (WIDTH / 64) as usize],
}

impl Window {
    pub(super) const fn new() -> Self {
        Self { end: 0, seen: [0; (WIDTH / 64) as usize] }
    }

    /// Whether this number comes for the first time; it has come then.
    pub(super) fn take(&mut self, number: u64) -> bool {
        let Some(after) = number.checked_add(1) else { return false };
        if number >= self.end {
            let skipped = self.end.max(number.saturating_sub(WIDTH - 1));
            (skipped..number).for_each(|gap| self.mark(gap, false));
            self.end = after;
        } else if self.end - number > WIDTH || self.has(number) {
            return false;
        }
        self.mark(number, true);
        true
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen.get(word).is_some_and(|word| word & bit != 0)
    }

    fn mark(&mut self, number: u64, came: bool) {
        let (word, bit) = place(number);
        if let Some(word) = self.seen.get_mut(word) {
            if came { *word |= bit } else { *word &= !bit }
        }
    }
}

const fn place(number: u64) -> (usize, u64) {
    let within = number % WIDTH;
    ((within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_may_overtake_each_other_within_the_width() {
        let mut window = Window::new();
        assert!(window.take(5));
        assert!(window.take(3));
        assert!(!window.take(5));
        assert!(!window.take(3));
        assert!(window.take(5 + WIDTH - 1));
        assert!(!window.take(5), "it came");
        assert!(window.take(6), "it is just within");
        assert!(!window.take(4), "it is too late");
        assert!(window.take(1 << 40));
        assert!(!window.take(6 + WIDTH), "forgotten, so too late");
        assert!(!window.take(u64::MAX));
    }

    proptest! {
        #[test]
        fn none_is_taken_twice(numbers in proptest::collection::vec(0_u64..3000, 0..4000)) {
            let (mut window, mut taken) = (Window::new(), HashSet::new());
            let mut newest = 0;
            for number in numbers {
                let late = newest > number && newest - number >= WIDTH;
                let expected = !late && !taken.contains(&number);
                prop_assert_eq!(window.take(number), expected, "{}", number);
                if expected {
                    taken.insert(number);
                    newest = newest.max(number);
                }
            }
        }
    }
}
