//! One membership document after the other: each says by its hash which one its signers came by.
//!
//! A document carries those before it by which others came to sign, so that whoever was away can follow. They stand beside what
//! administrators sign, and whoever hands the document on could take them off, or put others there. So what is signed
//! names the last of them by its SHA-256, and that one the one before it: what does not fit is dropped, and what is missing is
//! noticed. Documents that were signed before there were such links name none, and say nothing of what they carry.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::wire::decode_body;

use super::document::{Administrator, ClusterId, MAX_ADMINISTRATORS, Member, Membership, Refusal};
use crate::certificates;

/// What a signature covers before the document's bytes.
pub const LABEL: &[u8] = b"strongroom membership 1\0";
/// The most earlier documents that one carries.
pub const MAX_EARLIER: usize = 16;

/// What administrators sign: what a document says, and which one it comes after.
#[derive(Encode, Decode)]
pub struct Body {
    #[n(0)]
    cluster: ClusterId,
    #[n(1)]
    version: u64,
    #[n(2)]
    members: Vec<Member>,
    #[n(3)]
    administrators: Vec<Administrator>,
    #[n(4)]
    approvals: u32,
    /// SHA-256 of what the last earlier document says that this one carries.
    #[cbor(n(5), with = "minicbor::bytes")]
    after: Option<[u8; 32]>,
}

impl Body {
    /// What is to be signed.
    pub fn of(membership: &Membership, after: Option<[u8; 32]>) -> Self {
        let Membership { cluster, version, members, administrators, approvals } = membership.clone();
        Self { cluster, version, members, administrators, approvals, after }
    }
}

/// A document without those before it: what it says, with the signatures over it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Approved {
    /// A [`Body`], encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Who has signed it.
    #[n(1)]
    pub approvals: Vec<Approval>,
}

/// One administrator's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Approval {
    /// The administrator's Ed25519 key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Over the body after its label.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// One document whose signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// What it says.
    pub membership: Membership,
    /// SHA-256 of what it says.
    pub digest: [u8; 32],
    /// As it was read.
    pub approved: Approved,
    /// SHA-256 of what the last earlier document says that it carries, if it says so.
    pub after: Option<[u8; 32]>,
    signers: Vec<[u8; 32]>,
}

impl Version {
    /// Reads one and verifies every signature on it.
    ///
    /// # Errors
    /// `Malformed` or `Signature`.
    pub fn read(approved: Approved) -> Result<Self, Refusal> {
        let body: Body =
            decode_body(&approved.body).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let Body { cluster, version, members, administrators, approvals, after } = body;
        let membership = Membership { cluster, version, members, administrators, approvals };
        membership.check()?;
        if approved.approvals.len() > MAX_ADMINISTRATORS {
            return Err(Refusal::Malformed("too many signatures".into()));
        }
        let message = [LABEL, &approved.body].concat();
        for approval in &approved.approvals {
            UnparsedPublicKey::new(&ED25519, approval.key)
                .verify(&message, &approval.signature)
                .map_err(|_| Refusal::Signature)?;
        }
        let signers = approved.approvals.iter().map(|approval| approval.key).collect();
        Ok(Self { membership, digest: certificates::fingerprint(&approved.body), approved, after, signers })
    }

    /// The names of those among `judges` who signed it.
    pub fn approvers<'a>(&self, judges: &'a Membership) -> impl Iterator<Item = &'a str> {
        let listed = judges.administrators.iter();
        listed.filter(|one| self.signers.contains(&one.key)).map(|one| one.name.as_str())
    }

    /// Whether so many of `judges` have signed it.
    ///
    /// # Errors
    /// `Approvals`.
    pub fn check_approved_by(&self, judges: &Membership, needed: u32) -> Result<(), Refusal> {
        let found = u32::try_from(self.approvers(judges).count()).unwrap_or(u32::MAX);
        if found < needed { Err(Refusal::Approvals { found, needed }) } else { Ok(()) }
    }

    /// Whether it may follow the one in force at once.
    ///
    /// # Errors
    /// `Cluster`, `Version`, `Step` or `Approvals`.
    pub fn check_succeeds(&self, present: &Membership) -> Result<(), Refusal> {
        let follows = self.check_follows(present);
        if matches!(follows, Ok(()) | Err(Refusal::Approvals { .. })) {
            self.membership.check_step(present.version)?;
        }
        follows
    }

    /// Whether it may follow an earlier one, however many lie between them that changed nothing about who signs.
    ///
    /// # Errors
    /// `Cluster`, `Version` or `Approvals`.
    pub fn check_follows(&self, present: &Membership) -> Result<(), Refusal> {
        if self.membership.cluster != present.cluster {
            return Err(Refusal::Cluster(present.cluster));
        }
        if self.membership.version <= present.version {
            return Err(Refusal::Version { found: self.membership.version, present: present.version });
        }
        self.check_approved_by(present, present.needed_for(&self.membership))
    }
}

/// Those of `pool` by which the signers of a document came, each by the link of the one after it and approved by the one before
/// it, the first one first; and whether that is all that it says it carries.
pub fn follow(last: &Version, mut pool: Vec<Version>) -> (Vec<Version>, bool) {
    let mut chain: Vec<Version> = Vec::new();
    let whole = loop {
        let next = chain.last().unwrap_or(last);
        let Some(after) = next.after else {
            // The first one of all, or one of before there were links: of what that carries nothing is known.
            let version = next.membership.version;
            pool.retain(|one| version > 1 && one.membership.version < version);
            chain.extend(pool.into_iter().rev());
            break true;
        };
        if chain.len() >= MAX_EARLIER {
            break true;
        }
        let Some(at) = pool.iter().position(|one| one.digest == after) else { break false };
        let found = pool.remove(at);
        // Whether the last one may follow is for whoever takes it to ask.
        if !chain.is_empty() && next.check_follows(&found.membership).is_err() {
            break false;
        }
        chain.push(found);
    };
    chain.truncate(MAX_EARLIER);
    chain.reverse();
    (chain, whole)
}
