//! The proof that new shares sign, after which those before them are erased.
//!
//! Quorums of which every holder is in at least one sign a text that begins with a label of its own and is no
//! transaction. A signature does not show who gave the parts of it, and an application may have what it likes signed,
//! by a hash value at that, which nobody can read. So every signer says besides, with its node's identity, that it
//! gave its part for this text: a node says so only at the end of a ceremony that proves shares, about those that are
//! active there. Both together are a proof, and each node verifies it itself.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::shares::Signed;

use crate::{
    cluster::Membership,
    crypto::{
        self,
        threshold::{Committee, Party, PublicShares},
    },
    vault::{
        Error,
        identity::Identity,
        shared::certificate::{Certified, sha256},
    },
};

/// What the text of a proof begins with.
const LABEL: &[u8] = b"strongroom proof of shares 1\0";
/// What stands before that text where a node signs that it gave its part.
const WORD: &[u8] = b"strongroom part of a proof of shares 1\0";

/// A signature by the shares of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// Who signed.
    #[n(0)]
    pub signers: BTreeSet<Party>,
    /// What they signed, by the mechanism that the key's scheme proves by.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// Every signer's word that it gave its part. None in what was kept before nodes gave it: that is no proof.
    #[cbor(n(2), default)]
    pub words: BTreeMap<Party, Signed>,
}

impl Proof {
    /// Whether every signer's word is with it, true or not.
    pub fn has_words(&self) -> bool {
        self.words.keys().eq(&self.signers)
    }
}

/// Whether this is what only proofs of shares begin with. No application has it signed.
pub fn is_reserved(message: &[u8]) -> bool {
    message.starts_with(LABEL)
}

/// What a node's signature is over that says that it gave its part of a proof's.
fn to_say(text: &[u8]) -> Vec<u8> {
    [WORD, text].concat()
}

/// This node's word that it gave its part of the signature of this text.
pub fn word(text: &[u8], identity: &Identity) -> Signed {
    Signed(identity.sign(&to_say(text)))
}

/// Shares that are to show that they sign.
pub struct Provable {
    /// SHA-256 of the claim that everybody has signed who holds one.
    pub claim: [u8; 32],
    /// Their public shares.
    pub public: PublicShares,
    /// The nodes that hold them, in the order of their seats: their Ed25519 keys.
    seats: Vec<[u8; 32]>,
}

impl Provable {
    /// The shares of a certificate.
    ///
    /// # Errors
    /// It is none.
    pub fn of(certificate: &[u8]) -> Result<Self, Error> {
        Certified::read(certificate).map(Self::from)
    }

    /// What signers of a proof sign: the label, the claim's hash, the key, the epoch (8 bytes, big-endian) and the
    /// signers' seats (a byte each).
    pub fn text(&self, signers: &BTreeSet<Party>) -> Vec<u8> {
        let (public, signers) =
            (&self.public, signers.iter().map(|party| party.number()).collect::<Vec<_>>());
        [LABEL, &self.claim, &public.key().0, &public.epoch().0.to_be_bytes(), &signers].concat()
    }

    /// The same as the shares of the key sign it.
    ///
    /// # Errors
    /// Those of [`crypto::shared_input`].
    pub fn input(&self, signers: &BTreeSet<Party>) -> Result<Vec<u8>, Error> {
        let scheme = self.public.scheme();
        Ok(crypto::shared_input(scheme, crypto::proving_mechanism(scheme), &self.text(signers))?)
    }

    /// Whether this is the word of the node at this seat that it gave its part of the signature of a text.
    pub fn has_said(&self, party: Party, text: &[u8], Signed(word): &Signed) -> bool {
        let place = usize::from(party.number()).checked_sub(1);
        place.and_then(|place| self.seats.get(place)).is_some_and(|identity| {
            UnparsedPublicKey::new(&ED25519, identity).verify(&to_say(text), word).is_ok()
        })
    }

    /// Whether a signature is one, of enough members, each of whom says that it gave its part.
    fn holds(&self, proof: &Proof) -> bool {
        let committee = self.public.committee();
        let whole = proof.signers.len() == usize::from(committee.threshold())
            && proof.signers.iter().all(|party| committee.has(*party))
            && proof.has_words();
        let text = self.text(&proof.signers);
        let signed =
            |key: Vec<u8>| crypto::verify_shared(self.public.scheme(), &key, &text, &proof.signature).is_ok();
        whole
            && proof.words.iter().all(|(party, word)| self.has_said(*party, &text, word))
            && self.public.public_key().is_ok_and(signed)
    }

