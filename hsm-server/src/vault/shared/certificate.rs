//! The certificate of a key's shares, as a node makes and reads it. Without it no share is used.

use std::collections::BTreeSet;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use strongroom_identity::is_whole;
use strongroom_shared::{
    object::ObjectId,
    shares::{Certificate, Claim, Signed},
};

use super::{
    super::{
        Error,
        identity::Identity,
        records::{decode, encode},
    },
    keys::SharedKey,
    words::Statement,
};
use crate::crypto::threshold::{Committee, Epoch, KeyId, PublicShares, Ready};

/// A certificate that every node has signed whom it names, each at one seat. That is all that it says by itself: whoever
/// likes can name nodes of their own. So whoever holds a share believes it of the same key only, and as far as the share,
/// administrators' order or proof goes that comes with it.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The claim, encoded, and who signed it.
    pub whole: Certificate,
    /// The claim.
    pub claim: Claim,
    /// Everybody's public shares.
    pub public: PublicShares,
}

impl Certified {
    /// Reads a certificate.
    ///
    /// # Errors
    /// `Malformed` or `Forbidden`: it is none, not everybody has signed it, or it is not of as many nodes as shares.
    pub fn read(certificate: &[u8]) -> Result<Self, Error> {
        let whole: Certificate = decode(certificate)?;
        let claim: Claim = decode(&whole.claim)?;
        let ready = Ready::from_bytes(&claim.ready).map_err(Error::forbidden)?;
        // Before anything is verified: a frame holds thousands of signatures, and a committee is small.
        let parties = usize::from(ready.shares().committee().parties());
        if [claim.seats.len(), whole.signatures.len()] != [parties; 2] {
            return Err(Error::forbidden(format!(
                "the certificate names {} seats and has {} signatures, for {parties} shares",
                claim.seats.len(),
                whole.signatures.len()
            )));
        }
        if !is_whole(&whole, &claim.seats) {
            return Err(Error::forbidden(
                "not all nodes have signed these shares that the certificate names",
            ));
        }
        if claim.seats.iter().collect::<BTreeSet<_>>().len() != claim.seats.len() {
            return Err(Error::forbidden("a node sits at two seats of these shares"));
        }
        Ok(Self { public: ready.shares().clone(), claim, whole })
    }

    /// The private key's object.
    pub fn id(&self) -> ObjectId {
        ObjectId(self.public.key().0)
    }

    /// The epoch of the shares.
    pub fn epoch(&self) -> Epoch {
        self.public.epoch()
    }

    /// Whether these are shares of the key of which this node holds one.
    ///
    /// # Errors
    /// `Forbidden`: somebody would put another key in its place.
    pub fn check_same_key(&self, own: &SharedKey) -> Result<(), Error> {
        match own.is_same_key(&self.public) {
            true => Ok(()),
            false => Err(Error::forbidden("the certificate is of another public key than the share here")),
        }
    }

    /// Whether this is what the share here was made active by, to the last byte.
    ///
    /// # Errors
    /// What is kept here cannot be read.
    pub fn is_own(&self, own: &SharedKey) -> Result<bool, Error> {
        let certificate: Certificate = decode(&own.certificate)?;
        Ok(certificate.claim == self.whole.claim)
    }
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

/// Whether every one of these nodes has signed this claim, as one of the kind that `label` stands for. Each is named
/// once and there are no more than hold shares: a frame has room for thousands of signatures to be verified.
pub fn is_whole_as(label: &[u8], whole: &Certificate, seats: &[[u8; 32]]) -> bool {
    let text = [label, &whole.claim].concat();
    let signed = |(identity, signature): (&[u8; 32], &Signed)| {
        UnparsedPublicKey::new(&ED25519, identity).verify(&text, &signature.0).is_ok()
    };
    !seats.is_empty()
        && seats.len() <= usize::from(Committee::MAX)
        && seats.iter().collect::<BTreeSet<_>>().len() == seats.len()
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
