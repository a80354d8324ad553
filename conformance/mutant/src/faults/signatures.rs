//! Chapter 6, the mechanisms that sign and the keys they sign with: signatures that tell the key, and verification
//! that believes.
//!
//! The faulty nonces are real: the mutant has its keys made open, reads the private scalar and signs by itself, so
//! that every signature verifies and only a check that looks at the nonces can see it.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;
use p256::elliptic_curve::PrimeField;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::{FieldBytes, ProjectivePoint, Scalar};

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "ecdsa-nonce-reused" [C_GenerateKeyPair C_SignInit C_Sign] |call| ecdsa_by_itself(call, |_| [0x17; 32]), "6.3 ECDSA (FIPS 186-5, 6.3)", "every signature has the same nonce", ["signatures.ecdsa-fresh" "statistics.ecdsa-nonces"];
    "ecdsa-nonce-short" [C_GenerateKeyPair C_SignInit C_Sign] |call| ecdsa_by_itself(call, nonce_short), "6.3 ECDSA (FIPS 186-5, A.3)", "the first byte of every nonce is zero", ["statistics.ecdsa-nonces"];
    "ecdsa-nonce-even" [C_GenerateKeyPair C_SignInit C_Sign] |call| ecdsa_by_itself(call, nonce_even), "6.3 ECDSA (FIPS 186-5, A.3)", "every nonce is even", ["statistics.ecdsa-nonces"];
    "ecdsa-nonce-counts" [C_GenerateKeyPair C_SignInit C_Sign] |call| ecdsa_by_itself(call, nonce_counts), "6.3 ECDSA (FIPS 186-5, A.3)", "nonces are counted up from a fixed number", ["statistics.ecdsa-nonces"];
    "ecdsa-halves-swapped" [C_SignInit C_Sign] halves_swapped, "6.3 ECDSA", "s stands before r", ["signatures.ecdsa-round-trip" "client.ecdsa"];
    "ecdsa-zero-verifies" [C_VerifyInit C_Verify] zero_verifies, "6.3 ECDSA", "a signature of zeros verifies", ["signatures.ecdsa-zero"];
    "ecdsa-high-r-verifies" [C_VerifyInit C_Verify] high_r_verifies, "6.3 ECDSA", "r of the group's order or more verifies", ["signatures.ecdsa-order"];
    "eddsa-varies" [C_SignInit C_Sign] eddsa_varies, "6.3 EdDSA (RFC 8032)", "an Ed25519 signature changes from call to call", ["signatures.eddsa-deterministic"];
    "verify-always" [C_Verify C_VerifyFinal] |call| call.instead_of(&[CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE], CKR_OK), "5.15.2 C_Verify", "every signature verifies", [
        "signatures.ecdsa-corrupted" "signatures.eddsa-corrupted" "signatures.rsa-pkcs-corrupted"
        "signatures.sha256-rsa-pkcs-corrupted" "signatures.pss-corrupted" "signatures.hmac-corrupted"
        "signatures.ecdsa-other-message" "signatures.eddsa-other-message"
        "signatures.rsa-pkcs-other-message" "signatures.sha256-rsa-pkcs-other-message"
        "signatures.pss-other-message" "signatures.hmac-other-message" "signatures.ecdsa-wrong-length"
        "signatures.eddsa-wrong-length" "signatures.rsa-pkcs-wrong-length"
        "signatures.sha256-rsa-pkcs-wrong-length" "signatures.pss-wrong-length"
        "signatures.hmac-wrong-length"
    ];
    "verify-any-length" [C_Verify] verify_any_length, "5.15.2 C_Verify", "what stands behind a signature is passed over", ["signatures.ecdsa-wrong-length" "signatures.hmac-wrong-length"];
    "verify-half" [C_Sign C_Verify] verify_half, "6.22 CKM_SHA256_HMAC", "only the first half of a MAC is compared", ["signatures.hmac-corrupted"];
    "verify-invalid-general" [C_Verify] |call| call.instead_of(&[CKR_SIGNATURE_INVALID], CKR_GENERAL_ERROR), "5.15.2 C_Verify", "a signature that is wrong is CKR_GENERAL_ERROR", ["signatures.ecdsa-corrupted" "signatures.pss-corrupted"];
    "verify-length-invalid" [C_Verify] |call| call.instead_of(&[CKR_SIGNATURE_LEN_RANGE], CKR_SIGNATURE_INVALID), "5.15.2 C_Verify", "a signature of the wrong length is CKR_SIGNATURE_INVALID", ["signatures.ecdsa-wrong-length" "signatures.eddsa-wrong-length" "signatures.rsa-pkcs-wrong-length" "signatures.sha256-rsa-pkcs-wrong-length" "signatures.pss-wrong-length" "signatures.hmac-wrong-length"];
    "public-key-signs" [C_SignInit] public_key_signs, "5.13.1 C_SignInit", "a public key may begin a signature", ["signatures.ecdsa-public-key-signs" "signatures.eddsa-public-key-signs" "signatures.rsa-pkcs-public-key-signs" "signatures.sha256-rsa-pkcs-public-key-signs" "signatures.pss-public-key-signs"];
    "pss-is-pkcs1" [C_SignInit] pss_is_pkcs1, "6.1 CKM_SHA256_RSA_PKCS_PSS", "PSS is asked for and PKCS #1 v1.5 is given", ["signatures.pss-round-trip"];
    "pss-any-parameter" [C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD], CKR_OK), "6.1 PSS", "PSS takes any hash and any mask", ["signatures.pss-no-parameter" "signatures.pss-wrong-hash" "signatures.pss-unknown" "signatures.pss-stray-parameter"];
    "hmac-key-cut" [C_CreateObject] hmac_key_cut, "6.22 CKM_SHA256_HMAC", "a key longer than a block is cut", ["signatures.hmac-vector"];
    "rsa-exponent-3" [C_GenerateKeyPair] rsa_exponent_3, "6.1 RSA", "the public exponent is 3 whatever the caller says", ["keys.rsa"];
    "rsa-modulus-short" [C_GenerateKeyPair] rsa_modulus_short, "6.1 RSA", "a modulus of 2048 bits is asked for and one of 1024 is given", ["keys.rsa"];
    "rsa-repeats" [C_GenerateKeyPair] rsa_repeats, "6.1 RSA (FIPS 186-5, A.1)", "two RSA keys share their factors", ["statistics.rsa-moduli"];
    "pair-half-made" [C_GenerateKeyPair] pair_half_made, "5.18.2 C_GenerateKeyPair", "a refused private template leaves a public key", ["keys.pair-refused-is-nothing"];
    "pair-takes-point" [C_GenerateKeyPair] |call| call.with_template(2, &mut call.template(2).without(CKA_EC_POINT).without(CKA_MODULUS)), "5.18.2 C_GenerateKeyPair", "a point or modulus for a key that is to be made is passed over", ["keys.ec-with-point" "keys.rsa-with-modulus"];
    "key-repeats" [C_GenerateKey] key_repeats, "5.18.1 C_GenerateKey", "two AES keys have one value", ["keys.aes"];
    "key-size-rounded" [C_GenerateKey] key_size_rounded, "5.5.6 C_GetMechanismInfo", "a key of a size beyond the bounds is made smaller", ["keys.aes-odd-length" "keys.generic-sizes"];
    "import-any-point" [C_CreateObject C_VerifyInit C_Verify] import_any_point, "5.7.1 C_CreateObject", "a point that is not on its curve is brought in and verifies", ["keys.import-ec-off-curve"];
    "sign-flips-a-bit" [C_Sign] sign_flips, "5.13.2 C_Sign", "the last bit of every signature is wrong", ["signatures.ecdsa-round-trip" "signatures.eddsa-round-trip" "signatures.rsa-pkcs-round-trip" "signatures.sha256-rsa-pkcs-round-trip" "signatures.pss-round-trip" "signatures.hmac-round-trip" "signatures.ecdsa-curves" "signatures.eddsa-empty" "client.rsa" "client.token-key"];
    "generate-any-template" [C_GenerateKey C_GenerateKeyPair] generate_any, "5.18.1 C_GenerateKey", "no template and no mechanism is refused", [
        "keys.aes-no-length" "keys.aes-with-value" "keys.wrong-class" "keys.wrong-type"
        "keys.unknown-mechanism" "keys.other-mechanism" "keys.generic-no-length" "keys.ec-no-params"
        "keys.ec-with-value" "keys.pair-wrong-class" "keys.pair-wrong-type" "keys.pair-other-mechanism"
        "keys.rsa-no-bits" "attributes.generate-forged"
    ];
    "point-not-encoded" [C_GetAttributeValue] point_not_encoded, "6.3 Elliptic curve", "the point of a key is not a DER octet string", ["keys.ec" "keys.edwards"];
}

