//! The nodes' language, written down once more: what a bad node says shares no code with the good ones.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_server::{
    cluster::{document::ClusterId, order::SignedOrder},
    crypto::threshold::{CeremonyId, Epoch, KeyId, Party},
};
use strongroom_shared::{fault::Fault, object::Descent};

use super::super::*;

#[derive(Debug, Clone, Encode, Decode)]
pub enum Question {
    #[n(0)]
    Vouch,
    #[n(1)]
    Begin(#[n(0)] Begin),
    #[n(2)]
    Step {
        #[n(0)]
        id: CeremonyId,
        #[n(1)]
        parcels: Vec<Parcel>,
    },
    #[n(3)]
    Cancel(#[n(0)] CeremonyId),
    #[n(4)]
    Certificate {
        #[n(0)]
        partition: String,
        #[n(1)]
        key: ObjectId,
    },
    #[n(5)]
    Activate(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>, #[n(1)] Option<SignedOrder>),
    #[n(6)]
    MayDestroy(#[n(0)] Mandated),
    #[n(7)]
    Destroy {
        #[n(0)]
        mandated: Mandated,
        #[n(1)]
        agreements: Vec<Agreement>,
    },
    #[n(8)]
    Proven {
        #[n(0)]
        partition: String,
        #[n(1)]
        key: ObjectId,
        #[n(2)]
        proofs: Vec<Proof>,
    },
    #[n(16)]
    Bans(#[n(0)] Option<ObjectId>),
    #[n(20)]
    MayDerive(#[n(0)] Mandated),
    #[n(21)]
    Derive(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(23)]
    Inherit {
        #[n(0)]
        attributes: Template,
        #[cbor(n(1), with = "minicbor::bytes")]
        certificate: Vec<u8>,
    },
    #[n(24)]
    MayAbandon(#[n(0)] SignedOrder),
    #[n(26)]
    Abandon(#[n(0)] SignedOrder, #[n(1)] Vec<Promised>),
}

/// What the nodes say of a descendant.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ChildClaim {
    #[n(0)]
    pub cluster: ClusterId,
    #[n(1)]
    pub partition: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub mandate: [u8; 32],
    #[n(3)]
    pub descent: Descent,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub object: [u8; 32],
    #[n(5)]
    pub seats: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum Reply {
    #[n(0)]
    Vouched(#[n(0)] u64, #[n(1)] u64),
    #[n(1)]
    Progress(#[n(0)] Progress),
    #[n(2)]
    Certificate(#[n(0)] Account),
    #[n(3)]
    Done,
    #[n(16)]
    Bans(#[n(0)] KnownBans),
    #[n(17)]
    Refused(#[n(0)] Fault),
    #[n(18)]
    WouldDestroy(#[n(0)] Agreement),
    #[n(20)]
    Agreed(#[n(0)] Statement),
    #[n(24)]
    Promised(#[n(0)] Promised),
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Promised {
    #[n(0)]
    pub node: ByteVec,
    #[n(1)]
    pub signature: ByteVec,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Agreement {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub node: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// What a node signs when it agrees.
#[derive(Encode)]
pub struct WouldDestroy {
    #[n(0)]
    pub cluster: ClusterId,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub mandate: [u8; 32],
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct KnownBans {
    #[n(0)]
    pub keys: Vec<KeyBans>,
    #[n(1)]
    pub more: bool,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct KeyBans {
    #[n(0)]
    pub partition: String,
    #[n(1)]
    pub key: ObjectId,
    #[n(2)]
    pub bans: Vec<SignedBan>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Begin {
    #[n(0)]
    pub id: CeremonyId,
    #[n(1)]
    pub key: KeyId,
    #[n(2)]
    pub epoch: Epoch,
    #[n(3)]
    pub task: Task,
    #[n(4)]
    pub parcels: Vec<Parcel>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum Task {
    #[n(0)]
    Sign {
        #[n(0)]
        mandated: Mandated,
        #[n(1)]
        signers: BTreeSet<Party>,
        #[n(2)]
        bans: Vec<SignedBan>,
    },
    #[n(1)]
    Generate {
        #[n(0)]
        mandated: Mandated,
        #[n(1)]
        public: ObjectId,
        #[n(2)]
        seats: Vec<String>,
    },
    #[n(2)]
    Renew(#[n(0)] Renewal),
    #[n(3)]
    Prove {
        #[n(0)]
        signers: BTreeSet<Party>,
        #[cbor(n(1), with = "minicbor::bytes")]
        claim: [u8; 32],
    },
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Renewal {
    #[n(0)]
    pub order: Option<SignedOrder>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    #[n(2)]
    pub dealers: BTreeMap<Party, Party>,
    #[n(3)]
    pub bans: Vec<SignedBan>,
    #[n(4)]
    pub objects: Objects,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Objects {
    #[n(0)]
    pub public: Option<Template>,
    #[n(1)]
    pub private: Template,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub struct Account {
    #[n(0)]
    pub certificate: Option<ByteVec>,
    #[n(1)]
    pub order: Option<SignedOrder>,
    #[n(2)]
    pub proofs: Vec<Proof>,
    #[n(3)]
    pub highest: Option<u64>,
    #[n(4)]
    pub bans: Vec<SignedBan>,
    #[n(5)]
    pub traces: BTreeMap<[u8; 32], u64>,
    #[n(6)]
    pub stand: Option<Stand>,
}

#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct Stand {
    #[n(0)]
    pub given_up: bool,
    #[n(1)]
    pub time: u64,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Proof {
    #[n(0)]
    pub signers: BTreeSet<Party>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    #[n(2)]
    pub words: BTreeMap<Party, ByteVec>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SignedBan {
    #[n(0)]
    pub ban: Ban,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Ban {
    #[n(0)]
    pub key: KeyId,
    #[n(1)]
    pub epoch: Epoch,
    #[n(2)]
    pub reporter: Party,
    #[n(3)]
    pub against: Party,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Parcel {
    #[n(0)]
    pub from: Party,
    #[n(1)]
    pub to: Option<Party>,
    #[n(2)]
    pub content: Content,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum Content {
    #[n(0)]
    Plain(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(1)]
    Sealed(#[n(0)] Sealed),
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Sealed {
    #[n(0)]
    pub session: u64,
    #[n(1)]
    pub counter: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Progress {
    #[n(0)]
    pub parcels: Vec<Parcel>,
    #[n(1)]
    pub more: bool,
    #[n(2)]
    pub end: Option<End>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub enum End {
    #[n(0)]
    Signed,
    #[n(1)]
    Ready(#[n(0)] Statement),
    #[n(2)]
    Behind(#[n(0)] Vec<SignedBan>),
    #[n(3)]
    Aborted(#[n(0)] Verdict),
    #[n(4)]
    Dealt,
    #[n(5)]
    Elsewhen {
        #[n(0)]
        epoch: Epoch,
        #[n(1)]
        warrant: Warrant,
    },
    #[n(6)]
    Proved(#[n(0)] ByteVec),
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Warrant {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    #[n(1)]
    pub order: Option<SignedOrder>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Verdict {
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub culprits: BTreeSet<Party>,
    #[n(2)]
    pub suspects: BTreeSet<Party>,
    #[n(3)]
    pub ban: Option<SignedBan>,
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Statement {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

#[derive(Debug, Clone, Encode, Decode)]
pub struct Claimed {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    #[n(1)]
    pub signatures: Vec<ByteVec>,
}
