//! What a ceremony makes: a party's share, what everybody may know of all shares, and the body that nodes sign.

use std::{fmt, sync::Arc};

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{secret::Wiped, wire::encode_body};

use super::{
    blame::Refusal,
    envelope::{decode, encode, hash},
    party::{Committee, Epoch, KeyId, Party},
    scheme::{Holder, SchemeId},
};

/// What everybody may know of a key and its shares.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct PublicShares {
    #[n(0)]
    pub(super) scheme: SchemeId,
    #[n(1)]
    pub(super) key: KeyId,
    #[n(2)]
    pub(super) epoch: Epoch,
    #[n(3)]
    pub(super) committee: Committee,
    /// Compressed, as the scheme's group writes it.
    #[n(4)]
    pub(super) public_key: ByteVec,
    /// Of party 1, 2, …: the public key of each share, compressed.
    #[n(5)]
    pub(super) verifying: Vec<ByteVec>,
    /// Of BIP-32. With the public key it shows every child's public key.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(super) chain_code: Option<[u8; 32]>,
}

impl PublicShares {
    /// The scheme of the key.
    pub const fn scheme(&self) -> SchemeId {
        self.scheme
    }

    /// The key.
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// The epoch of these shares.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many hold a share and how many sign.
    pub const fn committee(&self) -> Committee {
        self.committee
    }

    /// The public key as PKCS#11 has it: an uncompressed SEC 1 point (65 bytes) for ECDSA, 32 bytes for
    /// Ed25519 (RFC 8032) and BIP340 (x only). Without the `OCTET STRING` that stands around `CKA_EC_POINT`.
    ///
    /// # Errors
    /// [`Refusal::Point`]: these are not shares that a ceremony made.
    pub fn public_key(&self) -> Result<Vec<u8>, Refusal> {
        self.scheme.row().public_key(&self.public_key)
    }

    /// The public key, compressed, as the scheme's group writes it.
    pub fn compressed(&self) -> &[u8] {
        &self.public_key
    }

    /// The chain code of a key that has BIP-32 children.
    pub const fn chain_code(&self) -> Option<&[u8; 32]> {
        match self.scheme {
            SchemeId::EcdsaSecp256k1 => self.chain_code.as_ref(),
            SchemeId::EcdsaP256 | SchemeId::Ed25519 | SchemeId::Bip340 => None,
        }
    }

    /// The public key of one share, compressed, as the scheme's group writes it.
    pub fn verifying_share(&self, party: Party) -> Option<&[u8]> {
        self.verifying.get(usize::from(party.number()).checked_sub(1)?).map(|point| point.as_slice())
    }

    /// The bytes to be stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads and checks what [`PublicShares::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are something else, or the points are not of the group or not of one polynomial.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        let read: Self = decode(bytes).ok_or(Refusal::Share)?;
        read.check()?;
        Ok(read)
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.verifying.len() != usize::from(self.committee.parties()) {
            return Err(Refusal::Share);
        }
        self.scheme.row().check_public(self)
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        hash(&self.to_bytes())
    }
}

impl fmt::Debug for PublicShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (t, n) = (self.committee.threshold(), self.committee.parties());
        write!(f, "[{:?} key, {t} of {n}, epoch {}]", self.scheme, self.epoch.0)
    }
}

/// What every party of a ceremony says in the end, and its node signs: the same bytes at every honest party.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ready {
    #[n(0)]
    label: String,
    #[n(1)]
    pub(super) shares: PublicShares,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) transcript: [u8; 32],
}

impl Ready {
    const LABEL: &str = "strongroom threshold ready";

    pub(super) fn new(shares: PublicShares, transcript: [u8; 32]) -> Self {
        Self { label: Self::LABEL.to_owned(), shares, transcript }
    }

    /// Key, epoch, public key and all verifying shares.
    pub const fn shares(&self) -> &PublicShares {
        &self.shares
    }

    /// The hash of everything that was said to all.
    pub const fn transcript(&self) -> &[u8; 32] {
        &self.transcript
    }

    /// The bytes that a node signs.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Ready::to_bytes`] wrote, from whoever holds a certificate over it.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        let ready: Self = decode(bytes).ok_or(Refusal::Share)?;
        if ready.label != Self::LABEL {
            return Err(Refusal::Share);
        }
        ready.shares.check()?;
        Ok(ready)
    }
}

/// One party's share of a key. It is wiped when it is dropped.
pub struct Share {
    pub(super) public: PublicShares,
    pub(super) me: Party,
    pub(super) secret: Arc<dyn Holder>,
}

impl Share {
    /// What everybody may know.
    pub const fn public(&self) -> &PublicShares {
        &self.public
    }

    /// Whose share it is.
    pub const fn party(&self) -> Party {
        self.me
    }

    /// The share as bytes. They are the secret itself: only to be sealed.
    ///
    /// # Errors
    /// The library cannot write its state.
    pub fn to_secret_bytes(&self) -> Result<Wiped, Refusal> {
        let secret = self.secret.to_secret_bytes()?;
        let stored = Stored {
            version: Stored::VERSION,
            public: self.public.clone(),
            me: self.me,
            secret: secret.to_vec().into(),
        };
        Ok(encode_body(&stored))
    }

    /// Reads what [`Share::to_secret_bytes`] wrote, and checks that the secret is the one that the public part names.
    ///
    /// # Errors
    /// The bytes are something else, of another version, or do not belong together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        let stored: Stored = decode(bytes).ok_or(Refusal::Share)?;
        if stored.version != Stored::VERSION {
            return Err(Refusal::Share);
        }
        stored.public.check()?;
        let secret = stored.public.scheme.row().holder(&stored.public, stored.me, &stored.secret)?;
        Ok(Self { public: stored.public.clone(), me: stored.me, secret })
    }

    /// The share of a BIP-32 child, not hardened. Every party derives its own, without a word to the others; the child
    /// is another key, and has the epoch of its parent. It also has its parent's state with the other parties: a
    /// [`Blame::Ban`](super::Blame::Ban) over one of the family is a ban over all of it, and a refresh of the
    /// master ends it.
    ///
    /// # Errors
    /// [`Refusal::Child`]: the scheme is not ECDSA over secp256k1, or the index is hardened (2³¹ or more).
    pub fn child(&self, key: KeyId, index: u32) -> Result<Self, Refusal> {
        self.secret.child(self, key, index)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[share of {} of {:?}]", self.me, self.public)
    }
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    version: u8,
    #[n(1)]
    public: PublicShares,
    #[n(2)]
    me: Party,
    #[n(3)]
    secret: ByteVec,
}

impl Stored {
    const VERSION: u8 = 1;
}

impl Drop for Stored {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut **self.secret);
    }
}

/// What a ceremony over a key's shares ends with.
#[derive(Debug)]
pub struct Outcome {
    /// To be signed by the node, and to be stored as *pending* until all have signed it.
    pub ready: Ready,
    /// The own share; `None` for one who only dealt.
    pub share: Option<Share>,
}