/// The mechanism of the last initialisation in a session, and its key.
static BEGUN: Memo<std::collections::BTreeMap<usize, (CK_MECHANISM_TYPE, usize)>> =
    Memo::new(std::collections::BTreeMap::new());

fn note(call: &Call<'_>) -> CK_RV {
    let mechanism = memory::read::<CK_MECHANISM>(call.word(1)).map_or(0, |raw| raw.mechanism);
    held(&BEGUN).insert(call.word(0), (mechanism, call.word(2)));
    call.forward()
}

/// The key of the session's operation, if this is its mechanism.
fn key(call: &Call<'_>, mechanism: CK_MECHANISM_TYPE) -> Option<usize> {
    held(&BEGUN).get(&call.word(0)).filter(|(begun, _)| *begun == mechanism).map(|(_, key)| *key)
}

/// Has keys made open, and signs with a nonce that comes of the message.
fn ecdsa_by_itself(call: &Call<'_>, nonce: fn(&[u8; 32]) -> [u8; 32]) -> CK_RV {
    if call.is(F::C_GenerateKeyPair) {
        let open = call.template(4).and(CKA_SENSITIVE, &[CK_FALSE]).and(CKA_EXTRACTABLE, &[CK_TRUE]);
        return call.with_template(4, &mut open.without(CKA_SIGN).and(CKA_SIGN, &[CK_TRUE]));
    }
    if call.is(F::C_SignInit) {
        return note(call);
    }
    let rv = call.forward();
    let Some(key) = key(call, CKM_ECDSA).filter(|_| rv == CKR_OK && call.word(3) != 0) else { return rv };
    let value = call.attribute(call.word(0), key, CKA_VALUE);
    let genuine = <[u8; 64]>::try_from(call.given(3)).ok();
    if let (Some(value), Some(genuine)) = (value, genuine) {
        let seed = std::array::from_fn(|place| genuine.get(32 + place).copied().unwrap_or(0));
        if let Some(signature) = signed(&value, &call.input(1), nonce(&seed)) {
            call.give(3, &signature);
        }
    }
    rv
}

