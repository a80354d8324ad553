//! What the vault keeps in its store, one record per row. The store seals them; this is their form in between.

use minicbor::{Decode, Encode};
use strongroom_shared::{
    fault::FaultCode,
    message::SecretBytes,
    object::{ObjectId, Template},
    wire::decode_body,
};

/// A record as bytes, to be sealed. They may hold a key.
pub use strongroom_shared::wire::encode_body as encode;

use super::error::Error;
use crate::door::{Admission, ClientId};

/// A partition: its names and its switches. Its roles, its policy and its objects are rows of their own.
#[derive(Clone, Debug, Encode, Decode)]
pub struct PartitionRecord {
    /// Its name for people.
    #[n(0)]
    pub name: String,
    /// The token's label; none before `C_InitToken`.
    #[n(1)]
    pub label: Option<String>,
    /// Whether nothing may be done with its keys.
    #[n(2)]
    pub frozen: bool,
    /// Keys that nothing may be done with; copies are frozen with the first of them.
    #[n(3)]
    pub frozen_keys: Vec<ObjectId>,
}

/// Who may log in to a partition.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub struct RolesRecord {
    /// The security officer; none before `C_InitToken`.
    #[n(0)]
    pub security_officer: Option<PinRecord>,
    /// The normal user; none before `C_InitPIN`.
    #[n(1)]
    pub user: Option<PinRecord>,
    /// How many PINs have been set.
    #[n(2)]
    pub epoch: u64,
}

/// A PIN, as far as it is kept.
#[derive(Clone, Debug, Encode, Decode)]
pub struct PinRecord {
    /// Of argon2id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// By argon2id.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Wrong PINs since the last right one, the one that is being checked included.
    #[n(2)]
    pub failures: u32,
    /// Which of all PINs of the partition it is: tickets of an earlier one have ended.
    #[n(3)]
    pub epoch: u64,
}

/// A client certificate that was issued. A client may have several: each is a row of its own.
#[derive(Clone, Debug, Encode, Decode)]
pub struct ClientRecord {
    /// SHA-256 of the certificate.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub fingerprint: [u8; 32],
    /// The client's name.
    #[n(1)]
    pub name: String,
    /// The partition that it may use; none for an administrator.
    #[n(2)]
    pub partition: Option<String>,
    /// When the certificate ends, in seconds since 1970.
    #[n(3)]
    pub not_after: u64,
    /// Whether it was revoked.
    #[n(4)]
    pub revoked: bool,
    /// The client for ever: all of its certificates have this.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// For how many days it and those that renew it are good.
    #[n(6)]
    pub days: u32,
    /// The certificate that ends when this one is first shown; none once it was, or if it renews none.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub replaces: Option<[u8; 32]>,
}

impl ClientRecord {
    /// The client that the certificate is one of.
    pub const fn id(&self) -> ClientId {
        ClientId(self.id)
    }

    /// Whether it is no longer good, `now` in seconds since 1970.
    pub const fn has_ended(&self, now: u64) -> bool {
        self.revoked || self.not_after <= now
    }

    /// What a handshake does with this certificate, `now` in seconds since 1970.
    pub const fn admission(&self, now: u64) -> Admission {
        Admission { fingerprint: self.fingerprint, revoked: self.has_ended(now) }
    }

    /// In how many seconds it is time to renew it: when a third of its life is left.
    pub const fn renew_in(&self, now: u64) -> u64 {
        let third = self.days as u64 * 86_400 / 3;
        self.not_after.saturating_sub(third).saturating_sub(now)
    }
}

/// A token object.
#[derive(Clone, Debug, Encode, Decode)]
pub struct ObjectRecord {
    /// Everything it is, the key's value included.
    #[n(0)]
    pub attributes: Template,
    /// The first of its copies: itself, unless it is a copy.
    #[n(1)]
    pub lineage: ObjectId,
}

/// The server's own certification authority.
#[derive(Debug, Encode, Decode)]
pub struct AuthorityRecord {
    /// Its certificate, DER.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    #[n(1)]
    pub key: SecretBytes,
}

/// The keys by which a server is a node.
#[derive(Clone, Debug, Encode, Decode)]
pub struct NodeRecord {
    /// The seed of its Ed25519 key.
    #[n(0)]
    pub identity: SecretBytes,
    /// Its X25519 private key.
    #[n(1)]
    pub sealing: SecretBytes,
    /// The certificate that it shows to other nodes, DER.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// The private key that goes with it, PKCS#8 DER.
    #[n(3)]
    pub key: SecretBytes,
}

/// A record from the bytes that were sealed.
///
/// # Errors
/// `IntegrityViolated`: the seal was good, so this server and the one that wrote it do not agree.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, Error> {
    decode_body(bytes).map_err(|error| {
        Error::caller(
            FaultCode::IntegrityViolated,
            format!("a record of another version of the server: {error}"),
        )
    })
}
