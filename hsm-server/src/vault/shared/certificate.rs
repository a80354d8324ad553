//! The certificate of a key's shares: every node's signed word that it has stored its own, and that all mean the same
//! key. It proves itself, so it does not matter who hands it on; without it no share is used.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey},
};
use minicbor::{Decode, Encode};
use strongroom_shared::{mandate::Mandated, object::ObjectId};

use super::{
    super::{
        Error,
        records::{decode, encode},
    },
    words::Statement,
};
use crate::{
    cluster::document::ClusterId,
    crypto::threshold::{KeyId, Ready, Refusal},
};

/// What stands before a claim when it is signed.
const LABEL: &[u8] = b"strongroom shares 1\0";

/// What a node says of the share that it has stored: the same bytes at every honest node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// The partition's name.
    #[n(1)]
    pub partition: String,
    /// SHA-256 of the text of the mandate or order: what the key or its shares are to be like. Zero for a refresh by the
    /// schedule.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub mandate: [u8; 32],
    /// The public key's object.
    #[n(3)]
    pub public: ObjectId,
    /// The nodes that hold the shares, in the order of their seats: their Ed25519 keys.
    #[n(4)]
    pub seats: Vec<[u8; 32]>,
    /// What the ceremony ended with: the key, its epoch and every share's public key.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ready: Vec<u8>,
    /// SHA-256 of what the private key's object is like, where the ceremony did not make the key.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub object: Option<[u8; 32]>,
}

impl Claim {
    /// What the ceremony ended with.
    ///
    /// # Errors
    /// It is not what a ceremony ends with.
    pub fn ready(&self) -> Result<Ready, Refusal> {
        Ready::from_bytes(&self.ready)
    }

    /// The claim, signed by a node.
    pub fn state(&self, pair: &Ed25519KeyPair) -> Statement {
        Statement::new(LABEL, encode(self).to_vec(), pair)
    }
}

impl Statement {
    /// A claim of the kind that `label` stands for, signed by a node.
    pub(super) fn new(label: &[u8], claim: Vec<u8>, pair: &Ed25519KeyPair) -> Self {
        let mut signature = [0; 64];
        let signed = pair.sign(&[label, &claim].concat());
        signature.iter_mut().zip(signed.as_ref()).for_each(|(to, from)| *to = *from);
        Self { claim, signature }
    }
}

/// SHA-256 of a mandate's text.
pub fn text_hash(mandated: &Mandated) -> [u8; 32] {
    sha256(&mandated.text)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let whole = digest(&SHA256, bytes);
    hash.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

/// A claim that all nodes have signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// The claim.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// In the order of the seats.
    #[n(1)]
    pub signatures: Vec<Signed>,
}

/// A node's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signed(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 64]);

impl Certificate {
    /// What all have signed.
    ///
    /// # Errors
    /// It is no claim.
    pub fn claim(&self) -> Result<Claim, Error> {
        decode(&self.claim)
    }

    /// Whether every one of these nodes has signed this claim.
    pub fn is_whole(&self, seats: &[[u8; 32]]) -> bool {
        self.is_whole_of(LABEL, seats)
    }

    /// The same of a claim of the kind that `label` stands for.
    pub(super) fn is_whole_of(&self, label: &[u8], seats: &[[u8; 32]]) -> bool {
        let text = [label, &self.claim].concat();
        let signed = |(identity, signature): (&[u8; 32], &Signed)| {
            UnparsedPublicKey::new(&ED25519, identity).verify(&text, &signature.0).is_ok()
        };
        self.signatures.len() == seats.len() && seats.iter().zip(&self.signatures).all(signed)
    }
}

/// A key's object as the ceremonies name it.
pub const fn key_id(object: ObjectId) -> KeyId {
    KeyId(object.0)
}
