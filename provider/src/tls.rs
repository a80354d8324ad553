//! The transport of the product: a pool of mutual TLS 1.3 connections to one server.
//!
//! A call checks a connection out, exchanges one frame, and returns it; a thread never waits for another's
//! answer. Certificates are read again when their files have changed, and renewed in time (`renewal.rs`).

use std::{
    fs,
    net::ToSocketAddrs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::ServerName,
    sign::{CertifiedKey, SingleCertAndKey},
};
use strongroom_identity::{PairError, Renewed, ReplaceLock};
use strongroom_shared::{
    message::{Caller, Hello, Welcome},
    wire::{self, ALPN, Call, DEFAULT_LIMIT, HEADER, Kind, MINOR},
};

use crate::{
    config::Token,
    hsm::{Limits, Link, Transport},
    log::{self, Level},
    renewal::{self, Renewal, Turn},
    stream::{Stream, Wait},
};

/// The most connections that stay open while nobody uses them.
const MOST_IDLE: usize = 128;
/// For how long, in microseconds, another connection's use counts as company.
const COMPANY: u64 = 300;

/// Who is on the way in this process: decides whether a thread may spin for its answer.
#[derive(Debug)]
pub struct Traffic {
    start: Instant,
    connections: AtomicU64,
    in_flight: AtomicU32,
    last: AtomicU64,
    crowded_until: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            connections: AtomicU64::new(1),
            in_flight: AtomicU32::new(0),
            last: AtomicU64::new(0),
            crowded_until: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    /// A call sets out on a connection.
    fn depart(&self, connection: u64) -> Flight<'_> {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let last = self.last.swap(connection, Ordering::Relaxed);
        let now = self.micros();
        if others > 0 || (last != connection && last != 0) {
            self.crowded_until.store(now + COMPANY, Ordering::Relaxed);
        }
        let alone = now >= self.crowded_until.load(Ordering::Relaxed);
        Flight { traffic: self, wait: if alone { Wait::SpinFirst } else { Wait::Block } }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A call on its way, until dropped.
struct Flight<'t> {
    traffic: &'t Traffic,
    wait: Wait,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.traffic.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open connection and its number.
struct Connection {
    number: u64,
    stream: Stream,
}

/// What a handshake needs, and the files it came from.
struct Credentials {
    config: Arc<ClientConfig>,
    stamps: Vec<Stamp>,
}

/// Tells whether a file is still the one that was read.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

/// A pool of connections to one server.
pub struct Tls {
    token: Arc<Token>,
    traffic: Arc<Traffic>,
    limit: AtomicU32,
    /// Whether the log knows that the certificate is an administrator's.
    told_administrator: AtomicBool,
    credentials: ArcSwapOption<Credentials>,
    renewal: Renewal,
    idle: Mutex<Vec<Connection>>,
}

impl Tls {
    /// A pool without a connection: the first call opens one.
    pub fn new(token: Arc<Token>, traffic: Arc<Traffic>) -> Self {
        Self {
            token,
            traffic,
            limit: AtomicU32::new(DEFAULT_LIMIT),
            told_administrator: AtomicBool::new(false),
            credentials: ArcSwapOption::empty(),
            renewal: Renewal::default(),
            idle: Mutex::default(),
        }
    }

