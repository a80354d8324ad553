//! What the coordinator of a ceremony and its parties say to each other, inside what their vaults seal.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{
    mandate::Mandated,
    message::SecretBytes,
    object::{ObjectId, Template},
    shares::Signed,
};

use super::{super::Error, bans::SignedBan, life::proof::Proof};
use crate::{
    cluster::order::SignedOrder,
    crypto::threshold::{CeremonyId, Epoch, KeyId, Party, SchemeId},
    platform::Time,
};

/// The coordinator asks a party to take part in a ceremony.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Begin {
    /// This attempt: no node begins it twice.
    #[n(0)]
    pub id: CeremonyId,
    /// The key.
    #[n(1)]
    pub key: KeyId,
    /// The epoch of the shares that are made, or that sign.
    #[n(2)]
    pub epoch: Epoch,
    /// What the ceremony is for.
    #[n(3)]
    pub task: Task,
    /// What faster parties have said already.
    #[n(4)]
    pub parcels: Vec<Parcel>,
}

/// What a ceremony is for, and on whose word.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Task {
    /// A signature.
    #[n(0)]
    Sign {
        /// The application's word, for a `Sign`.
        #[n(0)]
        mandated: Mandated,
        /// Who signs.
        #[n(1)]
        signers: BTreeSet<Party>,
        /// The pairs that the coordinator knows to be banned.
        #[n(2)]
        bans: Vec<SignedBan>,
    },
    /// A new key.
    #[n(1)]
    Generate {
        /// The application's word, for a `GenerateKeyPair`.
        #[n(0)]
        mandated: Mandated,
        /// The name of the public key's object; the private key's is the key's own.
        #[n(1)]
        public: ObjectId,
        /// The names of the members, in the order of their seats.
        #[n(2)]
        seats: Vec<String>,
    },
    /// Other shares of a key.
    #[n(2)]
    Renew(#[n(0)] Renewal),
    /// A signature that shows, with its signers' words, that the shares of an epoch sign.
    #[n(3)]
    Prove {
        /// Who signs.
        #[n(0)]
        signers: BTreeSet<Party>,
        /// SHA-256 of the claim that all of them have signed.
        #[cbor(n(1), with = "minicbor::bytes")]
        claim: [u8; 32],
    },
    /// Shares of a key that the coordinator holds.
    #[n(4)]
    Import(#[n(0)] Import),
}

/// How a key that one node holds is to become shares.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Import {
    /// What administrators ordered.
    #[n(0)]
    pub order: SignedOrder,
    /// The scheme.
    #[n(1)]
    pub scheme: SchemeId,
    /// The name of the public key's object.
    #[n(2)]
    pub public: ObjectId,
    /// What the objects are to be like.
    #[n(3)]
    pub objects: Objects,
    /// The public key that the order names, compressed, as the scheme's group writes it.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub compressed: Vec<u8>,
}

/// How the shares of a key are to become others.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Renewal {
    /// What administrators ordered; none for a refresh by the schedule.
    #[n(0)]
    pub order: Option<SignedOrder>,
    /// The certificate of the shares that there are, encoded.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// Who deals its share, by the seat in this ceremony: the seat that it has had so far. None for a refresh.
    #[n(2)]
    pub dealers: BTreeMap<Party, Party>,
    /// The pairs that the coordinator knows to be banned.
    #[n(3)]
    pub bans: Vec<SignedBan>,
    /// What the key's objects are like, for those who have none of them.
    #[n(4)]
    pub objects: Objects,
}

/// The attributes of a shared key's objects.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Objects {
    /// Of the public key, if there is an object of it.
    #[n(0)]
    pub public: Option<Template>,
    /// Of the private key.
    #[n(1)]
    pub private: Template,
}

/// What makes a share active, or shows a node that it has none any more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Warrant {
    /// The certificate, encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// What administrators ordered, if they did.
    #[n(1)]
    pub order: Option<SignedOrder>,
}

/// What a node has of a key's shares.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct Account {
    /// The certificate of its share; where it holds none any more, that of the shares for which it gave its own up.
    #[n(0)]
    pub certificate: Option<ByteVec>,
    /// What administrators ordered, if they did.
    #[n(1)]
    pub order: Option<SignedOrder>,
    /// Signatures that show that every share of the epoch signs.
    #[n(2)]
    pub proofs: Vec<Proof>,
    /// The highest epoch of which it has ever said that it had a share, or dealt for one.
    #[n(3)]
    pub highest: Option<u64>,
    /// The pairs that it knows to be banned.
    #[n(4)]
    pub bans: Vec<SignedBan>,
    /// The nodes that may have something of the key left, as far as it knows: their Ed25519 keys, and when shares were last
    /// moved from or to them, in microseconds since 1970.
    #[cbor(n(5), default)]
    pub traces: BTreeMap<[u8; 32], Time>,
    /// Where it stands, if it has the partition.
    #[n(6)]
    pub stand: Option<Stand>,
}