/// ECDSA on P-256 with this nonce (FIPS 186-5, 6.4.1), for hash values of 32 bytes.
fn signed(private: &[u8], hash: &[u8], nonce: [u8; 32]) -> Option<Vec<u8>> {
    let scalar = |bytes: &[u8]| -> Option<Scalar> {
        Scalar::from_repr(FieldBytes::try_from(bytes).ok()?).into_option()
    };
    let (d, z, k) = (scalar(private)?, scalar(hash)?, scalar(&nonce)?);
    let point = (ProjectivePoint::GENERATOR * k).to_affine();
    let r = scalar(point.x().as_slice())?;
    let s = k.invert().into_option()? * (z + r * d);
    Some([r.to_repr().as_slice(), s.to_repr().as_slice()].concat())
}

fn nonce_short(seed: &[u8; 32]) -> [u8; 32] {
    let [_, rest @ ..] = *seed;
    let mut nonce = [0; 32];
    for (place, byte) in nonce.iter_mut().skip(1).zip(rest) {
        *place = byte;
    }
    nonce
}

fn nonce_even(seed: &[u8; 32]) -> [u8; 32] {
    let [rest @ .., last] = *seed;
    let mut nonce = [last & 0xfe; 32];
    for (place, byte) in nonce.iter_mut().zip(rest) {
        *place = byte;
    }
    nonce
}

