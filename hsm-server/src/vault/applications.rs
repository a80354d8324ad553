//! Applications: who holds session objects, over which connections, and what they were answered.
//!
//! An application is the time from `C_Initialize` to `C_Finalize` of one client, named by its instance id.
//! It survives broken connections for a while. Its last answers are remembered, so that a request that
//! was resent after a broken link is answered again and not carried out again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strongroom_shared::message::InstanceId;
use zeroize::Zeroizing;

use crate::{door::Peer, platform::Time};

/// How long an application without a connection keeps its session objects, in microseconds.
pub const GRACE: Time = 300 * 1_000_000;
/// How many answers are remembered per application; it has at most one request in flight per connection.
const ANSWERS: usize = 512;
/// How long a resent request waits for its first copy to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// An application, named by the client that it belongs to and its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationId {
    /// The first bytes of SHA-256 of the client's certificate, as in an audit record.
    pub certificate: [u8; 8],
    /// Chosen by the provider.
    pub instance: InstanceId,
}

impl ApplicationId {
    /// The application that speaks.
    pub fn of(peer: &Peer, instance: InstanceId) -> Self {
        Self { certificate: short(&peer.fingerprint), instance }
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
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: HashSet<u64>,
    idle_since: Option<Time>,
    answers: HashMap<u64, Remembered>,
    order: VecDeque<u64>,
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
    /// It was carried out before a restart; the answer went with the old process.
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Applications {
    /// The application that speaks on this connection.
    pub fn enter(&self, id: ApplicationId, connection: u64) -> Arc<Application> {
        let application = Arc::clone(lock(&self.all).entry(id).or_default());
        let mut state = lock(&application.state);
        state.idle_since = None;
        state.connections.insert(connection);
        drop(state);
        application
    }

    /// The connection is gone; its application may come back on another.
    pub fn leave(&self, certificate: [u8; 8], connection: u64, now: Time) {
        for (id, application) in lock(&self.all).iter() {
            if id.certificate == certificate {
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
        state.note(request, Remembered { digest: None, answer: Answer::Lost });
    }
}

impl State {
    fn note(&mut self, request: u64, remembered: Remembered) {
        if self.answers.insert(request, remembered).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > ANSWERS {
            // An awaited answer is never the oldest of so many: its application would have to have hundreds in flight.
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }
}

impl Application {
    /// Whether a request of this number has come before, with what `digest` stands for. A new one is awaited
    /// from here on, until [`Self::answer`].
    pub fn arrive(&self, request: u64, digest: u64) -> Arrival {
        let state = lock(&self.state);
        let waited = self.ended.wait_timeout_while(state, PATIENCE, |state| {
            state.answers.get(&request).is_some_and(|remembered| matches!(remembered.answer, Answer::Awaited))
        });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.answers.get(&request) {
            Some(remembered) if remembered.digest.is_some_and(|known| known != digest) => Arrival::Reused,
            Some(Remembered { answer: Answer::Known(frame), .. }) => Arrival::Answered(Arc::clone(frame)),
            Some(Remembered { answer: Answer::Lost, .. }) => Arrival::Lost,
            Some(Remembered { answer: Answer::Awaited, .. }) => Arrival::Pending,
            None => {
                state.note(request, Remembered { digest: Some(digest), answer: Answer::Awaited });
                Arrival::New
            }
        }
    }

    /// Remembers the frame that answers a request.
    pub fn answer(&self, request: u64, digest: u64, frame: &[u8]) {
        let answer = Answer::Known(Arc::new(Zeroizing::new(frame.to_vec())));
        lock(&self.state).note(request, Remembered { digest: Some(digest), answer });
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ApplicationId = ApplicationId { certificate: [1; 8], instance: InstanceId([2; 16]) };

    #[test]
    fn a_resent_request_gets_the_same_answer_and_a_third_waits_for_the_first() {
        let applications = Applications::default();
        let application = applications.enter(ID, 1);
        assert!(matches!(application.arrive(7, 1), Arrival::New));
        let waiting = Arc::clone(&application);
        let second = std::thread::spawn(move || waiting.arrive(7, 1));
        application.answer(7, 1, b"answer");
        let Arrival::Answered(frame) = second.join().unwrap() else { panic!("not answered") };
        assert_eq!(frame.as_slice(), b"answer");
        assert!(matches!(application.arrive(7, 2), Arrival::Reused));
        assert!(matches!(application.arrive(8, 1), Arrival::New));
    }

    #[test]
    fn answers_are_bounded() {
        let application = Application::default();
        for request in 0..2 * ANSWERS as u64 {
            application.arrive(request, 0);
            application.answer(request, 0, b"x");
        }
        assert_eq!(lock(&application.state).answers.len(), ANSWERS);
        assert!(matches!(application.arrive(2 * ANSWERS as u64 - 1, 0), Arrival::Answered(_)));
    }

    #[test]
    fn an_application_outlives_its_connections_by_the_grace() {
        let applications = Applications::default();
        applications.enter(ID, 1);
        applications.enter(ID, 2);
        applications.leave(ID.certificate, 1, 100);
        assert_eq!(applications.expire(100 + 2 * GRACE), []);
        applications.leave(ID.certificate, 2, 200);
        assert_eq!(applications.expire(200 + GRACE - 1), []);
        assert_eq!(applications.expire(200 + GRACE), [ID]);
    }

    #[test]
    fn what_was_done_before_a_restart_is_not_done_again() {
        let applications = Applications::default();
        applications.remember_lost(ID, 7, 0);
        assert!(matches!(applications.enter(ID, 1).arrive(7, 1), Arrival::Lost));
    }
}
