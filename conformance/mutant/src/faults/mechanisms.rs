//! Chapters 5.5.5, 5.5.6 and 6: a table of mechanisms that does not say what the mechanisms do.

use cryptoki_sys::*;

use super::faults;
use crate::call::Call;
use crate::functions::Function as F;
use crate::memory;

faults! {
    "mechanism-hidden" [C_GetMechanismList] mechanism_hidden, "5.5.5 C_GetMechanismList", "AES-CTR works, and is not listed", ["mechanisms.aes-ctr-info" "mechanisms.aes-ctr-encrypt" "mechanisms.aes-ctr-decrypt"];
    "mechanism-not-described" [C_GetMechanismInfo] |call| of_mechanism(call, CKM_SHA_1_HMAC, |_| CKR_MECHANISM_INVALID), "5.5.6 C_GetMechanismInfo", "a mechanism is listed and not described", ["mechanisms.sha-1-hmac-info"];
    "mechanism-stray-flag" [C_GetMechanismInfo] |call| with_flags(call, CKM_AES_ECB, |flags| flags | CKF_SIGN), "5.5.6 C_GetMechanismInfo", "AES-ECB says that it signs", ["mechanisms.aes-ecb-info"];
    "mechanism-flag-hidden" [C_GetMechanismInfo] |call| with_flags(call, CKM_ECDH1_DERIVE, |flags| flags & !CKF_DERIVE), "5.5.6 C_GetMechanismInfo", "ECDH derives, and does not say so", ["mechanisms.ecdh1-derive-derive"];
    "mechanism-flag-empty" [C_SignInit] |call| begun(call, CKM_AES_CMAC, |_| CKR_MECHANISM_INVALID), "5.5.6 C_GetMechanismInfo", "AES-CMAC says that it signs, and does not", ["mechanisms.aes-cmac-sign"];
    "mechanism-verify-empty" [C_VerifyInit] |call| begun(call, CKM_SHA256_RSA_PKCS, |_| CKR_FUNCTION_NOT_SUPPORTED), "5.5.6 C_GetMechanismInfo", "SHA-256 with RSA says that it verifies, and does not", ["mechanisms.sha256-rsa-pkcs-verify"];
    "mechanism-wrap-empty" [C_WrapKey] |call| begun(call, CKM_AES_KEY_WRAP, |_| CKR_MECHANISM_INVALID), "5.5.6 C_GetMechanismInfo", "AES key wrap says that it wraps, and does not", ["mechanisms.aes-key-wrap-wrap"];
    "mechanism-derive-empty" [C_DeriveKey] |call| begun(call, CKM_AES_ECB_ENCRYPT_DATA, |_| CKR_MECHANISM_INVALID), "5.5.6 C_GetMechanismInfo", "a mechanism says that it derives, and does not", ["mechanisms.aes-ecb-encrypt-data-derive"];
    "mechanism-for-anything" [C_SignInit C_EncryptInit C_DigestInit] |call| call.instead_of(&[CKR_MECHANISM_INVALID], CKR_OK), "5.5.6 C_GetMechanismInfo", "every operation begins with every mechanism", ["mechanisms.sha256-other-uses" "mechanisms.aes-cbc-other-uses" "mechanisms.ecdsa-other-uses"];
    "mechanism-use-ignored" [C_SignInit C_EncryptInit C_DeriveKey C_WrapKey] |call| call.instead_of(&[CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_OK), "4.10 CKA_SIGN and its like", "a mechanism takes a key that is not for this use", ["mechanisms.sha256-hmac-not-allowed" "mechanisms.aes-cbc-not-allowed" "mechanisms.ecdh1-derive-not-allowed" "mechanisms.aes-key-wrap-not-allowed"];
    "allowed-mechanisms-ignored" [C_CreateObject] |call| call.with_template(1, &mut call.template(1).without(CKA_ALLOWED_MECHANISMS)), "4.7 CKA_ALLOWED_MECHANISMS", "a key for one mechanism is used with another", ["attacks.b28-allowed-mechanisms"];
    "mechanism-any-secret-key" [C_SignInit C_VerifyInit C_EncryptInit C_DecryptInit] |call| call.instead_of(&[CKR_KEY_TYPE_INCONSISTENT], CKR_OK), "5.1.6 CKR_KEY_TYPE_INCONSISTENT", "a mechanism takes a secret key of any type", ["mechanisms.sha256-hmac-other-key" "mechanisms.aes-cbc-other-key" "mechanisms.aes-cmac-other-key"];
    "mechanism-any-half" [C_SignInit] |call| call.instead_of(&[CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_KEY_TYPE_INCONSISTENT], CKR_OK), "5.13.1 C_SignInit", "the public half of a pair signs", ["mechanisms.ecdsa-other-class" "mechanisms.eddsa-other-class" "mechanisms.rsa-pkcs-other-class"];
    "mechanism-wraps-with-nothing" [C_WrapKey] |call| call.instead_of(&[CKR_WRAPPING_KEY_HANDLE_INVALID], CKR_OK), "5.18.3 C_WrapKey", "no key at all wraps", ["mechanisms.aes-key-wrap-no-key"];
    "mechanism-any-counter" [C_EncryptInit C_DecryptInit] |call| begun(call, CKM_AES_CTR, |call| call.waved_through()), "6.11 AES-CTR", "AES-CTR takes any parameter, or none", ["mechanisms.aes-ctr-parameter-absent" "mechanisms.aes-ctr-parameter-null" "mechanisms.aes-ctr-parameter-length" "mechanisms.aes-ctr-parameter-value"];
    "mechanism-any-label" [C_EncryptInit] |call| begun(call, CKM_RSA_PKCS_OAEP, |call| call.waved_through()), "6.1 CKM_RSA_PKCS_OAEP", "OAEP takes any parameter, or none", ["mechanisms.rsa-pkcs-oaep-parameter-absent" "mechanisms.rsa-pkcs-oaep-parameter-length"];
    "mechanism-any-agreement" [C_DeriveKey] |call| begun(call, CKM_ECDH1_DERIVE, |call| call.instead_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD], CKR_OK)), "6.3 CKM_ECDH1_DERIVE", "ECDH takes any parameter, or none", ["mechanisms.ecdh1-derive-parameter-absent" "mechanisms.ecdh1-derive-parameter-length"];
    "mechanism-refuses-without-word" [C_SignInit C_EncryptInit C_WrapKey C_DeriveKey] |call| call.instead_of(&[CKR_MECHANISM_INVALID, CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_GENERAL_ERROR), "5.1.6 CKR_MECHANISM_INVALID", "why a mechanism or a key is refused is not said", ["mechanisms.sha256-other-uses" "mechanisms.sha256-hmac-not-allowed"];
    "mechanism-size-lie" [C_GetMechanismInfo] size_lie, "5.5.6 C_GetMechanismInfo", "AES keys are said to have 8 to 64 bytes", ["mechanisms.aes-key-gen-size-least" "mechanisms.aes-key-gen-size-most"];
    "mechanism-any-size" [C_GenerateKey] any_size, "5.5.6 C_GetMechanismInfo", "an AES key of any size is made, of 32 bytes", ["mechanisms.aes-key-gen-size-below" "mechanisms.aes-key-gen-size-above"];
}

