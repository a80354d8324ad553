//! The arithmetic that dealing shares needs, in the two families of groups that the schemes live in.
//!
//! Nothing here is a signature scheme: sums and multiples of scalars and points, and their encodings, which are
//! the same bytes that the signing libraries read and write.

use std::marker::PhantomData;

use curve25519_dalek::{
    EdwardsPoint, Scalar as EdwardsScalar, constants::ED25519_BASEPOINT_TABLE, edwards::CompressedEdwardsY,
    traits::IsIdentity,
};
use dkls23::curve::DklsCurve;
use elliptic_curve::{
    CurveArithmetic, Field, FieldBytes, Group as _,
    ff::PrimeField,
    group::{Curve as _, CurveAffine, GroupEncoding},
};
use rand::Rng;
use zeroize::{Zeroize, Zeroizing};

use super::party::Party;

/// A group of prime order, written additively.
pub trait Group: 'static {
    type Scalar: Copy + Zeroize + Send + Sync;
    type Point: Copy + PartialEq + Send + Sync;

    /// A uniform scalar.
    fn random() -> Zeroizing<Self::Scalar>;
    fn small(number: u8) -> Self::Scalar;
    /// `a + b`.
    fn add(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar;
    /// `a - b`.
    fn sub(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar;
    /// `a · b`.
    fn mul(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar;
    /// `None` of zero.
    fn invert(a: &Self::Scalar) -> Option<Self::Scalar>;
    /// The public key of a scalar.
    fn base(a: &Self::Scalar) -> Self::Point;
    /// `a + b`.
    fn plus(a: &Self::Point, b: &Self::Point) -> Self::Point;
    /// `a · b`.
    fn times(a: &Self::Point, b: &Self::Scalar) -> Self::Point;
    fn scalar_bytes(a: &Self::Scalar) -> Zeroizing<[u8; 32]>;
    /// `None` if the bytes are not the one encoding of a scalar other than zero.
    fn scalar(bytes: &[u8]) -> Option<Zeroizing<Self::Scalar>>;
    fn point_bytes(a: &Self::Point) -> Vec<u8>;
    /// `None` if the bytes are not the one encoding of a point of the group other than the identity.
    fn point(bytes: &[u8]) -> Option<Self::Point>;
}

/// The Lagrange coefficient of `party` among `parties` at `at` (0 for the secret itself).
pub(super) fn lagrange<G: Group>(
    parties: impl IntoIterator<Item = Party>,
    party: Party,
    at: u8,
) -> Option<G::Scalar> {
    let x = |party: Party| G::small(party.number());
    let (mut above, mut below) = (G::small(1), G::small(1));
    for other in parties.into_iter().filter(|other| *other != party) {
        above = G::mul(&above, &G::sub(&G::small(at), &x(other)));
        below = G::mul(&below, &G::sub(&x(party), &x(other)));
    }
    G::invert(&below).map(|inverse| G::mul(&above, &inverse))
}

/// The value at `party` of a polynomial, from its coefficients.
pub(super) fn evaluate<G: Group>(coefficients: &[G::Scalar], party: Party) -> Zeroizing<G::Scalar> {
    let x = G::small(party.number());
    let mut value = Zeroizing::new(G::small(0));
    for coefficient in coefficients.iter().rev() {
        *value = G::add(&G::mul(&value, &x), coefficient);
    }
    value
}

/// The public key of the value at `party` of a polynomial, from the public keys of its coefficients.
pub(super) fn evaluate_points<G: Group>(commitments: &[G::Point], party: Party) -> Option<G::Point> {
    let x = G::small(party.number());
    commitments.iter().rev().copied().reduce(|value, commitment| G::plus(&G::times(&value, &x), &commitment))
}

/// The weighted sum of points; `None` of none.
pub(super) fn combine<G: Group>(terms: impl IntoIterator<Item = (G::Point, G::Scalar)>) -> Option<G::Point> {
    terms.into_iter().map(|(point, weight)| G::times(&point, &weight)).reduce(|a, b| G::plus(&a, &b))
}

/// A prime-order curve of Weierstrass form: points are compressed SEC 1, scalars big-endian.
pub struct Weierstrass<C>(PhantomData<C>);

impl<C: DklsCurve> Group for Weierstrass<C> {
    type Scalar = <C as CurveArithmetic>::Scalar;
    type Point = <C as CurveArithmetic>::AffinePoint;

    fn random() -> Zeroizing<Self::Scalar> {
        Zeroizing::new(<Self::Scalar as Field>::random(&mut rand::rng()))
    }

    fn small(number: u8) -> Self::Scalar {
        Self::Scalar::from(u64::from(number))
    }

    fn add(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        *a + *b
    }

    fn sub(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        *a - *b
    }

    fn mul(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        *a * *b
    }

    fn invert(a: &Self::Scalar) -> Option<Self::Scalar> {
        Field::invert(a).into()
    }

    fn base(a: &Self::Scalar) -> Self::Point {
        (C::ProjectivePoint::generator() * *a).to_affine()
    }

    fn plus(a: &Self::Point, b: &Self::Point) -> Self::Point {
        (C::ProjectivePoint::from(*a) + *b).to_affine()
    }

    fn times(a: &Self::Point, b: &Self::Scalar) -> Self::Point {
        (C::ProjectivePoint::from(*a) * *b).to_affine()
    }

    fn scalar_bytes(a: &Self::Scalar) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut repr: FieldBytes<C> = a.to_repr();
        // Both curves' scalars have 32 bytes.
        for (to, from) in bytes.iter_mut().zip(repr.as_slice()) {
            *to = *from;
        }
        repr.as_mut_slice().zeroize();
        bytes
    }

    fn scalar(bytes: &[u8]) -> Option<Zeroizing<Self::Scalar>> {
        let repr: &FieldBytes<C> = bytes.try_into().ok()?;
        let scalar = Option::<Self::Scalar>::from(Self::Scalar::from_repr(*repr)).map(Zeroizing::new)?;
        (!bool::from(scalar.is_zero())).then_some(scalar)
    }

    fn point_bytes(a: &Self::Point) -> Vec<u8> {
        GroupEncoding::to_bytes(a).as_ref().to_vec()
    }

    fn point(bytes: &[u8]) -> Option<Self::Point> {
        let mut repr = <Self::Point as GroupEncoding>::Repr::default();
        if repr.as_ref().len() != bytes.len() {
            return None;
        }
        repr.as_mut().copy_from_slice(bytes);
        let point = Option::<Self::Point>::from(<Self::Point as GroupEncoding>::from_bytes(&repr))?;
        (!bool::from(CurveAffine::is_identity(&point)) && Self::point_bytes(&point) == bytes).then_some(point)
    }
}

/// The group of Ed25519: points and scalars little-endian (RFC 8032), without the small subgroup.
pub struct Edwards;

impl Group for Edwards {
    type Scalar = EdwardsScalar;
    type Point = EdwardsPoint;

    fn random() -> Zeroizing<Self::Scalar> {
        let mut wide = Zeroizing::new([0; 64]);
        rand::rng().fill_bytes(&mut *wide);
        Zeroizing::new(EdwardsScalar::from_bytes_mod_order_wide(&wide))
    }

    fn small(number: u8) -> Self::Scalar {
        EdwardsScalar::from(number)
    }

    fn add(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        a + b
    }

    fn sub(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        a - b
    }

    fn mul(a: &Self::Scalar, b: &Self::Scalar) -> Self::Scalar {
        a * b
    }

    fn invert(a: &Self::Scalar) -> Option<Self::Scalar> {
        (*a != EdwardsScalar::ZERO).then(|| a.invert())
    }

    fn base(a: &Self::Scalar) -> Self::Point {
        ED25519_BASEPOINT_TABLE * a
    }

    fn plus(a: &Self::Point, b: &Self::Point) -> Self::Point {
        a + b
    }

    fn times(a: &Self::Point, b: &Self::Scalar) -> Self::Point {
        a * b
    }

    fn scalar_bytes(a: &Self::Scalar) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(a.to_bytes())
    }

    fn scalar(bytes: &[u8]) -> Option<Zeroizing<Self::Scalar>> {
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes).ok()?);
        let scalar = Option::from(EdwardsScalar::from_canonical_bytes(*bytes)).map(Zeroizing::new)?;
        (*scalar != EdwardsScalar::ZERO).then_some(scalar)
    }

    fn point_bytes(a: &Self::Point) -> Vec<u8> {
        a.compress().to_bytes().to_vec()
    }

    fn point(bytes: &[u8]) -> Option<Self::Point> {
        let point = CompressedEdwardsY::from_slice(bytes).ok()?.decompress()?;
        let good = !point.is_identity() && point.is_torsion_free();
        (good && Self::point_bytes(&point) == bytes).then_some(point)
    }
}
