//! The membership document: who the nodes are, under which keys, and who may say so.
//!
//! It is signed by administrators with Ed25519 keys of their own (not their TLS keys, which renew themselves). Each
//! version names the administrators of the next one and how many of them it takes. Whoever holds version n can
//! judge version n+1 alone, so it does not matter who hands it over; a lower version than one's own is never taken.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::{hex::Hex, wire::decode_body};

use super::{Neighbour, NodeId};
use crate::certificates;

/// What a signature covers before the document's bytes.
const LABEL: &[u8] = b"strongroom membership 1\0";
/// The most nodes of a cluster.
pub const MAX_MEMBERS: usize = 32;
/// The most administrators of a cluster.
pub const MAX_ADMINISTRATORS: usize = 16;

/// The name of a cluster for ever: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ClusterId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// What a membership document says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// Which cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// From 1; every change has a higher one.
    #[n(1)]
    pub version: u64,
    /// The nodes, in the order of their names.
    #[n(2)]
    pub members: Vec<Member>,
    /// Who may sign the next version.
    #[n(3)]
    pub administrators: Vec<Administrator>,
    /// How many of them it takes.
    #[n(4)]
    pub approvals: u32,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// 1 to 32 characters of `a`–`z`, `0`–`9`, `-` and `_`.
    #[n(0)]
    pub name: String,
    /// Where other nodes reach it: an IP address and a port.
    #[n(1)]
    pub address: String,
    /// The name in its server certificate.
    #[n(2)]
    pub server_name: String,
    /// The CA that makes its server certificates, in DER.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub authority: Vec<u8>,
    /// SHA-256 of the certificate that it shows to other nodes.
    #[n(4)]
    pub id: NodeId,
    /// Its Ed25519 public key.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub identity: [u8; 32],
    /// Its X25519 public key, for Noise.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub sealing: [u8; 32],
}

/// Somebody who may sign the next version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Administrator {
    /// For people.
    #[n(0)]
    pub name: String,
    /// Ed25519.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// A document's bytes with the signatures over them.
#[derive(Debug, Encode, Decode)]
struct Signed {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(1)]
    approvals: Vec<Approval>,
}

