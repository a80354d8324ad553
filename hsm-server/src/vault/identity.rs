//! The keys by which this server is a node. They are made with the store.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use strongroom_shared::{fault::FaultCode, message::SecretBytes, secret::Secret};
use zeroize::Zeroizing;

use super::{Error, records::NodeRecord};
use crate::{
    certificates::{self, Authority, fingerprint},
    cluster::{Document, Member, NodeId, Refusal, noise},
    crypto::Random,
    platform::Time,
};

/// How long the certificate is good that a node shows to others, in days. The membership document ends it sooner.
const NODE_DAYS: u32 = certificates::MAX_DAYS;
/// What that certificate calls every server: others know it by its fingerprint.
const NODE_NAME: &str = "node";

/// The keys by which a server is a node.
pub struct Identity {
    /// What it vouches with.
    pub(super) pair: Ed25519KeyPair,
    /// What others seal for.
    pub sealing: Secret<[u8; 32]>,
    pub(super) sealing_public: [u8; 32],
    pub(super) record: NodeRecord,
}

impl NodeRecord {
    /// The keys of a new server.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn new(authority: &Authority, random: &impl Random, now: Time) -> Result<Self, Error> {
        let secret = || {
            let mut bytes = Zeroizing::new(vec![0; 32]);
            random.fill(&mut bytes);
            SecretBytes(bytes.into())
        };
        let (identity, sealing) = (secret(), secret());
        let (key, certificate) = certificate(authority, now)?;
        Ok(Self { identity, sealing, certificate, key })
    }
}

/// A key and a certificate to show to other nodes.
fn certificate(authority: &Authority, now: Time) -> Result<(SecretBytes, Vec<u8>), Error> {
    let (key, request) = certificates::request(NODE_NAME)?;
    let issued = authority.issue_node(&request, NODE_NAME, now / 1_000_000, NODE_DAYS)?;
    Ok((SecretBytes(key.into()), issued.certificate))
}

impl Identity {
    /// # Errors
    /// `IntegrityViolated` if the record does not hold what it should.
    pub(super) fn open(record: NodeRecord) -> Result<Self, Error> {
        let broken = || Error::caller(FaultCode::IntegrityViolated, "the node's keys cannot be read");
        let pair = Ed25519KeyPair::from_seed_unchecked(&record.identity.0).map_err(|_| broken())?;
        let sealing = Secret::new(record.sealing.0.as_slice().try_into().map_err(|_| broken())?);
        let sealing_public = noise::public_key(&sealing).ok_or_else(broken)?;
        Ok(Self { pair, sealing, sealing_public, record })
    }

    /// The same node with another certificate.
    pub(super) fn with_another_certificate(&self, authority: &Authority, now: Time) -> Result<Self, Error> {
        let (key, certificate) = certificate(authority, now)?;
        Self::open(NodeRecord { key, certificate, ..self.record.clone() })
    }

    fn id(&self) -> NodeId {
        NodeId(fingerprint(&self.record.certificate))
    }

    /// By which an administrator knows this server, whatever its front says.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.public())
    }

    /// An Ed25519 signature of what it vouches for.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.iter_mut().zip(self.pair.sign(text).as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }

    /// Its Ed25519 public key.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        public
    }

    /// Whether a document names this server, and under the keys that it has.
    pub(super) fn find_in<'a>(&self, document: &'a Document) -> Result<Option<&'a Member>, Refusal> {
        let Some(member) = document.membership().member(&self.public()) else { return Ok(None) };
        if member.id != self.id() || member.sealing != self.sealing_public {
            return Err(Refusal::Stranger(format!(
                "it gives {} another certificate or sealing key than this server has",
                member.name
            )));
        }
        Ok(Some(member))
    }
}
