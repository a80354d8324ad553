//! ECDSA (FIPS 186-5), on each curve by the back-end that measured best.
//!
//! | curve | back-end | nonces |
//! |---|---|---|
//! | secp256k1 | k256 | RFC 6979 with SHA-256, deterministic; s is always the lower one |
//! | P-256, P-384 | AWS-LC | random, hedged with the key and the hash value |
//! | P-521 | AWS-LC, and OpenSSL for hash values above 64 bytes | random, hedged |
//!
//! A hash value of any length is first made as long as the order, by FIPS 186-5 (6.4.1, step 2): the leftmost bits count,
//! and a shorter one is a smaller number. So AWS-LC, which signs nothing but values as long as its own
//! digests, can sign them all; only P-521, whose order is longer than any digest, needs a second back-end.
//! It is not the p521 crate: with `ecdsa` 0.17 it takes the rightmost bits of 66 bytes for the
//! message and the leftmost for the nonce, so that two such values would share a nonce and give the key away.

use aws_lc_rs::{
    digest::{self, Digest},
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, ParsedPublicKey,
    },
};
use k256::ecdsa::{
    Signature, SigningKey, VerifyingKey,
    signature::hazmat::{PrehashSigner, PrehashVerifier},
};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, EcPoint},
    ecdsa::EcdsaSig,
    nid::Nid,
    pkey,
};
use pkcs11_sys::*;
use strongroom_shared::{mechanism::Mechanism, object::Template};

use super::{
    Algorithm, Error, Task, bip340,
    ec::{self, Curve},
    hash,
};

/// One half of a pair, ready for use.
pub enum Key {
    Private(Signer),
    Public(Verifier),
}

/// A private key in the form that its back-end wants.
pub enum Signer {
    Secp256k1(SigningKey),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521 { pair: EcdsaKeyPair, wide: EcKey<pkey::Private> },
}

/// A public key in the form that its back-end wants.
pub enum Verifier {
    Secp256k1(VerifyingKey),
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    P521 { key: ParsedPublicKey, wide: EcKey<pkey::Public> },
}

impl Key {
    pub fn private(attributes: &Template) -> Result<Self, Error> {
        let private = ec::Private::parse(attributes)?;
        let rejected = Error::AttributeValueInvalid(CKA_VALUE);
        let pair = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private.scalar, &private.point)
                .map_err(|_| rejected)
        };
        let signer = match private.curve {
            Curve::Secp256k1 => {
                Signer::Secp256k1(SigningKey::from_slice(&private.scalar).map_err(|_| rejected)?)
            }
            Curve::P256 => Signer::P256(pair(&ECDSA_P256_SHA256_FIXED_SIGNING)?),
            Curve::P384 => Signer::P384(pair(&ECDSA_P384_SHA384_FIXED_SIGNING)?),
            Curve::P521 => {
                Signer::P521 { pair: pair(&ECDSA_P521_SHA512_FIXED_SIGNING)?, wide: wide_private(&private)? }
            }
        };
        Ok(Self::Private(signer))
    }

    pub fn public(attributes: &Template) -> Result<Self, Error> {
        let (curve, point) = ec::public(attributes)?;
        let rejected = Error::AttributeValueInvalid(CKA_EC_POINT);
        let parsed = |algorithm: &'static EcdsaVerificationAlgorithm| {
            ParsedPublicKey::new(algorithm, point).map_err(|_| rejected)
        };
        let verifier = match curve {
            Curve::Secp256k1 => {
                Verifier::Secp256k1(VerifyingKey::from_sec1_bytes(point).map_err(|_| rejected)?)
            }
            Curve::P256 => Verifier::P256(parsed(&ECDSA_P256_SHA256_FIXED)?),
            Curve::P384 => Verifier::P384(parsed(&ECDSA_P384_SHA384_FIXED)?),
            Curve::P521 => {
                Verifier::P521 { key: parsed(&ECDSA_P521_SHA512_FIXED)?, wide: wide_public(point)? }
            }
        };
        Ok(Self::Public(verifier))
    }
}

impl Algorithm for Key {
    fn sign(&self, task: &Task<'_>) -> Result<Vec<u8>, Error> {
        match (self, task.mechanism) {
            (Self::Private(Signer::Secp256k1(key)), Mechanism::Bip340) => bip340::sign(key, task.input),
            (Self::Private(_), Mechanism::Bip340) | (Self::Public(_), _) => Err(Error::KeyTypeInconsistent),
            (Self::Private(signer), _) => with_hash(task, |hash| signer.sign(hash)),
        }
    }

    fn verify(&self, task: &Task<'_>, signature: &[u8]) -> Result<(), Error> {
        match (self, task.mechanism) {
            (Self::Public(Verifier::Secp256k1(key)), Mechanism::Bip340) => {
                bip340::verify(key, task.input, signature)
            }
            (Self::Public(_), Mechanism::Bip340) | (Self::Private(_), _) => Err(Error::KeyTypeInconsistent),
            (Self::Public(verifier), _) => with_hash(task, |hash| verifier.verify(hash, signature)),
        }
    }
}

