//! Names of rows: typed for the vault, and texts of ids for the disk.

use std::fmt;

use strongroom_shared::object::ObjectId;

/// The name of a partition for ever: its token's serial number, which is 16 characters (`CK_TOKEN_INFO`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub [u8; 8]);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionId({self})")
    }
}

/// Where a record of the vault stands. What belongs to a partition is sealed by that partition's own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// The server's certificate authority.
    Authority,
    /// The keys by which the server is a node.
    Node,
    /// The membership document of its cluster.
    Membership,
    /// An order of administrators that waits, by the SHA-256 of its text.
    Order([u8; 32]),
    /// A client, by the SHA-256 of its certificate.
    Client([u8; 32]),
    /// A partition: its name, its label, its switches.
    Partition(PartitionId),
    /// A partition's PINs and their counters.
    Roles(PartitionId),
    /// A partition's policy.
    Policy(PartitionId),
    /// A token object.
    Object(PartitionId, ObjectId),
    /// This node's share of a key, by the private key's object.
    Share(PartitionId, ObjectId),
    /// A share that waits for all nodes to have theirs, with its epoch.
    Pending(PartitionId, ObjectId, u64),
    /// A share that another has replaced.
    Former(PartitionId, ObjectId),
    /// What is known of a key's shares beside their certificate.
    Standing(PartitionId, ObjectId),
    /// Which holders of a key's shares must not sign together.
    Bans(PartitionId, ObjectId),
    /// A BIP-32 descendant of a key of which this node holds a share, by its object.
    Child(PartitionId, ObjectId),
    /// That a shared key was destroyed here, by its object.
    Destroyed(PartitionId, ObjectId),
    /// Which nodes may have something left of a shared key, by its object.
    Traces(PartitionId, ObjectId),
    /// That this node takes no certificate of a key's first shares, which are to be abandoned.
    Promise(PartitionId, ObjectId),
    /// A client's Ed25519 key, with which it signs mandates for a partition.
    Admission(PartitionId, [u8; 32]),
}

