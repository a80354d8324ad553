//! Calls to the HSM: one frame out, one frame back, within a deadline, and the rule for sending again.
//!
//! **The rule.** Every request keeps its id. A `Safe` call changes nothing; of a `Once` call the vault remembers
//! the answer and does not act twice. So after a link failure the same bytes are sent again, over a new
//! connection, until an answer comes or the deadline passes: a restarted server is invisible to the application.
//!
//! **Deadlines.** The link must come up, or come back, within `deadline_ms`; the answer must come within it too,
//! or within `generation_deadline_ms` for calls that make keys or check PINs ([`Pace::Patient`]). While such a call waits,
//! its connection may die without a word, so after a silence it is sent again over a new one: a server that is there
//! says that it is at work on the first copy, or what came of it, and one that is not is found out.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::{Caller, InstanceId},
    secret::Wiped,
    wire::{self, Call, CallId, HEADER, Header, Kind, Pace, Retry},
};

use crate::{config::Deadlines, rv::Error};

/// Until when an exchange may go on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection must stand by then.
    pub link: Instant,
    /// The answer must have come by then.
    pub answer: Instant,
}

/// What carries a request frame to the server and the answer back. Many threads use it at once.
pub trait Transport: Send + Sync {
    /// Sends a whole frame and appends the whole frame that answers it to `reply`.
    ///
    /// # Errors
    /// [`Link`]: no answer came. The request may or may not have been carried out.
    fn exchange(&self, frame: &[u8], reply: &mut Vec<u8>, limits: Limits) -> Result<(), Link>;

    /// The greatest body of a frame, in bytes.
    fn limit(&self) -> u32;

    /// The same way to the server for a child of `fork`, which must not touch its parent's connections.
    fn after_fork(&self) -> Box<dyn Transport>;
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The server does not take connections.
    Unreachable(String),
    /// A connection that had been idle turned out to be dead.
    Stale(String),
    /// The connection broke during the call.
    Broken(String),
    /// The deadline passed.
    TimedOut,
    /// One side did not accept the other's certificate or protocol.
    Refused(String),
    /// The certificate is an administrator's, who has no token.
    Administrator,
    /// Our own certificate files cannot be used.
    Unusable(String),
    /// What came back is not an answer.
    Malformed(String),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the server cannot be reached: {why}"),
            Self::Stale(why) => write!(f, "an idle connection was dead: {why}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::TimedOut => f.write_str("the server did not answer within the deadline"),
            Self::Refused(why) => write!(f, "the handshake failed: {why}"),
            Self::Administrator => f.write_str(
                "this certificate is an administrator's; use a folder made by `hsmctl client add --partition`",
            ),
            Self::Unusable(why) => write!(f, "the client's certificate cannot be used: {why}"),
            Self::Malformed(why) => write!(f, "the server's answer cannot be understood: {why}"),
        }
    }
}

impl std::error::Error for Link {}

/// Request ids: a random start, then one after the other, so that no two requests of an instance share one, not
/// even those of a parent and its forked child.
#[derive(Debug)]
pub struct RequestIds(Mutex<Issued>);

#[derive(Debug)]
struct Issued {
    next: u64,
    /// Those that have ended and of which the server was not told yet.
    ended: Vec<u64>,
}

/// Of how many ended requests the server is told later, when it cannot be told now.
const MOST_ENDED: usize = 4096;

impl RequestIds {
    /// A new sequence.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn random() -> Result<Self, Error> {
        let next = getrandom::u64().map_err(|_| Error::General)?;
        Ok(Self(Mutex::new(Issued { next, ended: Vec::new() })))
    }

    fn issued(&self) -> MutexGuard<'_, Issued> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, and those that have ended, for the request to carry.
    fn next(&self) -> (u64, Vec<u64>) {
        let mut issued = self.issued();
        let id = issued.next;
        issued.next = id.wrapping_add(1);
        (id, std::mem::take(&mut issued.ended))
    }

    /// A request has ended, one way or another: it will not be sent again.
    fn ended(&self, id: u64) {
        self.issued().ended.push(id);
    }

    /// A request that should have told of these did not arrive.
    fn untold(&self, mut ended: Vec<u64>) {
        let mut issued = self.issued();
        ended.truncate(MOST_ENDED.saturating_sub(issued.ended.len()));
        issued.ended.append(&mut ended);
    }
}

/// How long a caller is ready to wait for a server that refuses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until the deadline: it may be restarting.
    Deadline,
    /// Not at all: the question is whether it is there.
    None,
}

/// One token's HSM.
pub struct Hsm {
    transport: Box<dyn Transport>,
    ids: Arc<RequestIds>,
    deadlines: Deadlines,
    answered: AtomicBool,
}

impl Hsm {
    /// An HSM behind a transport.
    pub fn over(transport: Box<dyn Transport>, ids: Arc<RequestIds>, deadlines: Deadlines) -> Self {
        Self { transport, ids, deadlines, answered: AtomicBool::new(false) }
    }

    /// The same HSM for a child of `fork`.
    pub fn after_fork(&self, ids: Arc<RequestIds>) -> Self {
        Self::over(self.transport.after_fork(), ids, self.deadlines)
    }

    /// How many bytes of input fit into one call, with room for everything that travels with them.
    pub fn input_limit(&self) -> usize {
        const ROOM: usize = 4096;
        (self.transport.limit() as usize).saturating_sub(ROOM).max(ROOM)
    }

