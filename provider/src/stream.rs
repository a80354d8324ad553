//! One TLS connection to a server, blocking, with deadlines, one write and one or two reads per call.
//!
//! It goes around `TcpStream`'s own reads and writes for two reasons: a vectored `writev` to a closed socket
//! raises SIGPIPE, which would kill a host that does not expect it; and a lone caller may spin for the answer.

use std::{
    cell::Cell,
    io::{self, IoSlice, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use strongroom_shared::wire::{ALPN, HEADER, Header};

use crate::{hsm::Link, log};

/// How long a lone caller spins for an answer before it lets the thread sleep: a wake-up costs about as much.
const SPIN: Duration = Duration::from_micros(50);

/// What a thread does while no byte has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Sleep.
    Block,
    /// Ask again for a moment, then sleep.
    SpinFirst,
}

/// A socket with the timeouts that were last set on it.
struct Socket {
    stream: TcpStream,
    timeout: Cell<Duration>,
    wait: Cell<Wait>,
}

impl Socket {
    /// Makes reads and writes end at `deadline`. The system call is left out when the last one still fits.
    fn until(&self, deadline: Instant) -> io::Result<()> {
        const SLACK: Duration = Duration::from_millis(50);
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.timeout.get().abs_diff(left) > SLACK.min(left / 4) {
            self.stream.set_read_timeout(Some(left))?;
            self.stream.set_write_timeout(Some(left))?;
            self.timeout.set(left);
        }
        Ok(())
    }

    fn spin(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let start = Instant::now();
        loop {
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((read, _)) => return Ok(Some(read)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if start.elapsed() > SPIN {
                return Ok(None);
            }
            thread::yield_now();
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.wait.replace(Wait::Block) == Wait::SpinFirst
            && let Some(read) = self.spin(buffer)?
        {
            return Ok(read);
        }
        loop {
            match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => return Ok(read),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let mut control = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&self.stream, parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(written) => return Ok(written),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection whose handshake is done.
pub struct Stream {
    socket: Socket,
    tls: ClientConnection,
}

impl Stream {
    /// Connects to the first address that answers and shakes hands.
    ///
    /// # Errors
    /// `Unreachable`, `Refused` or `TimedOut`.
    pub fn open(
        addresses: impl Iterator<Item = std::net::SocketAddr>,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        deadline: Instant,
    ) -> Result<Self, Link> {
        let stream = connect(addresses, deadline)?;
        let socket = Socket { stream, timeout: Cell::new(Duration::ZERO), wait: Cell::new(Wait::Block) };
        let mut tls =
            ClientConnection::new(config, name).map_err(|error| Link::Unusable(error.to_string()))?;
        tls.set_buffer_limit(None);
        let mut opening = Self { socket, tls };
        opening.flush(deadline)?;
        while opening.tls.is_handshaking() {
            opening.receive(deadline)?;
            opening.flush(deadline)?;
        }
        if opening.tls.alpn_protocol() != Some(ALPN) {
            return Err(Link::Refused("the server speaks another protocol".into()));
        }
        Ok(opening)
    }

    /// Sends a frame and appends the frame that comes back to `reply`.
    ///
    /// # Errors
    /// `Broken`, `Refused` (a TLS alert), `Malformed` or `TimedOut`; the connection is of no more use then.
    pub fn exchange(
        &mut self,
        frame: &[u8],
        reply: &mut Vec<u8>,
        limit: u32,
        deadline: Instant,
        wait: Wait,
    ) -> Result<(), Link> {
        self.tls.writer().write_all(frame).map_err(link)?;
        self.flush(deadline)?;
        self.socket.wait.set(wait);
        loop {
            let plaintext = self.receive(deadline)?;
            if plaintext > 0 {
                let start = reply.len();
                reply.resize(start + plaintext, 0);
                let fresh = reply.get_mut(start..).unwrap_or_default();
                self.tls.reader().read_exact(fresh).map_err(link)?;
            }
            self.flush(deadline)?;
            if is_whole(reply, limit)? {
                return Ok(());
            }
        }
    }

    /// Reads once, and returns how many bytes of plaintext there are now.
    fn receive(&mut self, deadline: Instant) -> Result<usize, Link> {
        self.socket.until(deadline).map_err(link)?;
        if self.tls.read_tls(&mut &self.socket).map_err(link)? == 0 {
            return Err(Link::Broken("the server closed the connection".into()));
        }
        match self.tls.process_new_packets() {
            Ok(state) => Ok(state.plaintext_bytes_to_read()),
            Err(error) => {
                // The alert tells the server why we leave.
                let _unsent = self.tls.write_tls(&mut &self.socket);
                Err(Link::Refused(error.to_string()))
            }
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), Link> {
        while self.tls.wants_write() {
            self.socket.until(deadline).map_err(link)?;
            self.tls.write_tls(&mut &self.socket).map_err(link)?;
        }
        Ok(())
    }
}

/// Whether `reply` holds its frame to the end.
fn is_whole(reply: &[u8], limit: u32) -> Result<bool, Link> {
    let Some((header, body)) = reply.split_first_chunk::<HEADER>() else { return Ok(false) };
    let header = Header::decode(header, limit).map_err(|error| Link::Malformed(error.to_string()))?;
    match body.len().cmp(&(header.length as usize)) {
        std::cmp::Ordering::Less => Ok(false),
        std::cmp::Ordering::Equal => Ok(true),
        std::cmp::Ordering::Greater => Err(Link::Malformed("bytes after the end of the frame".into())),
    }
}

fn connect(
    addresses: impl Iterator<Item = std::net::SocketAddr>,
    deadline: Instant,
) -> Result<TcpStream, Link> {
    let mut failure = "the name has no address".to_owned();
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Link::TimedOut);
        }
        match TcpStream::connect_timeout(&address, left).and_then(prepared) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(Link::Unreachable(failure))
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    // Linux may give a client of this machine the very port that it calls, when nobody listens there: it would
    // talk to itself, and keep the server from coming back (RFC 9293, 3.5, simultaneous open).
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let stream = TcpStream::from(log::above_standard_streams(OwnedFd::from(stream))?);
    stream.set_nodelay(true)?;
    // A server whose machine vanished is noticed during a long call too.
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, Duration::from_secs(5))?;
    rustix::net::sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(1))?;
    rustix::net::sockopt::set_tcp_keepcnt(&stream, 3)?;
    Ok(stream)
}

fn link(error: io::Error) -> Link {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Link::TimedOut,
        _ => Link::Broken(error.to_string()),
    }
}
