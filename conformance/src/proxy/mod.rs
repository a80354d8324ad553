//! A TCP proxy between a module and its server, on the loopback, that does to the bytes what bad networks do.
//!
//! The module's configuration points to it. It lives in the suite's first process, which never loads the module, so it
//! outlives the children that make checks; these order faults through [`desk`]. Two threads carry the bytes of a
//! connection; they end with it.

pub mod desk;
pub mod fault;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::connect_unspec;

use crate::proxy::fault::{Cut, Fault, Tally, Way};

/// How long the proxy waits for the server to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of one way that a recording holds.
const RECORDED: usize = 1 << 20;

/// How often it looks whether a fault has lasted long enough.
const TICK: Duration = Duration::from_millis(50);

/// See the module's header.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    upstream: SocketAddr,
    listen: SocketAddr,
}

struct State {
    fault: Fault,
    until: Option<Instant>,
    tally: Tally,
    links: Vec<Arc<Link>>,
    recording: Option<Recording>,
}

/// What passed on connections that began after the recording did.
#[derive(Default)]
struct Recording {
    request: Vec<u8>,
    reply: Vec<u8>,
}

/// One connection of the module.
struct Link {
    number: u64,
    module: TcpStream,
    server: Option<TcpStream>,
    mood: Mutex<Mood>,
}

/// What a fault made of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It carries bytes.
    Open,
    /// It swallows them.
    Silent,
}

/// What is to be done with bytes that were read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write(Vec<u8>),
    Pause(Duration),
    Answer(Vec<u8>),
    End(Cut),
}

impl Proxy {
    /// Listens.
    ///
    /// # Errors
    /// When nothing can listen there.
    pub fn start(listen: SocketAddr, upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let listen = listener.local_addr()?;
        let state = State {
            fault: Fault::Nothing,
            until: None,
            tally: Tally::default(),
            links: Vec::new(),
            recording: None,
        };
        let proxy = Self { state: Arc::new(Mutex::new(state)), upstream, listen };
        let (acceptor, clock) = (proxy.clone(), proxy.clone());
        thread::spawn(move || {
            for module in listener.incoming().flatten() {
                let proxy = acceptor.clone();
                thread::spawn(move || proxy.carry(module));
            }
        });
        thread::spawn(move || {
            loop {
                thread::sleep(TICK);
                clock.end_what_lasted();
            }
        });
        Ok(proxy)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.listen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the network does this, for so long at most; after that it is as good as new, and connections that
    /// knew the fault have ended.
    pub fn set(&self, fault: Fault, most: Duration) {
        let mut state = self.state();
        let is_bad = fault != Fault::Nothing;
        state.until = is_bad.then(|| Instant::now() + most);
        let connections = state.tally.connections;
        state.tally = Tally { connections, ..Tally::default() };
        let ends_all = fault == Fault::Refuse;
        state.end_links(|link| ends_all || link.mood() == Mood::Silent || link.server.is_none());
        state.fault = fault;
    }

    fn end_what_lasted(&self) {
        // In one go: a connection that is made meanwhile finds a good network.
        let mut state = self.state();
        if state.until.is_some_and(|until| until <= Instant::now()) {
            state.end_links(|_| true);
            state.fault = Fault::Nothing;
            state.until = None;
        }
    }

    /// What passed since the fault was set.
    pub fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Ends all connections and records what passes on the next ones.
    pub fn record(&self) {
        let mut state = self.state();
        state.end_links(|_| true);
        state.recording = Some(Recording::default());
    }

    /// Whether these bytes passed, either way, since the recording began.
    pub fn has_passed(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        let Some(recording) = &state.recording else { return false };
        let holds =
            |passed: &[u8]| !bytes.is_empty() && passed.windows(bytes.len()).any(|part| part == bytes);
        holds(&recording.request) || holds(&recording.reply)
    }

    /// Says to the server once more what the module said since the recording began, on a connection of its own.
    ///
    /// # Errors
    /// When the server does not accept a connection.
    pub fn replay(&self) -> io::Result<usize> {
        let said = self.state().recording.take().unwrap_or_default().request;
        let mut server = TcpStream::connect_timeout(&self.upstream, CONNECT)?;
        server.set_read_timeout(Some(Duration::from_millis(500)))?;
        server.set_write_timeout(Some(CONNECT))?;
        let _refused = server.write_all(&said);
        let mut answer = [0; 4096];
        while let Ok(1..) = server.read(&mut answer) {}
        Ok(said.len())
    }

    /// Carries a connection of the module until one of the two ends it.
    fn carry(&self, module: TcpStream) {
        let (number, needs_server) = {
            let mut state = self.state();
            state.tally.connections += 1;
            match state.fault {
                Fault::Refuse => return,
                Fault::Silence | Fault::Impostor(_) => (state.tally.connections, None),
                Fault::Nothing | Fault::Slow { .. } | Fault::Cut { .. } | Fault::Hold { .. } => {
                    (state.tally.connections, Some(self.upstream))
                }
                Fault::Flip { .. } | Fault::Twice { .. } => (state.tally.connections, Some(self.upstream)),
            }
        };
        let server = needs_server.map(|upstream| TcpStream::connect_timeout(&upstream, CONNECT));
        let Ok(server) = server.transpose() else { return };
        for stream in [Some(&module), server.as_ref()].into_iter().flatten() {
            let _slower = stream.set_nodelay(true);
        }
        let link = Arc::new(Link { number, module, server, mood: Mutex::new(Mood::Open) });
        self.state().links.push(Arc::clone(&link));
        let (proxy, other) = (self.clone(), Arc::clone(&link));
        let replies = thread::spawn(move || proxy.pump(&other, Way::Reply));
        self.pump(&link, Way::Request);
        let _ended = replies.join();
        self.state().links.retain(|known| known.number != number);
    }

    /// Carries the bytes of one way.
    fn pump(&self, link: &Link, way: Way) {
        let (from, to) = match way {
            Way::Request => (Some(&link.module), link.server.as_ref()),
            Way::Reply => (link.server.as_ref(), Some(&link.module)),
        };
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default();
            let steps = self.state().steps(link, way, bytes);
            if steps.into_iter().any(|step| link.take(step, to).is_err()) {
                break;
            }
        }
        if link.mood() == Mood::Open {
            link.end(Cut::Close);
        }
    }
}

