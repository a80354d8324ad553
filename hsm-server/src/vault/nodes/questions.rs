//! What vaults ask each other, and what they answer.

use std::fmt;

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{
    fault::Fault,
    mandate::Mandated,
    object::{ObjectId, Template},
};

use super::super::shared::{
    hearing::KnownBans,
    life::proof::Proof,
    words::{Account, Agreement, Begin, Parcel, Progress, Promised, Statement},
};
use crate::{
    cluster::{Unreachable, noise::NoiseError, order::SignedOrder},
    crypto::threshold::CeremonyId,
};

/// What one vault asks another, sealed.
///
/// A question may come twice: after a lost answer it is asked again in another session. So each is safe to repeat, or
/// carries an id under which it is carried out once.
#[derive(Debug, Encode, Decode)]
pub enum Question {
    /// Are you the vault that the document names?
    #[n(0)]
    Vouch,
    /// Take part in a ceremony.
    #[n(1)]
    Begin(#[n(0)] Begin),
    /// Take part in its next round.
    #[n(2)]
    Step {
        /// Which ceremony.
        #[n(0)]
        id: CeremonyId,
        /// What others said.
        #[n(1)]
        parcels: Vec<Parcel>,
    },
    /// A ceremony is over.
    #[n(3)]
    Cancel(#[n(0)] CeremonyId),
    /// Have you the certificate of a key's shares?
    #[n(4)]
    Certificate {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The private key.
        #[n(1)]
        key: ObjectId,
    },
    /// Make the share active that this certificate is for.
    #[n(5)]
    Activate {
        /// The certificate, encoded.
        #[cbor(n(0), with = "minicbor::bytes")]
        certificate: Vec<u8>,
        /// What administrators ordered, if they did.
        #[n(1)]
        order: Option<SignedOrder>,
    },
    /// Would you destroy your share of a key? Say so, signed.
    #[n(6)]
    MayDestroy(#[n(0)] Mandated),
    /// Destroy it.
    #[n(7)]
    Destroy {
        /// What the application asks for.
        #[n(0)]
        mandated: Mandated,
        /// Who agrees: everybody who holds a share.
        #[n(1)]
        agreements: Vec<Agreement>,
    },
    /// The shares of a key sign: erase the one that yours has replaced.
    #[n(8)]
    Proven {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The private key.
        #[n(1)]
        key: ObjectId,
        /// Signatures that show it.
        #[n(2)]
        proofs: Vec<Proof>,
    },
    /// Which pairs must not sign together, of the keys after this one?
    #[n(16)]
    Bans(#[n(0)] Option<ObjectId>),
    /// Would you have a descendant of a key? Say so, signed.
    #[n(20)]
    MayDerive(#[n(0)] Mandated),
    /// Have the descendant that this certificate is for.
    #[n(21)]
    Derive(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Have you the certificate of a descendant?
    #[n(22)]
    Descendant {
        /// The partition's name.
        #[n(0)]
        partition: String,
        /// The descendant.
        #[n(1)]
        key: ObjectId,
    },
    /// Have a descendant of a key of which you hold a share since now.
    #[n(23)]
    Inherit {
        /// The attributes of its object.
        #[n(0)]
        attributes: Template,
        /// Its certificate.
        #[cbor(n(1), with = "minicbor::bytes")]
        certificate: Vec<u8>,
    },
    /// Would you give up a new key of which nobody has the certificate? Promise then, signed, to take none.
    #[n(24)]
    MayAbandon(#[n(0)] SignedOrder),
    /// Give it up: all who were to hold a share have promised.
    #[n(26)]
    Abandon {
        /// What administrators ordered.
        #[n(0)]
        order: SignedOrder,
        /// What the nodes have promised by this order.
        #[n(1)]
        promises: Vec<Promised>,
    },
    /// The session of this number, which you began, has ended here: write nothing in it any more.
    #[n(27)]
    Ended(#[n(0)] u64),
}

/// What it answers, sealed.
#[derive(Debug, Encode, Decode)]
pub enum Answer {
    /// It is.
    #[n(0)]
    Vouched {
        /// The version of its membership document.
        #[n(0)]
        version: u64,
        /// How many bans it knows.
        #[n(1)]
        bans: u64,
    },
    /// It has taken part, and has come so far.
    #[n(1)]
    Progress(#[n(0)] Progress),
    /// It has this certificate, or none.
    #[n(2)]
    Certificate(#[n(0)] Account),
    /// It has done so.
    #[n(3)]
    Done,
    /// It knows these bans.
    #[n(16)]
    Bans(#[n(0)] KnownBans),
    /// It does not do what it was asked.
    #[n(17)]
    Refused(#[n(0)] Fault),
    /// It would destroy its share.
    #[n(18)]
    WouldDestroy(#[n(0)] Agreement),
    /// It would.
    #[n(20)]
    Agreed(#[n(0)] Statement),
    /// It has this certificate of a descendant, or none.
    #[n(22)]
    Descendant(#[n(0)] Option<ByteVec>),
    /// It takes no certificate of a new key any more.
    #[n(24)]
    Promised(#[n(0)] Promised),
}

impl Answer {
    /// That this is no answer to what was asked.
    pub fn strange(&self) -> NodeError {
        NodeError::Malformed(format!("the answer to another question: {}", self.name()))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Vouched { .. } => "who it is",
            Self::Progress(_) => "how far it has come",
            Self::Certificate(_) => "the certificate of shares",
            Self::Done => "that it is done",
            Self::Bans(_) => "the bans that it knows",
            Self::Refused(_) => "a refusal",
            Self::WouldDestroy(_) => "that it would destroy its share",
            Self::Agreed(_) => "that it agrees",
            Self::Descendant(_) => "the certificate of a descendant",
            Self::Promised(_) => "that it promises",
        }
    }
}

/// Why another node did not do what it was asked.
#[derive(Debug)]
pub enum NodeError {
    /// It did not answer.
    Unreachable(Unreachable),
    /// It refused.
    Refused(Fault),
    /// A refusal of a sealed question that is not sealed: any front may have said so.
    Unsealed(Fault),
    /// Its answer cannot be read.
    Malformed(String),
    /// What it sealed is not genuine, or no session could be had.
    Noise(NoiseError),
    /// It has another document of the same version.
    Split(u64),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Refused(fault) => write!(f, "it refused: {fault}"),
            Self::Unsealed(fault) => write!(f, "its front or vault says, unsealed: {fault}"),
            Self::Malformed(reason) => write!(f, "its answer cannot be read: {reason}"),
            Self::Noise(error) => error.fmt(f),
            Self::Split(version) => write!(
                f,
                "split: administrators signed two membership documents of version {version}, and it has the other one; \
                 nothing sealed passes until both have a later version: change the cluster at one of them"
            ),
        }
    }
}

impl From<NoiseError> for NodeError {
    fn from(error: NoiseError) -> Self {
        Self::Noise(error)
    }
}
