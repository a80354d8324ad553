//! What has happened lately: remembered for a while, and never more of it than was agreed.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use crate::platform::Time;

/// How long it is remembered: longer than any mandate is good.
const LIFE: Time = 180 * 1_000_000;

/// Things with what is known of them, each remembered from when it first happened.
pub struct Lately<K, V> {
    known: HashMap<K, V>,
    order: VecDeque<(Time, K)>,
}

impl<K, V> Default for Lately<K, V> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V> Lately<K, V> {
    /// What is known of it.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key)
    }

    /// What is known of it, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.known.get_mut(key)
    }

    /// Forgets what happened too long ago. Whether anything is left.
    pub fn forget(&mut self, now: Time) -> bool {
        while let Some((end, oldest)) = self.order.front().copied()
            && end <= now
        {
            self.order.pop_front();
            self.known.remove(&oldest);
        }
        !self.known.is_empty()
    }

    /// Remembers it, or remembers it otherwise. False if there is no room for it among `most`.
    pub fn insert(&mut self, key: K, value: V, most: usize, now: Time) -> bool {
        self.forget(now);
        if let Some(known) = self.known.get_mut(&key) {
            *known = value;
            return true;
        }
        if self.known.len() >= most {
            return false;
        }
        self.order.push_back((now.saturating_add(LIFE), key));
        self.known.insert(key, value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_its_time_and_no_more_than_there_is_room_for() {
        let mut lately = Lately::default();
        assert!(lately.insert(1, 'a', 2, 0));
        assert!(lately.insert(2, 'b', 2, 10));
        assert!(!lately.insert(3, 'c', 2, LIFE - 1));
        assert!(lately.insert(1, 'd', 2, LIFE - 1), "what is known may change");
        assert_eq!(lately.get(&1), Some(&'d'));
        assert!(lately.insert(3, 'c', 2, LIFE));
        assert_eq!((lately.get(&1), lately.get(&2), lately.get(&3)), (None, Some(&'b'), Some(&'c')));
    }
}
