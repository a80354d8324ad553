//! What nodes of a cluster say to each other, and `hsmctl cluster` to each of them.

use minicbor::{Decode, Encode, bytes::ByteVec};

messages! {
    /// `hsmctl cluster`: asks a server who it is as a node.
    Introduce {
        /// What the asker calls it, for the audit record.
        0 name: String,
        /// 32 random bytes of the asker, which the proof then covers.
        1 challenge: Option<ByteVec>,
    }
    /// Who a server is as a node, and what it knows of its cluster.
    Introduction {
        /// The CA that makes its server certificates, in DER.
        0 authority: Vec<u8> as "minicbor::bytes",
        /// The certificate that it shows to other nodes, in DER.
        1 certificate: Vec<u8> as "minicbor::bytes",
        /// Its Ed25519 public key, which signs what it vouches for.
        2 identity: Vec<u8> as "minicbor::bytes",
        /// Its X25519 public key, which other vaults seal for.
        3 sealing: Vec<u8> as "minicbor::bytes",
        /// Its membership document; empty if it has none.
        4 document: Vec<u8> as "minicbor::bytes",
        /// The signature of its identity key over the challenge and all of this. Absent without a challenge.
        5 proof: Option<ByteVec>,
    }
    /// Puts a membership document in force.
    InstallMembership {
        /// The document with its approvals.
        0 document: Vec<u8> as "minicbor::bytes",
    }
    /// `hsmctl cluster list`.
    ReadCluster {}
    /// A cluster, as one of its nodes sees it.
    ClusterState {
        /// Its membership document; empty if the server belongs to none.
        0 document: Vec<u8> as "minicbor::bytes",
        /// Every member, in the document's order.
        1 members: Vec<MemberState>,
    }
    /// How one node finds another.
    MemberState {
        /// Its name.
        0 name: String,
        /// Whether it answered lately.
        1 reachable: bool,
        /// Whether its vault proved who it is, so that secrets may be sealed for it.
        2 sealed: bool,
        /// The version of the membership document that it has.
        3 version: Option<u64>,
        /// When it last answered, in seconds since 1970.
        4 seen: Option<u64>,
        /// What is wrong, if anything is.
        5 trouble: String,
        /// SHA-256 of the membership that its document states; absent if it has not been heard of.
        6 digest: Option<ByteVec>,
    }
    /// From node to node: are you there, and how new is your document?
    GreetNode {
        /// The version of the caller's membership document.
        0 version: u64,
    }
    /// It is there.
    NodeGreeting {
        /// The version of its membership document.
        0 version: u64,
        /// SHA-256 of the membership that it states.
        1 digest: Option<ByteVec>,
    }
    /// From node to node: a newer membership document, which proves itself.
    OfferMembership {
        /// The document with its approvals.
        0 document: Vec<u8> as "minicbor::bytes",
    }
    /// From vault to vault: the first message of a Noise handshake (KK).
    ShakeHands {
        /// As Noise writes it.
        0 message: Vec<u8> as "minicbor::bytes",
    }
    /// The second one.
    HandsShaken {
        /// By which the caller names the session from now on.
        0 session: u64,
        /// As Noise writes it.
        1 message: Vec<u8> as "minicbor::bytes",
    }
    /// From vault to vault: a question in a Noise session.
    SealedCall {
        /// Which session.
        0 session: u64,
        /// Which message of it: none is taken twice.
        1 counter: u64,
        /// The question, sealed.
        2 sealed: Vec<u8> as "minicbor::bytes",
    }
    /// Its answer.
    SealedReply {
        /// Sealed under the question's number; empty if the session has ended: shake hands again.
        0 sealed: Vec<u8> as "minicbor::bytes",
    }
}
