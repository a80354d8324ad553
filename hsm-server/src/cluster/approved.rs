//! Membership documents as administrators approve them.
//!
//! They sign with Ed25519 keys of their own (not their TLS keys, which renew themselves). Whoever holds version n can
//! judge version n+1 alone, so it does not matter who hands it over; a lower version than one's own is never taken.
//! Whoever was away while those changed who sign knows too few of the signers of the newest version: so a document
//! carries the earlier ones by which they changed (`chain.rs`), and whoever takes it follows them from the one in force.

#[cfg(test)]
mod tests;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use minicbor::{Decode, Encode};
use strongroom_shared::wire::decode_body;

use super::{
    chain::{Approval, Approved, Body, LABEL, MAX_EARLIER, Version, follow},
    document::{Membership, Refusal},
};
use crate::certificates;

/// What a document says, with the signatures over it, and those before it by which its signers came.
#[derive(Debug, Encode, Decode)]
struct Signed {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(1)]
    approvals: Vec<Approval>,
    #[n(2)]
    earlier: Option<Vec<Approved>>,
}

impl Membership {
    /// The document with the signatures of these administrators, where none has been before.
    ///
    /// # Errors
    /// `Malformed` if it says what no document may say.
    pub fn sign(&self, signers: &[&Ed25519KeyPair]) -> Result<Vec<u8>, Refusal> {
        self.sign_with(signers, Vec::new())
    }

    /// The same, to follow another one.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_after(&self, present: &Document, signers: &[&Ed25519KeyPair]) -> Result<Vec<u8>, Refusal> {
        self.sign_with(signers, present.earlier_for_next())
    }

    fn sign_with(&self, signers: &[&Ed25519KeyPair], earlier: Vec<Approved>) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        let after = earlier.last().map(|last| certificates::fingerprint(&last.body));
        let body = encode(&Body::of(self, after))?;
        let message = [LABEL, &body].concat();
        let approvals = signers.iter().map(|signer| {
            Some(Approval {
                key: signer.public_key().as_ref().try_into().ok()?,
                signature: signer.sign(&message).as_ref().try_into().ok()?,
            })
        });
        let approvals = approvals.collect::<Option<_>>().ok_or(Refusal::Signature)?;
        encode(&Signed { body, approvals, earlier: (!earlier.is_empty()).then_some(earlier) })
    }

    /// Whether the same administrators sign, and as many of them.
    fn has_rulers_of(&self, other: &Self) -> bool {
        self.administrators == other.administrators && self.approvals == other.approvals
    }
}

/// A document whose signatures hold. Whether those who signed it may, is for whoever takes it to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    last: Version,
    earlier: Vec<Version>,
    /// Whether it carries all earlier ones that it says it does.
    whole: bool,
    bytes: Vec<u8>,
}

impl Document {
    /// Reads a document and verifies every signature on it. Earlier ones that it does not come after are dropped.
    ///
    /// # Errors
    /// `Malformed` or `Signature`.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let signed: Signed = decode_body(bytes).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let Signed { body, approvals, earlier } = signed;
        let earlier = earlier.unwrap_or_default();
        if earlier.len() > MAX_EARLIER {
            return Err(Refusal::Malformed("too many earlier documents".into()));
        }
        let pool = earlier.into_iter().map(Version::read).collect::<Result<_, _>>()?;
        Self::of(Version::read(Approved { body, approvals })?, pool)
    }

    fn of(last: Version, pool: Vec<Version>) -> Result<Self, Refusal> {
        let (earlier, whole) = follow(&last, pool);
        let Approved { body, approvals } = last.approved.clone();
        let carried: Vec<_> = earlier.iter().map(|version| version.approved.clone()).collect();
        let bytes = encode(&Signed { body, approvals, earlier: (!carried.is_empty()).then_some(carried) })?;
        Ok(Self { last, earlier, whole, bytes })
    }

    /// The same with the earlier ones that somebody took off on the way, as far as whoever has this one in force knows them.
    ///
    /// # Errors
    /// `Malformed`: it cannot be written again.
    pub fn mended_by(self, present: &Self) -> Result<Self, Refusal> {
        if self.whole {
            return Ok(self);
        }
        let known = present.earlier.iter().chain([&present.last]).cloned();
        let pool: Vec<_> = known.chain(self.earlier).collect();
        Self::of(self.last, pool)
    }

    /// What it says.
    pub const fn membership(&self) -> &Membership {
        &self.last.membership
    }

    /// SHA-256 of what it says: the same whoever signed it.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.last.digest
    }

    /// All of it, to be handed on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether enough of its own administrators have signed it: what a first document needs.
    ///
    /// # Errors
    /// `Step`, `Stripped` or `Approvals`.
    pub fn check_first(&self) -> Result<(), Refusal> {
        // Whoever is taken in late, by administrators of its own, begins with whatever version there is; enough must be left.
        self.membership().check_step(u64::MAX / 2)?;
        self.check_whole()?;
        self.last.check_approved_by(self.membership(), self.membership().approvals)
    }

    /// Whoever put a document in force that lacks earlier ones would hand it on so.
    const fn check_whole(&self) -> Result<(), Refusal> {
        if self.whole { Ok(()) } else { Err(Refusal::Stripped) }
    }

    /// Whether it may follow the one in force, at once or by the earlier documents that it carries: whose
    /// administrators have approved it.
    ///
    /// # Errors
    /// `Cluster`, `Version`, `Step`, `Stripped` or `Approvals`.
    pub fn check_succeeds<'a>(&'a self, present: &'a Membership) -> Result<&'a Membership, Refusal> {
        let at_once = self.last.check_succeeds(present);
        if matches!(at_once, Ok(()) | Err(Refusal::Approvals { .. })) {
            self.check_whole()?;
            // Whoever was away may know some who signed it, and who sign no more.
            let linked = self.earlier.last().filter(|_| self.last.after.is_some());
            linked.map_or(Ok(()), |before| self.last.check_follows(&before.membership))?;
        }
        if !matches!(at_once, Err(Refusal::Approvals { .. })) {
            return at_once.map(|()| present);
        }
        let follow = |judges: &'a Membership, next: &'a Version| match next.check_follows(judges) {
            Ok(()) => &next.membership,
            Err(_) => judges,
        };
        let judges = self.earlier.iter().fold(present, follow);
        self.last.check_follows(judges).map(|()| judges).or(at_once.map(|()| present))
    }

    /// The names of those among `judges` who signed it.
    pub fn approvers<'a>(&self, judges: &'a Membership) -> Vec<&'a str> {
        self.last.approvers(judges).collect()
    }

    /// What the next document is to carry: every one by which others came to sign, this one with them, if it is so.
    fn earlier_for_next(&self) -> Vec<Approved> {
        let known = self.earlier.last().is_some_and(|last| last.membership.has_rulers_of(self.membership()));
        let new = (!known).then_some(&self.last);
        let all: Vec<_> = self.earlier.iter().chain(new).map(|version| version.approved.clone()).collect();
        let most = all.len().saturating_sub(MAX_EARLIER);
        all.into_iter().skip(most).collect()
    }
}

fn encode<T: Encode<()>>(value: &T) -> Result<Vec<u8>, Refusal> {
    minicbor::to_vec(value).map_err(|error| Refusal::Malformed(error.to_string()))
}
