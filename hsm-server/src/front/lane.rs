//! A lane's front end: one thread, one single-threaded runtime, the connections that were dealt to it, and one
//! link to the vault. Frames that became ready together cross the hop in one write.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::HashMap,
    fmt, io, mem,
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use strongroom_shared::{
    secret::{Wiped, wipe},
    wire::decode_body,
};
use tokio::{
    net,
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet, spawn_local, yield_now},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, warn};

use super::{
    Shared, connection,
    link::{self, Link},
    nodes::{self, Pool, Ready},
    seats::Seat,
    tls::{Admitted, Refusal},
};
use crate::{
    certificates::identity,
    hop::{self, HopError, Inbox, ToFront, ToVault},
    lane::{SPIN, vital},
};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(250);
/// Why a connection ends whose vault died.
const NO_VAULT: &str = "there is no vault";

/// What a lane is told.
pub enum Command {
    /// Serve this client.
    Serve(TcpStream, SocketAddr, Seat),
    /// The vault can be reached so. The number tells this vault from the ones before it.
    Link(Link, u64),
    /// Finish what is in flight and end.
    Stop,
}

/// What a connection is doing, which decides how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: the next frame has not begun.
    Idle,
    /// A frame is arriving.
    Reading,
    /// The vault is at work.
    Waiting,
    /// The client is to take the reply.
    Writing,
}

/// One connection, as its task and the lane both know it.
pub struct Client {
    /// Its number on the hop.
    pub connection: u64,
    fingerprint: [u8; 32],
    phase: Cell<(Phase, Instant)>,
    reply: RefCell<Option<Vec<u8>>>,
    spare: Cell<Vec<u8>>,
    replied: Notify,
    end: RefCell<Option<String>>,
    ended: Notify,
}

impl Client {
    /// The connection is doing something else now.
    pub fn enter(&self, phase: Phase) {
        if self.phase.get().0 != phase {
            self.phase.set((phase, Instant::now()));
        }
    }

    /// The reply to the frame that was sent.
    pub async fn reply(&self) -> Vec<u8> {
        loop {
            if let Some(reply) = self.reply.take() {
                return reply;
            }
            self.replied.notified().await;
        }
    }

    /// Gives a reply's buffer back for the next one.
    pub fn recycle(&self, mut reply: Vec<u8>) {
        reply.clear();
        self.spare.set(reply);
    }

    /// Why the lane wants the connection to end, as soon as it does.
    pub async fn told_to_close(&self) -> String {
        loop {
            if let Some(reason) = self.end.take() {
                return reason;
            }
            self.ended.notified().await;
        }
    }

    fn answer(&self, frame: &[u8]) {
        let mut reply = self.spare.take();
        reply.extend_from_slice(frame);
        self.reply.replace(Some(reply));
        self.replied.notify_one();
    }

    fn tell_to_close(&self, reason: &str) {
        self.end.replace(Some(reason.to_owned()));
        self.ended.notify_one();
    }
}

/// The front end of one lane.
pub struct LaneEnd {
    shared: Arc<Shared>,
    number: u64,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    opened: Cell<u64>,
    /// Hop messages that wait for the next write.
    outbox: RefCell<Vec<u8>>,
    posted: Notify,
    /// Which vault the lane is linked to.
    generation: Cell<Option<u64>>,
    stopping: Cell<bool>,
    awake_until: Cell<Instant>,
    wake: Notify,
    link_tasks: RefCell<Vec<AbortHandle>>,
    /// Connections to other nodes.
    pool: RefCell<Pool>,
    /// Calls to other nodes that wait for their reply.
    calls: RefCell<JoinSet<()>>,
    /// How many connections have not been seen off.
    present: Cell<usize>,
    left: Notify,
}

impl fmt::Debug for LaneEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneEnd").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Starts a lane's thread.
///
/// # Errors
/// The system gives no more threads.
pub fn start(
    number: u64,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> io::Result<JoinHandle<()>> {
    vital(&format!("front lane {number}"), move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "a lane has no runtime"),
        };
        runtime.block_on(LaneEnd::run(number, shared, commands));
    })
}

