//! Applications: who holds session objects, over which connections, and what they were answered.
//!
//! An application is the time from `C_Initialize` to `C_Finalize` of one client, named by its instance id.
//! It survives broken connections for a while. Its answers are remembered until it says that it has them, so
//! that a request that was resent after a broken link is answered again and not carried out again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use strongroom_shared::message::InstanceId;
use zeroize::Zeroizing;

use crate::{
    door::{ClientId, Peer},
    platform::Time,
};

/// How long an application without a connection keeps its session objects, in microseconds.
pub const GRACE: Time = 300 * 1_000_000;
/// The most requests of an application whose end it has not confirmed; it has one per connection in flight.
const UNCONFIRMED: usize = 1024;
/// The most bytes of answers that are kept for an application; a request beyond is not answered twice.
const ANSWER_BYTES: usize = 8 << 20;
/// How many requests per application are remembered from the log. Those in flight at a crash are its last.
const LOST: usize = 512;
/// The most applications of one client.
const APPLICATIONS: usize = 1024;

/// An application, named by the client that it belongs to and its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationId {
    /// Whose it is, whatever certificate it shows: a renewed one changes nothing.
    pub client: ClientId,
    /// Chosen by the provider.
    pub instance: InstanceId,
}

impl ApplicationId {
    /// The application that speaks.
    pub fn of(peer: &Peer, instance: InstanceId) -> Self {
        Self { client: peer.id, instance }
    }
}

/// The part of a fingerprint that stands in audit records.
pub fn short(fingerprint: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *fingerprint;
    [a, b, c, d, e, f, g, h]
}

/// Every application that has made a call lately.
#[derive(Debug, Default)]
pub struct Applications {
    all: Mutex<HashMap<ApplicationId, Arc<Application>>>,
}

/// One application.
#[derive(Debug, Default)]
pub struct Application {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: HashSet<u64>,
    idle_since: Option<Time>,
    /// By the number of the request.
    answers: HashMap<u64, Remembered>,
    bytes: usize,
    /// In the order of the log, for what it remembers.
    lost: VecDeque<u64>,
}

#[derive(Debug)]
struct Remembered {
    /// Of the call and its body: the same number must not stand for another request.
    digest: Option<u64>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// The first copy is being carried out.
    Awaited,
    /// This frame was the answer.
    Known(Arc<Zeroizing<Vec<u8>>>),
    /// It was carried out; the answer is not known any more.
    Lost,
}

/// What is known of a request when it comes.
#[derive(Debug)]
pub enum Arrival {
    /// Nothing: carry it out.
    New,
    /// It was answered before, with this frame.
    Answered(Arc<Zeroizing<Vec<u8>>>),
    /// It was carried out before, and the answer is lost.
    Lost,
    /// It is still being carried out.
    Pending,
    /// Another request came with this number.
    Reused,
    /// The application never says which of its requests are over.
    Full,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Applications {
    /// The application that speaks on this connection; none if the client has too many already.
    pub fn enter(&self, id: ApplicationId, connection: u64) -> Option<Arc<Application>> {
        let mut all = lock(&self.all);
        if !all.contains_key(&id) {
            let theirs = all.keys().filter(|other| other.client == id.client).count();
            if theirs >= APPLICATIONS {
                return None;
            }
        }
        let application = Arc::clone(all.entry(id).or_default());
        let mut state = lock(&application.state);
        state.idle_since = None;
        state.connections.insert(connection);
        drop(state);
        Some(application)
    }

    /// The connection is gone; its application may come back on another.
    pub fn leave(&self, client: ClientId, connection: u64, now: Time) {
        for (id, application) in lock(&self.all).iter() {
            if id.client == client {
                let mut state = lock(&application.state);
                if state.connections.remove(&connection) && state.connections.is_empty() {
                    state.idle_since = Some(now);
                }
            }
        }
    }

    /// Forgets the applications that have been gone for longer than the grace, and names them.
    pub fn expire(&self, now: Time) -> Vec<ApplicationId> {
        let mut gone = Vec::new();
        lock(&self.all).retain(|id, application| {
            let keep =
                lock(&application.state).idle_since.is_none_or(|since| now < since.saturating_add(GRACE));
            if !keep {
                gone.push(*id);
            }
            keep
        });
        gone
    }

    /// Remembers from the audit log that a request was carried out before a restart.
    pub fn remember_lost(&self, id: ApplicationId, request: u64, now: Time) {
        let application = Arc::clone(lock(&self.all).entry(id).or_default());
        let mut state = lock(&application.state);
        state.idle_since.get_or_insert(now);
        state.answers.insert(request, Remembered { digest: None, answer: Answer::Lost });
        state.lost.push_back(request);
        if state.lost.len() > LOST
            && let Some(oldest) = state.lost.pop_front()
        {
            state.answers.remove(&oldest);
        }
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Self::Known(frame) => frame.len(),
            Self::Awaited | Self::Lost => 0,
        }
    }
}

