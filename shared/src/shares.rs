//! The certificate of a shared key: every node's signed word that it has stored its share, and that all mean the same
//! key. It proves itself to whoever knows the nodes' keys, so it does not matter who hands it on.

use minicbor::{Decode, Encode};

use crate::object::ObjectId;

/// What stands before a claim when it is signed.
const LABEL: &[u8] = b"strongroom shares 2\0";

/// What a node says of the share that it has stored: the same bytes at every honest node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// The cluster.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub cluster: [u8; 16],
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
    /// What the ceremony ended with: the key, its epoch and every share's public key, as the nodes write it.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ready: Vec<u8>,
    /// The private key's object.
    #[n(6)]
    pub private: ObjectId,
    /// The public key: `CKA_PUBLIC_KEY_INFO` (a DER SubjectPublicKeyInfo, RFC 5280, 4.1.2.7).
    #[cbor(n(7), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// SHA-256 of what the private key's object is like, where the ceremony did not make the key.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub object: Option<[u8; 32]>,
}

impl Claim {
    /// What a node signs: an encoded claim after its label.
    pub fn to_sign(claim: &[u8]) -> Vec<u8> {
        [LABEL, claim].concat()
    }
}

/// A claim that all nodes have signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// The claim, encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// In the order of the seats.
    #[n(1)]
    pub signatures: Vec<Signed>,
}

/// A node's signature: Ed25519 over [`Claim::to_sign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signed(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 64]);