/// Where a node stands about a key that was to be abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stand {
    /// Whether it has given the key up for ever.
    #[n(0)]
    pub given_up: bool,
    /// When it says so by its own clock, in seconds since 1970.
    #[n(1)]
    pub time: u64,
}

/// A node's promise by an order to abandon a new key: it takes no certificate of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Promised {
    /// The node's Ed25519 key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub node: [u8; 32],
    /// By that key.
    #[n(1)]
    pub signature: Signed,
}

/// A letter on its way from one party to another, or to the coordinator.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Parcel {
    /// Who wrote it.
    #[n(0)]
    pub from: Party,
    /// Whom it is for; none for the coordinator as such.
    #[n(1)]
    pub to: Option<Party>,
    /// The letter.
    #[n(2)]
    pub content: Content,
}

/// How a letter travels.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Content {
    /// Between the coordinator and a party: what their vaults say is sealed already.
    #[n(0)]
    Plain(#[n(0)] SecretBytes),
    /// Between two parties, by way of the coordinator, who cannot read it.
    #[n(1)]
    Sealed(#[n(0)] SealedLetter),
}

/// A letter that is sealed in the sender's session with the receiver.
#[derive(Clone, Debug, Encode, Decode)]
pub struct SealedLetter {
    /// Which session, as the receiver numbered it.
    #[n(0)]
    pub session: u64,
    /// Which message of it: none is taken twice.
    #[n(1)]
    pub counter: u64,
    /// The letter.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl Parcel {
    /// What it adds to a frame, about, in bytes.
    pub fn length(&self) -> usize {
        const AROUND: usize = 64;
        AROUND
            + match &self.content {
                Content::Plain(bytes) => bytes.0.len(),
                Content::Sealed(letter) => letter.sealed.len(),
            }
    }
}

/// How far a party has come.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Progress {
    /// What it says.
    #[n(0)]
    pub parcels: Vec<Parcel>,
    /// Whether it has more to say than fitted.
    #[n(1)]
    pub more: bool,
    /// How the ceremony ended for it, if it did and everything was said.
    #[n(2)]
    pub end: Option<End>,
}

impl Progress {
    /// What a party answers that another keeps from its part: it gives up, and says whose fault it is.
    ///
    /// # Errors
    /// Every other error, as it was.
    pub fn hindered(error: Error) -> Result<Self, Error> {
        let Error::Hindered(party, text) = error else { return Err(error) };
        let verdict = Verdict { suspects: BTreeSet::from([party]), ..Verdict::of(text) };
        Ok(Self { parcels: Vec::new(), more: false, end: Some(End::Aborted(verdict)) })
    }
}

/// How a ceremony ended at a party.
#[derive(Clone, Debug, Encode, Decode)]
pub enum End {
    /// It has put an application's signature on record and given its part of it away.
    #[n(0)]
    Signed,
    /// It has stored a share, which is pending until all have said the same.
    #[n(1)]
    Ready(#[n(0)] Statement),
    /// It knows of bans that the coordinator did not tell, and has not begun.
    #[n(2)]
    Behind(#[n(0)] Vec<SignedBan>),
    /// It gave up.
    #[n(3)]
    Aborted(#[n(0)] Verdict),
    /// It has dealt, and has no share any more.
    #[n(4)]
    Dealt,
    /// Its share is of another epoch than the coordinator's, and it has not begun.
    #[n(5)]
    Elsewhen {
        /// The epoch.
        #[n(0)]
        epoch: Epoch,
        /// What made its share active.
        #[n(1)]
        warrant: Warrant,
    },
    /// It has given its part of a proof away: its word for that.
    #[n(6)]
    Proved(#[n(0)] Signed),
}

/// What a party found wrong.
#[derive(Clone, Debug, Encode, Decode)]
pub struct Verdict {
    /// What happened, for the log.
    #[n(0)]
    pub reason: String,
    /// Who is to answer for it.
    #[n(1)]
    pub culprits: BTreeSet<Party>,
    /// Who may be.
    #[n(2)]
    pub suspects: BTreeSet<Party>,
    /// The pair that must not sign together any more.
    #[n(3)]
    pub ban: Option<SignedBan>,
}

impl Verdict {
    /// That this happened, and nobody is to answer for it.
    pub const fn of(reason: String) -> Self {
        Self { reason, culprits: BTreeSet::new(), suspects: BTreeSet::new(), ban: None }
    }
}

/// That a node would destroy what it has of a key, on the application's mandate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Agreement {
    /// The node's Ed25519 key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub node: [u8; 32],
    /// By this key.
    #[n(1)]
    pub signature: Signed,
}

/// A claim of a node about a share that it holds, and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Statement {
    /// The claim, encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// By the node's Ed25519 key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}
