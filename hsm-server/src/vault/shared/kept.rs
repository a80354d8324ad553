//! What a node keeps of shares in its store, one record per row.

use minicbor::{Decode, Encode};
use strongroom_shared::{message::SecretBytes, object::Template};

use super::{super::records::ObjectRecord, life::proof::Proof};
use crate::{
    cluster::{NodeId, order::SignedOrder},
    crypto::threshold::Epoch,
    platform::Time,
};

/// A share, as it is kept.
#[derive(Debug, Encode, Decode)]
pub struct ShareRecord {
    /// The share itself.
    #[n(0)]
    pub share: SecretBytes,
    /// Every node's word that it holds its own, encoded.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// What administrators ordered, if they did.
    #[n(2)]
    pub order: Option<SignedOrder>,
    /// When it became active.
    #[n(3)]
    pub made: Option<Time>,
}

/// A share that waits for its certificate, with the objects that it will make.
#[derive(Debug, Encode, Decode)]
pub struct PendingRecord {
    /// The share itself.
    #[n(0)]
    pub share: SecretBytes,
    /// What this node claims of it, encoded.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// The attributes of the public key, if its object is to be made.
    #[n(2)]
    pub public: Option<Template>,
    /// The attributes of the private key.
    #[n(3)]
    pub private: Template,
    /// When it was made.
    #[n(4)]
    pub made: Time,
    /// What administrators ordered, if they did.
    #[n(5)]
    pub order: Option<SignedOrder>,
    /// The node that had it made.
    #[n(6)]
    pub coordinator: Option<NodeId>,
}

/// A share that another has replaced. It is not used any more, and is erased when those that came after it have
/// signed.
#[derive(Debug, Encode, Decode)]
pub struct FormerRecord {
    /// The share itself; of a key that was whole here, its object as it was kept.
    #[n(0)]
    pub share: SecretBytes,
    /// The certificate of the shares that came after it. A node that holds none of them keeps it nowhere else, and may
    /// be the only one that has it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub successor: Vec<u8>,
    /// What administrators ordered when those were made, if they did.
    #[n(2)]
    pub order: Option<SignedOrder>,
    /// The private key's object as it stood, at a node that holds no share any more: it says who may destroy this one.
    /// None where the key has an object still.
    #[n(3)]
    pub object: Option<ObjectRecord>,
}

/// What is known of the shares of an epoch beside their certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct StandingRecord {
    /// Signatures that show that every share of the epoch signs.
    #[n(0)]
    pub proofs: Vec<Proof>,
    /// The epoch that this node has missed: it said that it had a share of it, and has none.
    #[n(1)]
    pub missed: Option<Epoch>,
    /// The highest epoch of shares that this node dealt for and was to hold none of: they may be in use one day.
    #[n(2)]
    pub dealt: Option<Epoch>,
}
