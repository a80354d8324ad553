//! Mandates: what an application wants of several nodes, signed so that each of them can check it for itself.
//!
//! A threshold key is worth no more than the nodes' knowledge of what they are asked to sign. The node that takes
//! the call passes the application's own signed word on, and every other node believes that word, not the node.

use minicbor::{Decode, Encode};

/// What is signed before a mandate's text, so that its signature is good for nothing else.
const LABEL: &[u8] = b"strongroom mandate 2\0";

/// A private key as an application was shown it. An application finds its keys through one node, which may lie: so it
/// says which key it means, and every node holds that against its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// SHA-256 of `CKA_PUBLIC_KEY_INFO` (a DER SubjectPublicKeyInfo, RFC 5280, 4.1.2.7).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub public: [u8; 32],
    /// `CKA_LABEL`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub label: Vec<u8>,
    /// `CKA_ID`.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub id: Vec<u8>,
}

/// One call, meant for every node that has a part in it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mandate {
    /// The cluster that it is meant for.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub cluster: [u8; 16],
    /// The partition's name: the same at every node.
    #[n(1)]
    pub partition: String,
    /// The client's Ed25519 public key, as it was admitted.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Makes the text unlike that of any other mandate; a call that is sent again has the same. A node knows a mandate
    /// by the SHA-256 of its text.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// When it ends, in seconds since 1970.
    #[n(4)]
    pub expires: u64,
    /// The number of the ordinary call that is meant.
    #[n(5)]
    pub call: u16,
    /// That call as it travels, without its caller.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// The key that the call is about. A node refuses a mandate for the use or the end of a key that does not say.
    #[n(7)]
    pub seen: Option<Seen>,
}

impl Mandate {
    /// For how long a mandate may be good, in seconds.
    pub const LONGEST: u64 = 120;

    /// What the client signs, and a node verifies: the text of a mandate after its label.
    pub fn to_sign(text: &[u8]) -> Vec<u8> {
        [LABEL, text].concat()
    }
}

/// A mandate and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mandated {
    /// The mandate as it was signed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub text: Vec<u8>,
    /// Ed25519 over [`Mandate::to_sign`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}