/// One administrator's signature.
#[derive(Debug, Encode, Decode)]
struct Approval {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read, or says what no document may say.
    Malformed(String),
    /// A signature on it is not one of its bytes.
    Signature,
    /// Too few of those who may approve it have signed it.
    Approvals {
        /// How many have.
        found: u32,
        /// How many it takes.
        needed: u32,
    },
    /// It is not newer than the one in force.
    Version {
        /// Its version.
        found: u64,
        /// The one in force.
        present: u64,
    },
    /// It is another cluster's.
    Cluster(ClusterId),
    /// It does not name this server, or with other keys than it has.
    Stranger(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("membership document refused: ")?;
        match self {
            Self::Malformed(reason) => f.write_str(reason),
            Self::Signature => f.write_str("a signature on it is wrong"),
            Self::Approvals { found, needed } => write!(
                f,
                "{found} of the administrators that the document in force lists have signed it, it takes {needed}"
            ),
            Self::Version { found, present } => {
                write!(f, "it is version {found}, version {present} is in force")
            }
            Self::Cluster(cluster) => write!(f, "this server belongs to cluster {cluster}"),
            Self::Stranger(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refusal {}

impl Member {
    /// Where it is, for a front.
    ///
    /// # Errors
    /// `Malformed` if its address is none.
    pub fn neighbour(&self) -> Result<Neighbour, Refusal> {
        let address: SocketAddr = self
            .address
            .parse()
            .map_err(|_| Refusal::Malformed(format!("{:?} of {} is not IP:PORT", self.address, self.name)))?;
        Ok(Neighbour {
            id: self.id,
            name: self.name.clone(),
            address,
            server_name: self.server_name.clone(),
            authority: self.authority.clone(),
        })
    }
}

impl Membership {
    /// The node with this identity key.
    pub fn member(&self, identity: &[u8; 32]) -> Option<&Member> {
        self.members.iter().find(|member| member.identity == *identity)
    }

    /// The document with the signatures of these administrators.
    ///
    /// # Errors
    /// `Malformed` if it says what no document may say.
    pub fn sign(&self, signers: &[&Ed25519KeyPair]) -> Result<Vec<u8>, Refusal> {
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
        encode(&Signed { body, approvals })
    }

    fn check(&self) -> Result<(), Refusal> {
        let fail = |reason: String| Err(Refusal::Malformed(reason));
        if self.version == 0 {
            return fail("versions begin at 1".into());
        }
        if !(1..=MAX_MEMBERS).contains(&self.members.len()) {
            return fail(format!("{} members: 1 to {MAX_MEMBERS}", self.members.len()));
        }
        if !(1..=MAX_ADMINISTRATORS).contains(&self.administrators.len()) {
            return fail(format!("{} administrators: 1 to {MAX_ADMINISTRATORS}", self.administrators.len()));
        }
        let needed = usize::try_from(self.approvals).unwrap_or(usize::MAX);
        if !(1..=self.administrators.len()).contains(&needed) {
            return fail(format!("{needed} approvals of {} administrators", self.administrators.len()));
        }
        if !self.members.is_sorted_by(|one, next| one.name < next.name) {
            return fail("members stand in the order of their names, each once".into());
        }
        let names = self.administrators.iter().map(|administrator| &administrator.name);
        if let Some(name) =
            names.chain(self.members.iter().map(|member| &member.name)).find(|n| !certificates::is_name(n))
        {
            return fail(format!("{name:?} is not a name"));
        }
        let distinct = |keys: Vec<[u8; 32]>| keys.iter().collect::<BTreeSet<_>>().len() == keys.len();
        let of_members = |key: fn(&Member) -> [u8; 32]| distinct(self.members.iter().map(key).collect());
        let apart = of_members(|m| m.id.0) && of_members(|m| m.identity) && of_members(|m| m.sealing);
        if !apart || !distinct(self.administrators.iter().map(|a| a.key).collect()) {
            return fail("a key stands in it twice".into());
        }
        self.members.iter().try_for_each(|member| member.neighbour().map(drop))
    }
}

/// A document whose signatures hold. Whether those who signed it may, is for whoever takes it to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    membership: Membership,
    digest: [u8; 32],
    bytes: Vec<u8>,
    signers: Vec<[u8; 32]>,
}

impl Document {
    /// Reads a document and verifies every signature on it.
    ///
    /// # Errors
    /// `Malformed` or `Signature`.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |error: &dyn fmt::Display| Refusal::Malformed(error.to_string());
        let signed: Signed = decode_body(bytes).map_err(|error| malformed(&error))?;
        let membership: Membership = decode_body(&signed.body).map_err(|error| malformed(&error))?;
        membership.check()?;
        if signed.approvals.len() > MAX_ADMINISTRATORS {
            return Err(Refusal::Malformed("too many signatures".into()));
        }
        let message = [LABEL, &signed.body].concat();
        for approval in &signed.approvals {
            UnparsedPublicKey::new(&ED25519, approval.key)
                .verify(&message, &approval.signature)
                .map_err(|_| Refusal::Signature)?;
        }
        let signers = signed.approvals.iter().map(|approval| approval.key).collect();
        let digest = certificates::fingerprint(&signed.body);
        Ok(Self { membership, digest, bytes: bytes.to_vec(), signers })
    }

    /// What it says.
    pub const fn membership(&self) -> &Membership {
        &self.membership
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
        self.check_approved_by(&self.membership)
    }

    /// Whether it may follow the one in force.
    ///
    /// # Errors
    /// `Cluster`, `Version` or `Approvals`.
    pub fn check_succeeds(&self, present: &Membership) -> Result<(), Refusal> {
        if self.membership.cluster != present.cluster {
            return Err(Refusal::Cluster(present.cluster));
        }
        if self.membership.version <= present.version {
            return Err(Refusal::Version { found: self.membership.version, present: present.version });
        }
        self.check_approved_by(present)
    }

    /// The names of those among `judges` who signed it.
    pub fn approvers<'a>(&self, judges: &'a Membership) -> Vec<&'a str> {
        let listed = judges.administrators.iter();
        listed.filter(|one| self.signers.contains(&one.key)).map(|one| one.name.as_str()).collect()
    }

    fn check_approved_by(&self, judges: &Membership) -> Result<(), Refusal> {
        let found = u32::try_from(self.approvers(judges).len()).unwrap_or(u32::MAX);
        let needed = judges.approvals;
        if found < needed { Err(Refusal::Approvals { found, needed }) } else { Ok(()) }
    }
}

fn encode<T: Encode<()>>(value: &T) -> Result<Vec<u8>, Refusal> {
    minicbor::to_vec(value).map_err(|error| Refusal::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(read(4, &[&ann, &bob]).check_succeeds(&present), Ok(()));
        assert_eq!(read(9, &[&bob, &eve, &ann]).check_succeeds(&present), Ok(()));
        for signers in [&[&ann][..], &[&ann, &ann], &[&ann, &eve], &[]] {
            let refusal = read(4, signers).check_succeeds(&present).unwrap_err();
            assert!(matches!(refusal, Refusal::Approvals { needed: 2, .. }), "{refusal}");
        }
        for version in [1, 3] {
            let refusal = read(version, &[&ann, &bob]).check_succeeds(&present);
            assert_eq!(refusal, Err(Refusal::Version { found: version, present: 3 }));
        }
        let other = Membership { cluster: ClusterId([8; 16]), ..membership(4, 1) };
        let other = Document::read(&other.sign(&[&ann, &bob]).unwrap()).unwrap();
        assert_eq!(other.check_succeeds(&present), Err(Refusal::Cluster(ClusterId([9; 16]))));
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
}
