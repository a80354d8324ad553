//! The threads for slow calls: key generation, PINs, RSA, administration, and what other nodes have a part in. They
//! answer for themselves.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
};

use strongroom_shared::secret::{Wiped, wipe};
use tracing::{debug, error};

use super::{
    Guest, Herald, Outlet,
    fair::{Owner, Queue},
    vital,
};
use crate::{
    door::{Door, Verdict},
    hop::{self, ToFront},
};

/// One slow frame, with all that is needed to answer it.
pub(super) struct Job {
    pub(super) connection: u64,
    pub(super) guest: Arc<Guest>,
    pub(super) frame: Wiped,
    pub(super) outlet: Arc<dyn Outlet>,
}

/// A fixed number of threads and what waits for them, partitions in turn. A connection has one frame outstanding,
/// so the number of connections bounds the queue.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    door: Arc<dyn Door>,
    herald: Arc<Herald>,
    queue: Queue<Job>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("waiting", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

impl Workers {
    pub(super) fn start(count: usize, door: Arc<dyn Door>, herald: Arc<Herald>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { door, herald, queue: Queue::new(count) });
        let threads = (0..count)
            .map(|_| {
                let shared = Arc::clone(&shared);
                vital("worker", move || shared.work())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    pub(super) fn push(&self, owner: Owner, job: Job) {
        self.shared.queue.push(owner, job);
    }

    /// Finishes what waits and ends the threads.
    pub(super) fn close(&self) {
        self.shared.queue.close();
        let threads: Vec<_> = self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                error!("a worker did not end well");
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some((owner, job)) = self.queue.take() {
            self.carry_out(&job);
            self.queue.done(&owner);
        }
    }

    fn carry_out(&self, job: &Job) {
        let mut out = Vec::new();
        let verdict = job.guest.ask(job.connection, &job.frame, &mut out);
        if let Err(fault) = self.door.commit() {
            debug!(client = job.guest.peer.client, %fault, "a reply was not released");
            wipe(&mut out);
            hop::write(&mut out, job.connection, &ToFront::Close(super::NOT_WRITTEN));
        } else if let Verdict::Close(reason) = verdict {
            hop::write(&mut out, job.connection, &ToFront::Close(&reason));
        }
        // Before the reply: whoever was told of a new client may expect it to be let in.
        self.herald.tell();
        job.guest.busy.store(false, Ordering::Release);
        job.outlet.deliver(&out);
        wipe(&mut out);
    }
}
