//! Chapters 5.18.3 to 5.18.5: keys that leave and come in other keys' wrapping, and refusals that tell why.

use std::collections::{BTreeMap, BTreeSet};

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "wrap-unextractable" [C_WrapKey] |call| wrapped_anyway(call, CKR_KEY_UNEXTRACTABLE), "5.18.3 C_WrapKey, 4.10 CKA_EXTRACTABLE", "an unextractable key is wrapped", ["attacks.a13-unextractable"];
    "wrap-untrusted" [C_WrapKey] |call| wrapped_anyway(call, CKR_KEY_NOT_WRAPPABLE), "4.10 CKA_WRAP_WITH_TRUSTED", "a key for trusted wrapping keys only leaves under another", ["attacks.a14-untrusted"];
    "wrap-by-any-key" [C_WrapKey] |call| wrapped_anyway(call, CKR_KEY_FUNCTION_NOT_PERMITTED), "5.18.3 C_WrapKey", "a key without CKA_WRAP wraps", ["attacks.a09-wrap-not-permitted"];
    "wrap-refusal-general" [C_WrapKey] |call| call.instead_of(&[CKR_KEY_UNEXTRACTABLE, CKR_KEY_NOT_WRAPPABLE, CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_GENERAL_ERROR), "5.18.3 C_WrapKey", "why a key is not wrapped is not said", ["attacks.a13-unextractable" "attacks.a14-untrusted" "attacks.a09-wrap-not-permitted"];
    "wrap-truncated" [C_WrapKey] wrap_truncated, "5.18.3 C_WrapKey (RFC 3394)", "a wrapped key lacks its last block", ["vectors.aes-key-wrap" "attacks.a17-history"];
    "unwrap-by-any-key" [C_UnwrapKey] |call| unwrapped_anyway(call, &[CKR_KEY_FUNCTION_NOT_PERMITTED]), "5.18.4 C_UnwrapKey", "a key without CKA_UNWRAP unwraps", ["attacks.a09-unwrap-not-permitted"];
    "unwrap-anything" [C_UnwrapKey] |call| unwrapped_anyway(call, &[CKR_WRAPPED_KEY_INVALID, CKR_GENERAL_ERROR]), "5.18.4 C_UnwrapKey (RFC 3394, 2.2.3)", "what is no wrapped key is unwrapped all the same", ["attacks.a16-random-blobs" "vectors.aes-key-wrap"];
    "unwrapped-is-local" [C_UnwrapKey C_GetAttributeValue] |call| boasts(call, F::C_UnwrapKey, 7, CKA_LOCAL), "5.18.4 C_UnwrapKey", "an unwrapped key says that it was made on the token", ["attacks.a17-history"];
    "unwrapped-was-always-sensitive" [C_UnwrapKey C_GetAttributeValue] |call| boasts(call, F::C_UnwrapKey, 7, CKA_ALWAYS_SENSITIVE), "5.18.4 C_UnwrapKey", "an unwrapped key says that it was always sensitive", ["attacks.a17-history"];
    "derived-was-always-sensitive" [C_DeriveKey C_GetAttributeValue] |call| boasts(call, F::C_DeriveKey, 5, CKA_ALWAYS_SENSITIVE), "5.18.5 C_DeriveKey", "an open key that was derived says that it was always sensitive", ["attacks.b27-history"];
    "derived-was-never-extractable" [C_DeriveKey C_GetAttributeValue] |call| boasts(call, F::C_DeriveKey, 5, CKA_NEVER_EXTRACTABLE), "5.18.5 C_DeriveKey", "an open key that was derived says that it was never extractable", ["attacks.b27-history"];
    "derive-by-any-key" [C_DeriveKey] |call| call.instead_of(&[CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_OK), "5.18.5 C_DeriveKey", "a key without CKA_DERIVE derives", ["attacks.b28-not-permitted"];
    "unwrap-tells-padding" [C_UnwrapKey] unwrap_tells, "6.1 CKM_RSA_PKCS (Bleichenbacher 1998)", "two answers tell how the padding of a wrapped key is bad", ["attacks.a29-unwrap-oracle"];
    "decrypt-tells-padding" [C_DecryptInit C_Decrypt] |call| decrypt_tells(call, CKM_RSA_PKCS), "6.1 CKM_RSA_PKCS (Bleichenbacher 1998)", "two answers tell whether bad padding begins as good padding does", ["attacks.a30-decrypt-oracle"];
    "decrypt-tells-first-byte" [C_DecryptInit C_Decrypt] |call| decrypt_tells(call, CKM_RSA_PKCS_OAEP), "6.1 CKM_RSA_PKCS_OAEP (Manger 2001)", "two answers tell whether the first byte of bad OAEP is zero", ["attacks.a31-oaep-oracle"];
}

/// Gives something out where the real module refuses with this.
fn wrapped_anyway(call: &Call<'_>, refusal: CK_RV) -> CK_RV {
    let rv = call.forward();
    if rv != refusal {
        return rv;
    }
    call.give(4, &[0x5a; 40]);
    CKR_OK
}

fn wrap_truncated(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(4) != 0 {
        memory::write(call.word(5), call.pointed(5).saturating_sub(8));
    }
    rv
}

/// Brings a key in where the real module refuses with one of these.
fn unwrapped_anyway(call: &Call<'_>, refusals: &[CK_RV]) -> CK_RV {
    let rv = call.forward();
    if !refusals.contains(&rv) {
        return rv;
    }
    let mut template = call.template(5).and(CKA_VALUE, &[0x5a; 32]);
    let words =
        [call.word(0), memory::address(template.attributes.as_mut_slice()), template.attributes.len()];
    call.aside(F::C_CreateObject, &[&words[..], &[call.word(7)]].concat())
}

/// Remembers the keys of a function, whose handles it puts in this place, and says of them that this is true.
fn boasts(call: &Call<'_>, maker: F, place: usize, kind: CK_ATTRIBUTE_TYPE) -> CK_RV {
    static MADE: Memo<BTreeSet<usize>> = Memo::new(BTreeSet::new());
    let rv = call.forward();
    if call.is(maker) {
        if rv == CKR_OK {
            held(&MADE).insert(call.pointed(place));
        }
        return rv;
    }
    let is_made = held(&MADE).contains(&call.word(1));
    for attribute in call.template(2).attributes {
        if is_made && attribute.type_ == kind && attribute.ulValueLen == 1 {
            memory::put(attribute.pValue.expose_provenance(), &[CK_TRUE]);
        }
    }
    rv
}

/// What an RSA ciphertext is without any padding, for a key that decrypts.
fn bare(call: &Call<'_>, key: usize, input: &mut [u8]) -> Vec<u8> {
    let mut raw =
        CK_MECHANISM { mechanism: CKM_RSA_X_509, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let session = call.hidden_session(call.slot(call.word(0)));
    let (mut output, mut length) = (vec![0_u8; 512], 512_usize);
    let _begun = call.aside(F::C_DecryptInit, &[session, memory::address(&mut raw), key]);
    let room = [memory::address(output.as_mut_slice()), memory::address(&mut length)];
    let rv = call.aside(F::C_Decrypt, &[session, memory::address(input), input.len(), room[0], room[1]]);
    let _closed = call.aside(F::C_CloseSession, &[session]);
    output.truncate(if rv == CKR_OK { length } else { 0 });
    output
}

fn decrypt_tells(call: &Call<'_>, number: CK_MECHANISM_TYPE) -> CK_RV {
    static BEGUN: Memo<BTreeMap<usize, (CK_MECHANISM_TYPE, usize)>> = Memo::new(BTreeMap::new());
    let rv = call.forward();
    if call.is(F::C_DecryptInit) {
        let raw = memory::read::<CK_MECHANISM>(call.word(1)).filter(|_| rv == CKR_OK);
        held(&BEGUN).extend(raw.map(|raw| (call.word(0), (raw.mechanism, call.word(2)))));
        return rv;
    }
    let begun = held(&BEGUN).get(&call.word(0)).copied().filter(|(mechanism, _)| *mechanism == number);
    let Some((_, key)) = begun.filter(|_| !matches!(rv, CKR_OK | CKR_BUFFER_TOO_SMALL)) else { return rv };
    let message = bare(call, key, &mut call.input(1));
    let good_start: &[u8] = if number == CKM_RSA_PKCS { &[0, 2] } else { &[0] };
    if message.starts_with(good_start) { CKR_DATA_INVALID } else { CKR_ENCRYPTED_DATA_INVALID }
}

/// The key only unwraps, so the padding is not in sight: every second refusal is another.
fn unwrap_tells(call: &Call<'_>) -> CK_RV {
    static SECOND: Memo<bool> = Memo::new(false);
    let rv = call.forward();
    if rv == CKR_OK {
        return rv;
    }
    let mut second = held(&SECOND);
    *second = !*second;
    if *second { CKR_WRAPPED_KEY_INVALID } else { CKR_WRAPPED_KEY_LEN_RANGE }
}
