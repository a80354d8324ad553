//! When a client's certificate is renewed, and what is said for it. `tls.rs` does it, over a connection that it has.
//!
//! The server says at each new connection in how many seconds it is time. No thread waits for that: whichever
//! thread's call was answered after it asks for another certificate, once; the others sign on. Several processes
//! that share the files take turns by a lock, and see by the files' stamps what another has done.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use strongroom_identity::{PairError, Request, RequestError};
use strongroom_shared::{
    fault::Fault,
    message::{Caller, Certificate, RenewCertificate},
    wire::{self, Call, HEADER, Header, Kind},
};

use crate::{
    config::Token,
    hsm::Link,
    log::{self, Level},
};

/// How long a renewal may keep the thread that does it.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long to wait after a renewal that failed.
const AGAIN: Duration = Duration::from_secs(3600);
/// Never, in the atomics below.
const NEVER: u64 = u64::MAX;

/// What it is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To look whether the files have changed.
    Look,
    /// To renew them.
    Renew,
}

/// When it is time. Seconds count from the start of this clock.
#[derive(Debug)]
pub struct Renewal {
    start: Instant,
    next_look: AtomicU64,
    due: AtomicU64,
    warned: AtomicBool,
}

impl Default for Renewal {
    fn default() -> Self {
        let (next_look, due) = (AtomicU64::new(LOOK.as_secs()), AtomicU64::new(NEVER));
        Self { start: Instant::now(), next_look, due, warned: AtomicBool::new(false) }
    }
}

impl Renewal {
    /// The server said in how many seconds to renew. After a failure its word counts when the wait is over.
    pub fn told(&self, renew_in: Option<u64>) {
        let due = renew_in.map_or(NEVER, |seconds| self.seconds().saturating_add(seconds));
        if due > self.seconds() {
            self.warned.store(false, Ordering::Relaxed);
        }
        if !self.warned.load(Ordering::Relaxed) {
            self.due.store(due, Ordering::Relaxed);
        }
    }

    /// What it is time for, told to one thread only.
    pub fn turn(&self) -> Option<Turn> {
        let now = self.seconds();
        if take(&self.due, now, now + AGAIN.as_secs()) {
            return Some(Turn::Renew);
        }
        take(&self.next_look, now, now + LOOK.as_secs()).then_some(Turn::Look)
    }

    /// Says once what to do, and later only that it failed again.
    pub fn failed(&self, token: &Token, failure: &Failure) {
        let level = if self.warned.swap(true, Ordering::Relaxed) { Level::Info } else { Level::Warn };
        let certificate = token.certificate.display();
        log::write(
            level,
            format_args!(
                "{certificate} has less than a third of its life left and was not renewed: {failure}"
            ),
        );
    }

    fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

/// Whether it is time, and then `later` is the next one.
fn take(time: &AtomicU64, now: u64, later: u64) -> bool {
    let due = time.load(Ordering::Relaxed);
    due <= now && time.compare_exchange(due, later, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// The request for another certificate: its number, the new key, and the frame.
///
/// # Errors
/// No randomness.
pub fn request() -> Result<(u64, Request, Vec<u8>), Failure> {
    let id = getrandom::u64().map_err(|error| Failure::Other(error.to_string()))?;
    let made = strongroom_identity::request("client")?;
    let mut frame = Vec::new();
    let call = RenewCertificate { request: made.request.clone() };
    wire::encode_request(&mut frame, id, &Caller::default(), &call);
    Ok((id, made, frame))
}

/// What the server answered to the request with this number.
///
/// # Errors
/// It refused, or that is no answer.
pub fn answer(id: u64, reply: &[u8]) -> Result<Certificate, Failure> {
    let malformed = || Failure::Link(Link::Malformed("no certificate came".into()));
    let (header, body) = reply.split_first_chunk::<HEADER>().ok_or_else(malformed)?;
    let header = Header::decode(header, u32::MAX).map_err(|_| malformed())?;
    if header.id != id || header.call != RenewCertificate::ID as u16 {
        return Err(malformed());
    }
    match header.kind {
        Kind::Reply => wire::decode_body(body).map_err(|_| malformed()),
        Kind::Fault => Err(Failure::Refused(wire::decode_body(body).map_err(|_| malformed())?)),
        Kind::Request => Err(malformed()),
    }
}

/// Why a certificate was not renewed.
#[derive(Debug)]
pub enum Failure {
    /// The files cannot be replaced.
    Files(PairError),
    /// The server did not answer.
    Link(Link),
    /// The server did not do it.
    Refused(Fault),
    /// No key could be made.
    Other(String),
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Self {
        Self::Other(format!("{error}; it is tried again in an hour"))
    }
}

impl From<Link> for Failure {
    fn from(link: Link) -> Self {
        Self::Link(link)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Other(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(error) => write!(
                f,
                "{error}; let this program's user write that folder and own its files, or put new files there \
                 before the certificate ends (`hsmctl client add`)"
            ),
            Self::Link(link) => write!(f, "{link}; it is tried again in an hour"),
            Self::Refused(fault) => write!(f, "the HSM answered {fault}; it is tried again in an hour"),
            Self::Other(why) => f.write_str(why),
        }
    }
}
