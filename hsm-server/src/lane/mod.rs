//! A lane's vault end: takes frames off the hop, knocks at the [`Door`], commits once, answers.
//!
//! [`Lane`] itself knows no socket: bytes in, bytes out. [`Keeper::run`] drives one over a socket pair in the
//! vault's process; with `isolation = "thread"` the front drives it in memory. Whatever is [`Pace::Slow`] goes to
//! the workers, who commit and answer for themselves.

mod activity;
mod fair;
mod outbound;
mod workers;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    io::{self, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    panic::{self, AssertUnwindSafe},
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tracing::{debug, error, warn};

pub use self::activity::{Activity, CROWDED, SPIN};
use self::{
    outbound::Outbound,
    workers::{Job, Workers},
};
use crate::{
    cluster::Unreachable,
    config::{Config, Limits},
    door::{Door, Pace, Peer, Verdict},
    hop::{self, HopError, Inbox, ToFront, ToVault},
};

/// How many frames are carried out before their replies leave: more share a commit, fewer answer sooner.
pub const BATCH: usize = 32;
/// The most threads for slow calls.
const MAX_WORKERS: usize = 16;
/// How often the door does its housekeeping.
const TICK: Duration = Duration::from_millis(50);
/// How often the other nodes of a cluster are greeted, and the shares of keys are looked after.
const BEAT: Duration = Duration::from_secs(1);
/// The exit status of a process that gave itself up (EX_SOFTWARE of sysexits.h).
const SOFTWARE: i32 = 70;
/// Why a connection is closed whose replies could not be made durable.
const NOT_WRITTEN: &str = "the audit log or the store cannot be written";

/// Where a lane's messages to the front go.
pub trait Outlet: Send + Sync + 'static {
    /// Sends whole messages. If it cannot, the lane ends and its reader learns it.
    fn deliver(&self, messages: &[u8]);
}

/// A connection, as long as anybody works for it.
struct Guest {
    peer: Arc<Peer>,
    door: Arc<dyn Door>,
    /// Whether a slow frame is being carried out.
    busy: AtomicBool,
}

impl Guest {
    /// Has the door handle a frame and appends the reply's hop message, if there is one.
    fn ask(&self, connection: u64, frame: &[u8], out: &mut Vec<u8>) -> Verdict {
        let start = out.len();
        let verdict = hop::write_reply(out, connection, |out| self.door.handle(&self.peer, frame, out));
        match &verdict {
            Verdict::Answered => {}
            Verdict::Close(reason) => {
                warn!(client = self.peer.client, address = %self.peer.address, reason, "connection is closed");
                out.truncate(start);
            }
        }
        verdict
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.disconnect(&self.peer);
    }
}

/// Tells every lane who may shake hands.
pub struct Herald {
    door: Arc<dyn Door>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    version: Option<u64>,
    outlets: Vec<Weak<dyn Outlet>>,
}

impl Herald {
    fn new(door: Arc<dyn Door>) -> Self {
        Self { door, told: Mutex::new(Told::default()) }
    }

    /// A new lane: it is told at once.
    fn join(&self, outlet: &Arc<dyn Outlet>) {
        let mut told = self.told();
        outlet.deliver(&self.message().1);
        told.outlets.retain(|outlet| outlet.strong_count() > 0);
        told.outlets.push(Arc::downgrade(outlet));
    }

    /// Tells the lanes if anything changed. When it returns, they have been told, by whomever.
    fn tell(&self) {
        let mut told = self.told();
        if told.version == Some(self.door.admissions_version()) {
            return;
        }
        let (version, message) = self.message();
        told.version = Some(version);
        told.outlets.iter().filter_map(Weak::upgrade).for_each(|outlet| outlet.deliver(&message));
    }