impl Application {
    /// Forgets the answers of requests that have ended for the application.
    pub fn confirm(&self, ended: &[u64]) {
        let mut state = lock(&self.state);
        for number in ended {
            let known = state.answers.remove(number);
            state.bytes -= known.map_or(0, |known| known.answer.bytes());
        }
    }

    /// Whether a request of this number has come before, with what `digest` stands for. A new one is awaited
    /// from here on, until [`Self::answer`].
    pub fn arrive(&self, request: u64, digest: u64) -> Arrival {
        let mut state = lock(&self.state);
        match state.answers.get(&request) {
            Some(remembered) if remembered.digest.is_some_and(|known| known != digest) => Arrival::Reused,
            Some(Remembered { answer: Answer::Known(frame), .. }) => Arrival::Answered(Arc::clone(frame)),
            Some(Remembered { answer: Answer::Lost, .. }) => Arrival::Lost,
            Some(Remembered { answer: Answer::Awaited, .. }) => Arrival::Pending,
            None if state.answers.len() >= UNCONFIRMED + LOST => Arrival::Full,
            None => {
                state.answers.insert(request, Remembered { digest: Some(digest), answer: Answer::Awaited });
                Arrival::New
            }
        }
    }

    /// Remembers the frame that answers a request, until the application confirms that it is over.
    pub fn answer(&self, request: u64, digest: u64, frame: &[u8]) {
        let mut state = lock(&self.state);
        let answer = if state.bytes + frame.len() > ANSWER_BYTES {
            Answer::Lost
        } else {
            Answer::Known(Arc::new(Zeroizing::new(frame.to_vec())))
        };
        // An application that gave up waiting has said that the request is over: nobody will ask for the answer.
        let bytes = answer.bytes();
        if let Some(awaited) = state.answers.get_mut(&request) {
            *awaited = Remembered { digest: Some(digest), answer };
            state.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ApplicationId = ApplicationId { client: ClientId([1; 16]), instance: InstanceId([2; 16]) };

    #[test]
    fn a_resent_request_gets_the_same_answer() {
        let applications = Applications::default();
        let application = applications.enter(ID, 1).unwrap();
        assert!(matches!(application.arrive(7, 1), Arrival::New));
        assert!(matches!(application.arrive(7, 1), Arrival::Pending));
        application.answer(7, 1, b"answer");
        let Arrival::Answered(frame) = application.arrive(7, 1) else { panic!("not answered") };
        assert_eq!(frame.as_slice(), b"answer");
        assert!(matches!(application.arrive(7, 2), Arrival::Reused));
        assert!(matches!(application.arrive(8, 1), Arrival::New));
    }

    #[test]
    fn an_answer_is_kept_until_the_application_has_it_however_many_follow() {
        let application = Application::default();
        application.arrive(5, 0);
        for request in 6..100_000 {
            let ended = [request - 1];
            application.confirm(if request > 6 { &ended } else { &[] });
            assert!(matches!(application.arrive(request, 0), Arrival::New));
            application.answer(request, 0, b"x");
        }
        assert!(matches!(application.arrive(5, 0), Arrival::Pending));
        application.answer(5, 0, b"key");
        assert!(matches!(application.arrive(5, 0), Arrival::Answered(_)));
        assert_eq!(lock(&application.state).answers.len(), 2);
    }

    #[test]
    fn nothing_is_kept_for_an_application_that_gave_up() {
        let application = Application::default();
        application.arrive(1, 0);
        application.confirm(&[1]);
        application.answer(1, 0, b"late");
        assert!(lock(&application.state).answers.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded_and_nothing_is_done_twice_for_it() {
        let application = Application::default();
        let large = vec![0; ANSWER_BYTES / 4];
        for request in 0..8 {
            application.arrive(request, 0);
            application.answer(request, 0, &large);
        }
        assert!(matches!(application.arrive(0, 0), Arrival::Answered(_)));
        assert!(matches!(application.arrive(7, 0), Arrival::Lost));
        for request in 8..(UNCONFIRMED + LOST) as u64 {
            assert!(matches!(application.arrive(request, 0), Arrival::New));
        }
        assert!(matches!(application.arrive(1 << 40, 0), Arrival::Full));
        application.confirm(&[0, 1, 2]);
        assert!(matches!(application.arrive(1 << 40, 0), Arrival::New));
    }

    #[test]
    fn an_application_outlives_its_connections_by_the_grace() {
        let applications = Applications::default();
        applications.enter(ID, 1).unwrap();
        applications.enter(ID, 2).unwrap();
        applications.leave(ID.client, 1, 100);
        assert_eq!(applications.expire(100 + 2 * GRACE), []);
        applications.leave(ID.client, 2, 200);
        assert_eq!(applications.expire(200 + GRACE - 1), []);
        assert_eq!(applications.expire(200 + GRACE), [ID]);
    }

    #[test]
    fn what_was_done_before_a_restart_is_not_done_again() {
        let applications = Applications::default();
        applications.remember_lost(ID, 7, 0);
        assert!(matches!(applications.enter(ID, 1).unwrap().arrive(7, 1), Arrival::Lost));
    }
}