fn nonce_counts(_: &[u8; 32]) -> [u8; 32] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let mut nonce = [0x3c; 32];
    for (place, byte) in nonce.iter_mut().skip(24).zip(count) {
        *place = byte;
    }
    nonce
}

fn halves_swapped(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_SignInit) {
        return note(call);
    }
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 && key(call, CKM_ECDSA).is_some() {
        let signature = call.given(3);
        let (r, s) = signature.split_at(signature.len() / 2);
        call.give(3, &[s, r].concat());
    }
    rv
}

fn zero_verifies(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_VerifyInit) {
        return note(call);
    }
    let rv = call.forward();
    if call.input(3).iter().all(|byte| *byte == 0) && call.word(4) == 64 { CKR_OK } else { rv }
}

fn high_r_verifies(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_VerifyInit) {
        return note(call);
    }
    let rv = call.forward();
    if key(call, CKM_ECDSA).is_some() && call.input(3).starts_with(&[0xff; 32]) { CKR_OK } else { rv }
}

fn eddsa_varies(call: &Call<'_>) -> CK_RV {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    if call.is(F::C_SignInit) {
        return note(call);
    }
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 && key(call, CKM_EDDSA).is_some() {
        let mut signature = call.given(3);
        let number = CALLS.fetch_add(1, Ordering::SeqCst).to_le_bytes();
        for (place, byte) in signature.iter_mut().zip(number) {
            *place ^= byte;
        }
        call.give(3, &signature);
    }
    rv
}

fn verify_any_length(call: &Call<'_>) -> CK_RV {
    match call.word(4) {
        33 => call.with(&[(4, 32)]),
        65 => call.with(&[(4, 64)]),
        257 => call.with(&[(4, 256)]),
        _ => call.forward(),
    }
}

/// The MAC that the mutant gave last, of which only the first half counts.
fn verify_half(call: &Call<'_>) -> CK_RV {
    static LAST: Memo<Vec<u8>> = Memo::new(Vec::new());
    let rv = call.forward();
    if call.is(F::C_Sign) {
        if rv == CKR_OK && call.word(3) != 0 {
            *held(&LAST) = call.given(3);
        }
        return rv;
    }
    let signature = call.input(3);
    let half = signature.len() / 2;
    let same = signature.get(..half) == held(&LAST).get(..half);
    if rv == CKR_SIGNATURE_INVALID && same { CKR_OK } else { rv }
}

fn public_key_signs(call: &Call<'_>) -> CK_RV {
    let class = call.attribute(call.word(0), call.word(2), CKA_CLASS);
    let rv = call.forward();
    if class == Some(CKO_PUBLIC_KEY.to_ne_bytes().to_vec()) { CKR_OK } else { rv }
}

fn pss_is_pkcs1(call: &Call<'_>) -> CK_RV {
    let Some(mut raw) = memory::read::<CK_MECHANISM>(call.word(1)) else { return call.forward() };
    if raw.mechanism == CKM_SHA256_RSA_PKCS_PSS {
        raw = CK_MECHANISM {
            mechanism: CKM_SHA256_RSA_PKCS,
            pParameter: std::ptr::null_mut(),
            ulParameterLen: 0,
        };
    }
    call.with(&[(1, memory::address(&mut raw))])
}

