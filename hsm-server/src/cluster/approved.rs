//! Membership documents as administrators approve them.
//!
//! They sign with Ed25519 keys of their own (not their TLS keys, which renew themselves). Whoever holds version n can
//! judge version n+1 alone, so it does not matter who hands it over; a lower version than one's own is never taken.
//! Whoever was away while those changed who sign knows too few of the signers of the newest version: so a document
//! carries the earlier ones by which they changed, and whoever takes it follows them from the one in force.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::wire::decode_body;

use super::document::{MAX_ADMINISTRATORS, Membership, Refusal};
use crate::certificates;

/// What a signature covers before the document's bytes.
const LABEL: &[u8] = b"strongroom membership 1\0";
/// The most earlier documents that one carries.
const MAX_EARLIER: usize = 16;

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

/// The same without those before it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Approved {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(1)]
    approvals: Vec<Approval>,
}

/// One administrator's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Approval {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
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
        let body = encode(self)?;
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

/// One document whose signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    membership: Membership,
    signers: Vec<[u8; 32]>,
    approved: Approved,
}

impl Version {
    fn read(approved: Approved) -> Result<Self, Refusal> {
        let membership: Membership =
            decode_body(&approved.body).map_err(|error| Refusal::Malformed(error.to_string()))?;
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
        Ok(Self { membership, signers, approved })
    }

    fn approvers<'a>(&self, judges: &'a Membership) -> impl Iterator<Item = &'a str> {
        let listed = judges.administrators.iter();
        listed.filter(|one| self.signers.contains(&one.key)).map(|one| one.name.as_str())
    }

    fn check_approved_by(&self, judges: &Membership, needed: u32) -> Result<(), Refusal> {
        let found = u32::try_from(self.approvers(judges).count()).unwrap_or(u32::MAX);
        if found < needed { Err(Refusal::Approvals { found, needed }) } else { Ok(()) }
    }

    fn check_succeeds(&self, present: &Membership) -> Result<(), Refusal> {
        if self.membership.cluster != present.cluster {
            return Err(Refusal::Cluster(present.cluster));
        }
        if self.membership.version <= present.version {
            return Err(Refusal::Version { found: self.membership.version, present: present.version });
        }
        self.check_approved_by(present, present.needed_for(&self.membership))
    }
}

/// A document whose signatures hold. Whether those who signed it may, is for whoever takes it to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    last: Version,
    earlier: Vec<Version>,
    digest: [u8; 32],
    bytes: Vec<u8>,
}