impl Link {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fall_silent(&self) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = Mood::Silent;
    }

    fn take(&self, step: Step, to: Option<&TcpStream>) -> io::Result<()> {
        match step {
            Step::Write(bytes) => to.map_or(Ok(()), |mut to| to.write_all(&bytes)),
            Step::Answer(bytes) => (&self.module).write_all(&bytes),
            Step::Pause(pause) => {
                thread::sleep(pause);
                Ok(())
            }
            Step::End(how) => {
                self.end(how);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    /// Ends both halves.
    fn end(&self, how: Cut) {
        for stream in [Some(&self.module), self.server.as_ref()].into_iter().flatten() {
            // Dissolving the association of an open socket sends a RST; one that is closed has none.
            let _is_closed = match how {
                Cut::Reset => connect_unspec(stream).map_err(io::Error::from),
                Cut::Close => stream.shutdown(Shutdown::Both),
            };
        }
    }
}

impl State {
    fn end_links(&mut self, which: impl Fn(&Link) -> bool) {
        let (ended, kept) = self.links.drain(..).partition(|link| which(link));
        self.links = kept;
        let ended: Vec<Arc<Link>> = ended;
        for link in ended {
            link.end(Cut::Close);
        }
    }

    /// What becomes of bytes.
    fn steps(&mut self, link: &Link, way: Way, bytes: &[u8]) -> Vec<Step> {
        let offset = self.tally.bytes(way);
        self.tally.count(way, bytes.len() as u64);
        if let Some(recording) = &mut self.recording {
            let recorded = match way {
                Way::Request => &mut recording.request,
                Way::Reply => &mut recording.reply,
            };
            recorded.extend(bytes.iter().take(RECORDED.saturating_sub(recorded.len())));
        }
        if link.mood() == Mood::Silent {
            return Vec::new();
        }
        // Where the fault's byte is among these, if it is.
        let place = |wanted: Way, at: u64| {
            let place = usize::try_from(at.checked_sub(offset)?).ok()?;
            (wanted == way && place < bytes.len()).then_some(place)
        };
        let (before, after) = match self.fault {
            Fault::Cut { way, at, .. }
            | Fault::Hold { way, at }
            | Fault::Flip { way, at }
            | Fault::Twice { way, at } => match place(way, at).filter(|_| !self.tally.struck) {
                None => return vec![Step::Write(bytes.to_vec())],
                Some(place) => {
                    self.tally.struck = true;
                    bytes.split_at_checked(place).unwrap_or((bytes, &[]))
                }
            },
            Fault::Nothing => return vec![Step::Write(bytes.to_vec())],
            Fault::Slow { .. } | Fault::Refuse | Fault::Silence | Fault::Impostor(_) => (bytes, &[][..]),
        };
        match &self.fault {
            Fault::Nothing => Vec::new(),
            Fault::Cut { how, .. } => vec![Step::Write(before.to_vec()), Step::End(*how)],
            Fault::Hold { .. } => {
                link.fall_silent();
                vec![Step::Write(before.to_vec())]
            }
            Fault::Flip { .. } => {
                let wrong = after.iter().enumerate().map(|(place, byte)| byte ^ u8::from(place == 0));
                vec![Step::Write(before.iter().copied().chain(wrong).collect())]
            }
            Fault::Twice { .. } => vec![Step::Write(bytes.to_vec()), Step::Write(bytes.to_vec())],
            Fault::Slow { piece, pause } => {
                let pieces = bytes.chunks(*piece.max(&1));
                pieces.flat_map(|piece| [Step::Pause(*pause), Step::Write(piece.to_vec())]).collect()
            }
            Fault::Refuse => vec![Step::End(Cut::Reset)],
            Fault::Silence => {
                link.fall_silent();
                Vec::new()
            }
            Fault::Impostor(answer) => {
                link.fall_silent();
                vec![Step::Answer(answer.clone())]
            }
        }
    }
}

#[cfg(test)]
mod tests;