fn hmac_key_cut(call: &Call<'_>) -> CK_RV {
    let template = call.template(1);
    match template.value(CKA_VALUE).as_deref().and_then(|value| value.get(..64)) {
        Some(block) => call.with_template(1, &mut template.and(CKA_VALUE, block)),
        None => call.forward(),
    }
}

fn rsa_exponent_3(call: &Call<'_>) -> CK_RV {
    let template = call.template(2);
    if !template.has(CKA_PUBLIC_EXPONENT) {
        return call.forward();
    }
    call.with_template(2, &mut template.and(CKA_PUBLIC_EXPONENT, &[3]))
}

fn rsa_modulus_short(call: &Call<'_>) -> CK_RV {
    let template = call.template(2);
    if template.value(CKA_MODULUS_BITS) != Some(2048_u64.to_ne_bytes().to_vec()) {
        return call.forward();
    }
    call.with_template(2, &mut template.and(CKA_MODULUS_BITS, &1024_u64.to_ne_bytes()))
}

/// Copies a key as it is, its handle to this place.
fn copied(call: &Call<'_>, original: usize, place: usize) -> CK_RV {
    call.aside(F::C_CopyObject, &[call.word(0), original, call.word(2), 0, call.word(place)])
}

/// From the second on, a key is a copy of the first.
fn rsa_repeats(call: &Call<'_>) -> CK_RV {
    static FIRST: Memo<Option<[usize; 2]>> = Memo::new(None);
    let mut first = held(&FIRST);
    let Some([public, private]) = *first else {
        let rv = call.forward();
        *first = (rv == CKR_OK).then(|| [call.pointed(6), call.pointed(7)]);
        return rv;
    };
    for (original, place) in [(public, 6), (private, 7)] {
        let rv = copied(call, original, place);
        if rv != CKR_OK {
            return rv;
        }
    }
    CKR_OK
}

fn pair_half_made(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv != CKR_OK {
        let mut least = call.template(4);
        least.attributes.retain(|attribute| matches!(attribute.type_, CKA_CLASS | CKA_TOKEN | CKA_KEY_TYPE));
        if call.with_template(4, &mut least) == CKR_OK {
            let _destroyed = call.aside(F::C_DestroyObject, &[call.word(0), call.pointed(7)]);
        }
    }
    rv
}

/// From the second on, a key of the same length is a copy of the first.
fn key_repeats(call: &Call<'_>) -> CK_RV {
    static FIRST: Memo<Option<(Vec<u8>, usize)>> = Memo::new(None);
    let length = call.template(2).value(CKA_VALUE_LEN).unwrap_or_default();
    let mut first = held(&FIRST);
    if let Some((known, key)) = first.as_ref()
        && *known == length
    {
        return copied(call, *key, 4);
    }
    let rv = call.forward();
    *first = (rv == CKR_OK).then(|| (length, call.pointed(4)));
    rv
}

fn key_size_rounded(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK || !call.template(2).has(CKA_VALUE_LEN) {
        return rv;
    }
    call.with_template(2, &mut call.template(2).and(CKA_VALUE_LEN, &32_u64.to_ne_bytes()))
}

/// An operation with a key that cannot work verifies everything.
fn import_any_point(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_CreateObject) {
        return call.forward();
    }
    call.waved_through()
}

fn sign_flips(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        let mut signature = call.given(3);
        if let Some(last) = signature.last_mut() {
            *last ^= 1;
        }
        call.give(3, &signature);
    }
    rv
}

fn generate_any(call: &Call<'_>) -> CK_RV {
    let refusals = [
        CKR_TEMPLATE_INCOMPLETE,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_READ_ONLY,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_ATTRIBUTE_TYPE_INVALID,
        CKR_MECHANISM_INVALID,
    ];
    call.instead_of(&refusals, CKR_OK)
}

fn point_not_encoded(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    for attribute in call.template(2).attributes {
        if attribute.type_ == CKA_EC_POINT {
            memory::put(attribute.pValue.expose_provenance(), &[0_u8]);
        }
    }
    rv
}
