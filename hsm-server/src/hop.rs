//! The hop between a lane's front end and its vault end: many connections' frames on one stream.
//!
//! ```text
//! | length u32 | kind u8 | connection u64 | payload: `length` bytes |      big-endian
//! ```
//! The front numbers the connections of a lane. Neither end trusts the other to be well: whatever cannot be
//! read ends the lane, never the process at the other end.

use std::{fmt, net::SocketAddr, ops::Range};

use crate::door::Admission;

/// The length of a message's header, in bytes.
pub const HEADER: usize = 13;
/// What a message may hold beyond a frame's body: a frame header, a certificate, an address.
pub const OVERHEAD: usize = 64 << 10;
/// The longest message to the front, in bytes: a list of a million certificates.
pub const TO_FRONT_LIMIT: usize = 64 << 20;
/// How many bytes one read asks for.
const READ: usize = 64 << 10;
/// The size of an inbox that holds no long message.
const BASE: usize = 2 * READ;

/// From the front to the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToVault<'a> {
    /// The handshake of a new connection let this certificate (DER) in.
    Open {
        /// Where the client is.
        address: SocketAddr,
        /// Its certificate.
        certificate: &'a [u8],
    },
    /// A request frame.
    Frame(&'a [u8]),
    /// The connection is gone.
    Close,
    /// A handshake was refused.
    Refused {
        /// Where the client is.
        address: SocketAddr,
        /// Its certificate, if it showed one.
        certificate: Option<&'a [u8]>,
        /// Why.
        reason: &'a str,
    },
}

/// From the vault to the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToFront<'a> {
    /// A reply frame.
    Frame(&'a [u8]),
    /// The connection is to be closed.
    Close(&'a str),
    /// The certificates that may shake hands, from now on. Other lanes bring the same lists: the greatest
    /// `version` counts.
    Admissions {
        /// Grows with every change.
        version: u64,
        /// All of them.
        list: Vec<Admission>,
    },
}

/// One direction's messages.
pub trait Message<'a>: Sized {
    /// Its number on the hop.
    fn kind(&self) -> u8;

    /// Appends what stands after the header.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`Message::encode`] wrote.
    ///
    /// # Errors
    /// `HopError` if it is nothing of the kind.
    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, HopError>;
}

/// Appends a message about `connection` to `out`.
pub fn write<'a>(out: &mut Vec<u8>, connection: u64, message: &impl Message<'a>) {
    write_with(out, connection, message.kind(), |out| message.encode(out));
}

/// Appends a reply frame for `connection` that `fill` writes in place, and tells what `fill` told.
pub fn write_reply<T>(out: &mut Vec<u8>, connection: u64, fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    write_with(out, connection, FRAME, fill)
}

fn write_with<T>(out: &mut Vec<u8>, connection: u64, kind: u8, fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(&connection.to_be_bytes());
    let told = fill(out);
    let length = u32::try_from(out.len() - start - HEADER).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    told
}

const OPEN: u8 = 1;
const FRAME: u8 = 2;
const CLOSE: u8 = 3;
const REFUSED: u8 = 4;
const ADMISSIONS: u8 = 5;

impl<'a> Message<'a> for ToVault<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Open { .. } => OPEN,
            Self::Frame(_) => FRAME,
            Self::Close => CLOSE,
            Self::Refused { .. } => REFUSED,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open { address, certificate } => {
                write_address(out, *address);
                out.extend_from_slice(certificate);
            }
            Self::Frame(frame) => out.extend_from_slice(frame),
            Self::Close => {}
            Self::Refused { address, certificate, reason } => {
                write_address(out, *address);
                let certificate = certificate.unwrap_or_default();
                out.extend_from_slice(&u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(certificate);
                out.extend_from_slice(reason.as_bytes());
            }
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, HopError> {
        match kind {
            OPEN => {
                let (address, certificate) = read_address(payload)?;
                Ok(Self::Open { address, certificate })
            }
            FRAME => Ok(Self::Frame(payload)),
            CLOSE if payload.is_empty() => Ok(Self::Close),
            REFUSED => {
                let (address, rest) = read_address(payload)?;
                let (length, rest) = rest.split_first_chunk().ok_or(HopError::Malformed)?;
                let length = u32::from_be_bytes(*length) as usize;
                let (certificate, reason) = rest.split_at_checked(length).ok_or(HopError::Malformed)?;
                let certificate = (!certificate.is_empty()).then_some(certificate);
                Ok(Self::Refused { address, certificate, reason: text(reason)? })
            }
            _ => Err(HopError::Malformed),
        }
    }
}