impl Document {
    /// Reads a document and verifies every signature on it.
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
        Ok(Self {
            digest: certificates::fingerprint(&body),
            last: Version::read(Approved { body, approvals })?,
            earlier: earlier.into_iter().map(Version::read).collect::<Result<_, _>>()?,
            bytes: bytes.to_vec(),
        })
    }

    /// What it says.
    pub const fn membership(&self) -> &Membership {
        &self.last.membership
    }

    /// SHA-256 of what it says: the same whoever signed it.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// All of it, to be handed on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether enough of its own administrators have signed it: what a first document needs.
    ///
    /// # Errors
    /// `Approvals`.
    pub fn check_first(&self) -> Result<(), Refusal> {
        self.last.check_approved_by(self.membership(), self.membership().approvals)
    }

    /// Whether it may follow the one in force, at once or by the earlier documents that it carries: whose
    /// administrators have approved it.
    ///
    /// # Errors
    /// `Cluster`, `Version` or `Approvals`.
    pub fn check_succeeds<'a>(&'a self, present: &'a Membership) -> Result<&'a Membership, Refusal> {
        let at_once = self.last.check_succeeds(present);
        if !matches!(at_once, Err(Refusal::Approvals { .. })) {
            return at_once.map(|()| present);
        }
        let follow = |judges: &'a Membership, next: &'a Version| match next.check_succeeds(judges) {
            Ok(()) => &next.membership,
            Err(_) => judges,
        };
        let judges = self.earlier.iter().fold(present, follow);
        self.last.check_succeeds(judges).map(|()| judges).or(at_once.map(|()| present))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Administrator, Member, NodeId, document::ClusterId};

    fn administrator(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn listed(name: &str, pair: &Ed25519KeyPair) -> Administrator {
        Administrator { name: name.into(), key: pair.public_key().as_ref().try_into().unwrap() }
    }

    fn member(name: &str, number: u8) -> Member {
        Member {
            name: name.into(),
            address: format!("127.0.0.1:{}", 7000 + u16::from(number)),
            server_name: "localhost".into(),
            authority: vec![number],
            id: NodeId([number; 32]),
            identity: [number | 0x40; 32],
            sealing: [number | 0x80; 32],
        }
    }

    fn membership(version: u64, approvals: u32) -> Membership {
        Membership {
            cluster: ClusterId([9; 16]),
            version,
            members: vec![member("a", 1), member("b", 2)],
            administrators: vec![listed("ann", &administrator(1)), listed("bob", &administrator(2))],
            approvals,
        }
    }

    #[test]
    fn a_later_version_needs_the_administrators_of_the_one_in_force() {
        let (ann, bob, eve) = (administrator(1), administrator(2), administrator(3));
        let present = membership(3, 2);
        let read = |version, signers: &[&Ed25519KeyPair]| {
            Document::read(&membership(version, 1).sign(signers).unwrap()).unwrap()
        };
        assert_eq!(read(4, &[&ann, &bob]).check_succeeds(&present).map(drop), Ok(()));
        assert_eq!(read(9, &[&bob, &eve, &ann]).check_succeeds(&present).map(drop), Ok(()));
        for signers in [&[&ann][..], &[&ann, &ann], &[&ann, &eve], &[]] {
            let refusal = read(4, signers).check_succeeds(&present).unwrap_err();
            assert!(matches!(refusal, Refusal::Approvals { needed: 2, .. }), "{refusal}");
        }
        for version in [1, 3] {
            let refusal = read(version, &[&ann, &bob]).check_succeeds(&present).map(drop);
            assert_eq!(refusal, Err(Refusal::Version { found: version, present: 3 }));
        }
        let other = Membership { cluster: ClusterId([8; 16]), ..membership(4, 1) };
        let other = Document::read(&other.sign(&[&ann, &bob]).unwrap()).unwrap();
        assert_eq!(other.check_succeeds(&present).map(drop), Err(Refusal::Cluster(ClusterId([9; 16]))));
    }

    #[test]
    fn no_administrator_becomes_two_alone() {
        let (ann, bob, eve) = (administrator(1), administrator(2), administrator(3));
        let succeeds = |present: &Membership, next: Membership, signers: &[&Ed25519KeyPair]| {
            let next = Membership { version: present.version + 1, ..next };
            Document::read(&next.sign(signers).unwrap()).unwrap().check_succeeds(present).map(drop)
        };
        let two = membership(3, 1);
        let changed = |change: fn(&mut Membership)| {
            let mut next = two.clone();
            change(&mut next);
            next
        };
        let refused = Err(Refusal::Approvals { found: 1, needed: 2 });
        for next in [
            changed(|m| m.administrators.push(listed("eve", &administrator(3)))),
            changed(|m| drop(m.administrators.pop())),
            changed(|m| m.administrators[1] = listed("bob", &administrator(3))),
            changed(|m| m.administrators[1].name = "ann".into()),
            changed(|m| m.administrators.reverse()),
        ] {
            assert_eq!(succeeds(&two, next.clone(), &[&ann]), refused, "{next:?}");
            // The one whom it admits is none yet.
            assert_eq!(succeeds(&two, next.clone(), &[&ann, &eve]), refused, "{next:?}");
            assert_eq!(succeeds(&two, next, &[&ann, &bob]), Ok(()));
        }
        // Everything else takes as many as the document says.
        let fewer = changed(|m| drop(m.members.pop()));
        assert_eq!(succeeds(&two, fewer, &[&bob]), Ok(()));
        // Nobody alone asks for so many that their own is among them.
        let all = changed(|m| m.approvals = 2);
        assert_eq!(succeeds(&two, all.clone(), &[&bob]), refused);
        assert_eq!(succeeds(&two, all, &[&ann, &bob]), Ok(()));
        // Whoever is alone has nobody to ask; three of three are asked where the document says so.
        let alone = changed(|m| drop(m.administrators.pop()));
        assert_eq!(succeeds(&alone, two.clone(), &[&ann]), Ok(()));
        let mut three = changed(|m| m.administrators.push(listed("eve", &administrator(3))));
        three.approvals = 3;
        let few = succeeds(&three, two.clone(), &[&ann, &bob]);
        assert_eq!(few, Err(Refusal::Approvals { found: 2, needed: 3 }));
        assert_eq!(succeeds(&three, two.clone(), &[&ann, &bob, &eve]), Ok(()));
    }

    #[test]
    fn a_changed_byte_spoils_it() {
        let ann = administrator(1);
        let good = membership(1, 1).sign(&[&ann]).unwrap();
        assert_eq!(Document::read(&good).unwrap().check_first(), Ok(()));
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let judged = Document::read(&bad).and_then(|document| document.check_first());
            assert!(judged.is_err(), "byte {place}");
        }
        assert!(Document::read(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_no_document_may_say_is_not_signed() {
        let changes: [fn(&mut Membership); 10] = [
            |m| m.version = 0,
            |m| m.members.clear(),
            |m| m.members.swap(0, 1),
            |m| m.members[1] = member("a", 2),
            |m| m.members[1].sealing = m.members[0].sealing,
            |m| m.members[0].address = "a.example:7373".into(),
            |m| m.members[0].name = "A".into(),
            |m| m.administrators[1].key = m.administrators[0].key,
            |m| m.approvals = 0,
            |m| m.approvals = 3,
        ];
        for change in changes {
            let mut membership = membership(1, 1);
            change(&mut membership);
            let refusal = membership.sign(&[&administrator(1)]).unwrap_err();
            assert!(matches!(refusal, Refusal::Malformed(_)), "{membership:?}: {refusal}");
        }
    }

    #[test]
    fn whoever_was_away_follows_the_changes_of_those_who_sign() {
        let names = ["ann", "bob", "cid", "dan", "eve"];
        let pairs: Vec<_> = (1..=5).map(administrator).collect();
        let ruled_by = |version: u64, who: &[usize]| {
            let administrators = who.iter().map(|one| listed(names[*one], &pairs[*one])).collect();
            Membership { administrators, ..membership(version, 1) }
        };
        let next = |present: &Document, membership: Membership, signers: &[usize]| {
            let signers: Vec<_> = signers.iter().map(|one| &pairs[*one]).collect();
            let next = Document::read(&membership.sign_after(present, &signers).unwrap()).unwrap();
            next.check_succeeds(present.membership()).unwrap();
            next
        };
        let first = Document::read(&ruled_by(1, &[0]).sign(&[&pairs[0]]).unwrap()).unwrap();
        let mut all = vec![first.clone()];
        for (who, signers) in [
            (&[0][..], &[0][..]),
            (&[0, 1], &[0]),
            (&[0, 1], &[1]),
            (&[0, 1, 2], &[0, 1]),
            (&[1, 2], &[1, 2]),
            (&[1, 2, 3], &[1, 2]),
            (&[2, 3, 4], &[2, 3]),
            (&[2, 3, 4], &[4]),
            (&[2, 3, 4], &[3]),
        ] {
            let version = all.len() as u64 + 1;
            all.push(next(&all[all.len() - 1], ruled_by(version, who), signers));
        }
        let last = all.last().unwrap().clone();
        for present in &all[..all.len() - 1] {
            let judges = last.check_succeeds(present.membership()).unwrap();
            assert_eq!(last.approvers(judges), ["dan"], "from version {}", present.membership().version);
        }
        assert!(matches!(last.check_succeeds(last.membership()), Err(Refusal::Version { .. })));
        // Without those before it, whoever does not know dan does not believe him.
        let bare = Document::read(&last.membership().sign(&[&pairs[3]]).unwrap()).unwrap();
        assert_eq!(bare.digest(), last.digest());
        let refused = bare.check_succeeds(first.membership());
        assert_eq!(refused, Err(Refusal::Approvals { found: 0, needed: 1 }));
        // A change among them that too few have signed leads nowhere, nor does one of another cluster.
        let forged = |membership: Membership| {
            let forged = Document::read(&membership.sign(&[&pairs[0]]).unwrap()).unwrap();
            let mine = Membership { version: 9, ..membership };
            Document::read(&mine.sign_after(&forged, &[&pairs[0], &pairs[4]]).unwrap()).unwrap()
        };
        let two = all[2].membership();
        let alone = forged(ruled_by(4, &[0, 4]));
        assert_eq!(alone.check_succeeds(two), Err(Refusal::Approvals { found: 1, needed: 2 }));
        let elsewhere = forged(Membership { cluster: ClusterId([8; 16]), ..ruled_by(4, &[0, 4]) });
        assert_eq!(elsewhere.check_succeeds(two), Err(Refusal::Cluster(ClusterId([9; 16]))));
        // It does not grow without end.
        let mut long = all[1].clone();
        for version in 3..100 {
            let who: &[usize] = if version % 2 == 0 { &[0] } else { &[0, 1] };
            long = next(&long, ruled_by(version, who), &[0, 1]);
        }
        assert_eq!(long.earlier.len(), MAX_EARLIER);
        assert!(long.check_succeeds(first.membership()).is_ok());
    }
}
