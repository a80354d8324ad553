//! ECDSA by DKLs23 (ePrint 2023/765), over secp256k1 and P-256.
//!
//! The library is `dkls23`, pinned exactly: it has had no outside audit. Its parties keep oblivious-transfer state for
//! each pair (52 KB), which signing reuses; a failed check there is [`Blame::Ban`].

mod keys;
mod sign;

use std::{marker::PhantomData, sync::Arc};

use aws_lc_rs::{
    digest::{Digest, SHA256},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use dkls23::{
    curve::DklsCurve,
    protocols::{
        self as library, Abort as LibraryAbort, AbortKind, AbortReason, Parameters, PartyIndex,
        derivation::DerivData,
    },
    utilities::zero_shares::ZeroShare,
};
use elliptic_curve::{Group as _, group::Curve as _};
use k256::{Secp256k1, ecdsa::signature::hazmat::PrehashVerifier};
use p256::NistP256;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use self::keys::Keys;
use super::{
    blame::{Abort, Blame, Refusal},
    ceremony::First,
    deal::Dealt,
    envelope::Terms,
    exchange::{Context, Said},
    group::{Group, Weierstrass},
    party::{Committee, KeyId, Party},
    scheme::{Scheme, SchemeId, keep},
    share::{PublicShares, Share},
    sign::{Held, Signing},
};

/// The scheme over one curve.
pub struct Ecdsa<C>(PhantomData<C>);

/// A curve that the scheme is offered over.
pub trait Curve: DklsCurve<AffinePoint: Stored, Scalar: Stored> + Send + Sync {
    const ID: SchemeId;
    /// Which of the two values of s a signature has.
    const S: SForm;

    fn uncompressed(point: &Self::AffinePoint) -> Vec<u8>;
    /// Verifies r ‖ s by another library than the one that signed.
    fn verify(public_key: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool;
    /// Whether BIP-32 children are those that the world knows.
    fn children() -> Result<(), Refusal>;
}

/// What can be written and read.
pub trait Stored: Serialize + DeserializeOwned + Send + Sync {}

impl<T: Serialize + DeserializeOwned + Send + Sync> Stored for T {}

/// Which s a signature has: (r, s) and (r, -s) are both good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SForm {
    /// The lower one, as Bitcoin and Ethereum demand (BIP 62).
    Low,
    /// As it comes.
    Any,
}

impl Curve for Secp256k1 {
    const ID: SchemeId = SchemeId::EcdsaSecp256k1;
    const S: SForm = SForm::Low;

    fn uncompressed(point: &Self::AffinePoint) -> Vec<u8> {
        use k256::elliptic_curve::sec1::ToSec1Point;
        point.to_sec1_point(false).as_bytes().to_vec()
    }

    fn verify(public_key: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool {
        let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(public_key);
        let signature = k256::ecdsa::Signature::from_slice(signature);
        matches!((key, signature), (Ok(key), Ok(signature)) if key.verify_prehash(digest, &signature).is_ok())
    }

    fn children() -> Result<(), Refusal> {
        Ok(())
    }
}

impl Curve for NistP256 {
    const ID: SchemeId = SchemeId::EcdsaP256;
    const S: SForm = SForm::Any;

    fn uncompressed(point: &Self::AffinePoint) -> Vec<u8> {
        use p256::elliptic_curve::sec1::ToSec1Point;
        point.to_sec1_point(false).as_bytes().to_vec()
    }

    fn verify(public_key: &[u8], digest: &[u8; 32], signature: &[u8]) -> bool {
        // AWS-LC takes a tenth of the time that the curve's own crate takes.
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key);
        let digest = Digest::import_less_safe(digest, &SHA256);
        digest.is_ok_and(|digest| key.verify_digest(&digest, signature).is_ok())
    }

    fn children() -> Result<(), Refusal> {
        Err(Refusal::Child)
    }
}

impl<C: Curve> Scheme for Ecdsa<C> {
    const ID: SchemeId = C::ID;
    const RENEW_ROUNDS: u8 = 3;
    type Group = Weierstrass<C>;
    type Secret = library::Party<C>;
    type Generate = Keys<C>;
    type Renew = Keys<C>;

    fn generate(context: Context) -> Result<(Self::Generate, Said), Refusal> {
        Keys::generate(context)
    }

    fn renew(
        context: Context,
        dealt: Dealt<Self::Group>,
        chain_code: Option<[u8; 32]>,
    ) -> Result<(Self::Renew, Said), Refusal> {
        Keys::renew(context, dealt, chain_code)
    }

    fn sign(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
        terms: Terms,
    ) -> Result<First<Held>, Refusal> {
        sign::begin::<C>(share, secret, signing, terms)
    }

    fn combine(
        share: &Share,
        secret: &Arc<Self::Secret>,
        signing: &Signing,
    ) -> Result<First<Vec<u8>>, Refusal> {
        sign::combine::<C>(&secret.pk, signing, share.party())
    }

    fn scalar(secret: &Self::Secret) -> Zeroizing<<Self::Group as Group>::Scalar> {
        Zeroizing::new(secret.poly_point)
    }

    fn to_bytes(secret: &Self::Secret) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        write_secret(secret, PAIR_LENGTH * (1 + secret.mul_senders.len())).ok_or(Refusal::Internal)
    }

    fn from_bytes(public: &PublicShares, me: Party, bytes: &[u8]) -> Result<Self::Secret, Refusal> {
        let party: library::Party<C> = read(bytes).ok_or(Refusal::Share)?;
        let own = index(me).map_err(|_| Refusal::Share)?;
        let others = public.committee.members().filter(|other| *other != me);
        let pairs = || others.clone().map(Party::number);
        let belongs = party.party_index == own
            && party.parameters.threshold == public.committee.threshold()
            && party.parameters.share_count == public.committee.parties()
            && Weierstrass::<C>::point_bytes(&party.pk) == **public.public_key
            && party.derivation_data.poly_point == party.poly_point
            && party.derivation_data.pk == party.pk
            && party.derivation_data.chain_code == public.chain_code.unwrap_or_default()
            && party.mul_senders.keys().map(PartyIndex::as_u8).eq(pairs())
            && party.mul_receivers.keys().map(PartyIndex::as_u8).eq(pairs());
        if belongs { Ok(party) } else { Err(Refusal::Share) }
    }

    fn public_key(point: &<Self::Group as Group>::Point) -> Vec<u8> {
        C::uncompressed(point)
    }

    fn child(secret: &Self::Secret, share: &Share, key: KeyId, index: u32) -> Result<Share, Refusal> {
        C::children()?;
        // A key that was imported without a chain code has no children; the library's is all zeros then.
        share.public.chain_code.ok_or(Refusal::Child)?;
        let child = secret.derive_child(index, |_| String::new()).map_err(|_| Refusal::Child)?;
        let (tweak, chain_code, _) = secret.derivation_data.child_tweak(index).map_err(|_| Refusal::Child)?;
        let shift = C::ProjectivePoint::generator() * tweak;
        let mut public = share.public.clone();
        public.key = key;
        public.public_key = Weierstrass::<C>::point_bytes(&child.pk).into();
        public.chain_code = Some(chain_code);
        for verifying in &mut public.verifying {
            let parent = Weierstrass::<C>::point(verifying).ok_or(Refusal::Point)?;
            let point = (C::ProjectivePoint::from(parent) + shift).to_affine();
            *verifying = Weierstrass::<C>::point_bytes(&point).into();
        }
        Ok(Share { public, me: share.me, secret: keep::<Self>(child) })
    }
}