impl Path {
    /// The partition that it belongs to.
    pub const fn partition(&self) -> Option<PartitionId> {
        match self {
            Self::Authority | Self::Node | Self::Membership | Self::Order(_) | Self::Client(_) => None,
            Self::Partition(id)
            | Self::Roles(id)
            | Self::Policy(id)
            | Self::Object(id, _)
            | Self::Share(id, _)
            | Self::Pending(id, ..)
            | Self::Former(id, _)
            | Self::Standing(id, _)
            | Self::Bans(id, _)
            | Self::Child(id, _)
            | Self::Destroyed(id, _)
            | Self::Traces(id, _)
            | Self::Promise(id, _)
            | Self::Admission(id, _) => Some(*id),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("authority"),
            Self::Node => f.write_str("node"),
            Self::Membership => f.write_str("membership"),
            Self::Order(digest) => {
                f.write_str("order/")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Client(fingerprint) => {
                f.write_str("client/")?;
                fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Partition(id) => write!(f, "partition/{id}"),
            Self::Roles(id) => write!(f, "partition/{id}/roles"),
            Self::Policy(id) => write!(f, "partition/{id}/policy"),
            Self::Object(id, object) => write!(f, "partition/{id}/object/{object}"),
            Self::Share(id, object) => write!(f, "partition/{id}/share/{object}"),
            Self::Pending(id, object, epoch) => write!(f, "partition/{id}/pending/{object}/{epoch}"),
            Self::Former(id, object) => write!(f, "partition/{id}/former/{object}"),
            Self::Standing(id, object) => write!(f, "partition/{id}/standing/{object}"),
            Self::Bans(id, object) => write!(f, "partition/{id}/bans/{object}"),
            Self::Child(id, object) => write!(f, "partition/{id}/child/{object}"),
            Self::Destroyed(id, object) => write!(f, "partition/{id}/destroyed/{object}"),
            Self::Traces(id, object) => write!(f, "partition/{id}/traces/{object}"),
            Self::Promise(id, object) => write!(f, "partition/{id}/promise/{object}"),
            // Not below the partition's name: that would be longer than a name may be.
            Self::Admission(id, key) => {
                write!(f, "admission/{id}/")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// The name of any row: the vault's records, and the rows of this room, which the vault cannot name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// What the store as a whole should be.
    Manifest,
    /// Tells a wrong root key from a broken manifest.
    Witness,
    /// A partition's key, sealed by the store's.
    Key(PartitionId),
    /// A record of the vault.
    Record(Path),
}

impl Name {
    /// The longest text of a name, in bytes.
    pub(super) const LONGEST: usize = 96;

    /// The partition that the row goes with, its key included.
    pub(super) const fn partition(&self) -> Option<PartitionId> {
        match self {
            Self::Manifest | Self::Witness => None,
            Self::Key(id) => Some(*id),
            Self::Record(path) => path.partition(),
        }
    }

    /// Reads what `Display` writes, and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let name = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("manifest", None, None, None) => Self::Manifest,
            ("witness", None, None, None) => Self::Witness,
            ("authority", None, None, None) => Self::Record(Path::Authority),
            ("node", None, None, None) => Self::Record(Path::Node),
            ("membership", None, None, None) => Self::Record(Path::Membership),
            ("order", Some(digest), None, None) => Self::Record(Path::Order(hex(digest)?)),
            ("client", Some(id), None, None) => Self::Record(Path::Client(hex(id)?)),
            ("admission", Some(id), Some(key), None) => {
                Self::Record(Path::Admission(PartitionId(hex(id)?), hex(key)?))
            }
            ("partition", Some(id), kind, object) => {
                let id = PartitionId(hex(id)?);
                match (kind, object) {
                    (None, None) => Self::Record(Path::Partition(id)),
                    (Some("key"), None) => Self::Key(id),
                    (Some("roles"), None) => Self::Record(Path::Roles(id)),
                    (Some("policy"), None) => Self::Record(Path::Policy(id)),
                    (Some("object"), Some(object)) => Self::Record(Path::Object(id, ObjectId(hex(object)?))),
                    (Some("share"), Some(object)) => Self::Record(Path::Share(id, ObjectId(hex(object)?))),
                    (Some("pending"), Some(object)) => {
                        let epoch = parts.next()?.parse().ok()?;
                        Self::Record(Path::Pending(id, ObjectId(hex(object)?), epoch))
                    }
                    (Some("former"), Some(object)) => Self::Record(Path::Former(id, ObjectId(hex(object)?))),
                    (Some("standing"), Some(object)) => {
                        Self::Record(Path::Standing(id, ObjectId(hex(object)?)))
                    }
                    (Some("bans"), Some(object)) => Self::Record(Path::Bans(id, ObjectId(hex(object)?))),
                    (Some("child"), Some(object)) => Self::Record(Path::Child(id, ObjectId(hex(object)?))),
                    (Some("destroyed"), Some(object)) => {
                        Self::Record(Path::Destroyed(id, ObjectId(hex(object)?)))
                    }
                    (Some("traces"), Some(object)) => Self::Record(Path::Traces(id, ObjectId(hex(object)?))),
                    (Some("promise"), Some(object)) => {
                        Self::Record(Path::Promise(id, ObjectId(hex(object)?)))
                    }
                    (_, _) => return None,
                }
            }
            (_, _, _, _) => return None,
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("manifest"),
            Self::Witness => f.write_str("witness"),
            Self::Key(id) => write!(f, "partition/{id}/key"),
            Self::Record(path) => path.fmt(f),
        }
    }
}

/// Reads hexadecimal digits into exactly `N` bytes.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Name> {
        let (id, object) = (PartitionId([0, 1, 2, 3, 4, 5, 0xfe, 0xff]), ObjectId([0xab; 16]));
        let records = [
            Path::Authority,
            Path::Node,
            Path::Membership,
            Path::Order([0x0a; 32]),
            Path::Client([0x0c; 32]),
            Path::Partition(id),
            Path::Roles(id),
            Path::Policy(id),
            Path::Object(id, object),
            Path::Share(id, object),
            Path::Pending(id, object, 0),
            Path::Pending(id, object, u64::MAX),
            Path::Former(id, object),
            Path::Standing(id, object),
            Path::Bans(id, object),
            Path::Child(id, object),
            Path::Destroyed(id, object),
            Path::Traces(id, object),
            Path::Promise(id, object),
            Path::Admission(id, [0x0d; 32]),
        ];
        [Name::Manifest, Name::Witness, Name::Key(id)].into_iter().chain(records.map(Name::Record)).collect()
    }

    #[test]
    fn every_name_reads_back_and_fits() {
        for name in every_kind() {
            let text = name.to_string();
            assert_eq!(Name::parse(&text), Some(name), "{text}");
            assert!(text.len() <= Name::LONGEST, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_not_read() {
        let key = "partition/000102030405feff/key";
        assert!(Name::parse(key).is_some());
        for wrong in [
            "",
            "Manifest",
            "manifest/",
            "partition",
            "partition/",
            "partition/1",
            "partition/000102030405FEFF/key",
            "partition/000102030405feff/",
            "partition/000102030405feff/key/",
            "partition/000102030405feff/key/00",
            "partition/000102030405feff/object",
            "partition/000102030405feff/object/abab",
            "partition/000102030405feff/pending/abababababababababababababababab",
            "partition/000102030405feff/pending/abababababababababababababababab/+1",
            "order/abab",
            "client/+1",
        ] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}