    fn message(&self) -> (u64, Vec<u8>) {
        let (version, list) = self.door.admissions();
        let mut message = Vec::new();
        hop::write(&mut message, 0, &ToFront::Admissions { version, list });
        (version, message)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a lane ended that should not have.
#[derive(Debug)]
pub enum LaneError {
    /// Its socket failed.
    Socket(io::Error),
    /// What came from the front made no sense: it is broken, or not itself any more.
    Nonsense(HopError),
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Nonsense(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LaneError {}

impl From<io::Error> for LaneError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<HopError> for LaneError {
    fn from(error: HopError) -> Self {
        Self::Nonsense(error)
    }
}

/// Whether a lane has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another batch waits.
    More,
    /// Nothing whole is left to read.
    Idle,
}

/// The vault end of one lane.
pub struct Lane {
    keeper: Arc<Keeper>,
    number: u64,
    outlet: Arc<dyn Outlet>,
    guests: HashMap<u64, Arc<Guest>>,
    answered: Vec<u64>,
    /// Connections to be closed, and why.
    closing: Vec<(u64, String)>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("number", &self.number).field("guests", &self.guests.len()).finish()
    }
}

impl Lane {
    /// Carries out up to [`BATCH`] messages and appends to `out` what may leave now.
    ///
    /// # Errors
    /// `HopError` if the front talks nonsense: the lane must end.
    pub fn work(&mut self, inbox: &mut Inbox, out: &mut Vec<u8>) -> Result<Progress, HopError> {
        let start = out.len();
        let mut taken = 0;
        while taken < BATCH
            && let Some((connection, message)) = inbox.next::<ToVault<'_>>()?
        {
            self.take(connection, message, out)?;
            taken += 1;
        }
        if taken > 0
            && let Err(fault) = self.keeper.door.commit()
        {
            debug!(%fault, replies = self.answered.len(), "replies were not released");
            out.get_mut(start..).unwrap_or_default().fill(0);
            out.truncate(start);
            self.answered.iter().for_each(|c| hop::write(out, *c, &ToFront::Close(NOT_WRITTEN)));
        }
        self.answered.clear();
        for (connection, reason) in self.closing.drain(..) {
            hop::write(out, connection, &ToFront::Close(&reason));
        }
        Ok(if taken == BATCH { Progress::More } else { Progress::Idle })
    }

    fn take(&mut self, connection: u64, message: ToVault<'_>, out: &mut Vec<u8>) -> Result<(), HopError> {
        let door = &self.keeper.door;
        match message {
            ToVault::Open { address, certificate } => {
                let Entry::Vacant(place) = self.guests.entry(connection) else {
                    return Err(HopError::OutOfTurn);
                };
                match door.admit(certificate, address) {
                    Ok(peer) => {
                        let busy = AtomicBool::new(false);
                        place.insert(Arc::new(Guest { peer, door: Arc::clone(door), busy }));
                    }
                    Err(fault) => {
                        warn!(%address, %fault, "connection turned away");
                        self.closing.push((connection, "the vault does not know the certificate".into()));
                    }
                }
            }
            ToVault::Frame(frame) => self.carry_out(connection, frame, out)?,
            ToVault::Close => drop(self.guests.remove(&connection)),
            ToVault::Refused { address, certificate, reason } => door.refused(address, certificate, reason),
            // Here the number is a call's.
            ToVault::Answer(frame) => {
                self.keeper.outbound.answer(connection, Ok(frame.into()));
            }
            ToVault::NoAnswer(reason) => {
                self.keeper.outbound.answer(connection, Err(Unreachable(reason.into())));
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, connection: u64, frame: &[u8], out: &mut Vec<u8>) -> Result<(), HopError> {
        // Turned away, and the front has not heard yet.
        let Some(guest) = self.guests.get(&connection) else { return Ok(()) };
        self.keeper.activity.touch((self.number + 1) << 40 | connection);
        if guest.busy.load(Ordering::Acquire) {
            return Err(HopError::OutOfTurn);
        }
        let peer = &guest.peer;
        let (workers, owner) = match self.keeper.door.pace(&guest.peer, frame) {
            Pace::Quick => {
                match guest.ask(connection, frame, out) {
                    Verdict::Answered => self.answered.push(connection),
                    Verdict::Close(reason) => self.closing.push((connection, reason)),
                }
                return Ok(());
            }
            Pace::Slow => (&self.keeper.workers, peer.partition.clone()),
            Pace::Together => (&self.keeper.signers, peer.partition.clone()),
            Pace::Node => (&self.keeper.node_workers, Some(peer.client.clone())),
        };
        guest.busy.store(true, Ordering::Release);
        let job = Job {
            connection,
            guest: Arc::clone(guest),
            frame: frame.into(),
            outlet: Arc::clone(&self.outlet),
        };
        workers.push(owner, job);
        Ok(())
    }
}

/// Keeps one door: its workers, its housekeeping, and the lanes that lead to it.
pub struct Keeper {
    door: Arc<dyn Door>,
    workers: Workers,
    /// For signatures that other nodes have a part in: while some wait for theirs, others do the own one, and the making
    /// of a key holds up none.
    signers: Workers,
    /// For other nodes. They wait for a node themselves for a handshake at most.
    node_workers: Workers,
    herald: Arc<Herald>,
    outbound: Arc<Outbound>,
    activity: Activity,
    message_limit: usize,
    clocks: Mutex<Vec<Clock>>,
}

/// A thread that does the same again and again, and how it is told to end.
type Clock = (Sender<()>, JoinHandle<()>);

fn clock(name: &str, every: Duration, act: impl Fn() + Send + 'static) -> io::Result<Clock> {
    let (stop, stopped) = mpsc::channel();
    let thread = vital(name, move || {
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            act();
        }
    })?;
    Ok((stop, thread))
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Starts the door's own threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(door: Arc<dyn Door>, config: &Config) -> io::Result<Arc<Self>> {
        let herald = Arc::new(Herald::new(Arc::clone(&door)));
        let workers = Workers::start(
            // One more than processors: a partition may keep all of them busy, and still leaves a thread to others.
            (config.lane_count() + 1).clamp(3, MAX_WORKERS),
            Arc::clone(&door),
            Arc::clone(&herald),
        )?;
        let ticker = clock("ticker", TICK, {
            let (door, herald) = (Arc::clone(&door), Arc::clone(&herald));
            move || {
                if let Err(fault) = door.tick() {
                    error!(%fault, "the vault cannot go on");
                    give_up();
                }
                herald.tell();
            }
        })?;
        let mut clocks = vec![ticker];
        let outbound = Arc::new(Outbound::default());
        // One at least, to answer that there is no cluster.
        let (mut signers, mut node_workers) = (1, 0);
        if !config.cluster.ports.is_empty() {
            door.reach(outbound.clone());
            let (greeter, tender) = (Arc::clone(&door), Arc::clone(&door));
            clocks.push(clock("greeter", BEAT, move || greeter.beat())?);
            clocks.push(clock("tender", BEAT, move || tender.tend())?);
            // As above: while one makes a key for a node, another signs for it.
            node_workers = (config.lane_count() + 1).clamp(3, MAX_WORKERS);
            signers = (2 * node_workers).min(MAX_WORKERS);
        }
        Ok(Arc::new(Self {
            signers: Workers::start(signers, Arc::clone(&door), Arc::clone(&herald))?,
            node_workers: Workers::start(node_workers, Arc::clone(&door), Arc::clone(&herald))?,
            door,
            workers,
            herald,
            activity: Activity::default(),
            message_limit: message_limit(&config.limits),
            outbound,
            clocks: Mutex::new(clocks),
        }))
    }

    /// A new lane, whose front is told at once who may shake hands.
    pub fn lane(self: &Arc<Self>, number: u64, outlet: Arc<dyn Outlet>) -> Lane {
        self.herald.join(&outlet);
        self.outbound.join(&outlet);
        Lane {
            keeper: Arc::clone(self),
            number,
            outlet,
            guests: HashMap::new(),
            answered: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Serves a lane over its socket until the front closes it.
    ///
    /// # Errors
    /// The socket failed, or the front talks nonsense.
    pub fn run(self: &Arc<Self>, number: u64, stream: UnixStream) -> Result<(), LaneError> {
        let outlet = Arc::new(SocketOutlet(Mutex::new(stream.try_clone()?)));
        let mut lane = self.lane(number, outlet.clone());
        let mut inbox = Inbox::new(self.message_limit);
        let mut out = Vec::new();
        loop {
            let count = self.receive(&stream, inbox.room())?;
            if count == 0 {
                return Ok(());
            }
            inbox.filled(count);
            let mut progress = Progress::More;
            while progress == Progress::More {
                progress = lane.work(&mut inbox, &mut out)?;
                outlet.deliver(&out);
                out.fill(0);
                out.clear();
            }
        }
    }

    /// Ends the door's threads, once the lanes have ended, and closes the door.
    pub fn close(&self) {
        self.workers.close();
        self.signers.close();
        self.node_workers.close();
        let clocks: Vec<_> = self.clocks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for (stop, thread) in clocks {
            drop(stop);
            if thread.join().is_err() {
                error!("the ticker, the greeter or the tender did not end well");
            }
        }
        self.door.close();
    }

    /// Waits for bytes; for a lone connection it looks before it sleeps.
    fn receive(&self, stream: &UnixStream, room: &mut [u8]) -> io::Result<usize> {
        let until = self.activity.alone().then(|| Instant::now() + SPIN);
        let mut flags = if until.is_some() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        loop {
            match recv(stream, &mut *room, flags) {
                Ok((count, _)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if until.is_some_and(|until| Instant::now() < until) => thread::yield_now(),
                Err(Errno::AGAIN) => flags = RecvFlags::empty(),
                Err(Errno::CONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The longest message that a front may send.
pub fn message_limit(limits: &Limits) -> usize {
    limits.frame_bytes as usize + hop::OVERHEAD
}

/// The sending half of a lane's socket, which the lane and the workers share.
struct SocketOutlet(Mutex<UnixStream>);

impl Outlet for SocketOutlet {
    fn deliver(&self, messages: &[u8]) {
        if messages.is_empty() {
            return;
        }
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = stream.write_all(messages) {
            debug!(%error, "the front is gone");
            // The lane's reader sees the end; a second failure changes nothing.
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }
}

/// Starts a thread without which the process must not go on: if it panics, the process ends and whoever started
/// it starts a clean one.
///
/// # Errors
/// The system gives no more threads.
pub fn vital(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread_name = name.to_owned();
    thread::Builder::new().name(thread_name.clone()).spawn(move || {
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            error!(thread = thread_name, "a thread panicked");
            give_up();
        }
    })
}

/// Ends this process, which cannot be trusted to go on; whoever started it starts a clean one.
pub fn give_up() -> ! {
    error!("the process ends, to be started anew");
    process::exit(SOFTWARE)
}