    /// Whether these show that every share signs.
    pub fn is_proven(&self, proofs: &[Proof]) -> bool {
        if proofs.len() > usize::from(Committee::MAX) {
            return false;
        }
        let seen: BTreeSet<Party> = proofs.iter().flat_map(|proof| proof.signers.iter().copied()).collect();
        seen == self.public.committee().everybody() && proofs.iter().all(|proof| self.holds(proof))
    }
}

impl From<Certified> for Provable {
    fn from(Certified { whole, claim, public }: Certified) -> Self {
        Self { claim: sha256(&whole.claim), public, seats: claim.seats }
    }
}

/// Whether these signatures show that every share of a certificate signs.
///
/// # Errors
/// It is no certificate.
pub fn is_proven(certificate: &[u8], proofs: &[Proof]) -> Result<bool, Error> {
    Provable::of(certificate).map(|provable| provable.is_proven(proofs))
}

/// Whether a certificate of a later epoch that shows no order is one of shares of the same key as `own`, which this node
/// believes.
///
/// A certificate and its proof say by themselves no more than the nodes that it names, and a bad node can name some of
/// its own making. Of the holders of this node's own shares fewer are bad than sign together, or the key is theirs
/// anyway. So among as many of them as sign there is an honest one; it has signed this claim, byte for byte, at the end
/// of a ceremony whose order it had judged for itself, and that ceremony gave everybody a share whom the claim names.
/// Only members of the document in force count: administrators may have removed a node because it was intruded upon.
///
/// # Errors
/// `Forbidden`, saying what is to be done.
pub fn check_later(later: &Certified, own: &Certified, membership: &Membership) -> Result<(), Error> {
    check_same(later, own, membership)?;
    let holds = |seat: &&[u8; 32]| own.claim.seats.contains(seat) && membership.member(seat).is_some();
    let (known, needed) =
        (later.claim.seats.iter().filter(holds).count(), own.public.committee().threshold());
    if known < usize::from(needed) {
        return Err(Error::forbidden(format!(
            "{known} of the nodes that say that they hold the shares of epoch {} are members by the document here \
             (version {}) and held those of epoch {}, and without the order that moved the shares it takes {needed}: \
             if the document here is old, install the newest one; if administrators have moved the shares, a \
             `hsmctl key reshare` to the nodes that hold them now shows the order to this one too",
            later.epoch().0,
            membership.version,
            own.epoch().0
        )));
    }
    Ok(())
}

/// Whether these are certificates of shares of the same key, in this cluster.
///
/// # Errors
/// `Forbidden`.
pub fn check_same(later: &Certified, own: &Certified, membership: &Membership) -> Result<(), Error> {
    let keys = (later.public.public_key(), own.public.public_key());
    let same = later.public.scheme() == own.public.scheme()
        && later.id() == own.id()
        && matches!(keys, (Ok(later), Ok(own)) if later == own);
    if !same {
        return Err(Error::forbidden("the certificate is of another public key than the share here"));
    }
    if later.claim.cluster != membership.cluster.0 {
        return Err(Error::forbidden("these shares are another cluster's"));
    }
    Ok(())
}

/// Quorums of which every member is in at least one, as few as there can be.
pub fn quorums(committee: Committee) -> Vec<BTreeSet<Party>> {
    let members: Vec<Party> = committee.members().collect();
    let size = usize::from(committee.threshold());
    let fill = |some: &[Party]| {
        let others = members.iter().filter(|party| !some.contains(party));
        some.iter().chain(others).take(size).copied().collect()
    };
    members.chunks(size).map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_without_the_signers_words_is_no_proof() {
        let signers = Committee::new(2, 2).unwrap().everybody();
        let kept = minicbor::to_vec((&signers, minicbor::bytes::ByteVec::from(vec![7; 64]))).unwrap();
        let read: Proof = minicbor::decode(&kept).unwrap();
        assert_eq!(read.signers, signers);
        assert!(!read.has_words());
    }

    #[test]
    fn every_member_is_in_a_quorum_of_the_right_size() {
        for parties in 2..=Committee::MAX {
            for threshold in 2..=parties {
                let committee = Committee::new(threshold, parties).unwrap();
                let quorums = quorums(committee);
                assert!(quorums.iter().all(|quorum| quorum.len() == usize::from(threshold)));
                let all: BTreeSet<Party> = quorums.iter().flatten().copied().collect();
                assert_eq!(all, committee.everybody());
                assert_eq!(quorums.len(), usize::from(parties.div_ceil(threshold)));
            }
        }
    }
}
