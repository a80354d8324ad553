//! The membership document: who the nodes are, under which keys, and who may say so.
//!
//! Each version names the administrators of the next one and how many of them it takes; where there are two or more, a
//! change of the administrators takes two in any case, so that none of them becomes two.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use minicbor::{Decode, Encode};
use strongroom_shared::hex::Hex;

use super::{Neighbour, NodeId};
use crate::certificates;

/// The most nodes of a cluster.
pub const MAX_MEMBERS: usize = 32;
/// The most administrators of a cluster.
pub const MAX_ADMINISTRATORS: usize = 16;
/// How many administrators a change of the administrators takes, where there are as many, whatever the document says.
pub const CHANGE_OF_ADMINISTRATORS: u32 = 2;

/// How far beyond the version in force a document's may be: nobody has so many signed while a node is away, and nobody uses the
/// versions up.
pub const MAX_STEP: u64 = 1_000_000;

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
    /// Its version is too far beyond the one in force.
    Step {
        /// Its version.
        found: u64,
        /// The one in force; 0 if there is none.
        present: u64,
    },
    /// Earlier documents that it says it carries are not there.
    Stripped,
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
            Self::Step { found, present } => write!(
                f,
                "it is version {found}, version {present} is in force, and it may be at most {MAX_STEP} beyond that"
            ),
            Self::Stripped => f.write_str(
                "the earlier documents by which its signers came were taken off or changed by whoever handed it on: \
                 get it from another node",
            ),
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

    /// The version of the document after this one.
    ///
    /// # Errors
    /// `Malformed`: there is none.
    pub fn next_version(&self) -> Result<u64, Refusal> {
        self.version.checked_add(1).ok_or_else(|| {
            let version = self.version;
            Refusal::Malformed(format!(
                "version {version} is the last that there can be: begin a new cluster"
            ))
        })
    }

    /// Whether its version is not too far beyond this one.
    pub(super) const fn check_step(&self, present: u64) -> Result<(), Refusal> {
        if self.version > present.saturating_add(MAX_STEP) {
            return Err(Refusal::Step { found: self.version, present });
        }
        Ok(())
    }

    /// How many of its administrators it takes to have this one follow.
    pub fn needed_for(&self, next: &Self) -> u32 {
        let there = u32::try_from(self.administrators.len()).unwrap_or(u32::MAX);
        // One who alone could ask for as many approvals as there are administrators could never be dismissed again.
        let same = next.administrators == self.administrators && next.approvals == self.approvals;
        if same || there < CHANGE_OF_ADMINISTRATORS {
            return self.approvals;
        }
        self.approvals.max(CHANGE_OF_ADMINISTRATORS)
    }

    /// Whether a document may say so.
    pub(super) fn check(&self) -> Result<(), Refusal> {
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
