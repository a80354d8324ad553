//! The front: accepts connections, terminates mutual TLS, carries frames to the vault and replies back.
//!
//! It owns no key and knows no call by name. Connections are dealt to lanes in turn; a connection stays on its
//! lane's thread for life. While the vault cannot be reached nobody is accepted: clients wait in the kernel's
//! queue and are served as soon as it is back.

mod connection;
mod lane;
mod link;
mod seats;
pub mod tls;
mod trickle;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, error, info, warn};

pub use self::link::Link;
use self::{
    lane::Command,
    seats::{Place, Seats},
    tls::{Admitted, Files, Material, TlsError},
    trickle::Trickle,
};
use crate::{
    config::{Config, Limits},
    lane::{Activity, vital},
};

/// How often the TLS files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long nobody is accepted after the system refused to accept.
const RECOVER: Duration = Duration::from_millis(100);

/// What all lanes share.
pub struct Shared {
    limits: Limits,
    activity: Activity,
    material: RwLock<Arc<Material>>,
    admitted: watch::Sender<Admitted>,
    /// How many lanes can reach the vault.
    linked: watch::Sender<usize>,
    seats: Arc<Seats>,
    /// Refused handshakes that go on record.
    refusals: Trickle,
    /// Connections that found every place taken.
    crowd: Trickle,
}

impl Shared {
    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.material.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn admitted(&self) -> Admitted {
        self.admitted.borrow().clone()
    }

    fn admit(&self, news: Admitted) {
        self.admitted.send_if_modified(|admitted| {
            let newer = news.version > admitted.version;
            if newer {
                *admitted = news;
            }
            newer
        });
    }
}

/// What the accepting thread is told.
enum Order {
    Reload,
    Stop,
}

