//! What a scheme is, and the table of those there are.
//!
//! A new scheme is one file with `impl Scheme`, and one row in [`SchemeId::row`]. The rest of the room, and
//! everybody outside, sees [`Row`] and [`Holder`], which name no scheme.

use std::{fmt, marker::PhantomData, sync::Arc};

use k256::Secp256k1;
use minicbor::{Decode, Encode};
use p256::NistP256;
use zeroize::Zeroizing;

use super::{
    blame::Refusal,
    ceremony::{First, Started, fenced},
    deal::Dealt,
    dkls::Ecdsa,
    envelope::Terms,
    exchange::{Context, Rounds, Said},
    frost::{Bip340, Ed25519, Frost},
    group::{Group, combine, lagrange},
    lifecycle::{self, Basis},
    party::{Committee, KeyId, Party, Setup},
    share::{Outcome, PublicShares, Share},
    sign::{Held, Signing},
};

/// The schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SchemeId {
    /// ECDSA over secp256k1 (DKLs23), low s.
    #[n(1)]
    EcdsaSecp256k1,
    /// ECDSA over P-256 (DKLs23).
    #[n(2)]
    EcdsaP256,
    /// Ed25519 (FROST, RFC 9591).
    #[n(3)]
    Ed25519,
    /// Schnorr signatures over secp256k1 (BIP 340; FROST).
    #[n(4)]
    Bip340,
}

impl SchemeId {
    /// Every scheme.
    pub const ALL: [Self; 4] = [Self::EcdsaSecp256k1, Self::EcdsaP256, Self::Ed25519, Self::Bip340];

    pub(super) fn row(self) -> &'static dyn Row {
        match self {
            Self::EcdsaSecp256k1 => &Of::<Ecdsa<Secp256k1>>(PhantomData),
            Self::EcdsaP256 => &Of::<Ecdsa<NistP256>>(PhantomData),
            Self::Ed25519 => &Of::<Frost<Ed25519>>(PhantomData),
            Self::Bip340 => &Of::<Frost<Bip340>>(PhantomData),
        }
    }
}

/// One way to make and use shares.
pub(super) trait Scheme: Send + Sync + 'static {
    const ID: SchemeId;
    /// How many rounds the new shares take after dealing, without the last, in which all are ready.
    const RENEW_ROUNDS: u8;
    type Group: Group;
    /// What a party keeps. Wiped when it is dropped.
    type Secret: Send + Sync + 'static;
    type Generate: Rounds;
    type Renew: Rounds;

    /// Begins to make a key that nobody has.
    fn generate(context: Context) -> Result<(Self::Generate, Said), Refusal>;

    /// Begins to make new shares of the key whose share was dealt.
    fn renew(
        context: Context,
        dealt: Dealt<Self::Group>,
        chain_code: Option<[u8; 32]>,
    ) -> Result<(Self::Renew, Said), Refusal>;

    /// Begins to sign.
    fn sign(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
        terms: Terms,
    ) -> Result<First<Held>, Refusal>;

    /// Begins to combine the signers' last messages, at a party that holds a share itself.
    fn combine(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
    ) -> Result<First<Vec<u8>>, Refusal>;

    fn scalar(secret: &Self::Secret) -> Zeroizing<<Self::Group as Group>::Scalar>;
    fn to_bytes(secret: &Self::Secret) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    fn from_bytes(public: &PublicShares, me: Party, bytes: &[u8]) -> Result<Self::Secret, Refusal>;

    /// The public key as PKCS#11 has it.
    fn public_key(point: &<Self::Group as Group>::Point) -> Vec<u8>;

    /// The share of a child.
    fn child(_: &Self::Secret, _: &Share, _: KeyId, _: u32) -> Result<Share, Refusal> {
        Err(Refusal::Child)
    }
}

/// A scheme, without saying which.
pub(super) trait Row: Send + Sync {
    fn public_key(&self, point: &[u8]) -> Result<Vec<u8>, Refusal>;
    fn check_public(&self, public: &PublicShares) -> Result<(), Refusal>;
    fn holder(&self, public: &PublicShares, me: Party, bytes: &[u8]) -> Result<Arc<dyn Holder>, Refusal>;
    fn public_of(&self, private_key: &[u8]) -> Result<Vec<u8>, Refusal>;
    fn generate(&self, setup: &Setup, committee: Committee) -> Result<Started<Outcome>, Refusal>;
    fn renew(&self, setup: &Setup, basis: Basis<'_>) -> Result<Started<Outcome>, Refusal>;
}

/// A share's secret, without saying of which scheme.
pub(super) trait Holder: Send + Sync {
    fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// The point of the polynomial, to be dealt.
    fn scalar_bytes(&self) -> Zeroizing<[u8; 32]>;
    fn sign(&self, share: &Share, signing: &Signing, terms: Terms) -> Result<First<Held>, Refusal>;
    fn combine(&self, share: &Share, signing: &Signing) -> Result<First<Vec<u8>>, Refusal>;
    fn child(&self, share: &Share, key: KeyId, index: u32) -> Result<Share, Refusal>;
}

impl fmt::Debug for dyn Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

struct Of<S>(PhantomData<S>);

impl<S: Scheme> Row for Of<S> {
    fn public_key(&self, point: &[u8]) -> Result<Vec<u8>, Refusal> {
        S::Group::point(point).map(|point| S::public_key(&point)).ok_or(Refusal::Point)
    }

