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