/// A running front.
pub struct Front {
    shared: Arc<Shared>,
    address: SocketAddr,
    lanes: Vec<mpsc::UnboundedSender<Command>>,
    orders: mpsc::UnboundedSender<Order>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    generation: AtomicU64,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Front {
    /// Binds the port, reads the TLS files and starts the lanes. Nobody is accepted before [`Front::link`].
    ///
    /// # Errors
    /// `FrontError` if the port is taken, a TLS file is no good, or the system gives no more threads.
    pub fn start(config: &Config) -> Result<Self, FrontError> {
        let mut files = Files::new(&config.tls);
        let shared = Arc::new(Shared {
            limits: config.limits.clone(),
            activity: Activity::default(),
            material: RwLock::new(Arc::new(files.load().map_err(FrontError::Tls)?)),
            admitted: watch::Sender::default(),
            linked: watch::Sender::default(),
            seats: Seats::new(config.limits.connections),
            refusals: Trickle::default(),
            crowd: Trickle::default(),
        });
        let listener = std::net::TcpListener::bind(config.listen)
            .map_err(|error| FrontError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(FrontError::System)?;
        listener.set_nonblocking(true).map_err(FrontError::System)?;

        let mut threads = Vec::new();
        let mut lanes = Vec::new();
        for number in 0..config.lane_count() as u64 {
            let (commands, received) = mpsc::unbounded_channel();
            threads.push(lane::start(number, Arc::clone(&shared), received).map_err(FrontError::System)?);
            lanes.push(commands);
        }
        let (orders, received) = mpsc::unbounded_channel();
        let acceptor = Acceptor { shared: Arc::clone(&shared), files, lanes: lanes.clone(), next: 0 };
        let thread = vital("front", move || {
            if let Err(error) = acceptor.run(listener, received) {
                error!(%error, "the front cannot accept connections");
            }
        });
        threads.push(thread.map_err(FrontError::System)?);
        let (threads, generation) = (Mutex::new(threads), AtomicU64::new(0));
        Ok(Self { shared, address, lanes, orders, threads, generation })
    }

    /// Where it listens: the port that the system chose, if the configuration left that open.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many links [`Front::link`] needs.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Gives every lane its way to a new vault. The first time, this opens the front.
    pub fn link(&self, links: Vec<Link>) {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        for (lane, link) in self.lanes.iter().zip(links) {
            if lane.send(Command::Link(link, generation)).is_err() {
                error!("a lane has ended");
            }
        }
    }

    /// Reads the TLS files now rather than when they change.
    pub fn reload(&self) {
        if self.orders.send(Order::Reload).is_err() {
            error!("the front has ended");
        }
    }

    /// Accepts nobody any more, finishes what is in flight, for as long as the configuration allows, and ends.
    pub fn stop(&self) {
        // Whoever does not hear it has ended already.
        if self.orders.send(Order::Stop).is_err() {
            debug!("the front has ended");
        }
        let threads: Vec<_> = self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for lane in &self.lanes {
            if lane.send(Command::Stop).is_err() {
                debug!("a lane has ended");
            }
        }
        for thread in threads {
            if thread.join().is_err() {
                error!("a thread of the front did not end well");
            }
        }
        debug!(connections = self.shared.seats.taken(), "the front has stopped");
    }
}

/// The thread that accepts connections and watches the TLS files.
struct Acceptor {
    shared: Arc<Shared>,
    files: Files,
    lanes: Vec<mpsc::UnboundedSender<Command>>,
    next: usize,
}

impl Acceptor {
    fn run(
        mut self,
        listener: std::net::TcpListener,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { self.accept_all(TcpListener::from_std(listener)?, orders).await })
    }

    async fn accept_all(
        &mut self,
        listener: TcpListener,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> io::Result<()> {
        let mut linked = self.shared.linked.subscribe();
        let mut admitted = self.shared.admitted.subscribe();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let open = *linked.borrow_and_update() == self.lanes.len()
                && admitted.borrow_and_update().version > (0, 0);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Reload) => self.reload(),
                    Some(Order::Stop) | None => return Ok(()),
                },
                accepted = listener.accept(), if open => match accepted.and_then(|(s, a)| Ok((s.into_std()?, a))) {
                    Ok((stream, address)) => self.deal(stream, address),
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        sleep(RECOVER).await;
                    }
                },
                Ok(()) = linked.changed() => {}
                Ok(()) = admitted.changed() => {}
                _ = look.tick() => if self.files.changed() { self.reload() },
            }
        }
    }

    /// Gives a connection to the lane whose turn it is.
    fn deal(&mut self, stream: std::net::TcpStream, address: SocketAddr) {
        let seat = match self.shared.seats.take() {
            Place::Free(seat) => seat,
            Place::Taken(seat) => {
                self.tell_of_crowd(address, "the connection that waited longest in its handshake makes room");
                seat
            }
            Place::None => return self.tell_of_crowd(address, "connection refused"),
        };
        self.next = (self.next + 1) % self.lanes.len().max(1);
        if let Some(lane) = self.lanes.get(self.next)
            && lane.send(Command::Serve(stream, address, seat)).is_err()
        {
            error!("a lane has ended");
        }
    }

    fn tell_of_crowd(&self, address: SocketAddr, what: &str) {
        if let Some(untold) = self.shared.crowd.count(address, Instant::now()) {
            let limit = self.shared.limits.connections;
            warn!(%address, limit, untold, "limits.connections is reached: {what}");
        }
    }

    fn reload(&mut self) {
        match self.files.load() {
            Ok(material) => {
                *self.shared.material.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
                info!("the TLS files were read again");
            }
            Err(error) => error!(%error, "the TLS files changed and cannot be used; the old ones stay"),
        }
    }
}

/// A front that cannot start.
#[derive(Debug)]
pub enum FrontError {
    /// A TLS file is no good.
    Tls(TlsError),
    /// The port cannot be had.
    Listen(SocketAddr, io::Error),
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for FrontError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FrontError {}