fn mechanism_hidden(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let mut list: Vec<usize> = memory::list(call.word(1), call.pointed(2));
    if rv == CKR_OK && !list.is_empty() {
        list.retain(|mechanism| *mechanism != CKM_AES_CTR as usize);
        memory::put(call.word(1), &list);
        memory::write(call.word(2), list.len());
    }
    rv
}

/// Does this if `C_GetMechanismInfo` is asked about that mechanism.
fn of_mechanism(call: &Call<'_>, number: CK_MECHANISM_TYPE, act: fn(&Call<'_>) -> CK_RV) -> CK_RV {
    if call.word(1) == number as usize { act(call) } else { call.forward() }
}

fn described(call: &Call<'_>, number: CK_MECHANISM_TYPE, change: impl Fn(&mut CK_MECHANISM_INFO)) -> CK_RV {
    let rv = call.forward();
    if let Some(mut info) =
        memory::read(call.word(2)).filter(|_| rv == CKR_OK && call.word(1) == number as usize)
    {
        change(&mut info);
        memory::write(call.word(2), info);
    }
    rv
}

fn with_flags(call: &Call<'_>, number: CK_MECHANISM_TYPE, change: fn(CK_FLAGS) -> CK_FLAGS) -> CK_RV {
    described(call, number, |info| info.flags = change(info.flags))
}

fn size_lie(call: &Call<'_>) -> CK_RV {
    described(call, CKM_AES_KEY_GEN, |info| (info.ulMinKeySize, info.ulMaxKeySize) = (8, 64))
}

/// Does this if the operation, or the one call, is of that mechanism.
fn begun(call: &Call<'_>, number: CK_MECHANISM_TYPE, act: fn(&Call<'_>) -> CK_RV) -> CK_RV {
    let raw = memory::read::<CK_MECHANISM>(call.word(1));
    if raw.is_some_and(|raw| raw.mechanism == number) { act(call) } else { call.forward() }
}

fn any_size(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK || call.is(F::C_GenerateKeyPair) {
        return rv;
    }
    call.with_template(2, &mut call.template(2).and(CKA_VALUE_LEN, &32_u64.to_ne_bytes()))
}
