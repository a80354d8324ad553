//! Keys on Weierstrass curves (`CKK_EC`): their attributes, and their making. Signing stands in `ecdsa.rs`.
//!
//! Scalars and points are checked by the RustCrypto curves, which give access to them; see FIPS 186-5 and
//! PKCS#11 3.1, 6.3.

use elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytesSize, PublicKey, SecretKey,
    sec1::{FromSec1Point, ModulusSize, ToSec1Point},
};
use k256::elliptic_curve;
use pkcs11_sys::*;
use strongroom_shared::object::{Template, Value};
use zeroize::Zeroizing;

use super::{Error, PairValues, Random, der, need, with_public_key_info};

/// A curve of this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    Secp256k1,
    P256,
    P384,
    P521,
}

impl Curve {
    pub const ALL: &[Self] = &[Self::Secp256k1, Self::P256, Self::P384, Self::P521];

    /// Its encoded OBJECT IDENTIFIER, as `CKA_EC_PARAMS` has it (SEC 2, RFC 5480).
    pub const fn oid(self) -> &'static [u8] {
        match self {
            Self::Secp256k1 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a],
            Self::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            Self::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            Self::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// The size of its field and of its order, in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Secp256k1 | Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// The length of a scalar or a coordinate, in bytes.
    pub const fn length(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    /// The curve that `CKA_EC_PARAMS` names.
    pub fn of(attributes: &Template) -> Result<Self, Error> {
        let params = need(attributes, CKA_EC_PARAMS)?;
        let named = Self::ALL.iter().copied().find(|curve| curve.oid() == params);
        named.ok_or(Error::CurveNotSupported)
    }

    /// The public point of a scalar, uncompressed; none if the scalar is 0 or not below the order.
    fn multiply(self, scalar: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Secp256k1 => multiply::<k256::Secp256k1>(scalar),
            Self::P256 => multiply::<p256::NistP256>(scalar),
            Self::P384 => multiply::<p384::NistP384>(scalar),
            Self::P521 => multiply::<p521::NistP521>(scalar),
        }
    }

    /// Whether this is the uncompressed encoding of a point of the curve other than infinity.
    fn has_point(self, point: &[u8]) -> bool {
        match self {
            Self::Secp256k1 => PublicKey::<k256::Secp256k1>::from_sec1_bytes(point).is_ok(),
            Self::P256 => PublicKey::<p256::NistP256>::from_sec1_bytes(point).is_ok(),
            Self::P384 => PublicKey::<p384::NistP384>::from_sec1_bytes(point).is_ok(),
            Self::P521 => PublicKey::<p521::NistP521>::from_sec1_bytes(point).is_ok(),
        }
    }
}

fn multiply<C>(scalar: &[u8]) -> Option<Vec<u8>>
where
    C: CurveArithmetic,
    FieldBytesSize<C>: ModulusSize,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
{
    let key = SecretKey::<C>::from_slice(scalar).ok()?;
    Some(key.public_key().to_sec1_point(false).as_bytes().to_vec())
}

/// What a private key's attributes say, checked.
pub struct Private {
    pub curve: Curve,
    /// As long as a coordinate.
    pub scalar: Zeroizing<Vec<u8>>,
    /// Uncompressed.
    pub point: Vec<u8>,
}

impl Private {
    pub fn parse(attributes: &Template) -> Result<Self, Error> {
        let curve = Curve::of(attributes)?;
        let value = need(attributes, CKA_VALUE)?;
        let padding = value.len().saturating_sub(curve.length());
        let (excess, value) = value.split_at_checked(padding).unwrap_or((&[], value));
        if excess.iter().any(|byte| *byte != 0) {
            return Err(Error::AttributeValueInvalid(CKA_VALUE));
        }
        let mut scalar = Zeroizing::new(vec![0; curve.length()]);
        for (to, from) in scalar.iter_mut().rev().zip(value.iter().rev()) {
            *to = *from;
        }
        let point = curve.multiply(&scalar).ok_or(Error::AttributeValueInvalid(CKA_VALUE))?;
        Ok(Self { curve, scalar, point })
    }

    fn into_values(self) -> Template {
        let public = public_values(self.curve, &self.point);
        with_public_key_info(Template::new().with(CKA_VALUE, Value::Bytes(self.scalar)), &public)
    }
}

/// The curve and the uncompressed point of a public key's attributes. The point was not looked for on the curve.
pub fn public(attributes: &Template) -> Result<(Curve, &[u8]), Error> {
    let curve = Curve::of(attributes)?;
    let value = need(attributes, CKA_EC_POINT)?;
    let length = 1 + 2 * curve.length();
    // Some clients do not wrap the point in an OCTET STRING.
    let point = if value.len() == length { Some(value) } else { der::open_octet_string(value, length) };
    Ok((curve, point.ok_or(Error::AttributeValueInvalid(CKA_EC_POINT))?))
}

/// A new pair on the curve that the public template names: the scalar by rejection (FIPS 186-5, A.2.2).
pub fn generate(template: &Template, random: &dyn Random) -> Result<PairValues, Error> {
    /// Even on P-521 a candidate fails with a chance below one in 2^30; so many in a row are a broken generator.
    const CANDIDATES: usize = 8;
    let curve = Curve::of(template)?;
    let top = u8::MAX >> (8 * curve.length() - curve.bits() as usize);
    for _ in 0..CANDIDATES {
        let mut scalar = Zeroizing::new(vec![0; curve.length()]);
        random.fill(&mut scalar);
        scalar.iter_mut().take(1).for_each(|byte| *byte &= top);
        if let Some(point) = curve.multiply(&scalar) {
            let public = public_values(curve, &point);
            let private = Private { curve, scalar, point }.into_values();
            return Ok(PairValues {
                public,
                private: private.with(CKA_EC_PARAMS, Value::bytes(curve.oid())),
            });
        }
    }
    Err(Error::Internal("the random generator repeats itself"))
}

pub fn complete_private(template: &Template) -> Result<Template, Error> {
    let private = Private::parse(template)?;
    if template.bytes(CKA_EC_POINT).is_some() && public(template)?.1 != private.point {
        return Err(Error::TemplateInconsistent);
    }
    Ok(private.into_values())
}

pub fn complete_public(template: &Template) -> Result<Template, Error> {
    let (curve, point) = public(template)?;
    match curve.has_point(point) {
        true => Ok(public_values(curve, point)),
        false => Err(Error::AttributeValueInvalid(CKA_EC_POINT)),
    }
}

fn public_values(curve: Curve, point: &[u8]) -> Template {
    Template::new()
        .with(CKA_EC_POINT, Value::bytes(der::octet_string(point)))
        .with(CKA_PUBLIC_KEY_INFO, Value::bytes(der::ec_public_key_info(curve.oid(), point)))
}
