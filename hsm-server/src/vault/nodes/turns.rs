//! Whose turn it is to do something with a node. Whoever waits for it does so for a while only.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::links::lock;
use crate::cluster::NodeId;

/// The turns that are taken.
#[derive(Default)]
pub struct Turns {
    taken: Mutex<HashSet<NodeId>>,
    freed: Condvar,
}

/// A turn; it ends when it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    node: NodeId,
}

impl Turns {
    /// The turn with a node, unless another thread keeps it for longer than `patience`.
    pub fn take(&self, node: NodeId, patience: Duration) -> Option<Turn<'_>> {
        let is_taken = |taken: &mut HashSet<NodeId>| taken.contains(&node);
        let waited = self.freed.wait_timeout_while(lock(&self.taken), patience, is_taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        taken.insert(node).then(|| Turn { turns: self, node })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.taken).remove(&self.node);
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    #[test]
    fn one_at_a_time_has_the_turn_and_nobody_waits_for_ever() {
        let (turns, one, other) = (Turns::default(), NodeId([1; 32]), NodeId([2; 32]));
        let turn = turns.take(one, Duration::ZERO).unwrap();
        let begun = Instant::now();
        assert!(turns.take(one, Duration::from_millis(20)).is_none());
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert!(turns.take(other, Duration::ZERO).is_some());
        thread::scope(|scope| {
            let waits = scope.spawn(|| turns.take(one, Duration::from_secs(20)).is_some());
            drop(turn);
            assert!(waits.join().unwrap());
        });
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