/// Room for the state of one pair, in bytes: a buffer with secrets must not move while it grows.
const PAIR_LENGTH: usize = 64 * 1024;

/// A party with a point of the key's polynomial and no state with the others: it can be refreshed, and nothing else.
fn hollow<C: Curve>(
    context: &Context,
    scalar: &C::Scalar,
    public_key: C::AffinePoint,
    chain_code: Option<[u8; 32]>,
) -> Result<library::Party<C>, Refusal> {
    Ok(library::Party {
        parameters: parameters(context.committee)?,
        party_index: index(context.me)?,
        session_id: context.session.to_vec(),
        poly_point: *scalar,
        pk: public_key,
        zero_share: ZeroShare::initialize(Vec::new()),
        mul_senders: Default::default(),
        mul_receivers: Default::default(),
        derivation_data: DerivData {
            depth: 0,
            child_number: 0,
            parent_fingerprint: [0; 4],
            poly_point: *scalar,
            pk: public_key,
            chain_code: chain_code.unwrap_or_default(),
        },
        address: String::new(),
    })
}

fn parameters(committee: Committee) -> Result<Parameters, Refusal> {
    Parameters::new(committee.threshold(), committee.parties()).map_err(|_| Refusal::Committee)
}

fn index(party: Party) -> Result<PartyIndex, Refusal> {
    PartyIndex::new(party.number()).map_err(|_| Refusal::Seat)
}