/// Gives `act` the hash value: of the message, or the input itself under `CKM_ECDSA`.
fn with_hash<T>(task: &Task<'_>, act: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
    match task.mechanism.hash() {
        Some(hash) => act(digest::digest(hash::aws_lc(hash), task.input).as_ref()),
        None if task.input.is_empty() => Err(Error::DataLengthRange),
        None => act(task.input),
    }
}

impl Signer {
    fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Secp256k1(key) => {
                let signature: Signature = key.sign_prehash(&fit::<32>(hash)).map_err(|_| FAILED)?;
                Ok(signature.to_bytes().to_vec())
            }
            Self::P256(pair) => sign(pair, &digest::SHA256, &fit::<32>(hash)),
            Self::P384(pair) => sign(pair, &digest::SHA384, &fit::<48>(hash)),
            Self::P521 { pair, wide: _ } if hash.len() <= 64 => sign(pair, &digest::SHA512, &fit::<64>(hash)),
            Self::P521 { pair: _, wide } => {
                let signature = EcdsaSig::sign(hash, wide)?;
                let mut bytes = signature.r().to_vec_padded(P521_LENGTH)?;
                bytes.extend(signature.s().to_vec_padded(P521_LENGTH)?);
                Ok(bytes)
            }
        }
    }
}

impl Verifier {
    const fn curve(&self) -> Curve {
        match self {
            Self::Secp256k1(_) => Curve::Secp256k1,
            Self::P256(_) => Curve::P256,
            Self::P384(_) => Curve::P384,
            Self::P521 { .. } => Curve::P521,
        }
    }

    fn verify(&self, hash: &[u8], signature: &[u8]) -> Result<(), Error> {
        let length = self.curve().length();
        if signature.len() != 2 * length {
            return Err(Error::SignatureLengthRange);
        }
        match self {
            Self::Secp256k1(key) => {
                let signature = Signature::from_slice(signature).map_err(|_| Error::SignatureInvalid)?;
                // k256 refuses the higher s, which the standard allows and other signers produce.
                let verified = key.verify_prehash(&fit::<32>(hash), &signature.normalize_s());
                verified.map_err(|_| Error::SignatureInvalid)
            }
            Self::P256(key) => verify(key, &digest::SHA256, &fit::<32>(hash), signature),
            Self::P384(key) => verify(key, &digest::SHA384, &fit::<48>(hash), signature),
            Self::P521 { key, wide: _ } if hash.len() <= 64 => {
                verify(key, &digest::SHA512, &fit::<64>(hash), signature)
            }
            Self::P521 { key: _, wide } => {
                let (r, s) = signature.split_at_checked(length).ok_or(Error::SignatureLengthRange)?;
                let signature =
                    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
                match signature.verify(hash, wide) {
                    Ok(true) => Ok(()),
                    Ok(false) | Err(_) => Err(Error::SignatureInvalid),
                }
            }
        }
    }
}

const FAILED: Error = Error::Internal("ECDSA signing failed");
const P521_LENGTH: i32 = Curve::P521.length() as i32;

/// The number that FIPS 186-5 makes of a hash value, in `N` bytes: its leftmost `N`, or zeros before all of it.
fn fit<const N: usize>(hash: &[u8]) -> [u8; N] {
    let mut number = [0; N];
    let left = hash.get(..N).unwrap_or(hash);
    for (to, from) in number.iter_mut().rev().zip(left.iter().rev()) {
        *to = *from;
    }
    number
}

fn sign(pair: &EcdsaKeyPair, algorithm: &'static digest::Algorithm, number: &[u8]) -> Result<Vec<u8>, Error> {
    let digest = Digest::import_less_safe(number, algorithm).map_err(|_| FAILED)?;
    Ok(pair.sign_digest(&digest).map_err(|_| FAILED)?.as_ref().to_vec())
}

fn verify(
    key: &ParsedPublicKey,
    algorithm: &'static digest::Algorithm,
    number: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let digest = Digest::import_less_safe(number, algorithm).map_err(|_| FAILED)?;
    key.verify_digest_sig(&digest, signature).map_err(|_| Error::SignatureInvalid)
}

fn wide_public(point: &[u8]) -> Result<EcKey<pkey::Public>, Error> {
    let group = EcGroup::from_curve_name(Nid::SECP521R1)?;
    let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)
        .map_err(|_| Error::AttributeValueInvalid(CKA_EC_POINT))?;
    Ok(EcKey::from_public_key(&group, &point)?)
}

fn wide_private(private: &ec::Private) -> Result<EcKey<pkey::Private>, Error> {
    let public = wide_public(&private.point)?;
    let mut scalar = BigNum::from_slice(&private.scalar)?;
    let key = EcKey::from_private_components(public.group(), &scalar, public.public_key());
    scalar.clear();
    Ok(key?)
}