    /// Whether the server has answered this process.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Makes a call, patiently.
    ///
    /// # Errors
    /// `Error::Fault` if the server did not do it, `Error::Link` if it did not answer, `Error::DataLenRange` if
    /// the request does not fit into a frame.
    pub fn call<C: Call>(&self, caller: &Caller, call: &C) -> Result<C::Reply, Error> {
        self.call_with(caller, call, Patience::Deadline)
    }

    /// Makes a call.
    ///
    /// # Errors
    /// As [`Hsm::call`].
    pub fn call_with<C: Call>(
        &self,
        caller: &Caller,
        call: &C,
        patience: Patience,
    ) -> Result<C::Reply, Error> {
        let (id, ended) = self.ids.next();
        let caller = Caller { ended, ..caller.clone() };
        // Both may hold a PIN, a key or a plaintext.
        let mut frame = Wiped::from(Vec::with_capacity(512));
        wire::encode_request(&mut frame, id, &caller, call);
        if frame.len().saturating_sub(HEADER) > self.transport.limit() as usize {
            self.ids.untold(caller.ended);
            return Err(Error::DataLenRange);
        }
        let mut reply = Wiped::from(Vec::with_capacity(512));
        let delivered = self.deliver(C::ID, &frame, &mut reply, patience);
        self.ids.ended(id);
        if let Err(error) = delivered {
            self.ids.untold(caller.ended);
            return Err(error);
        }
        self.answered.store(true, Ordering::Relaxed);
        match open(C::ID, id, &reply)? {
            (Kind::Reply, body) => wire::decode_body(body).map_err(malformed),
            (Kind::Fault, body) => Err(Error::Fault(wire::decode_body(body).map_err(malformed)?)),
            (Kind::Request, _) => Err(malformed("a request came instead of an answer")),
        }
    }

    /// Sends a frame until it is answered or its time is over.
    fn deliver(
        &self,
        call: CallId,
        frame: &[u8],
        reply: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<(), Error> {
        let resend = match call.retry() {
            // The id is the same, so neither acts twice.
            Retry::Safe | Retry::Once => patience,
        };
        let now = Instant::now();
        let answer =
            now + if call.pace() == Pace::Patient { self.deadlines.generation } else { self.deadlines.call };
        let mut limits = Limits { link: now + self.deadlines.call, answer };
        let mut pause = Duration::from_millis(5);
        // How long a connection that stands may be silent. It doubles: a server that is there is asked seldom.
        let mut silence = self.deadlines.call;
        let mut was_silent = false;
        loop {
            reply.clear();
            let turn = Limits { answer: (limits.link + silence).min(answer), ..limits };
            let failure = match self.transport.exchange(frame, reply, turn) {
                Ok(()) => match unavailable(reply) {
                    None => return Ok(()),
                    Some(fault) => {
                        if was_silent {
                            limits.link = self.comeback(answer);
                        }
                        Error::Fault(fault)
                    }
                },
                // The connection stood, and nothing came by it.
                Err(Link::TimedOut) if turn.answer < answer && Instant::now() >= turn.answer => {
                    (was_silent, silence) = (true, silence * 2);
                    limits.link = self.comeback(answer);
                    continue;
                }
                // At once, and once per dead connection at most: a transport forgets its other idle ones with it.
                Err(Link::Stale(_)) => {
                    limits.link = self.comeback(answer);
                    continue;
                }
                Err(link @ Link::Broken(_)) => {
                    limits.link = self.comeback(answer);
                    Error::Link(link)
                }
                Err(link @ Link::Unreachable(_)) => Error::Link(link),
                Err(
                    link @ (Link::TimedOut
                    | Link::Refused(_)
                    | Link::Administrator
                    | Link::Unusable(_)
                    | Link::Malformed(_)),
                ) => return Err(Error::Link(link)),
            };
            if resend == Patience::None || Instant::now() + pause >= limits.link.min(answer) {
                return Err(failure);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(80));
        }
    }

    /// Until when a link that was up a moment ago may take to come back.
    fn comeback(&self, answer: Instant) -> Instant {
        (Instant::now() + self.deadlines.call).min(answer)
    }
}

/// The fault of a server that is starting or stopping: it did nothing, and may be asked again.
fn unavailable(reply: &[u8]) -> Option<Fault> {
    let (header, body) = reply.split_first_chunk::<HEADER>()?;
    let header = Header::decode(header, u32::MAX).ok()?;
    if header.kind != Kind::Fault {
        return None;
    }
    wire::decode_body(body).ok().filter(|fault: &Fault| fault.code == FaultCode::Unavailable)
}

/// Checks that a frame answers the request with this id.
fn open(call: CallId, id: u64, reply: &[u8]) -> Result<(Kind, &[u8]), Error> {
    let (header, body) = reply.split_first_chunk::<HEADER>().ok_or_else(|| malformed("a truncated frame"))?;
    let header = Header::decode(header, u32::MAX).map_err(malformed)?;
    if header.id != id || header.call != call as u16 || header.length as usize != body.len() {
        return Err(malformed("an answer to something else"));
    }
    Ok((header.kind, body))
}

pub(crate) fn malformed(why: impl fmt::Display) -> Error {
    Error::Link(Link::Malformed(why.to_string()))
}

/// A new application's memory of a token.
///
/// # Errors
/// The operating system has no random numbers.
pub fn new_instance() -> Result<InstanceId, Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| Error::General)?;
    Ok(InstanceId(id))
}
