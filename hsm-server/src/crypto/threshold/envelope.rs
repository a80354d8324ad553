//! The envelope that every message of a ceremony travels in.
//!
//! It names the ceremony, the epoch, the round, the sender and the receiver, and carries the digest of the *terms*:
//! everything that all parties must mean alike (scheme, purpose, key, committee, signers, input). A message is
//! opened only when all of this is as expected.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{
    secret::{Wiped, wipe},
    wire::encode_body,
};

use super::party::{CeremonyId, Epoch, KeyId, Party, Setup};

const VERSION: u8 = 1;

/// The longest message, in bytes: a DKLs23 key generation sends 150 KB to each peer in one round.
pub const MAX_LENGTH: usize = 512 * 1024;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One party, and no other may read it.
    Party(Party),
    /// Every other party of the ceremony.
    All,
    /// Whoever combines the signature.
    Coordinator,
}

/// A message to be delivered over a confidential, authenticated channel.
pub struct Outgoing {
    /// Whom it is for.
    pub to: To,
    /// The envelope. It may hold shares: not to be logged or stored.
    pub bytes: Wiped,
}

/// A message as it came in.
#[derive(Clone)]
pub struct Incoming {
    /// Who sent it: what the *channel* proves, not what the message says.
    pub from: Party,
    /// The envelope.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes for {:?}]", self.bytes.len(), self.to)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes of {}]", self.bytes.len(), self.from)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// What all parties must mean alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub id: CeremonyId,
    pub epoch: Epoch,
    pub digest: [u8; 32],
}

impl Terms {
    /// The terms of a ceremony: `purpose` and `rest` are what is beside its setup.
    pub fn new(setup: &Setup, purpose: &Purpose, rest: impl Encode<()>) -> Self {
        #[derive(Encode)]
        struct Whole<'a, R>(
            #[n(0)] &'a str,
            #[n(1)] u8,
            #[n(2)] u8,
            #[n(3)] CeremonyId,
            #[n(4)] KeyId,
            #[n(5)] Epoch,
            #[n(6)] R,
        );
        let label = "strongroom threshold ceremony";
        let whole = Whole(label, VERSION, *purpose as u8, setup.id, setup.key, setup.epoch, rest);
        Self { id: setup.id, epoch: setup.epoch, digest: hash(&encode(&whole)) }
    }
}

/// What a ceremony is for. Part of its terms, so that no message of one kind is good in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Generate = 1,
    Sign = 2,
    Refresh = 3,
    Reshare = 4,
    Import = 5,
}

#[derive(Encode, Decode)]
pub(super) struct Envelope {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub id: CeremonyId,
    #[n(2)]
    pub epoch: Epoch,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub terms: [u8; 32],
    #[n(4)]
    pub round: u8,
    #[n(5)]
    pub sender: Party,
    #[n(6)]
    receiver: u8,
    #[n(7)]
    body: ByteVec,
}

const ALL: u8 = 0;
const COORDINATOR: u8 = u8::MAX;

impl Envelope {
    pub fn seal(terms: &Terms, round: u8, sender: Party, letter: Letter) -> Outgoing {
        let receiver = match letter.to {
            To::Party(party) => party.number(),
            To::All => ALL,
            To::Coordinator => COORDINATOR,
        };
        let envelope = Self {
            version: VERSION,
            id: terms.id,
            epoch: terms.epoch,
            terms: terms.digest,
            round,
            sender,
            receiver,
            body: letter.body.to_vec().into(),
        };
        Outgoing { to: letter.to, bytes: encode_body(&envelope) }
    }

    /// Reads an envelope of this version; `None` if it is anything else.
    pub fn open(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_LENGTH {
            return None;
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let envelope: Self = decoder.decode().ok()?;
        (decoder.position() == bytes.len() && envelope.version == VERSION).then_some(envelope)
    }

    /// Whether the message is for this address.
    pub fn is_for(&self, address: To) -> bool {
        match address {
            To::Party(me) => self.receiver == me.number() || self.receiver == ALL,
            To::All => self.receiver == ALL,
            To::Coordinator => self.receiver == COORDINATOR,
        }
    }

    pub fn into_body(mut self) -> Wiped {
        std::mem::take(&mut *self.body).into()
    }
}

impl Drop for Envelope {
    fn drop(&mut self) {
        wipe(&mut self.body);
    }
}

/// What a protocol wants to say.
pub(super) struct Letter {
    pub to: To,
    pub body: Wiped,
}

/// The encoding of public things.
pub(super) fn encode(value: &impl Encode<()>) -> Vec<u8> {
    std::mem::take(&mut *encode_body(value))
}

/// Reads all of `bytes`.
pub(super) fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().ok()?;
    (decoder.position() == bytes.len()).then_some(value)
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
