//! The threads for slow calls: key generation, PINs, RSA, administration. They answer for themselves.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::JoinHandle,
};

use strongroom_shared::secret::{Wiped, wipe};
use tracing::{debug, error};

use super::{
    Guest, Herald, Outlet,
    fair::{Fair, Owner},
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
    queue: Mutex<Queue>,
    ready: Condvar,
}

struct Queue {
    jobs: Fair<Job>,
    closed: bool,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("waiting", &self.shared.queue().jobs.len()).finish_non_exhaustive()
    }
}

impl Workers {
    pub(super) fn start(count: usize, door: Arc<dyn Door>, herald: Arc<Herald>) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue { jobs: Fair::new(count), closed: false });
        let shared = Arc::new(Shared { door, herald, queue, ready: Condvar::new() });
        let threads = (0..count)
            .map(|_| {
                let shared = Arc::clone(&shared);
                vital("worker", move || shared.work())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    pub(super) fn push(&self, owner: Owner, job: Job) {
        self.shared.queue().jobs.push(owner, job);
        self.shared.ready.notify_one();
    }

    /// Finishes what waits and ends the threads.
    pub(super) fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.ready.notify_all();
        let threads: Vec<_> = self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                error!("a worker did not end well");
            }
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((owner, job)) = self.next() {
            self.carry_out(&job);
            let mut queue = self.queue();
            queue.jobs.done(&owner);
            // What waited for its share may go on, and whoever waits for the end may see it.
            if queue.closed || !queue.jobs.is_empty() {
                self.ready.notify_all();
            }
        }
    }

    fn next(&self) -> Option<(Owner, Job)> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop() {
                return Some(job);
            }
            if queue.closed && queue.jobs.is_empty() {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
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