    fn check_out(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn check_in(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }

    /// One connection was dead, so the others that stood idle beside it probably are too.
    fn forget_idle(&self) {
        let dead = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(dead);
    }

    /// Opens a connection and says hello. A refusal names what an operator should look at.
    fn connect(&self, limits: Limits) -> Result<Connection, Link> {
        self.shake_hands(limits).map_err(|link| match link {
            Link::Refused(why) => Link::Refused(format!(
                "{why} (server {}, certificate {}): was it made by this server's `hsmctl client add`? was it \
                 revoked, or has it expired?",
                self.token.server,
                self.token.certificate.display()
            )),
            other => other,
        })
    }

    fn shake_hands(&self, limits: Limits) -> Result<Connection, Link> {
        self.shake_hands_as(self.config()?, limits)
    }

    fn shake_hands_as(&self, config: Arc<ClientConfig>, limits: Limits) -> Result<Connection, Link> {
        let deadline = limits.link.min(limits.answer);
        let name = ServerName::try_from(self.token.server_name.clone())
            .map_err(|error| Link::Unusable(format!("server_name: {error}")))?;
        let addresses = self
            .token
            .server
            .to_socket_addrs()
            .map_err(|error| Link::Unreachable(format!("{}: {error}", self.token.server)))?;
        let mut stream = Stream::open(addresses, config, name, deadline)?;
        let hello =
            Hello { minor: MINOR, client: concat!("strongroom-pkcs11 ", env!("CARGO_PKG_VERSION")).into() };
        let mut frame = Vec::new();
        wire::encode_request(&mut frame, 0, &Caller::default(), &hello);
        let mut reply = Vec::new();
        stream.exchange(&frame, &mut reply, DEFAULT_LIMIT, deadline, Wait::Block)?;
        let welcome = welcome(&reply)?;
        if welcome.partition.is_none() {
            if !self.told_administrator.swap(true, Ordering::Relaxed) {
                log::write(Level::Warn, format_args!("{}: {}", self.token.server, Link::Administrator));
            }
            return Err(Link::Administrator);
        }
        self.limit.store(welcome.limit.max(DEFAULT_LIMIT / 16), Ordering::Relaxed);
        self.renewal.told(welcome.renew_in);
        Ok(Connection { number: self.traffic.connections.fetch_add(1, Ordering::Relaxed), stream })
    }

    /// The TLS configuration, from the files as they are now. If new files cannot be read, perhaps because
    /// they are half written, the old ones serve on until the files change again.
    fn config(&self) -> Result<Arc<ClientConfig>, Link> {
        let current = self.credentials.load();
        if let Some(current) = current.as_ref()
            && current.are_those_of_the_files()
        {
            return Ok(current.config.clone());
        }
        match (Credentials::read(&self.token), current.as_ref()) {
            (Ok(fresh), _) => {
                let config = fresh.config.clone();
                self.credentials.store(Some(fresh.into()));
                Ok(config)
            }
            (Err(link), Some(current)) => {
                log::write(Level::Warn, format_args!("keeping the certificate that was in use: {link}"));
                let config = current.config.clone();
                let kept = Credentials { config: config.clone(), stamps: stamps_of(&self.token) };
                self.credentials.store(Some(kept.into()));
                Ok(config)
            }
            (Err(link), None) => Err(link),
        }
    }
}

/// The certificate's upkeep, by whichever thread comes by when it is time, after its own call was answered.
impl Tls {
    fn renew_in_time(&self) {
        let Some(turn) = self.renewal.turn() else { return };
        // Another process that shares the files may have renewed it.
        if self.credentials.load().as_ref().is_some_and(|known| !known.are_those_of_the_files()) {
            return self.forget_idle();
        }
        if turn == Turn::Renew {
            match self.renew() {
                Ok(true) => self.forget_idle(),
                Ok(false) => {}
                Err(error) => self.renewal.failed(&self.token, &error),
            }
        }
    }

