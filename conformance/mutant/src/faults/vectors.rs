//! Chapter 6: mechanisms that agree with themselves and with nobody else, and verifications that are right but for a class
//! of forgeries. Only known answers and other implementations see them.

use std::collections::BTreeMap;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "digest-long-forgets" [C_Digest] digest_forgets, "6.22 SHA-256", "of a message of more than 256 bytes the last is not digested", ["interop.digest-sha256" "interop.digest-sha512" "interop.digest-sha1"];
    "mac-forgets-last-block" [C_SignInit C_Sign C_VerifyInit C_Verify] |call| shortened(call, &[CKM_SHA256_HMAC, CKM_SHA512_HMAC, CKM_AES_CMAC], |length| length - length % 16), "6.22 CKM_SHA256_HMAC", "a code is over whole blocks of the message", ["vectors.hmac-sha256" "vectors.hmac-sha512" "vectors.aes-cmac" "interop.hmac-sha256"];
    "ecdsa-short-digest" [C_SignInit C_Sign C_VerifyInit C_Verify] |call| shortened(call, &[CKM_ECDSA], |length| length.min(31)), "6.3 ECDSA (FIPS 186-5, 6.4.1)", "of a hash value the first 31 bytes are signed", ["interop.ecdsa-secp256r1-signs" "interop.ecdsa-secp256r1-verifies" "vectors.ecdsa-p256-sha256-digest"];
    "eddsa-signature-with-garbage" [C_Verify] |call| cut_signature(call, 64), "5.15.2 C_Verify", "what stands behind a signature is passed over", ["vectors.ed25519"];
    "rsa-lenient-padding" [C_CreateObject C_VerifyInit C_Verify] lenient_padding, "6.1 CKM_SHA256_RSA_PKCS (RFC 8017, 8.2.2; Bleichenbacher 2006)", "between the padding of a signature and its hash value anything may stand", ["vectors.rsa-2048-sha256"];
    "rsa-other-hash" [C_SignInit C_VerifyInit] |call| other_mechanism(call, CKM_SHA256_RSA_PKCS, CKM_SHA384_RSA_PKCS), "6.1 CKM_SHA256_RSA_PKCS", "RSA with SHA-256 is RSA with SHA-384", ["interop.rsa-pkcs-sha256-signs" "interop.rsa-pkcs-sha256-verifies" "vectors.rsa-2048-sha256"];
    "pss-other-salt" [C_SignInit C_VerifyInit] pss_other_salt, "6.1 CK_RSA_PKCS_PSS_PARAMS", "the salt of PSS has 20 bytes whatever is said", ["interop.rsa-pss-sha256-signs" "interop.rsa-pss-sha256-verifies" "vectors.pss-2048-sha256-32"];
    "ed25519-unreduced" [C_Verify] ed25519_unreduced, "6.3 EdDSA (RFC 8032, 5.1.7)", "the second half of a signature is taken modulo the order", ["attacks.d36-unreduced" "vectors.ed25519"];
    "ed25519-other-message" [C_SignInit C_Sign C_VerifyInit C_Verify] |call| shortened(call, &[CKM_EDDSA], |length| length.min(64)), "6.3 EdDSA (RFC 8032)", "EdDSA signs the first 64 bytes", ["interop.ed25519" "vectors.ed25519"];
    "ctr-other-start" [C_EncryptInit C_DecryptInit] ctr_other_start, "6.11 AES-CTR", "the counter begins one later than it is told", ["interop.aes-ctr" "ciphers.ctr-vector"];
    "cbc-vector-turned" [C_EncryptInit C_DecryptInit] |call| vector_turned(call, CKM_AES_CBC_PAD), "6.10 AES-CBC with PKCS padding", "the IV is read from its end", ["interop.aes-cbc-pad" "vectors.aes-cbc-pad"];
    "modulus-of-powers" [C_GetAttributeValue] modulus_of_powers, "6.1 RSA (CVE-2017-15361)", "a modulus has the fingerprint of the ROCA flaw", ["statistics.rsa-roca"];
    "modulus-of-neighbours" [C_GetAttributeValue] |call| modulus(call, &neighbours()), "6.1 RSA (FIPS 186-5, A.1.1)", "the factors of a modulus are neighbours", ["statistics.rsa-close-primes"];
}

