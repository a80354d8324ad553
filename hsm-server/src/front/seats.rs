//! Places for connections. Whoever has not finished its handshake loses its place to whoever comes when all are
//! taken, the longest-waiting first: a crowd that says nothing keeps nobody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// All places.
#[derive(Debug)]
pub struct Seats {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    next: u64,
    /// Those whose handshake has not ended, in the order in which they came. To drop one ends its connection.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    lost: oneshot::Receiver<()>,
    settled: bool,
}

/// A place for a new connection.
#[derive(Debug)]
pub enum Place {
    /// One was free.
    Free(Seat),
    /// One was taken from the connection that had waited longest.
    Taken(Seat),
    /// There is none: everybody has finished their handshake.
    None,
}

impl Seats {
    /// So many places.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// A place for a connection that has yet to shake hands.
    pub fn take(self: &Arc<Self>) -> Place {
        let mut state = self.state();
        let free = state.taken < self.limit;
        if free {
            state.taken += 1;
        } else if state.waiting.pop_first().is_none() {
            return Place::None;
        }
        let number = state.next;
        state.next += 1;
        let (sender, lost) = oneshot::channel();
        state.waiting.insert(number, sender);
        let seat = Seat { seats: Arc::clone(self), number, lost, settled: false };
        if free { Place::Free(seat) } else { Place::Taken(seat) }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Returns when the place was given to somebody else.
    pub async fn lost(&mut self) {
        // Nobody sends anything: the sender is dropped.
        (&mut self.lost).await.unwrap_or_default();
    }

    /// The handshake is over: the place is for good, if it was not lost before.
    pub fn settle(&mut self) -> bool {
        self.settled = self.seats.state().waiting.remove(&self.number).is_some();
        self.settled
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        if self.settled || state.waiting.remove(&self.number).is_some() {
            state.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(place: Place) -> Option<Seat> {
        match place {
            Place::Free(seat) | Place::Taken(seat) => Some(seat),
            Place::None => None,
        }
    }

    #[test]
    fn the_longest_waiting_makes_room_and_nobody_who_is_in() {
        let seats = Seats::new(3);
        let mut inside = seat(seats.take()).unwrap();
        assert!(inside.settle());
        let (mut first, mut second) = (seat(seats.take()).unwrap(), seat(seats.take()).unwrap());
        let Place::Taken(mut third) = seats.take() else { panic!("nobody made room") };
        assert!(first.lost.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(!first.settle() && second.settle() && third.settle());
        assert!(matches!(seats.take(), Place::None));
        drop(first);
        assert_eq!(seats.taken(), 3, "what was lost is not given back");
        drop((inside, second));
        assert_eq!(seats.taken(), 1);
        assert!(matches!(seats.take(), Place::Free(_)));
        assert_eq!(seats.taken(), 1);
    }
}
