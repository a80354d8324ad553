//! What `hsmctl` and the vault say to each other.

use minicbor::{Decode, Encode};

use super::{InstanceId, MemberState};
use crate::object::{Descent, ObjectId, ObjectInfo};

messages! {
    /// `hsmctl partition create`.
    CreatePartition {
        /// 1 to 32 characters of `a`–`z`, `0`–`9`, `-` and `_`.
        0 name: String,
    }
    /// `hsmctl partition delete`: destroys its keys and revokes its clients.
    DeletePartition {
        /// Its name.
        0 name: String,
    }
    /// `hsmctl partition list`.
    ListPartitions {}
    /// Every partition.
    Partitions {
        /// In the order of their names.
        0 partitions: Vec<PartitionInfo>,
    }
    /// A partition, for an administrator.
    PartitionInfo {
        /// Its name.
        0 name: String,
        /// Its token's serial number.
        1 serial: String,
        /// Its token's label; empty before `C_InitToken`.
        2 label: String,
        /// How many token objects it holds.
        3 objects: u64,
        /// Whether it is frozen.
        4 frozen: bool,
    }
    /// `hsmctl client add`: has a certificate made for a key that only the client holds.
    AddClient {
        /// 1 to 32 characters of `a`–`z`, `0`–`9`, `-` and `_`; becomes the common name.
        0 name: String,
        /// The partition that it may use; absent for an administrator.
        1 partition: Option<String>,
        /// A PKCS#10 request in DER: its public key is what counts.
        2 request: Vec<u8> as "minicbor::bytes",
        /// For how many days the certificate is to be good.
        3 days: u32,
    }
    /// A new certificate.
    Certificate {
        /// The certificate in PEM.
        0 certificate: String,
        /// The CA's certificate in PEM.
        1 authority: String,
    }
    /// `hsmctl client revoke`: refused from the next handshake on, and open connections are closed.
    RevokeClient {
        /// The client's name.
        0 name: String,
    }
    /// `hsmctl client admit`: from now on this server believes mandates that are signed with the client's key.
    AdmitClient {
        /// The client's name.
        0 name: String,
        /// The partition for which the mandates are.
        1 partition: String,
        /// The client's Ed25519 public key.
        2 key: Vec<u8> as "minicbor::bytes",
    }
    /// `hsmctl client list`.
    ListClients {}
    /// Every client.
    Clients {
        /// In the order of their names.
        0 clients: Vec<ClientInfo>,
        /// The keys that clients may sign mandates with.
        1 admitted: Option<Vec<AdmittedKey>>,
    }
    /// A key that was admitted.
    AdmittedKey {
        /// The client's name.
        0 name: String,
        /// The partition for which its mandates are.
        1 partition: String,
        /// The Ed25519 public key.
        2 key: Vec<u8> as "minicbor::bytes",
    }
    /// A client, for an administrator.
    ClientInfo {
        /// Its name.
        0 name: String,
        /// The partition that it may use; absent for an administrator.
        1 partition: Option<String>,
        /// SHA-256 of its certificate.
        2 fingerprint: Vec<u8> as "minicbor::bytes",
        /// When the certificate ends, in seconds since 1970.
        3 not_after: u64,
        /// Whether it was revoked.
        4 revoked: bool,
    }
    /// `hsmctl key list`.
    ListKeys {
        /// The partition's name.
        0 partition: String,
    }
    /// The token keys of a partition.
    Keys {
        /// In the order of their ids.
        0 keys: Vec<KeyInfo>,
    }
    /// A key, for an administrator: never its value.
    KeyInfo {
        /// What the provider knows too.
        0 object: ObjectInfo,
        /// `CKA_LABEL`.
        1 label: String,
        /// `CKA_ID`.
        2 id: Vec<u8> as "minicbor::bytes",
        /// Whether it is frozen.
        3 frozen: bool,
        /// Where a BIP-32 descendant comes from.
        4 descent: Option<Descent>,
    }
    /// `hsmctl policy set`.
    SetPolicy {
        /// The partition's name.
        0 partition: String,
        /// The text of its `policy.toml`.
        1 text: String,
    }
    /// `hsmctl policy show`.
    ReadPolicy {
        /// The partition's name.
        0 partition: String,
    }
    /// The policy in force.
    PolicyText {
        /// As it was set; empty if none was.
        0 text: String,
    }
    /// `hsmctl freeze`: nothing is signed, decrypted or changed until it is thawed.
    Freeze {
        /// The partition's name.
        0 partition: String,
        /// One key of it; absent for all.
        1 key: Option<ObjectId>,
    }
    /// `hsmctl thaw`.
    Thaw {
        /// The partition's name.
        0 partition: String,
        /// One key of it; absent for the partition's own switch.
        1 key: Option<ObjectId>,
    }
    /// `hsmctl audit tail`. To read on after the last answer to the same connection is part of the same act.
    TailAudit {
        /// How many records at most.
        0 count: u32,
        /// Only records after this number.
        1 after: Option<u64>,
    }
    /// Records, oldest first.
    AuditRecords {
        /// As many as were asked for, or there are.
        0 records: Vec<AuditRecord>,
    }
    /// `hsmctl audit verify`: reads the whole log.
    VerifyAudit {}
    /// The log is whole.
    AuditVerified {
        /// How many records it has.
        0 records: u64,
        /// The link of the last one.
        1 head: Vec<u8> as "minicbor::bytes",
    }
    /// `hsmctl server renew`: the server makes itself a new key and certificate, and shows it from then on.
    RenewServer {
        /// For how many days it is to be good; as the present one if absent.
        0 days: Option<u32>,
    }
    /// The server's certificate is another one.
    ServerRenewed {
        /// When it ends, in seconds since 1970.
        0 not_after: u64,
        /// SHA-256 of it.
        1 fingerprint: Vec<u8> as "minicbor::bytes",
    }
    /// `hsmctl status`.
    ReadStatus {}
    /// How the server is.
    Status {
        /// Its name and version.
        0 server: String,
        /// When the vault started, in seconds since 1970.
        1 started: u64,
        /// How many partitions it holds.
        2 partitions: u64,
        /// How many token objects it holds.
        3 objects: u64,
        /// How many session objects it holds.
        4 session_objects: u64,
        /// How many audit records there are.
        5 audit_records: u64,
        /// `process` or `thread`.
        6 isolation: String,
        /// `process` or `power`.
        7 commit: String,
        /// How many shares of keys wait until every node has said that it holds its own.
        8 waiting_shares: Option<u64>,
        /// What it knows as a node; absent if it is none of any cluster.
        9 cluster: Option<ClusterStatus>,
    }
    /// How a cluster is, and the keys that its nodes share, as one of them knows it.
    ClusterStatus {
        /// The cluster's id, 16 bytes.
        0 cluster: Vec<u8> as "minicbor::bytes",
        /// The version of the membership document in force here.
        1 version: u64,
        /// The node's own name.
        2 node: String,
        /// How many nodes there are, itself among them.
        3 nodes: u64,
        /// Those that are not well: that did not answer lately, or whose vault has not proved who it is.
        4 ill: Vec<MemberState>,
        /// Of how many keys it uses a share.
        5 shared_keys: u64,
        /// Of how many it keeps what was before, a share or the whole key, until those after it have shown that they sign.
        6 unproven: u64,
        /// Of how many its share is of a former epoch, and it has lost the one that the others use.
        7 lost: u64,
        /// Of how many a pair of nodes must not sign together any more.
        8 banned: u64,
        /// How many new keys it has promised to give up.
        9 given_up: u64,
        /// How many orders wait here, for more signatures or to be tried again.
        10 orders: u64,
    }
}

