//! RSA keys: their attributes, their making, and what an imported one must satisfy (RFC 8017, SP 800-56B).

use std::ops::{Deref, RangeInclusive};

use openssl::{
    bn::{BigNum, BigNumContext, BigNumContextRef, BigNumRef},
    pkey::{self, HasPublic},
    rsa::{Rsa, RsaRef},
};
use pkcs11_sys::*;
use strongroom_shared::object::{Template, Value};

use super::{Error, PairValues, need, with_public_key_info};

/// The sizes of a modulus, in bits.
const MODULUS: RangeInclusive<u32> = 2048..=4096;
/// The least public exponent.
const LEAST_EXPONENT: u32 = 65537;
/// The size of the greatest public exponent, in bits: OpenSSL takes no more for a modulus above 3072 bits.
const EXPONENT_BITS: i32 = 64;

/// A private key from the attributes of a stored object, which `complete` or `generate` made.
pub fn private(attributes: &Template) -> Result<Rsa<pkey::Private>, Error> {
    let number = |kind| Ok::<_, Error>(BigNum::from_slice(need(attributes, kind)?)?);
    Ok(Rsa::from_private_components(
        number(CKA_MODULUS)?,
        number(CKA_PUBLIC_EXPONENT)?,
        number(CKA_PRIVATE_EXPONENT)?,
        number(CKA_PRIME_1)?,
        number(CKA_PRIME_2)?,
        number(CKA_EXPONENT_1)?,
        number(CKA_EXPONENT_2)?,
        number(CKA_COEFFICIENT)?,
    )?)
}

/// A public key from its attributes.
pub fn public(attributes: &Template) -> Result<Rsa<pkey::Public>, Error> {
    Ok(Rsa::from_public_components(modulus(attributes)?, public_exponent(attributes)?)?)
}

/// The size of a key's modulus, in bits; 0 if it has none.
pub fn bits(attributes: &Template) -> u32 {
    let modulus = attributes.bytes(CKA_MODULUS).unwrap_or_default();
    let mut significant = modulus.iter().skip_while(|byte| **byte == 0);
    let top = significant.next().map_or(0, |byte| u8::BITS - byte.leading_zeros());
    top + u8::BITS * significant.count() as u32
}

/// A new pair of `CKA_MODULUS_BITS`, with `CKA_PUBLIC_EXPONENT` or 65537 (FIPS 186-5, A.1, by OpenSSL and from
/// its own random generator).
pub fn generate(template: &Template) -> Result<PairValues, Error> {
    let wanted = template.ulong(CKA_MODULUS_BITS).ok_or(Error::TemplateIncomplete(CKA_MODULUS_BITS))?;
    let bits = u32::try_from(wanted).ok().filter(|bits| MODULUS.contains(bits) && bits.is_multiple_of(8));
    let bits = bits.ok_or(Error::AttributeValueInvalid(CKA_MODULUS_BITS))?;
    let exponent = match template.value(CKA_PUBLIC_EXPONENT) {
        Some(_) => public_exponent(template)?,
        None => BigNum::from_u32(LEAST_EXPONENT)?,
    };
    let key = Rsa::generate_with_e(bits, &exponent)?;
    Ok(PairValues { public: public_values(&key)?, private: private_values(&key)? })
}

pub fn complete_public(template: &Template) -> Result<Template, Error> {
    public_values(&*public(template)?)
}

/// The eight numbers of a private key and its public key info, from (n, e, d) with or without the primes and
/// what follows from them. Whatever the caller gives must be right.
pub fn complete_private(template: &Template) -> Result<Template, Error> {
    let context = &mut *BigNumContext::new()?;
    let (n, e) = (modulus(template)?, public_exponent(template)?);
    let d = Wiped(BigNum::from_slice(need(template, CKA_PRIVATE_EXPONENT)?)?);
    if d.num_bits() < 2 || *d >= n {
        return Err(Error::AttributeValueInvalid(CKA_PRIVATE_EXPONENT));
    }
    let (p, q) = match (template.bytes(CKA_PRIME_1), template.bytes(CKA_PRIME_2)) {
        (Some(p), Some(q)) => (Wiped(BigNum::from_slice(p)?), Wiped(BigNum::from_slice(q)?)),
        (None, None) => factor(&n, &e, &d, context)?,
        (Some(_), None) => return Err(Error::TemplateIncomplete(CKA_PRIME_2)),
        (None, Some(_)) => return Err(Error::TemplateIncomplete(CKA_PRIME_1)),
    };
    if !is_product(&n, &p, &q, context)? {
        return Err(Error::TemplateInconsistent);
    }
    let (dp, dq) = (reduced(&d, &p, context)?, reduced(&d, &q, context)?);
    let mut coefficient = Wiped(BigNum::new()?);
    coefficient.0.mod_inverse(&q, &p, context).map_err(|_| Error::TemplateInconsistent)?;
    for (kind, number) in [(CKA_EXPONENT_1, &dp), (CKA_EXPONENT_2, &dq), (CKA_COEFFICIENT, &coefficient)] {
        if template.bytes(kind).map(BigNum::from_slice).transpose()?.is_some_and(|given| given != number.0) {
            return Err(Error::TemplateInconsistent);
        }
    }
    let copy = |number: &BigNumRef| number.to_owned();
    let key = Rsa::from_private_components(
        n,
        e,
        copy(&d)?,
        copy(&p)?,
        copy(&q)?,
        copy(&dp)?,
        copy(&dq)?,
        copy(&coefficient)?,
    )?;
    match key.check_key() {
        Ok(true) => private_values(&key),
        Ok(false) | Err(_) => Err(Error::TemplateInconsistent),
    }
}