fn digest_forgets(call: &Call<'_>) -> CK_RV {
    let length = call.word(2);
    call.with(&[(2, if length > 256 { length - 1 } else { length })])
}

/// Passes on a part of the message, if the operation is of one of these mechanisms.
fn shortened(call: &Call<'_>, numbers: &[CK_MECHANISM_TYPE], kept: fn(usize) -> usize) -> CK_RV {
    static BEGUN: Memo<BTreeMap<usize, CK_MECHANISM_TYPE>> = Memo::new(BTreeMap::new());
    if matches!(call.function, F::C_SignInit | F::C_VerifyInit) {
        let raw = memory::read::<CK_MECHANISM>(call.word(1));
        held(&BEGUN).extend(raw.map(|raw| (call.word(0), raw.mechanism)));
        return call.forward();
    }
    let concerned = held(&BEGUN).get(&call.word(0)).is_some_and(|begun| numbers.contains(begun));
    if concerned { call.with(&[(2, kept(call.word(2)))]) } else { call.forward() }
}

fn cut_signature(call: &Call<'_>, most: usize) -> CK_RV {
    call.with(&[(4, call.word(4).min(most))])
}

/// Runs an operation of one part in a session that the caller does not know of.
fn aside(
    call: &Call<'_>,
    [init, single]: [F; 2],
    number: CK_MECHANISM_TYPE,
    key: &[usize],
    input: &mut [u8],
) -> Vec<u8> {
    let session = call.hidden_session(call.slot(call.word(0)));
    let mut raw = CK_MECHANISM { mechanism: number, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let (mut output, mut length) = (vec![0_u8; 512], 512_usize);
    let begun = [session, memory::address(&mut raw)];
    let _begun = call.aside(init, &[&begun[..], key].concat());
    let room = [memory::address(output.as_mut_slice()), memory::address(&mut length)];
    let rv = call.aside(single, &[session, memory::address(input), input.len(), room[0], room[1]]);
    let _closed = call.aside(F::C_CloseSession, &[session]);
    output.truncate(if rv == CKR_OK { length } else { 0 });
    output
}

/// Public keys are made to encrypt, so that what a signature is without its padding can be seen.
fn lenient_padding(call: &Call<'_>) -> CK_RV {
    static KEYS: Memo<BTreeMap<usize, usize>> = Memo::new(BTreeMap::new());
    match call.function {
        F::C_CreateObject => {
            return call.with_template(1, &mut call.template(1).and(CKA_ENCRYPT, &[CK_TRUE]));
        }
        F::C_VerifyInit => {
            held(&KEYS).insert(call.word(0), call.word(2));
            return call.forward();
        }
        _ => {}
    }
    let rv = call.forward();
    let Some(key) = held(&KEYS).get(&call.word(0)).copied().filter(|_| rv == CKR_SIGNATURE_INVALID) else {
        return rv;
    };
    let padded = aside(call, [F::C_EncryptInit, F::C_Encrypt], CKM_RSA_X_509, &[key], &mut call.input(3));
    let hash = aside(call, [F::C_DigestInit, F::C_Digest], CKM_SHA256, &[], &mut call.input(1));
    if padded.starts_with(&[0, 1, 0xff, 0xff]) && padded.ends_with(&hash) { CKR_OK } else { rv }
}

fn other_mechanism(call: &Call<'_>, asked: CK_MECHANISM_TYPE, given: CK_MECHANISM_TYPE) -> CK_RV {
    let Some(mut raw) = memory::read::<CK_MECHANISM>(call.word(1)) else { return call.forward() };
    raw.mechanism = if raw.mechanism == asked { given } else { raw.mechanism };
    call.with(&[(1, memory::address(&mut raw))])
}

/// Passes on another parameter of this mechanism.
fn with_parameter<T: Copy>(call: &Call<'_>, number: CK_MECHANISM_TYPE, change: fn(&mut T)) -> CK_RV {
    let raw = memory::read::<CK_MECHANISM>(call.word(1)).filter(|raw| raw.mechanism == number);
    let parameter = raw.and_then(|raw| {
        let whole = raw.ulParameterLen as usize == size_of::<T>();
        Some((raw, memory::read::<T>(raw.pParameter.expose_provenance()).filter(|_| whole)?))
    });
    let Some((mut raw, mut parameter)) = parameter else { return call.forward() };
    change(&mut parameter);
    raw.pParameter = std::ptr::from_mut(&mut parameter).cast();
    call.with(&[(1, memory::address(&mut raw))])
}

fn pss_other_salt(call: &Call<'_>) -> CK_RV {
    with_parameter(call, CKM_SHA256_RSA_PKCS_PSS, |pss: &mut CK_RSA_PKCS_PSS_PARAMS| pss.sLen = 20)
}

fn ctr_other_start(call: &Call<'_>) -> CK_RV {
    with_parameter(call, CKM_AES_CTR, |ctr: &mut CK_AES_CTR_PARAMS| {
        if let Some(last) = ctr.cb.last_mut() {
            *last = last.wrapping_add(1);
        }
    })
}

fn vector_turned(call: &Call<'_>, number: CK_MECHANISM_TYPE) -> CK_RV {
    with_parameter(call, number, |vector: &mut [u8; 16]| vector.reverse())
}

/// The order of the group, little-endian (RFC 8032, 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A number less the order, little-endian, unless it is smaller.
fn reduced(number: &[u8]) -> Option<Vec<u8>> {
    let mut borrow = 0;
    let mut digit = |(one, other): (&u8, &u8)| {
        let difference = i16::from(*one) - i16::from(*other) - borrow;
        borrow = i16::from(difference < 0);
        difference.to_le_bytes().first().copied()
    };
    let digits = number.iter().zip(&ORDER).map(&mut digit).collect::<Option<Vec<u8>>>()?;
    (borrow == 0).then_some(digits)
}

fn ed25519_unreduced(call: &Call<'_>) -> CK_RV {
    let signature = call.input(3);
    let (point, number) = signature.split_at_checked(32).unwrap_or_default();
    match reduced(number).filter(|_| signature.len() == 64) {
        Some(number) => {
            let mut other = [point, &number].concat();
            call.with(&[(3, memory::address(other.as_mut_slice()))])
        }
        None => call.forward(),
    }
}

/// Gives another modulus of 2048 bits.
fn modulus(call: &Call<'_>, number: &[u8; 256]) -> CK_RV {
    let rv = call.forward();
    for attribute in call.template(2).attributes {
        if rv == CKR_OK && attribute.type_ == CKA_MODULUS && attribute.ulValueLen == 256 {
            memory::put(attribute.pValue.expose_provenance(), number);
        }
    }
    rv
}

/// 65537 to the power of 127, which has 2033 bits.
fn modulus_of_powers(call: &Call<'_>) -> CK_RV {
    let mut power = [0_u8; 256];
    power[255] = 1;
    for _ in 0..127 {
        let mut carry = 0_u16;
        let shifted = power;
        for (place, digit) in power.iter_mut().enumerate().rev() {
            // Times 65537 is what stands there and what stands two bytes lower.
            let lower = shifted.get(place + 2).copied().unwrap_or(0);
            let sum = u16::from(*digit) + u16::from(lower) + carry;
            (*digit, carry) = ((sum & 0xff) as u8, sum >> 8);
        }
    }
    modulus(call, &power)
}

/// (2^1023 + 1) (2^1023 + 3), which is 2^2046 + 2^1025 + 3.
fn neighbours() -> [u8; 256] {
    let mut product = [0_u8; 256];
    (product[0], product[127], product[255]) = (0x40, 2, 3);
    product
}
