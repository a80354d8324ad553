//! Schnorr signatures by FROST (RFC 9591): Ed25519, and BIP340 over secp256k1.
//!
//! The libraries are the Zcash Foundation's `frost-ed25519` and `frost-secp256k1-tr`. A share is one scalar; everything
//! else that the library keeps is built from it and the public shares when the share is opened. For BIP340, key generation
//! ends with the tweak of BIP 341 for a key without scripts: the public key is what comes out after it.

mod commitments;
mod generate;
mod renew;
mod sign;
#[cfg(test)]
mod vectors;

use std::{marker::PhantomData, sync::Arc};

use frost_core::{
    Ciphersuite, Error, Identifier, VerifyingKey,
    keys::{KeyPackage, PublicKeyPackage, SigningShare, VerifyingShare},
};
use k256::Secp256k1;
use zeroize::Zeroizing;

use self::{commitments::ReadCommitments, generate::Generating, renew::Renewing};
use super::{
    blame::{Abort, Blame, Refusal},
    ceremony::First,
    deal::Dealt,
    envelope::Terms,
    exchange::{Context, Said},
    group::{Edwards, Group, Weierstrass},
    party::Party,
    scheme::{Scheme, SchemeId},
    share::{PublicShares, Share},
    sign::{Held, Signing},
};

/// Ed25519 (RFC 8032).
pub type Ed25519 = frost_ed25519::Ed25519Sha512;
/// Schnorr signatures of Bitcoin (BIP 340).
pub type Bip340 = frost_secp256k1_tr::Secp256K1Sha256TR;

/// The scheme in one ciphersuite.
pub struct Frost<S>(PhantomData<S>);

/// A ciphersuite that the scheme is offered in.
pub trait Suite: Ciphersuite + Send + Sync {
    const ID: SchemeId;
    /// How many bytes of a point's encoding stand before the public key as PKCS#11 has it.
    const PREFIX: usize;
    type Arithmetic: Group;
}

impl Suite for Ed25519 {
    const ID: SchemeId = SchemeId::Ed25519;
    const PREFIX: usize = 0;
    type Arithmetic = Edwards;
}

impl Suite for Bip340 {
    const ID: SchemeId = SchemeId::Bip340;
    // x only: the sign of y falls away.
    const PREFIX: usize = 1;
    type Arithmetic = Weierstrass<Secp256k1>;
}

/// A share as the library has it: read once, because reading a point takes about as long as signing.
pub struct Secret<S: Suite> {
    /// What it signs with. The library wipes it.
    package: KeyPackage<S>,
    /// What it verifies signature shares with.
    public: PublicKeyPackage<S>,
    /// The commitments that it read of late.
    lately: ReadCommitments<S>,
}

impl<S: Suite> Secret<S> {
    /// The share of `me`: `scalar` is the point of the polynomial, as the group writes scalars.
    fn new(public: &PublicShares, me: Party, scalar: &[u8]) -> Result<Self, Refusal> {
        let package = key_package(public, me, scalar).map_err(|_| Refusal::Share)?;
        let public = public_package(public).map_err(|_| Refusal::Point)?;
        Ok(Self { package, public, lately: ReadCommitments::default() })
    }

    fn scalar_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.package.signing_share().serialize())
    }
}

impl<S: Suite> Scheme for Frost<S> {
    const ID: SchemeId = <S as Suite>::ID;
    const RENEW_ROUNDS: u8 = 1;
    type Group = S::Arithmetic;
    type Secret = Secret<S>;
    type Generate = Generating<S>;
    type Renew = Renewing<S>;

    fn generate(context: Context) -> Result<(Self::Generate, Said), Refusal> {
        Generating::begin(context)
    }

    fn renew(
        context: Context,
        dealt: Dealt<Self::Group>,
        _: Option<[u8; 32]>,
    ) -> Result<(Self::Renew, Said), Refusal> {
        Renewing::begin(context, &dealt)
    }

    fn sign(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
        terms: Terms,
    ) -> Result<First<Held>, Refusal> {
        sign::begin(share.party(), secret, signing, terms)
    }

    fn combine(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
    ) -> Result<First<Vec<u8>>, Refusal> {
        Ok(sign::combine(share.party(), secret, signing))
    }

    fn scalar(secret: &Self::Secret) -> Zeroizing<<Self::Group as Group>::Scalar> {
        // Only bytes of scalars are ever made into a `Secret`; zero is the public key of nothing.
        S::Arithmetic::scalar(&secret.scalar_bytes())
            .unwrap_or_else(|| Zeroizing::new(S::Arithmetic::small(0)))
    }

    fn to_bytes(secret: &Self::Secret) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        Ok(secret.scalar_bytes())
    }

    fn from_bytes(public: &PublicShares, me: Party, bytes: &[u8]) -> Result<Self::Secret, Refusal> {
        S::Arithmetic::scalar(bytes).ok_or(Refusal::Share)?;
        Secret::new(public, me, bytes)
    }

    fn public_key(point: &<Self::Group as Group>::Point) -> Vec<u8> {
        S::Arithmetic::point_bytes(point).split_off(S::PREFIX)
    }
}

/// A party as the library names it.
fn identifier<S: Suite>(party: Party) -> Result<Identifier<S>, Refusal> {
    Identifier::try_from(u16::from(party.number())).map_err(|_| Refusal::Seat)
}

/// What the library signs with.
fn key_package<S: Suite>(public: &PublicShares, me: Party, scalar: &[u8]) -> Result<KeyPackage<S>, Error<S>> {
    let own = public.verifying_share(me).ok_or(Error::UnknownIdentifier)?;
    Ok(KeyPackage::new(
        Identifier::try_from(u16::from(me.number()))?,
        SigningShare::deserialize(scalar)?,
        VerifyingShare::deserialize(own)?,
        VerifyingKey::deserialize(&public.public_key)?,
        u16::from(public.committee().threshold()),
    ))
}

/// What the library verifies signature shares with.
fn public_package<S: Suite>(public: &PublicShares) -> Result<PublicKeyPackage<S>, Error<S>> {
    let mut shares = std::collections::BTreeMap::new();
    for party in public.committee().members() {
        let share = public.verifying_share(party).ok_or(Error::UnknownIdentifier)?;
        let identifier = Identifier::try_from(u16::from(party.number()))?;
        shares.insert(identifier, VerifyingShare::deserialize(share)?);
    }
    let key = VerifyingKey::deserialize(&public.public_key)?;
    Ok(PublicKeyPackage::new(shares, key, Some(u16::from(public.committee().threshold()))))
}

/// What an error of the library means. `all` are those who took part.
fn abort<S: Suite>(error: &Error<S>, all: impl IntoIterator<Item = Party> + Clone, me: Party) -> Abort {
    let culprits = error.culprits();
    let named =
        |party: &Party| identifier::<S>(*party).is_ok_and(|identifier| culprits.contains(&identifier));
    let parties: std::collections::BTreeSet<Party> = all.clone().into_iter().filter(named).collect();
    let blame = if parties.is_empty() { Blame::suspects(all, me) } else { Blame::Culprits(parties) };
    Abort::new(blame, format!("FROST: {error}"))
}

fn garbage(party: Party) -> Abort {
    Abort::culprit(party, format!("{party} sent something that is no message of the protocol"))
}
