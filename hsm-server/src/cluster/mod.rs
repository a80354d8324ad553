//! The cluster room: who the nodes are, and how one vault seals for another. Pure: no socket, no clock, no store.
//!
//! A node is an ordinary server with a node identity. Which nodes belong together stands in a [`Membership`], a
//! document that administrators sign and that proves itself, so that nodes may hand it to one another and none of
//! them, and no front on the way, can change it ([`document`]); who a server is, its vault proves ([`introduction`]). What
//! administrators have nodes do with a key's shares stands in an [`order`]. Vaults speak to each other through Noise sessions
//! ([`noise`]): fronts carry what they cannot read. [`Peers`] is the vault's way out.

mod approved;
mod aws_lc;
mod chain;
pub mod document;
pub mod introduction;
pub mod noise;
pub mod order;
mod window;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use minicbor::{Decode, Encode};
use strongroom_shared::{message::SecretBytes, secret::Wiped};

pub use self::{
    approved::Document,
    document::{Administrator, Member, Membership, Refusal},
};

/// A node, as TLS knows it: SHA-256 of the certificate that it shows to others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct NodeId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeId(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// The vault's way to other nodes. Calls block, and come from many threads at once.
pub trait Peers: Send + Sync + 'static {
    /// Carries a request frame to a node and brings its reply frame, which it does not open.
    ///
    /// # Errors
    /// `Unreachable` if none came within `patience`. Whether the call was carried out is unknown then.
    fn call(&self, node: NodeId, frame: &[u8], patience: Duration) -> Result<Wiped, Unreachable>;

    /// Who this node is and who the others are, from now on.
    fn gather(&self, ring: Arc<Ring>);
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable(pub String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

/// What a front needs to reach the other nodes and to let them in.
#[derive(Debug, Encode, Decode)]
pub struct Ring {
    /// Which of all that this vault has told, from 1.
    #[n(0)]
    pub number: u64,
    /// The certificate that this node shows to others, in DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    #[n(2)]
    pub key: SecretBytes,
    /// The other nodes.
    #[n(3)]
    pub nodes: Vec<Neighbour>,
}

impl Ring {
    /// The ring as it crosses the hop.
    pub fn encode(&self) -> Wiped {
        let mut bytes = Wiped::default();
        let result = minicbor::encode(self, &mut *bytes);
        debug_assert!(result.is_ok(), "writing to memory cannot fail");
        bytes
    }
}

/// Another node, as a front finds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Neighbour {
    /// What it shows when it calls.
    #[n(0)]
    pub id: NodeId,
    /// Its name, for the log.
    #[n(1)]
    pub name: String,
    /// Where it listens.
    #[cbor(n(2), with = "address")]
    pub address: SocketAddr,
    /// The name in its server certificate.
    #[n(3)]
    pub server_name: String,
    /// The CA that made its server certificate, in DER.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub authority: Vec<u8>,
}

/// Addresses as text.
mod address {
    use std::net::SocketAddr;

    use minicbor::{Decoder, Encoder, decode::Error, encode::Write};

    pub fn encode<C, W: Write>(
        address: &SocketAddr,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&address.to_string())?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<SocketAddr, Error> {
        d.str()?.parse().map_err(|_| Error::message("not an address"))
    }
}