    fn check_public(&self, public: &PublicShares) -> Result<(), Refusal> {
        Points::<S::Group>::of(public)?.check(public.committee)
    }

    fn holder(&self, public: &PublicShares, me: Party, bytes: &[u8]) -> Result<Arc<dyn Holder>, Refusal> {
        let secret = fenced(|| S::from_bytes(public, me, bytes))?;
        let own = S::Group::point_bytes(&S::Group::base(&S::scalar(&secret)));
        if public.verifying_share(me) != Some(own.as_slice()) {
            return Err(Refusal::Share);
        }
        Ok(keep::<S>(secret))
    }

    fn public_of(&self, private_key: &[u8]) -> Result<Vec<u8>, Refusal> {
        let scalar = S::Group::scalar(private_key).ok_or(Refusal::Secret)?;
        Ok(S::Group::point_bytes(&S::Group::base(&scalar)))
    }

    fn generate(&self, setup: &Setup, committee: Committee) -> Result<Started<Outcome>, Refusal> {
        lifecycle::generate::<S>(setup, committee)
    }

    fn renew(&self, setup: &Setup, basis: Basis<'_>) -> Result<Started<Outcome>, Refusal> {
        lifecycle::renew::<S>(setup, basis)
    }
}

/// Hides which scheme a secret is of.
pub(super) fn keep<S: Scheme>(secret: S::Secret) -> Arc<dyn Holder> {
    Arc::new(Kept::<S>(Arc::new(secret)))
}

struct Kept<S: Scheme>(Arc<S::Secret>);

impl<S: Scheme> Holder for Kept<S> {
    fn to_secret_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        S::to_bytes(&self.0)
    }

    fn scalar_bytes(&self) -> Zeroizing<[u8; 32]> {
        S::Group::scalar_bytes(&S::scalar(&self.0))
    }

    fn sign(&self, share: &Share, signing: &Signing, terms: Terms) -> Result<First<Held>, Refusal> {
        S::sign(share, &self.0, signing, terms)
    }

    fn combine(&self, share: &Share, signing: &Signing) -> Result<First<Vec<u8>>, Refusal> {
        S::combine(share, &self.0, signing)
    }

    fn child(&self, share: &Share, key: KeyId, index: u32) -> Result<Share, Refusal> {
        fenced(|| S::child(&self.0, share, key, index))
    }
}

/// The points of public shares, read.
pub(super) struct Points<G: Group> {
    pub public_key: G::Point,
    pub verifying: Vec<G::Point>,
}

impl<G: Group> Points<G> {
    pub fn of(public: &PublicShares) -> Result<Self, Refusal> {
        let read = |bytes: &[u8]| G::point(bytes).ok_or(Refusal::Point);
        let verifying = public.verifying.iter().map(|point| read(point)).collect::<Result<_, _>>()?;
        Ok(Self { public_key: read(&public.public_key)?, verifying })
    }

    pub fn of_party(&self, party: Party) -> Result<G::Point, Refusal> {
        let index = usize::from(party.number()).checked_sub(1);
        index.and_then(|index| self.verifying.get(index)).copied().ok_or(Refusal::Share)
    }

    /// Whether the shares are points of one polynomial of the committee's degree, with the key at 0.
    fn check(&self, committee: Committee) -> Result<(), Refusal> {
        let first: Vec<Party> = committee.members().take(usize::from(committee.threshold())).collect();
        let at = |place: u8| {
            let weigh = |party: &Party| {
                let weight = lagrange::<G>(first.iter().copied(), *party, place)?;
                Some((self.of_party(*party).ok()?, weight))
            };
            combine::<G>(first.iter().filter_map(weigh))
        };
        if at(0) != Some(self.public_key) {
            return Err(Refusal::Share);
        }
        for party in committee.members().skip(first.len()) {
            if at(party.number()) != Some(self.of_party(party)?) {
                return Err(Refusal::Share);
            }
        }
        Ok(())
    }
}
