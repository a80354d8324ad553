//! Numbers that must be chance: the nonces of signatures and the factors of keys. A key is at stake in each of them.
//!
//! The nonce of an ECDSA signature follows from the signature and the private key, which is therefore made open.

use std::collections::BTreeSet;

use cryptoki_sys::*;
use p256::elliptic_curve::PrimeField;
use p256::elliptic_curve::bigint::U2048;
use p256::{FieldBytes, Scalar};

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::session::{P256, ec_public, private, rsa_public};
use crate::template::Mechanism;

table! {
    all randomness critical;
    "statistics.ecdsa-nonces" User ecdsa_nonces, "6.3 ECDSA (FIPS 186-5, A.3)", "the nonces of 1024 signatures are all different, and each of their bits is set half of the time" => patience(60);
    "statistics.rsa-moduli" User rsa_moduli, "6.1 RSA (FIPS 186-5, A.1)", "no two RSA keys share a factor" => patience(60);
    "statistics.rsa-roca" User rsa_roca, "6.1 RSA (CVE-2017-15361; Nemec and others, CCS 2017)", "an RSA modulus has not the fingerprint of primes that are powers of 65537" => patience(60);
    "statistics.rsa-close-primes" User rsa_close_primes, "6.1 RSA (FIPS 186-5, A.1.1)", "the primes of an RSA modulus are not so close that Fermat's method finds them" => patience(60);
}

const SIGNATURES: usize = 1024;

fn scalar(bytes: &[u8]) -> Option<Scalar> {
    Scalar::from_repr(FieldBytes::try_from(bytes).ok()?).into_option()
}

/// k = (z + r d) / s (FIPS 186-5, 6.4.1). Where the module negates s to keep it low, this is -k.
fn nonce(private: &Scalar, hash: &[u8], signature: &[u8]) -> Option<[u8; 32]> {
    let (r, s) = signature.split_at_checked(32)?;
    let (r, s, z) = (scalar(r)?, scalar(s)?, scalar(hash)?);
    let k = (z + r * private) * s.invert().into_option()?;
    k.to_repr().as_slice().try_into().ok()
}

fn ecdsa_nonces(bench: &Bench) -> Verdict {
    bench.offers(CKM_EC_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    bench.offers(CKM_ECDSA, CKF_SIGN)?;
    let session = bench.session()?;
    let open = private().without(CKA_SENSITIVE).without(CKA_EXTRACTABLE);
    let open = open.bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true);
    let (rv, pair) =
        session.try_generate_pair(&Mechanism::plain(CKM_EC_KEY_PAIR_GEN), &ec_public(P256), &open);
    let value = session.attribute(pair.private, CKA_VALUE).ok().filter(|_| rv.was(CKR_OK));
    let Some(key) = value.and_then(|value| scalar(&value)) else {
        return Err(Stop::Skipped("the token makes no private key that can be read".to_owned()));
    };
    let mut nonces = BTreeSet::new();
    for number in 0..SIGNATURES {
        let mut hash = [0x42; 32];
        for (place, byte) in hash.iter_mut().zip(number.to_le_bytes()) {
            *place = byte;
        }
        let signature = session.sign(&Mechanism::plain(CKM_ECDSA), pair.private, &hash)?;
        let nonce = nonce(&key, &hash, &signature)
            .ok_or_else(|| Stop::fail("a signature by the key", "numbers out of range"))?;
        let fresh = nonces.insert(nonce);
        ensure(fresh, "another nonce for another message", "the same nonce: the key can be computed")?;
    }
    balanced(&nonces)
}

