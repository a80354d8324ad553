//! A queue that is fair between partitions: their jobs take turns, and none takes the last thread.

use std::collections::{BTreeMap, VecDeque};

/// Whose job it is: a partition's or a node's, or for none an administrator's.
pub(super) type Owner = Option<String>;

/// What waits, by owner, and how many of each owner's jobs are under way.
pub(super) struct Fair<T> {
    waiting: BTreeMap<Owner, VecDeque<T>>,
    /// Owners with something waiting, in the order of their turns.
    turns: VecDeque<Owner>,
    running: BTreeMap<Owner, usize>,
    /// The most jobs of one owner at once.
    share: usize,
}

impl<T> Fair<T> {
    /// A queue for this many threads, of which one owner may keep all but one busy.
    pub(super) fn new(threads: usize) -> Self {
        let share = threads.saturating_sub(1).max(1);
        Self { waiting: BTreeMap::new(), turns: VecDeque::new(), running: BTreeMap::new(), share }
    }

    pub(super) fn push(&mut self, owner: Owner, job: T) {
        let jobs = self.waiting.entry(owner.clone()).or_default();
        if jobs.is_empty() {
            self.turns.push_back(owner);
        }
        jobs.push_back(job);
    }

    /// The next job, of the owner whose turn it is; none if nothing waits or whoever waits has its share.
    pub(super) fn pop(&mut self) -> Option<(Owner, T)> {
        let free = |owner: &Owner| self.running.get(owner).is_none_or(|running| *running < self.share);
        let owner = self.turns.remove(self.turns.iter().position(free)?)?;
        let jobs = self.waiting.get_mut(&owner)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.waiting.remove(&owner);
        } else {
            self.turns.push_back(owner.clone());
        }
        *self.running.entry(owner.clone()).or_default() += 1;
        Some((owner, job))
    }

    /// A job of this owner has ended.
    pub(super) fn done(&mut self, owner: &Owner) {
        if let Some(running) = self.running.get_mut(owner) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(owner);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Some(name.into())
    }

    #[test]
    fn owners_take_turns() {
        let mut queue = Fair::new(10);
        for job in 0..3 {
            queue.push(owner("busy"), job);
        }
        queue.push(owner("other"), 10);
        queue.push(None, 20);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(_, job)| job)).collect();
        assert_eq!(order, [0, 10, 20, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn nobody_takes_the_last_thread() {
        let mut queue = Fair::new(3);
        for job in 0..5 {
            queue.push(owner("busy"), job);
        }
        assert_eq!((queue.pop().unwrap().1, queue.pop().unwrap().1), (0, 1));
        assert!(queue.pop().is_none());
        queue.push(owner("other"), 10);
        assert_eq!(queue.pop().unwrap().1, 10);
        queue.done(&owner("busy"));
        assert_eq!(queue.pop().unwrap().1, 2);
        assert_eq!(queue.len(), 2);
    }
}