impl<'a> Message<'a> for ToFront<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Frame(_) => FRAME,
            Self::Close(_) => CLOSE,
            Self::Admissions { .. } => ADMISSIONS,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Frame(frame) => out.extend_from_slice(frame),
            Self::Close(reason) => out.extend_from_slice(reason.as_bytes()),
            Self::Admissions { version, list } => {
                out.extend_from_slice(&version.to_be_bytes());
                for admission in list {
                    out.extend_from_slice(&admission.fingerprint);
                    out.push(u8::from(admission.revoked));
                }
            }
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, HopError> {
        match kind {
            FRAME => Ok(Self::Frame(payload)),
            CLOSE => Ok(Self::Close(text(payload)?)),
            ADMISSIONS => {
                let (version, list) = payload.split_first_chunk().ok_or(HopError::Malformed)?;
                let (list, []) = list.as_chunks::<33>() else { return Err(HopError::Malformed) };
                let list = list.iter().map(read_admission).collect::<Result<_, _>>()?;
                Ok(Self::Admissions { version: u64::from_be_bytes(*version), list })
            }
            _ => Err(HopError::Malformed),
        }
    }
}

fn read_admission([fingerprint @ .., revoked]: &[u8; 33]) -> Result<Admission, HopError> {
    match revoked {
        0 | 1 => Ok(Admission { fingerprint: *fingerprint, revoked: *revoked == 1 }),
        _ => Err(HopError::Malformed),
    }
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    let address = address.to_string();
    out.push(u8::try_from(address.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(address.as_bytes());
}

fn read_address(bytes: &[u8]) -> Result<(SocketAddr, &[u8]), HopError> {
    let (length, rest) = bytes.split_first().ok_or(HopError::Malformed)?;
    let (address, rest) = rest.split_at_checked(usize::from(*length)).ok_or(HopError::Malformed)?;
    Ok((text(address)?.parse().map_err(|_| HopError::Malformed)?, rest))
}

fn text(bytes: &[u8]) -> Result<&str, HopError> {
    std::str::from_utf8(bytes).map_err(|_| HopError::Malformed)
}

/// Bytes that arrived on a hop, on their way to being messages. What was read is wiped: PINs pass here.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    waiting: Range<usize>,
    limit: usize,
}

impl Inbox {
    /// An inbox for messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: vec![0; BASE], waiting: 0..0, limit }
    }

    /// Where the next bytes go: never empty, and no message that is waiting may be held any more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.waiting.is_empty() {
            self.wipe();
        } else if self.bytes.len() - self.waiting.end < READ {
            self.compact();
        }
        self.bytes.get_mut(self.waiting.end..).unwrap_or_default()
    }

    /// Takes bytes that arrived in memory.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let count = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled(count);
            bytes = later;
        }
    }

    /// `count` bytes of [`Inbox::room`] were filled.
    pub fn filled(&mut self, count: usize) {
        self.waiting.end = (self.waiting.end + count).min(self.bytes.len());
    }

    /// The next whole message and the number of its connection.
    ///
    /// # Errors
    /// `HopError` if what arrived is not a message: nothing after it can be understood.
    pub fn next<'a, M: Message<'a>>(&'a mut self) -> Result<Option<(u64, M)>, HopError> {
        let waiting = self.bytes.get(self.waiting.clone()).unwrap_or_default();
        let Some((header, rest)) = waiting.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, connection @ ..] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > self.limit {
            return Err(HopError::TooLong { length, limit: self.limit });
        }
        match rest.get(..length) {
            Some(payload) => {
                self.waiting.start += HEADER + length;
                Ok(Some((u64::from_be_bytes(connection), M::decode(kind, payload)?)))
            }
            None => Ok(None),
        }
    }

    /// Whether everything that arrived was read.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn wipe(&mut self) {
        if let Some(read) = self.bytes.get_mut(..self.waiting.end) {
            read.fill(0);
        }
        self.bytes.truncate(BASE);
        self.bytes.shrink_to(BASE);
        self.waiting = 0..0;
    }

    /// Moves what is waiting to the start, into a larger place if need be.
    fn compact(&mut self) {
        let (end, waiting) = (self.waiting.end, self.waiting.len());
        if self.bytes.len() - waiting < READ {
            let mut larger = Vec::with_capacity(self.bytes.len() * 2);
            larger.extend_from_slice(self.bytes.get(self.waiting.clone()).unwrap_or_default());
            larger.resize(self.bytes.len() * 2, 0);
            self.bytes.fill(0);
            self.bytes = larger;
        } else {
            self.bytes.copy_within(self.waiting.clone(), 0);
            if let Some(left) = self.bytes.get_mut(waiting..end) {
                left.fill(0);
            }
        }
        self.waiting = 0..waiting;
    }
}

/// A hop that cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopError {
    /// A message longer than any may be.
    TooLong {
        /// What its header says, in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Something that is not a message.
    Malformed,
    /// A message about a connection that was never opened, or a second request before the first one's reply.
    OutOfTurn,
}

impl fmt::Display for HopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, limit } => {
                write!(f, "hop message of {length} bytes, the limit is {limit}")
            }
            Self::Malformed => f.write_str("malformed hop message"),
            Self::OutOfTurn => f.write_str("hop message out of turn"),
        }
    }
}

impl std::error::Error for HopError {}