impl LaneEnd {
    async fn run(number: u64, shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut admitted = shared.admitted.subscribe();
        let limits = shared.limits.clone();
        let lane = Rc::new(Self {
            shared,
            number,
            clients: RefCell::default(),
            opened: Cell::new(0),
            outbox: RefCell::default(),
            posted: Notify::new(),
            generation: Cell::new(None),
            stopping: Cell::new(false),
            awake_until: Cell::new(Instant::now()),
            wake: Notify::new(),
            link_tasks: RefCell::default(),
            pool: RefCell::default(),
            calls: RefCell::default(),
            present: Cell::new(0),
            left: Notify::new(),
        });
        spawn_local(Rc::clone(&lane).stay_awake());
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Serve(stream, address, seat)) => lane.serve(stream, address, seat),
                    Some(Command::Link(link, generation)) => lane.link(link, generation),
                    Some(Command::Stop) | None => break,
                },
                Ok(()) = admitted.changed() => lane.close_objectionable(&admitted.borrow_and_update()),
                _ = sweep.tick() => lane.sweep(),
            }
        }
        lane.stopping.set(true);
        let patience = Instant::now() + limits.stop();
        while lane.present.get() > 0 && Instant::now() < patience {
            lane.sweep();
            tokio::select! { _ = sweep.tick() => {}, () = lane.left.notified() => {} }
        }
        if lane.present.get() > 0 {
            warn!(connections = lane.present.get(), "stopping without waiting any longer");
        }
    }

    /// What all lanes share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Its connections to other nodes. Nobody may hold on to them over an `await`.
    pub fn pool(&self) -> RefMut<'_, Pool> {
        self.pool.borrow_mut()
    }

    /// Which lane it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the server is stopping: finish what is in flight and no more.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, address: SocketAddr, seat: Seat) {
        let stream = stream.set_nodelay(true).and_then(|()| net::TcpStream::from_std(stream));
        match stream {
            Ok(stream) => {
                let lane = Rc::clone(self);
                spawn_local(async move {
                    connection::serve(lane, stream, address, seat).await;
                });
            }
            Err(error) => warn!(%address, %error, "connection lost before it began"),
        }
    }

    /// A client that the handshake let in.
    pub fn open(&self, fingerprint: [u8; 32], message: &ToVault<'_>) -> Rc<Client> {
        let connection = self.opened.get() + 1;
        self.opened.set(connection);
        self.present.set(self.present.get() + 1);
        let client = Rc::new(Client {
            connection,
            fingerprint,
            phase: Cell::new((Phase::Idle, Instant::now())),
            reply: RefCell::default(),
            spare: Cell::default(),
            replied: Notify::new(),
            end: RefCell::default(),
            ended: Notify::new(),
        });
        self.clients.borrow_mut().insert(connection, Rc::clone(&client));
        if self.generation.get().is_none() {
            client.tell_to_close(NO_VAULT);
        }
        // The list may have changed while the handshake went on.
        if let Some(objection) = self.shared.admitted.borrow().objection(&fingerprint) {
            client.tell_to_close(objection);
        }
        self.send(connection, message);
        client
    }

    /// The client gets no more replies.
    pub fn close(&self, client: &Client) {
        if self.clients.borrow_mut().remove(&client.connection).is_some() {
            self.send(client.connection, &ToVault::Close);
        }
    }

    /// The client has been seen off.
    pub fn leave(&self) {
        self.present.set(self.present.get().saturating_sub(1));
        self.left.notify_one();
    }

    /// Puts a message on the hop. It leaves when every task that is ready has run.
    pub fn send(&self, connection: u64, message: &ToVault<'_>) {
        if self.generation.get().is_some() {
            hop::write(&mut self.outbox.borrow_mut(), connection, message);
            self.posted.notify_one();
            self.stir(connection);
        }
    }

    /// Puts a refused handshake on record, unless there are too many: then it is counted.
    pub fn refused(&self, address: SocketAddr, refusal: &Refusal) {
        let Some(untold) = self.shared.refusals.count(address, Instant::now()) else { return };
        let mut reason = refusal.reason.clone();
        if untold > 0 {
            reason.push_str(&format!(" ({untold} more refusals before it are not on record)"));
        }
        let client = refusal.certificate.as_deref().and_then(|certificate| identity(certificate).ok());
        let client = client.map_or_else(|| "?".to_owned(), |identity| identity.client);
        warn!(%address, client, reason, "handshake refused");
        let certificate = refusal.certificate.as_deref();
        self.send(0, &ToVault::Refused { address, certificate, reason: &reason });
    }

    /// Puts on record how many refused handshakes were only counted.
    fn tell_of_refusals(&self) {
        if self.generation.get().is_none() {
            return;
        }
        if let Some((untold, address)) = self.shared.refusals.rest(Instant::now()) {
            let reason = format!("{untold} more refusals, the last of them from here");
            warn!(%address, untold, "more handshakes refused");
            self.send(0, &ToVault::Refused { address, certificate: None, reason: &reason });
        }
    }

    fn link(self: &Rc<Self>, link: Link, generation: u64) {
        self.unlink();
        match link::spawn(self, link) {
            Ok(tasks) => {
                self.link_tasks.replace(tasks);
                self.generation.set(Some(generation));
                self.shared.linked.send_modify(|linked| *linked += 1);
            }
            Err(error) => error!(%error, "the lane cannot reach the vault"),
        }
    }

    /// The vault is gone: so are the connections that it knew.
    pub fn unlink(&self) {
        if self.generation.take().is_some() {
            self.shared.linked.send_modify(|linked| *linked -= 1);
            self.link_tasks.take().iter().for_each(AbortHandle::abort);
            // Their numbers would be other calls' of the next vault.
            self.calls.borrow_mut().abort_all();
            wipe(&mut self.outbox.borrow_mut());
            self.clients.borrow().values().for_each(|client| client.tell_to_close(NO_VAULT));
        }
    }

    /// Waits until something is to be sent, and takes it. `sent` is the buffer of the time before.
    pub async fn posted(&self, sent: &mut Vec<u8>) {
        sent.fill(0);
        sent.clear();
        while sent.is_empty() {
            self.posted.notified().await;
            mem::swap(sent, &mut self.outbox.borrow_mut());
        }
    }

    /// Hands the vault's messages to those whom they concern.
    ///
    /// # Errors
    /// `HopError` if the vault talks nonsense.
    pub fn dispatch(self: &Rc<Self>, inbox: &mut Inbox) -> Result<(), HopError> {
        while let Some((connection, message)) = inbox.next::<ToFront<'_>>()? {
            match message {
                ToFront::Frame(frame) => self.with(connection, |client| {
                    client.answer(frame);
                    self.stir(connection);
                }),
                ToFront::Close(reason) => self.with(connection, |client| client.tell_to_close(reason)),
                ToFront::Admissions { version, list } => {
                    let generation = self.generation.get().unwrap_or_default();
                    self.shared.admit(Admitted::new(generation, version, &list));
                }
                ToFront::Ring(ring) => {
                    let generation = self.generation.get().unwrap_or_default();
                    let ring = decode_body(ring).map_err(|_| HopError::Malformed)?;
                    self.shared.gather(Ready::new(generation, &ring));
                }
                ToFront::Call { node, patience, frame } => {
                    let (lane, frame) = (Rc::clone(self), Wiped::from(frame));
                    let patience = Duration::from_millis(patience.into());
                    let mut calls = self.calls.borrow_mut();
                    while calls.try_join_next().is_some() {}
                    calls.spawn_local(nodes::carry(lane, connection, node, patience, frame));
                }
            }
        }
        Ok(())
    }

    fn with(&self, connection: u64, act: impl FnOnce(&Client)) {
        if let Some(client) = self.clients.borrow().get(&connection) {
            act(client);
        }
    }

    fn close_objectionable(&self, admitted: &Admitted) {
        for client in self.clients.borrow().values() {
            if let Some(objection) = admitted.objection(&client.fingerprint) {
                client.tell_to_close(objection);
            }
        }
    }

    fn sweep(&self) {
        self.pool.borrow_mut().sweep();
        self.tell_of_refusals();
        let limits = &self.shared.limits;
        for client in self.clients.borrow().values() {
            let (phase, since) = client.phase.get();
            let (limit, reason) = match phase {
                Phase::Idle if self.stopping.get() => (Duration::ZERO, "the server is stopping"),
                Phase::Idle => (limits.idle(), "idle for too long"),
                Phase::Reading => (limits.frame(), "a frame took too long to arrive"),
                Phase::Writing => (limits.frame(), "a reply took too long to be taken"),
                Phase::Waiting => continue,
            };
            if since.elapsed() >= limit {
                client.tell_to_close(reason);
            }
        }
    }

    /// Something happened for this connection: if it is alone, the next thing will soon follow.
    fn stir(&self, connection: u64) {
        self.shared.activity.touch((self.number + 1) << 40 | connection);
        if self.shared.activity.alone() {
            self.awake_until.set(Instant::now() + SPIN);
            self.wake.notify_one();
        }
    }

    /// Keeps the runtime from going to sleep while a lone connection is at work.
    async fn stay_awake(self: Rc<Self>) {
        loop {
            self.wake.notified().await;
            while Instant::now() < self.awake_until.get() && self.shared.activity.alone() {
                yield_now().await;
                thread::yield_now();
            }
        }
    }
}