/// One record of the audit log, as told to an administrator and as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AuditRecord {
    /// Its number, from 1, without gaps.
    #[n(0)]
    pub sequence: u64,
    /// When, in microseconds since 1970.
    #[n(1)]
    pub time: u64,
    /// The partition's name; empty for acts on the server itself.
    #[n(2)]
    pub partition: String,
    /// The client's name, as its certificate gives it; `-` for the server itself.
    #[n(3)]
    pub client: String,
    /// SHA-256 of the client's certificate, its first 8 bytes.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// The application.
    #[n(5)]
    pub instance: InstanceId,
    /// Its session.
    #[n(6)]
    pub session: u64,
    /// The number of the request, which a resent copy shares.
    #[n(7)]
    pub request: u64,
    /// What was asked for: the name of the call.
    #[n(8)]
    pub act: String,
    /// The object that was made, used or destroyed.
    #[n(9)]
    pub object: Option<ObjectId>,
    /// The mechanism, `CKM_*`.
    #[n(10)]
    pub mechanism: Option<u64>,
    /// SHA-256 of the message.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub message_hash: Vec<u8>,
    /// How it ended.
    #[n(12)]
    pub outcome: Outcome,
    /// The rule that refused it, the name of what was administered, or what failed.
    #[n(13)]
    pub detail: String,
    /// The version of the store that this record speaks of, for acts that changed the store.
    #[n(14)]
    pub store_version: Option<u64>,
    /// The key whose limit was charged: the first of its copies. What the ledger is rebuilt from.
    #[n(15)]
    pub charged: Option<ObjectId>,
}

/// How an audited act ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// It was carried out (or, for a signature, allowed and about to be made).
    #[default]
    #[n(0)]
    Done,
    /// Policy or access control refused it.
    #[n(1)]
    Refused,
    /// It was allowed and could not be done.
    #[n(2)]
    Failed,
}
