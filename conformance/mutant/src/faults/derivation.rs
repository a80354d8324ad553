//! Chapter 5.18.5, keys made from keys, by mechanisms that SoftHSM2 does not have or answers otherwise.

use cryptoki_sys::*;

use super::faults;
use crate::call::Call;
use crate::functions::Function as F;
use crate::memory;

faults! {
    behind Nss;
    "ecdh-any-point" [C_DeriveKey] derived_anyway, "6.3 CKM_ECDH1_DERIVE (SP 800-56A, 5.6.2.3)", "a secret is agreed on with a point that is not on the curve", ["attacks.b26-bad-points" "vectors.ecdh-p256" "vectors.ecdh-p384"];
    "hkdf-any-length" [C_DeriveKey] derived_anyway, "6.62 HKDF (RFC 5869, 2.3)", "a key of no bytes, or of more than HKDF gives, is derived", ["attacks.b27-lengths" "vectors.hkdf-sha256"];
    "hkdf-salt-ignored" [C_DeriveKey] hkdf_salt_ignored, "6.62 HKDF (RFC 5869, 2.2)", "HKDF extracts without its salt", ["vectors.hkdf-sha1" "vectors.hkdf-sha256"];
    "kdf-any-field" [C_DeriveKey] derived_anyway, "6.42 CK_SP800_108_COUNTER_FORMAT", "a counter or a length field may be of any width, and a key longer than its counter counts", ["attacks.b27-counter-width" "attacks.b27-counter-short" "attacks.b27-length-width"];
    "kdf-field-lost" [C_DeriveKey] kdf_field_lost, "6.42 CKM_SP800_108_COUNTER_KDF", "the last field of the message is left out", ["attacks.b27-counter-value"];
    "derived-general" [C_DeriveKey] |call| if call.forward() == CKR_OK { CKR_OK } else { CKR_GENERAL_ERROR }, "5.18.5 C_DeriveKey", "why nothing is derived is not said", ["attacks.b26-bad-points" "attacks.b27-lengths"];
}

/// Makes a key of the mutant's where the real module derives none.
fn derived_anyway(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK {
        return rv;
    }
    let mut template = call.template(3).without(CKA_VALUE_LEN).and(CKA_VALUE, &[0x5a; 32]);
    let words =
        [call.word(0), memory::address(template.attributes.as_mut_slice()), template.attributes.len()];
    call.aside(F::C_CreateObject, &[&words[..], &[call.word(5)]].concat())
}

fn hkdf_salt_ignored(call: &Call<'_>) -> CK_RV {
    let Some(mut raw) = memory::read::<CK_MECHANISM>(call.word(1)) else { return call.forward() };
    let parameter = memory::read::<CK_HKDF_PARAMS>(raw.pParameter.expose_provenance());
    let Some(mut parameter) = parameter.filter(|_| raw.mechanism == CKM_HKDF_DERIVE) else {
        return call.forward();
    };
    parameter.ulSaltType = CKF_HKDF_SALT_NULL;
    parameter.pSalt = std::ptr::null_mut();
    parameter.ulSaltLen = 0;
    raw.pParameter = std::ptr::from_mut(&mut parameter).cast();
    call.with(&[(1, memory::address(&mut raw))])
}

fn kdf_field_lost(call: &Call<'_>) -> CK_RV {
    let Some(mut raw) = memory::read::<CK_MECHANISM>(call.word(1)) else { return call.forward() };
    let parameter = memory::read::<CK_SP800_108_KDF_PARAMS>(raw.pParameter.expose_provenance());
    let Some(mut parameter) = parameter.filter(|_| raw.mechanism == CKM_SP800_108_COUNTER_KDF) else {
        return call.forward();
    };
    parameter.ulNumberOfDataParams -= 1;
    raw.pParameter = std::ptr::from_mut(&mut parameter).cast();
    call.with(&[(1, memory::address(&mut raw))])
}