/// A secret number.
struct Wiped(BigNum);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Deref for Wiped {
    type Target = BigNum;

    fn deref(&self) -> &BigNum {
        &self.0
    }
}

fn modulus(attributes: &Template) -> Result<BigNum, Error> {
    let modulus = BigNum::from_slice(need(attributes, CKA_MODULUS)?)?;
    match MODULUS.contains(&bits(attributes)) && modulus.is_odd() {
        true => Ok(modulus),
        false => Err(Error::AttributeValueInvalid(CKA_MODULUS)),
    }
}

fn public_exponent(attributes: &Template) -> Result<BigNum, Error> {
    let exponent = BigNum::from_slice(need(attributes, CKA_PUBLIC_EXPONENT)?)?;
    let least = BigNum::from_u32(LEAST_EXPONENT)?;
    match exponent.is_odd() && exponent >= least && exponent.num_bits() <= EXPONENT_BITS {
        true => Ok(exponent),
        false => Err(Error::AttributeValueInvalid(CKA_PUBLIC_EXPONENT)),
    }
}

/// Whether n is p × q, both above 1. Numbers above n, which could be huge, are not multiplied.
fn is_product(
    n: &BigNumRef,
    p: &BigNumRef,
    q: &BigNumRef,
    context: &mut BigNumContextRef,
) -> Result<bool, Error> {
    if [p, q].iter().any(|factor| factor.num_bits() < 2 || *factor > n) {
        return Ok(false);
    }
    let mut product = BigNum::new()?;
    product.checked_mul(p, q, context)?;
    Ok(*product == *n)
}

/// d mod (prime - 1).
fn reduced(d: &BigNumRef, prime: &BigNumRef, context: &mut BigNumContextRef) -> Result<Wiped, Error> {
    let mut less = Wiped(prime.to_owned()?);
    less.0.sub_word(1)?;
    let mut result = Wiped(BigNum::new()?);
    result.0.nnmod(d, &less, context)?;
    Ok(result)
}

/// The primes of n, the greater one first, from both exponents (SP 800-56B, appendix C): a base whose powers
/// reach 1 by way of a square root of 1 other than ±1 splits n.
fn factor(
    n: &BigNumRef,
    e: &BigNumRef,
    d: &BigNumRef,
    context: &mut BigNumContextRef,
) -> Result<(Wiped, Wiped), Error> {
    /// A base fails with a chance of one half at most.
    const BASES: u32 = 128;
    let one = BigNum::from_u32(1)?;
    let mut odd = Wiped(BigNum::new()?);
    odd.0.checked_mul(e, d, context)?;
    odd.0.sub_word(1)?;
    let mut halvings = 0;
    while odd.num_bits() > 1 && !odd.is_odd() {
        let mut half = Wiped(BigNum::new()?);
        half.0.rshift1(&odd)?;
        odd = half;
        halvings += 1;
    }
    let mut minus_one = n.to_owned()?;
    minus_one.sub_word(1)?;
    for base in 2..2 + BASES {
        let mut power = Wiped(BigNum::new()?);
        power.0.mod_exp(&*BigNum::from_u32(base)?, &odd, n, context)?;
        for _ in 0..halvings {
            let mut square = Wiped(BigNum::new()?);
            square.0.mod_sqr(&power, n, context)?;
            if *square == one && *power != one && *power != minus_one {
                return split(n, &power, context);
            }
            power = square;
        }
        if *power != one {
            return Err(Error::TemplateInconsistent);
        }
    }
    Err(Error::TemplateInconsistent)
}

/// gcd(root - 1, n) and its cofactor.
fn split(n: &BigNumRef, root: &BigNumRef, context: &mut BigNumContextRef) -> Result<(Wiped, Wiped), Error> {
    let mut less = Wiped(root.to_owned()?);
    less.0.sub_word(1)?;
    let (mut p, mut q) = (Wiped(BigNum::new()?), Wiped(BigNum::new()?));
    p.0.gcd(&less, n, context)?;
    q.0.checked_div(n, &p, context)?;
    Ok(if *p >= *q { (p, q) } else { (q, p) })
}

/// Unsigned, big-endian, no leading zeros (PKCS#11 3.1, "Big integer").
fn value(number: &BigNumRef) -> Value {
    Value::bytes(number.to_vec())
}

fn public_values<T: HasPublic>(key: &RsaRef<T>) -> Result<Template, Error> {
    Ok(Template::new()
        .with(CKA_MODULUS, value(key.n()))
        .with(CKA_MODULUS_BITS, Value::Ulong(key.n().num_bits() as u64))
        .with(CKA_PUBLIC_EXPONENT, value(key.e()))
        .with(CKA_PUBLIC_KEY_INFO, Value::bytes(key.public_key_to_der()?)))
}

/// The attributes of a private key.
pub fn private_values(key: &RsaRef<pkey::Private>) -> Result<Template, Error> {
    let numbers = [
        (CKA_MODULUS, Some(key.n())),
        (CKA_PUBLIC_EXPONENT, Some(key.e())),
        (CKA_PRIVATE_EXPONENT, Some(key.d())),
        (CKA_PRIME_1, key.p()),
        (CKA_PRIME_2, key.q()),
        (CKA_EXPONENT_1, key.dmp1()),
        (CKA_EXPONENT_2, key.dmq1()),
        (CKA_COEFFICIENT, key.iqmp()),
    ];
    let mut values = Template::new();
    for (kind, number) in numbers {
        values.set(kind, value(number.ok_or(Error::Internal("OpenSSL gave an RSA key without its primes"))?));
    }
    Ok(with_public_key_info(values, &public_values(key)?))
}
