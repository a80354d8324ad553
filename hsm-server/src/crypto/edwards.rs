//! Ed25519 (RFC 8032), by AWS-LC: `CKK_EC_EDWARDS` keys and `CKM_EDDSA` without context.

use aws_lc_rs::{
    digest::{SHA512, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use curve25519_dalek::{
    edwards::CompressedEdwardsY,
    scalar::{Scalar, clamp_integer},
};
use pkcs11_sys::*;
use strongroom_shared::object::{Template, Value};
use zeroize::Zeroizing;

use super::{Algorithm, Error, PairValues, Random, Task, der, need, with_public_key_info};

/// The size of the field, which is what `CK_MECHANISM_INFO` counts.
pub const BITS: u32 = 255;

/// The encoded OBJECT IDENTIFIER of RFC 8410.
pub const OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// The ways to name the curve in `CKA_EC_PARAMS`: the OID, the `curveName` of PKCS#11 3.1 section 6.3.3, and the
/// OID of GNU that older clients still send.
const NAMES: &[&[u8]] =
    &[OID, b"\x13\x0cedwards25519", &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01]];

const LENGTH: usize = 32;
const SIGNATURE_LENGTH: usize = 64;

/// One half of an Ed25519 pair.
pub enum Key {
    Private(Ed25519KeyPair),
    Public(ParsedPublicKey),
}

impl Key {
    pub fn private(attributes: &Template) -> Result<Self, Error> {
        Ok(Self::Private(pair(attributes)?))
    }

    pub fn public(attributes: &Template) -> Result<Self, Error> {
        let key = ParsedPublicKey::new(&ED25519, point(attributes)?);
        Ok(Self::Public(key.map_err(|_| Error::AttributeValueInvalid(CKA_EC_POINT))?))
    }
}

impl Algorithm for Key {
    fn sign(&self, task: &Task<'_>) -> Result<Vec<u8>, Error> {
        let Self::Private(pair) = self else { return Err(Error::KeyTypeInconsistent) };
        let signature = pair.try_sign(task.input).map_err(|_| Error::Internal("Ed25519 signing failed"))?;
        Ok(signature.as_ref().to_vec())
    }

    fn verify(&self, task: &Task<'_>, signature: &[u8]) -> Result<(), Error> {
        let Self::Public(key) = self else { return Err(Error::KeyTypeInconsistent) };
        if signature.len() != SIGNATURE_LENGTH {
            return Err(Error::SignatureLengthRange);
        }
        key.verify_sig(task.input, signature).map_err(|_| Error::SignatureInvalid)
    }
}

/// The private scalar of a seed (RFC 8032, 5.1.5), reduced by the order of the group, lowest byte first.
pub fn scalar(seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    if seed.len() != LENGTH {
        return Err(Error::AttributeValueInvalid(CKA_VALUE));
    }
    let hash = digest(&SHA512, seed);
    let mut low = Zeroizing::new([0; LENGTH]);
    low.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order(clamp_integer(*low)));
    Ok(Zeroizing::new(scalar.to_bytes().to_vec()))
}

/// A new pair on the curve that the public template names (RFC 8032, 5.1.5: the seed is 32 random bytes).
pub fn generate(public: &Template, random: &dyn Random) -> Result<PairValues, Error> {
    let params = need(public, CKA_EC_PARAMS)?;
    let mut seed = Zeroizing::new(vec![0; LENGTH]);
    random.fill(&mut seed);
    let private =
        Template::new().with(CKA_EC_PARAMS, Value::bytes(params)).with(CKA_VALUE, Value::Bytes(seed));
    let public = public_values(pair(&private)?.public_key().as_ref());
    Ok(PairValues { private: with_public_key_info(private, &public), public })
}

pub fn complete_private(template: &Template) -> Result<Template, Error> {
    let pair = pair(template)?;
    if template.bytes(CKA_EC_POINT).is_some() && point(template)? != pair.public_key().as_ref() {
        return Err(Error::TemplateInconsistent);
    }
    Ok(with_public_key_info(Template::new(), &public_values(pair.public_key().as_ref())))
}

pub fn complete_public(template: &Template) -> Result<Template, Error> {
    let point = point(template)?;
    if !is_good(point) {
        return Err(Error::AttributeValueInvalid(CKA_EC_POINT));
    }
    Ok(public_values(point))
}

fn pair(attributes: &Template) -> Result<Ed25519KeyPair, Error> {
    check_curve(attributes)?;
    let seed = need(attributes, CKA_VALUE)?;
    if seed.len() != LENGTH {
        return Err(Error::AttributeValueInvalid(CKA_VALUE));
    }
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::AttributeValueInvalid(CKA_VALUE))
}

/// Whether a template names this curve.
pub fn check_curve(attributes: &Template) -> Result<(), Error> {
    match NAMES.contains(&need(attributes, CKA_EC_PARAMS)?) {
        true => Ok(()),
        false => Err(Error::CurveNotSupported),
    }
}

/// The 32 bytes of `CKA_EC_POINT`, which some clients do not wrap in an OCTET STRING.
fn point(attributes: &Template) -> Result<&[u8], Error> {
    check_curve(attributes)?;
    let value = need(attributes, CKA_EC_POINT)?;
    if value.len() == LENGTH {
        return Ok(value);
    }
    der::open_octet_string(value, LENGTH).ok_or(Error::AttributeValueInvalid(CKA_EC_POINT))
}

/// Whether these bytes are the one encoding of a point, and not of one of the eight that fit any message.
fn is_good(point: &[u8]) -> bool {
    let decoded = CompressedEdwardsY::from_slice(point).ok().and_then(|point| point.decompress());
    decoded.is_some_and(|decoded| decoded.compress().as_bytes() == point && !decoded.is_small_order())
}

fn public_values(point: &[u8]) -> Template {
    Template::new()
        .with(CKA_EC_POINT, Value::bytes(der::octet_string(point)))
        .with(CKA_PUBLIC_KEY_INFO, Value::bytes(der::edwards_public_key_info(OID, point)))
}