/// A party of the library, which counts to 255; those above our seats do not come back from it.
fn party(index: PartyIndex, me: Party) -> Party {
    Party::new(index.as_u8()).unwrap_or(me)
}

/// What an abort of the library means. `all` are those who took part.
fn abort(abort: &LibraryAbort, all: impl IntoIterator<Item = Party>, me: Party) -> Abort {
    let suspects = || Blame::suspects(all, me);
    let one = |index: &PartyIndex| match party(*index, me) {
        // The library found fault with this party's own state.
        own if own == me => Blame::Recoverable,
        other => Blame::culprit(other),
    };
    let blame = match (&abort.kind, &abort.reason) {
        (AbortKind::BanCounterparty(index), _) => Blame::Ban(party(*index, me)),
        (
            AbortKind::Recoverable,
            AbortReason::ProofVerificationFailed { counterparty }
            | AbortReason::CommitmentMismatch { counterparty }
            | AbortReason::TrivialInstancePoint { counterparty }
            | AbortReason::OtConsistencyCheckFailed { counterparty }
            | AbortReason::MultiplicationVerificationFailed { counterparty, .. }
            | AbortReason::GammaUInconsistency { counterparty }
            | AbortReason::ZeroShareDecommitFailed { counterparty },
        ) => one(counterparty),
        // Its envelope was of this ceremony, so it was not late: it says what it likes, or was led astray by others.
        (AbortKind::Recoverable, AbortReason::SessionBindingMismatch { counterparty }) => {
            Blame::suspects([party(*counterparty, me)], me)
        }
        (
            AbortKind::Recoverable,
            AbortReason::ChainCodeCommitmentFailed { party } | AbortReason::MissingCommittedPoint { party },
        ) => one(party),
        (
            AbortKind::Recoverable,
            AbortReason::PolynomialInconsistency
            | AbortReason::TrivialPublicKey
            | AbortReason::TrivialKeyShare
            | AbortReason::SignatureVerificationFailed
            | AbortReason::ZeroDenominator,
        ) => suspects(),
        // The enumeration is the library's, and open: what else it has is about our own calls and state.
        (AbortKind::Recoverable, _) => Blame::Recoverable,
    };
    Abort::new(blame, format!("DKLs23: {}", abort.description()))
}

fn write(value: &impl Serialize) -> Option<Vec<u8>> {
    postcard::to_allocvec(value).ok()
}

/// As [`write`], into a buffer that is wiped, and large enough from the start.
fn write_secret(value: &impl Serialize, room: usize) -> Option<Zeroizing<Vec<u8>>> {
    postcard::to_extend(value, Vec::with_capacity(room)).ok().map(Zeroizing::new)
}

/// Reads all of the bytes.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().and_then(|(value, rest)| rest.is_empty().then_some(value))
}
