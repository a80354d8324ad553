//! The certificate of a key's shares, as a node makes and reads it. Without it no share is used.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use strongroom_shared::{
    object::ObjectId,
    shares::{Certificate, Claim, Signed},
};

use super::{
    super::{cluster::Identity, records::encode},
    words::Statement,
};
use crate::crypto::threshold::{KeyId, Ready, Refusal};

/// What the ceremony ended with that a claim is of.
///
/// # Errors
/// It is not what a ceremony ends with.
pub fn ready(claim: &Claim) -> Result<Ready, Refusal> {
    Ready::from_bytes(&claim.ready)
}

/// A claim, signed by this node.
pub fn state(claim: &Claim, identity: &Identity) -> Statement {
    let claim = encode(claim).to_vec();
    let signature = identity.sign(&Claim::to_sign(&claim));
    Statement { claim, signature }
}

/// A claim of the kind that `label` stands for, signed by this node.
pub fn state_as(label: &[u8], claim: Vec<u8>, identity: &Identity) -> Statement {
    let signature = identity.sign(&[label, &claim].concat());
    Statement { claim, signature }
}

/// Whether every one of these nodes has signed this claim, as one of the kind that `label` stands for.
pub fn is_whole_as(label: &[u8], whole: &Certificate, seats: &[[u8; 32]]) -> bool {
    let text = [label, &whole.claim].concat();
    let signed = |(identity, signature): (&[u8; 32], &Signed)| {
        UnparsedPublicKey::new(&ED25519, identity).verify(&text, &signature.0).is_ok()
    };
    !seats.is_empty()
        && seats.len() == whole.signatures.len()
        && seats.iter().zip(&whole.signatures).all(signed)
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

/// A key's object as the ceremonies name it.
pub const fn key_id(object: ObjectId) -> KeyId {
    KeyId(object.0)
}
