//! The outside world, as far as the vault may see it: time, randomness, the store's and the log's files.
//!
//! The vault reads nothing else, so a vault on a [`Fake`] platform is deterministic, and is the same vault.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use rustix::system::sysinfo;
use strongroom_identity::PairError;

use crate::{
    audit::{AuditSink, FileSink, memory::MemorySink},
    config,
    crypto::Random,
    store::{Store, memory::Memory, sqlite::Sqlite},
};

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Time = u64;

/// Where a vault lives.
pub trait Platform: Random + Send + Sync + 'static {
    /// Where sealed rows are kept.
    type Store: Store;
    /// Where audit records are written.
    type Sink: AuditSink;

    /// The time of day, which people set.
    fn now(&self) -> Time;

    /// For how long the machine has run, in microseconds: it never steps.
    fn uptime(&self) -> Time;

    /// Mixes a caller's seed into the source of randomness, which must not become weaker by it.
    fn stir(&self, seed: &[u8]);

    /// The certificate that the front shows, in DER.
    ///
    /// # Errors
    /// `PairError`: it cannot be read.
    fn server_certificate(&self) -> Result<Vec<u8>, PairError>;

    /// Puts another certificate and its key (PEM) in its place; the front takes them up.
    ///
    /// # Errors
    /// `PairError`: they cannot be written.
    fn replace_server(&self, certificate: &str, key: &str) -> Result<(), PairError>;
}

/// The operating system.
#[derive(Debug)]
pub struct Host {
    /// What is written to it is mixed into the kernel's pool and never counted as entropy. Opened before the sandbox.
    urandom: File,
    /// Where the server's certificate and key are.
    tls: config::Tls,
    began: Instant,
    /// For how long the machine had run then, in whole seconds.
    machine_ran: Duration,
}

impl Host {
    /// Takes what the vault will need of the operating system, before the sandbox closes.
    ///
    /// # Errors
    /// `/dev/urandom` cannot be opened.
    pub fn new(tls: &config::Tls) -> io::Result<Self> {
        let urandom = OpenOptions::new().write(true).open("/dev/urandom")?;
        let machine_ran = Duration::from_secs(sysinfo().uptime.try_into().unwrap_or_default());
        Ok(Self { urandom, tls: tls.clone(), began: Instant::now(), machine_ran })
    }
}

impl Platform for Host {
    type Store = Sqlite;
    type Sink = FileSink;

    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn uptime(&self) -> Time {
        let run = self.machine_ran.saturating_add(self.began.elapsed());
        u64::try_from(run.as_micros()).unwrap_or(u64::MAX)
    }

    fn stir(&self, seed: &[u8]) {
        if let Err(error) = (&self.urandom).write_all(seed) {
            tracing::warn!(%error, "a seed could not be mixed in; the generator is as good as before");
        }
    }

    fn server_certificate(&self) -> Result<Vec<u8>, PairError> {
        let chain = strongroom_identity::read_certificates(&self.tls.certificate)?;
        Ok(chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default())
    }

    fn replace_server(&self, certificate: &str, key: &str) -> Result<(), PairError> {
        strongroom_identity::replace(&self.tls.certificate, &self.tls.key, certificate, key)
    }
}

impl Random for Host {
    fn fill(&self, bytes: &mut [u8]) {
        // A machine whose kernel gives no randomness cannot make keys: better to stop than to make weak ones.
        if getrandom::fill(bytes).is_err() {
            tracing::error!("the operating system gives no randomness; stopping");
            std::process::abort();
        }
    }
}

/// A made-up world: a clock that stands still until it is moved, and randomness that repeats. For tests,
/// which so run the vault itself.
#[derive(Debug)]
pub struct Fake {
    now: AtomicU64,
    uptime: AtomicU64,
    drawn: AtomicU64,
    seed: u64,
    /// The server's certificate and key.
    pub tls: config::Tls,
}

impl Fake {
    /// A world at `now`, whose randomness follows from `seed`, and where the server has no certificate.
    pub fn new(now: Time, seed: u64) -> Self {
        let tls = config::Tls { certificate: PathBuf::new(), key: PathBuf::new(), authority: PathBuf::new() };
        Self { now: AtomicU64::new(now), uptime: AtomicU64::new(0), drawn: AtomicU64::new(0), seed, tls }
    }

    /// Lets time pass, in microseconds.
    pub fn pass(&self, time: Time) {
        self.now.fetch_add(time, Ordering::Relaxed);
        self.uptime.fetch_add(time, Ordering::Relaxed);
    }

    /// The machine starts again, with this time of day.
    pub fn boot(&self, now: Time) {
        self.set_clock(now);
        self.uptime.store(0, Ordering::Relaxed);
    }

    /// Sets the clock to another time of day; no time passes.
    pub fn set_clock(&self, now: Time) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl Platform for Fake {
    type Store = Memory;
    type Sink = MemorySink;

    fn now(&self) -> Time {
        self.now.load(Ordering::Relaxed)
    }

    fn uptime(&self) -> Time {
        self.uptime.load(Ordering::Relaxed)
    }

    fn stir(&self, _: &[u8]) {}

    fn server_certificate(&self) -> Result<Vec<u8>, PairError> {
        let chain = strongroom_identity::read_certificates(&self.tls.certificate)?;
        Ok(chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default())
    }

    fn replace_server(&self, certificate: &str, key: &str) -> Result<(), PairError> {
        strongroom_identity::replace(&self.tls.certificate, &self.tls.key, certificate, key)
    }
}

impl Random for Fake {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(digest::SHA256_OUTPUT_LEN) {
            let draw = self.drawn.fetch_add(1, Ordering::Relaxed);
            let block =
                digest::digest(&digest::SHA256, &[self.seed.to_be_bytes(), draw.to_be_bytes()].concat());
            chunk.iter_mut().zip(block.as_ref()).for_each(|(to, from)| *to = *from);
        }
    }
}