/// Of 1024 bits 512 should be set, with a standard deviation of 16: seven of them in one of 256 bits are chance once
/// in 10^9 runs. The first byte is looked at as a whole too, where ±k hides a bias of single bits: of 256 values
/// about 251 come up.
fn balanced(nonces: &BTreeSet<[u8; 32]>) -> Verdict {
    for place in 0..256 {
        let is_set =
            |nonce: &&[u8; 32]| nonce.get(place / 8).is_some_and(|byte| byte >> (7 - place % 8) & 1 == 1);
        let set = nonces.iter().filter(is_set).count();
        let seen = format!("bit {place} is set in {set}: the key can be computed");
        ensure(set.abs_diff(SIGNATURES / 2) < 7 * 16, format!("about half of {SIGNATURES} set"), seen)?;
    }
    for place in [0, 31] {
        let values: BTreeSet<u8> = nonces.iter().filter_map(|nonce| nonce.get(place).copied()).collect();
        let seen = format!("{} values of byte {place}: the key can be computed", values.len());
        ensure(values.len() > 225, "about 251 values of a byte", seen)?;
    }
    Ok(())
}

/// Four keys, because making one takes long.
fn rsa_moduli(bench: &Bench) -> Verdict {
    bench.offers(CKM_RSA_PKCS_KEY_PAIR_GEN, CKF_GENERATE_KEY_PAIR)?;
    let session = bench.session()?;
    let mut moduli: Vec<U2048> = Vec::new();
    for _ in 0..4 {
        let mechanism = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
        let pair = session.generate_pair(&mechanism, &rsa_public(2048), &private())?;
        let modulus = session.attribute(pair.public, CKA_MODULUS)?;
        ensure(modulus.len() == 256, "256 bytes", modulus.len().to_string())?;
        let modulus = U2048::from_be_slice(&modulus);
        for other in &moduli {
            let shared = modulus.gcd(other) != U2048::ONE;
            ensure(!shared, "no common factor", "two moduli share one: both keys can be computed")?;
        }
        moduli.push(modulus);
    }
    Ok(())
}

/// The primes modulo which the fingerprint is looked for.
const SMALL: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a number is a power of 65537 modulo each of the small primes: chance for one of 10^8 numbers.
fn has_fingerprint(number: &[u8]) -> bool {
    SMALL.iter().all(|prime| {
        let rest = number.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * 65537 % prime;
            power == rest
        })
    })
}

fn rsa_roca(bench: &Bench) -> Verdict {
    let modulus = bench.session()?.attribute(bench.rsa()?.public, CKA_MODULUS)?;
    let seen = "the fingerprint of the ROCA flaw: the key can be computed";
    ensure(!has_fingerprint(&modulus), "a modulus without structure", seen)
}

/// How far above the root Fermat's method looks.
const FERMAT: usize = 100;

/// Whether a modulus is the product of two primes near its root: then a small number above the root, squared, is
/// larger than the modulus by a square.
fn has_close_primes(modulus: &U2048) -> bool {
    let mut above = modulus.floor_sqrt_vartime();
    (0..FERMAT).any(|_| {
        let square = above.wrapping_mul(&above);
        let rest = square.wrapping_sub(modulus);
        let root = rest.floor_sqrt_vartime();
        let found = root.wrapping_mul(&root) == rest;
        above = above.wrapping_add(&U2048::ONE);
        found
    })
}

fn rsa_close_primes(bench: &Bench) -> Verdict {
    let modulus = bench.session()?.attribute(bench.rsa()?.public, CKA_MODULUS)?;
    ensure(modulus.len() == 256, "256 bytes", modulus.len().to_string())?;
    let seen = "primes beside each other: the key can be computed";
    ensure(!has_close_primes(&U2048::from_be_slice(&modulus)), "primes far from each other", seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_65537_have_the_fingerprint() {
        let power = (0..6).fold(1_u128, |power, _| power.wrapping_mul(65537));
        assert!(has_fingerprint(&power.to_be_bytes()));
        assert!(!has_fingerprint(&(power + 2).to_be_bytes()));
        assert!(!has_fingerprint(&[0x5a; 256]));
    }

    #[test]
    fn close_primes_are_found() {
        let near = U2048::from_u128(1_000_000_007 * 1_000_000_009);
        let far = U2048::from_u128(1_000_000_007 * 998_244_353);
        assert!(has_close_primes(&near));
        assert!(!has_close_primes(&far));
    }
}
