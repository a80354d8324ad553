//! A queue that is fair between partitions: their jobs take turns, and none takes the last thread.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

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

    /// The place in the turns of the owner whose job is next; none if nothing waits or whoever waits has its share.
    fn next(&self) -> Option<usize> {
        let free = |owner: &Owner| self.running.get(owner).is_none_or(|running| *running < self.share);
        self.turns.iter().position(free)
    }

    /// Whether there is a job that a thread may take now.
    pub(super) fn is_ready(&self) -> bool {
        self.next().is_some()
    }

    /// The next job, of the owner whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(Owner, T)> {
        let owner = self.turns.remove(self.next()?)?;
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

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }
}

/// A fair queue that threads wait at. Nobody is woken in vain: a thread costs more to wake than many a job.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    jobs: Fair<T>,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue for this many threads.
    pub(super) fn new(threads: usize) -> Self {
        let state = State { jobs: Fair::new(threads), closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, owner: Owner, job: T) {
        let mut state = self.state();
        state.jobs.push(owner, job);
        // One that waits for its owner's share is taken by whoever ends a job of that owner.
        if state.jobs.is_ready() {
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Waits for a job; none once the queue is closed and empty. A thread that takes one says that it is [done] and
    /// comes again.
    ///
    /// [done]: Self::done
    pub(super) fn take(&self) -> Option<(Owner, T)> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop() {
                return Some(job);
            }
            if state.closed && state.jobs.is_empty() {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn done(&self, owner: &Owner) {
        let mut state = self.state();
        state.jobs.done(owner);
        // Whoever waits for the end may see it.
        if state.closed {
            self.ready.notify_all();
        }
    }

    /// What waits is still taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_taken_whoever_wakes_whom() {
        const JOBS: usize = 3000;
        let (queue, taken) = (Queue::new(3), Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some((owner, job)) = queue.take() {
                        let _: usize = job;
                        *taken.lock().unwrap() += 1;
                        std::thread::yield_now();
                        queue.done(&owner);
                    }
                });
            }
            // As clients do, everybody waits for an answer before the next question.
            let clients = ["busy", "busy", "busy", "busy", "other"].map(|name| {
                scope.spawn({
                    let (queue, taken) = (&queue, &taken);
                    move || {
                        for job in 0..JOBS {
                            queue.push(owner(name), job);
                            let begun = std::time::Instant::now();
                            while job % 3 == 0 && queue.len() > 0 {
                                assert!(begun.elapsed().as_secs() < 20, "{} taken", taken.lock().unwrap());
                                std::thread::yield_now();
                            }
                        }
                    }
                })
            });
            let clients = clients.map(|client| client.join().is_ok());
            queue.close();
            assert_eq!(clients, [true; 5]);
        });
        assert_eq!(taken.into_inner().unwrap(), 5 * JOBS);
    }

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
        assert!(!queue.is_ready() && queue.pop().is_none());
        queue.push(owner("other"), 10);
        assert!(queue.is_ready());
        assert_eq!(queue.pop().unwrap().1, 10);
        queue.done(&owner("busy"));
        assert_eq!(queue.pop().unwrap().1, 2);
        assert_eq!(queue.len(), 2);
    }
}
