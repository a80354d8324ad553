//! The bytes of the log: frames, the links between them, and the head.
//!
//! ```text
//! frame:  length u32 | record in CBOR: `length` bytes | link: 32 bytes             big-endian
//! head:   written u64 | its link | durable u64 | store version u64 | boot: 16 bytes | MAC: 32 bytes
//! ```
//! A link is HMAC-SHA256 of the link before and the record, so nobody without the key can change, drop,
//! reorder or add a record. The head says how far the log must reach, so nobody can cut its end off.

use aws_lc_rs::hmac;
use strongroom_shared::{message::AuditRecord, secret::Secret};

use super::error::{Error, Tampering};

/// The length of the head, in bytes.
pub const HEAD: usize = 104;
/// The length of a link or MAC, in bytes.
pub(super) const LINK: usize = 32;
/// The length of a frame's length, in bytes.
pub(super) const PREFIX: usize = 4;
/// The greatest length of a record, in bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// What the first record is linked to.
const FIRST: Link = *b"strongroom audit log, version 1.";

/// What ties a record to all before it.
pub(super) type Link = [u8; LINK];

/// The log's two keys.
pub(super) struct Chain {
    link: hmac::Key,
    head: hmac::Key,
}

impl Chain {
    pub(super) fn new(key: &Secret<[u8; 32]>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let subkey = |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, label).as_ref());
        Self { link: subkey(b"link"), head: subkey(b"head") }
    }

    /// The link of a record.
    pub(super) fn link(&self, previous: &Link, record: &[u8]) -> Link {
        let mut context = hmac::Context::with_key(&self.link);
        context.update(previous);
        context.update(record);
        let mut link = [0; LINK];
        link.copy_from_slice(context.sign().as_ref());
        link
    }

    /// Appends a record's frame to `out` and returns its link; leaves `out` as it was if that fails.
    pub(super) fn write_frame(
        &self,
        out: &mut Vec<u8>,
        previous: &Link,
        record: &AuditRecord,
    ) -> Result<Link, Error> {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        // Writing to memory cannot fail, and no field of a record has a fallible encoder.
        let encoded = minicbor::encode(record, &mut *out).is_ok();
        let length = out.len() - start - PREFIX;
        let frame = out.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<PREFIX>());
        let link = match (frame, u32::try_from(length)) {
            (Some((prefix, bytes)), Ok(number)) if encoded && length <= LONGEST => {
                *prefix = number.to_be_bytes();
                self.link(previous, bytes)
            }
            (_, _) => {
                out.truncate(start);
                return Err(Error::TooLong { length, limit: LONGEST });
            }
        };
        out.extend_from_slice(&link);
        Ok(link)
    }

    /// Reads a record that should be the next after `previous`.
    pub(super) fn read_record(
        &self,
        previous: &Mark,
        bytes: &[u8],
        link: &Link,
    ) -> Result<AuditRecord, Tampering> {
        let expected = previous.sequence.saturating_add(1);
        let record = read(bytes);
        match record {
            Some(record) if record.sequence != expected => {
                Err(Tampering::Misplaced { found: record.sequence })
            }
            Some(_) | None if self.link(&previous.link, bytes) != *link => Err(Tampering::Changed),
            Some(record) => Ok(record),
            None => Err(Tampering::Unreadable),
        }
    }
}

/// Reads a record's CBOR, which must have no bytes behind it.
pub(super) fn read(bytes: &[u8]) -> Option<AuditRecord> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let record = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(record)
}

/// How far the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the last record; 0 before the first.
    pub sequence: u64,
    /// Its link.
    pub link: Link,
    /// The greatest store version that a record speaks of; 0 if none does.
    pub store_version: u64,
}

impl Mark {
    /// Before the first record.
    pub(super) const START: Self = Self { sequence: 0, link: FIRST, store_version: 0 };

    /// Behind one more record.
    pub(super) fn after(&self, record: &AuditRecord, link: Link) -> Self {
        let store_version = self.store_version.max(record.store_version.unwrap_or(0));
        Self { sequence: record.sequence, link, store_version }
    }
}

/// How far the log must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The last record that was written.
    pub written: u64,
    /// Its link.
    pub link: Link,
    /// The last record that was durable.
    pub durable: u64,
    /// The greatest store version that a durable record speaks of.
    pub store_version: u64,
    /// The run of the machine in which it was written.
    pub boot: [u8; 16],
}

impl Head {
    pub(super) fn new(written: &Mark, durable: &Mark, boot: [u8; 16]) -> Self {
        Self {
            written: written.sequence,
            link: written.link,
            durable: durable.sequence,
            store_version: durable.store_version,
            boot,
        }
    }

    pub(super) fn encode(&self, chain: &Chain) -> [u8; HEAD] {
        let [written, durable, version] =
            [self.written, self.durable, self.store_version].map(|number| number.to_be_bytes());
        let body = [written.as_slice(), &self.link, &durable, &version, &self.boot].concat();
        let mac = hmac::sign(&chain.head, &body);
        let mut head = [0; HEAD];
        head.iter_mut().zip(body.iter().chain(mac.as_ref())).for_each(|(to, from)| *to = *from);
        head
    }

    /// Reads a head. None unless this chain's key made it.
    pub(super) fn decode(bytes: &[u8; HEAD], chain: &Chain) -> Option<Self> {
        let (body, mac) = bytes.split_last_chunk::<LINK>()?;
        hmac::verify(&chain.head, body, mac).ok()?;
        let (written, rest) = body.split_first_chunk()?;
        let (link, rest) = rest.split_first_chunk()?;
        let (durable, rest) = rest.split_first_chunk()?;
        let (store_version, boot) = rest.split_first_chunk()?;
        Some(Self {
            written: u64::from_be_bytes(*written),
            link: *link,
            durable: u64::from_be_bytes(*durable),
            store_version: u64::from_be_bytes(*store_version),
            boot: boot.try_into().ok()?,
        })
    }
}