    /// Has another certificate made, for a new key, and puts both in the place of the present ones. Says whether
    /// it did: another process may be at it.
    fn renew(&self) -> Result<bool, renewal::Failure> {
        let (certificate, key) = (self.token.certificate.clone(), self.token.key.clone());
        let Some(lock) = ReplaceLock::take(certificate, key).map_err(renewal::Failure::Files)? else {
            return Ok(false);
        };
        if self.credentials.load().as_ref().is_some_and(|known| !known.are_those_of_the_files()) {
            return Ok(true);
        }
        let (id, made, frame) = renewal::request()?;
        let deadline = Instant::now() + renewal::PATIENCE;
        let limits = Limits { link: deadline, answer: deadline };
        let mut connection = self.check_out().map_or_else(|| self.connect(limits), Ok)?;
        let mut reply = Vec::new();
        connection.stream.exchange(&frame, &mut reply, self.limit(), deadline, Wait::Block)?;
        let renewed = renewal::answer(id, &reply)?;
        let renewed =
            Renewed { certificate: &renewed.certificate, authority: &renewed.authority, key: &made.key_pem };
        lock.replace(renewed, |pair| -> Result<(), renewal::Failure> {
            Ok(self.shake_hands_as(configure(&self.token, pair)?, limits).map(drop)?)
        })?;
        log::write(Level::Info, format_args!("renewed {}", self.token.certificate.display()));
        Ok(true)
    }
}

impl Transport for Tls {
    fn exchange(&self, frame: &[u8], reply: &mut Vec<u8>, limits: Limits) -> Result<(), Link> {
        let (mut connection, pooled) = match self.check_out() {
            Some(connection) => (connection, true),
            None => (self.connect(limits)?, false),
        };
        let flight = self.traffic.depart(connection.number);
        let limit = self.limit.load(Ordering::Relaxed);
        let result = connection.stream.exchange(frame, reply, limit, limits.answer, flight.wait);
        match result {
            Ok(()) => {
                self.check_in(connection);
                drop(flight);
                self.renew_in_time();
                Ok(())
            }
            Err(Link::Broken(why)) if pooled => {
                self.forget_idle();
                Err(Link::Stale(why))
            }
            Err(Link::TimedOut) => {
                self.forget_idle();
                Err(Link::TimedOut)
            }
            Err(link) => Err(link),
        }
    }

    fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    fn after_fork(&self) -> Box<dyn Transport> {
        // Closes our copies of the parent's descriptors without a word on them. If another of the parent's
        // threads held the lock at the fork, or had a connection in use, these few stay open unused.
        if let Ok(mut idle) = self.idle.try_lock() {
            drop(std::mem::take(&mut *idle));
        }
        let child = Self::new(self.token.clone(), Arc::default());
        child.limit.store(self.limit(), Ordering::Relaxed);
        child.credentials.store(self.credentials.load_full());
        Box::new(child)
    }
}

fn welcome(reply: &[u8]) -> Result<Welcome, Link> {
    let malformed = |why: &str| Link::Malformed(why.to_owned());
    let (header, body) = reply.split_first_chunk::<HEADER>().ok_or_else(|| malformed("a truncated frame"))?;
    let header =
        wire::Header::decode(header, DEFAULT_LIMIT).map_err(|error| Link::Malformed(error.to_string()))?;
    match header.kind {
        Kind::Reply if header.call == Hello::ID as u16 => {
            wire::decode_body(body).map_err(|error| Link::Malformed(error.to_string()))
        }
        Kind::Fault => match wire::decode_body::<strongroom_shared::fault::Fault>(body) {
            // Starting or stopping: as good as not there yet.
            Ok(fault) if fault.code == strongroom_shared::fault::FaultCode::Unavailable => {
                Err(Link::Unreachable(fault.to_string()))
            }
            Ok(fault) => Err(Link::Refused(fault.to_string())),
            Err(error) => Err(Link::Malformed(error.to_string())),
        },
        Kind::Reply | Kind::Request => Err(malformed("no welcome came")),
    }
}

impl Credentials {
    fn read(token: &Token) -> Result<Self, Link> {
        let stamps = stamps_of(token);
        let provider = aws_lc_rs::default_provider();
        let pair = strongroom_identity::load(&token.certificate, &token.key, &provider).map_err(unusable)?;
        Ok(Self { config: configure(token, pair)?, stamps })
    }

    fn are_those_of_the_files(&self) -> bool {
        self.stamps.iter().all(|(path, stamp)| stamp_of(path) == *stamp)
    }
}

fn unusable(error: PairError) -> Link {
    Link::Unusable(error.to_string())
}

/// What a handshake needs, to show this certificate.
fn configure(token: &Token, pair: CertifiedKey) -> Result<Arc<ClientConfig>, Link> {
    let mut roots = RootCertStore::empty();
    for certificate in strongroom_identity::read_certificates(&token.ca).map_err(unusable)? {
        roots.add(certificate).map_err(|error| Link::Unusable(format!("{}: {error}", token.ca.display())))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Link::Unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every handshake shows the certificate, and no cache with a lock is shared with a forked child.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn stamps_of(token: &Token) -> Vec<Stamp> {
    [&token.ca, &token.certificate, &token.key].map(|path| (path.clone(), stamp_of(path))).into()
}

fn stamp_of(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
