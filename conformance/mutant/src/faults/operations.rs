//! Chapters 5.2 and 5.8 to 5.15: the state machine and the two-call convention.

use std::collections::BTreeMap;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "query-ends-operation" [C_Encrypt C_Decrypt C_Digest C_Sign] query_ends, "5.2 Variable-length output", "asking for the length ends the operation", ["encrypt.length-query" "decrypt.length-query" "digest.length-query" "sign.length-query"];
    "query-short" [C_Encrypt C_Decrypt C_Digest C_Sign] |call| query_says(call, |length| length - 1), "5.2 Variable-length output", "the length that is told is one too short", ["encrypt.length-query" "digest.length-query" "sign.length-query"];
    "query-absurd" [C_Encrypt C_Decrypt C_Digest C_Sign] |call| query_says(call, |length| length + (1 << 30)), "5.2 Variable-length output", "the length that is told is a gigabyte too long", ["encrypt.length-query" "digest.length-query" "sign.length-query"];
    "too-small-written" [C_Encrypt C_Decrypt C_Digest C_Sign C_EncryptFinal C_DecryptFinal C_DigestFinal C_SignFinal] too_small_written, "5.2 Variable-length output", "a buffer that is too small is written to", ["encrypt.too-small" "digest.too-small" "sign.too-small" "encrypt.too-small-final" "decrypt.too-small-final" "digest.too-small-final" "sign.too-small-final"];
    "too-small-ends-operation" [C_Encrypt C_Decrypt C_Digest C_Sign] too_small_ends, "5.2 Variable-length output", "CKR_BUFFER_TOO_SMALL ends the operation", ["encrypt.too-small" "decrypt.too-small" "digest.too-small" "sign.too-small"];
    "too-small-forgets-length" [C_Encrypt C_Decrypt C_Digest C_Sign] too_small_forgets, "5.2 Variable-length output", "CKR_BUFFER_TOO_SMALL does not tell the length", ["encrypt.too-small" "digest.too-small" "sign.too-small"];
    "too-small-general" [C_Encrypt C_Decrypt C_Digest C_Sign] |call| call.instead_of(&[CKR_BUFFER_TOO_SMALL], CKR_GENERAL_ERROR), "5.2 Variable-length output", "a buffer that is too small is CKR_GENERAL_ERROR", ["digest.too-small" "sign.too-small" "ciphers.oaep-too-small"];
    "operation-goes-on" [
        C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit C_Encrypt C_Decrypt C_Digest
        C_Sign C_Verify C_EncryptFinal C_DecryptFinal C_DigestFinal C_SignFinal C_VerifyFinal
    ] goes_on, "5.13.2 C_Sign", "a completed operation goes on", [
        "encrypt.over" "decrypt.over" "digest.over" "sign.over" "verify.over" "encrypt.over-final"
        "decrypt.over-final" "digest.over-final" "sign.over-final" "verify.over-final"
    ];
    "failed-verify-goes-on" [C_VerifyInit C_Verify] failed_verify_goes_on, "5.15.2 C_Verify", "a failed verification may be tried again", ["signatures.ecdsa-over" "signatures.eddsa-over" "signatures.rsa-pkcs-over" "signatures.sha256-rsa-pkcs-over" "signatures.pss-over" "signatures.hmac-over"];
    "init-twice" [C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_OPERATION_ACTIVE], CKR_OK), "5.13.1 C_SignInit", "a second initialisation is accepted", ["encrypt.init-twice" "decrypt.init-twice" "digest.init-twice" "sign.init-twice" "verify.init-twice"];
    "refused-init-begins" [C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit] refused_init_begins, "5.12.1 C_DigestInit and its like", "a refused initialisation begins the operation of before", ["encrypt.refused-is-nothing" "decrypt.refused-is-nothing" "digest.refused-is-nothing" "sign.refused-is-nothing" "verify.refused-is-nothing"];
    "not-initialized-general" [C_Encrypt C_Decrypt C_Digest C_Sign C_Verify] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_GENERAL_ERROR), "5.13.2 C_Sign", "a step without an operation is CKR_GENERAL_ERROR", ["encrypt.not-initialized" "decrypt.not-initialized" "digest.not-initialized" "sign.not-initialized" "verify.not-initialized"];
    "mechanism-unknown-general" [C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_MECHANISM_INVALID], CKR_GENERAL_ERROR), "5.1.6 CKR_MECHANISM_INVALID", "a mechanism that does not exist is CKR_GENERAL_ERROR", [
        "encrypt.mechanism-unknown" "decrypt.mechanism-unknown" "digest.mechanism-unknown"
        "sign.mechanism-unknown" "verify.mechanism-unknown" "encrypt.mechanism-other"
        "decrypt.mechanism-other" "digest.mechanism-other" "sign.mechanism-other"
        "verify.mechanism-other"
    ];
    "key-type-ignored" [C_EncryptInit C_DecryptInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_KEY_TYPE_INCONSISTENT], CKR_OK), "5.1.6 CKR_KEY_TYPE_INCONSISTENT", "a key of another type is accepted", ["sign.key-wrong-type" "verify.key-wrong-type"];
    "key-refusal-general" [C_EncryptInit C_DecryptInit C_SignInit C_VerifyInit] key_refusal_general, "5.1.6 CKR_KEY_TYPE_INCONSISTENT and its like", "a key that does not fit is CKR_GENERAL_ERROR", [
        "encrypt.key-is-data" "decrypt.key-is-data" "sign.key-is-data" "verify.key-is-data"
        "encrypt.key-wrong-type" "decrypt.key-wrong-type" "sign.key-wrong-type" "verify.key-wrong-type"
        "signatures.hmac-other-key"
    ];
    "null-mechanism-accepted" [C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_ARGUMENTS_BAD], CKR_OK), "5.1.6 CKR_ARGUMENTS_BAD", "a module of 2.40 begins an operation without a mechanism", ["encrypt.cancel-by-null" "decrypt.cancel-by-null" "digest.cancel-by-null" "sign.cancel-by-null" "verify.cancel-by-null"];
    "step-without-operation" [C_Encrypt C_Decrypt C_Digest C_Sign C_Verify] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.13.2 C_Sign and its like", "a step without an operation is answered with CKR_OK", [
        "sign.single-after-part" "verify.single-after-part" "encrypt.not-initialized"
        "decrypt.not-initialized" "digest.not-initialized" "sign.not-initialized"
        "verify.not-initialized"
    ];
    "empty-part-refused" [C_EncryptUpdate C_DecryptUpdate C_DigestUpdate C_SignUpdate C_VerifyUpdate] empty_part_refused, "5.13.3 C_SignUpdate and its like", "an empty part is CKR_GENERAL_ERROR", ["encrypt.empty-null-input" "decrypt.empty-null-input" "digest.empty-null-input" "sign.empty-null-input" "verify.empty-null-input"];
    "parts-swallowed" [C_EncryptUpdate C_DecryptUpdate] parts_swallowed, "5.8.3 C_EncryptUpdate", "the output of a part does not come out", ["encrypt.parts" "decrypt.parts" "ciphers.gcm-parts"];
    "decrypt-loses-a-byte" [C_Decrypt] decrypt_loses, "5.10.2 C_Decrypt", "the last byte of a plaintext is missing", ["ciphers.cbc-pad-lengths" "ciphers.ctr-vector" "ciphers.gcm-vector"];
    "decrypt-any-length" [C_Decrypt] decrypt_any_length, "5.10.2 C_Decrypt", "a ciphertext of impossible length is an empty plaintext", ["ciphers.cbc-pad-length"];
    "huge-length-general" [C_Decrypt C_SetPIN] huge_length_general, "5.1.6 CKR_ARGUMENTS_BAD", "a length that no memory has is CKR_GENERAL_ERROR", ["lengths.decrypt" "lengths.set-pin"];
    "misaligned-crash" [C_CreateObject C_GetAttributeValue C_DigestInit C_Digest] misaligned_crash, "5.1.6 CKR_ARGUMENTS_BAD", "a pointer to an odd address ends the process", ["lengths.misaligned-template" "lengths.misaligned-number" "lengths.misaligned-answer" "lengths.misaligned-mechanism" "lengths.misaligned-length"];
    "parts-lose-a-byte" [C_EncryptUpdate C_DecryptUpdate C_DigestUpdate C_SignUpdate C_VerifyUpdate] parts_lose, "5.12.3 C_DigestUpdate", "a part of 17 bytes loses one", ["encrypt.parts" "decrypt.parts" "digest.parts" "sign.parts" "verify.parts"];
    "parts-restart" [C_DigestInit C_DigestUpdate] parts_restart, "5.12.3 C_DigestUpdate", "every part of a digest begins it anew", ["digest.parts" "digest.random-parts" "client.digest"];
    "key-destroyed-crash" [C_DestroyObject C_EncryptUpdate C_DecryptUpdate C_SignUpdate C_VerifyUpdate] key_destroyed_crash, "5.7.3 C_DestroyObject", "an operation goes on with the memory of a destroyed key", ["encrypt.key-destroyed" "decrypt.key-destroyed" "sign.key-destroyed" "verify.key-destroyed"];
    "operations-disturb" [C_DigestInit C_SignInit] operations_disturb, "5.6 Session management", "the beginning of an operation ends the other one in the session", ["encrypt.apart" "decrypt.apart" "digest.apart" "sign.apart" "verify.apart"];
    "digest-of-key-handle" [C_DigestKey] digest_of_handle, "5.12.4 C_DigestKey", "the handle is digested where the key's value is meant", ["digest.with-key"];
    "digest-hogs-memory" [C_DigestInit] digest_hogs_memory, "2 General overview", "a digest takes 640 MiB", ["digest.public"];
    "digest-truncated" [C_Digest] digest_truncated, "6.24 SHA-512", "a digest is one byte too short", ["digest.sha1" "digest.sha224" "digest.sha256" "digest.sha512"];
    "digest-another" [C_DigestInit] digest_another, "6.21 SHA-224", "SHA-384 is asked for and SHA-512 is given", ["digest.sha384"];
    "digest-of-nothing" [C_Digest C_DigestFinal] digest_of_nothing, "5.12.2 C_Digest", "the digest of nothing is zeros", ["digest.nothing"];
    "digest-any-key" [C_DigestKey] |call| call.instead_of(&[CKR_KEY_HANDLE_INVALID], CKR_OK), "5.12.4 C_DigestKey", "a handle that is no key's is digested", ["digest.with-key-unknown"];
}

/// Room for any output that the real module has.
fn drained(call: &Call<'_>, function: F, first: &[usize]) -> CK_RV {
    let (mut scratch, mut length) = (vec![0_u8; 1 << 16], 1_usize << 16);
    let room = [memory::address(scratch.as_mut_slice()), memory::address(&mut length)];
    call.aside(function, &[first, &room].concat())
}

fn begins(call: &Call<'_>) -> [usize; 3] {
    [call.word(0), call.word(1), call.word(2)]
}

fn query_ends(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) == 0 {
        let _ended = drained(call, call.function, &begins(call));
    }
    rv
}

fn query_says(call: &Call<'_>, change: fn(usize) -> usize) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) == 0 {
        memory::write(call.word(4), change(call.pointed(4)));
    }
    rv
}

fn too_small_written(call: &Call<'_>) -> CK_RV {
    let place = if is_final(call.function) { 1 } else { 3 };
    let room = call.pointed(place + 1);
    let rv = call.forward();
    if rv == CKR_BUFFER_TOO_SMALL {
        memory::put(call.word(place), &vec![0_u8; room]);
    }
    rv
}

fn too_small_ends(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_BUFFER_TOO_SMALL {
        let _ended = drained(call, call.function, &begins(call));
    }
    rv
}

fn too_small_forgets(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_BUFFER_TOO_SMALL {
        memory::write(call.word(4), 0_usize);
    }
    rv
}

const fn is_final(function: F) -> bool {
    matches!(
        function,
        F::C_EncryptFinal | F::C_DecryptFinal | F::C_DigestFinal | F::C_SignFinal | F::C_VerifyFinal
    )
}

const fn is_init(function: F) -> bool {
    matches!(
        function,
        F::C_EncryptInit | F::C_DecryptInit | F::C_DigestInit | F::C_SignInit | F::C_VerifyInit
    )
}

/// What began an operation: the function, the mechanism with its parameter, the key.
#[derive(Clone)]
struct Begun(F, CK_MECHANISM_TYPE, Vec<u8>, usize);

static BEGUN: Memo<BTreeMap<usize, Begun>> = Memo::new(BTreeMap::new());

fn note(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Some(raw), CKR_OK) = (memory::read::<CK_MECHANISM>(call.word(1)), rv) {
        let parameter = memory::list(raw.pParameter.expose_provenance(), raw.ulParameterLen as usize);
        held(&BEGUN).insert(call.word(0), Begun(call.function, raw.mechanism, parameter, call.word(2)));
    }
    rv
}

fn again(call: &Call<'_>) {
    let init = held(&BEGUN).get(&call.word(0)).map(|begun| begun.0);
    init.into_iter().for_each(|init| begin_by(call, init));
}

/// Begins what began last in the session, by this function.
fn begin_by(call: &Call<'_>, init: F) {
    let begun = held(&BEGUN).get(&call.word(0)).cloned();
    if let Some(Begun(_, mechanism, mut parameter, key)) = begun {
        let ulParameterLen = parameter.len() as CK_ULONG;
        let none = std::ptr::null_mut();
        let pParameter = if parameter.is_empty() { none } else { parameter.as_mut_ptr().cast() };
        let mut raw = CK_MECHANISM { mechanism, pParameter, ulParameterLen };
        let words = [call.word(0), memory::address(&mut raw), key];
        let used = if init == F::C_DigestInit { 2 } else { 3 };
        let _rv = call.aside(init, words.get(..used).unwrap_or_default());
    }
}

fn goes_on(call: &Call<'_>) -> CK_RV {
    if is_init(call.function) {
        return note(call);
    }
    let verifies = matches!(call.function, F::C_Verify | F::C_VerifyFinal);
    let place = if is_final(call.function) { 1 } else { 3 };
    let rv = call.forward();
    if rv == CKR_OK && (verifies || call.word(place) != 0) {
        again(call);
    }
    rv
}

fn failed_verify_goes_on(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_VerifyInit) {
        return note(call);
    }
    let rv = call.forward();
    if rv != CKR_OK {
        again(call);
    }
    rv
}

fn refused_init_begins(call: &Call<'_>) -> CK_RV {
    let rv = note(call);
    if rv == CKR_MECHANISM_INVALID {
        begin_by(call, call.function);
    }
    rv
}

fn parts_lose(call: &Call<'_>) -> CK_RV {
    let length = call.word(2);
    call.with(&[(2, if length == 17 { 16 } else { length })])
}

fn parts_restart(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_DigestInit) {
        return note(call);
    }
    let _ended = drained(call, F::C_DigestFinal, &[call.word(0)]);
    again(call);
    call.forward()
}

fn key_destroyed_crash(call: &Call<'_>) -> CK_RV {
    static DESTROYED: Memo<bool> = Memo::new(false);
    let mut destroyed = held(&DESTROYED);
    if call.is(F::C_DestroyObject) {
        *destroyed = true;
    } else if *destroyed {
        memory::crash();
    }
    call.forward()
}

fn operations_disturb(call: &Call<'_>) -> CK_RV {
    let session = call.word(0);
    if call.is(F::C_SignInit) {
        let _ended = drained(call, F::C_DigestFinal, &[session]);
        return call.forward();
    }
    for last in [F::C_EncryptFinal, F::C_DecryptFinal, F::C_SignFinal] {
        let _ended = drained(call, last, &[session]);
    }
    let mut signature = [0_u8; 32];
    let _ended = call.aside(F::C_VerifyFinal, &[session, memory::address(&mut signature), 32]);
    call.forward()
}

fn digest_of_handle(call: &Call<'_>) -> CK_RV {
    let mut handle = call.word(1);
    let words = [call.word(0), memory::address(&mut handle), size_of::<usize>()];
    call.aside(F::C_DigestUpdate, &words)
}

fn digest_hogs_memory(call: &Call<'_>) -> CK_RV {
    drop(std::hint::black_box(vec![1_u8; 640 << 20]));
    call.forward()
}

fn digest_truncated(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        memory::write(call.word(4), call.pointed(4) - 1);
    }
    rv
}

fn digest_another(call: &Call<'_>) -> CK_RV {
    let Some(mut raw) = memory::read::<CK_MECHANISM>(call.word(1)) else { return call.forward() };
    raw.mechanism = if raw.mechanism == CKM_SHA384 { CKM_SHA512 } else { raw.mechanism };
    call.with(&[(1, memory::address(&mut raw))])
}

fn key_refusal_general(call: &Call<'_>) -> CK_RV {
    let refusals = [
        CKR_KEY_HANDLE_INVALID,
        CKR_OBJECT_HANDLE_INVALID,
        CKR_KEY_TYPE_INCONSISTENT,
        CKR_KEY_FUNCTION_NOT_PERMITTED,
    ];
    call.instead_of(&refusals, CKR_GENERAL_ERROR)
}

fn empty_part_refused(call: &Call<'_>) -> CK_RV {
    if call.word(2) == 0 { CKR_GENERAL_ERROR } else { call.forward() }
}

fn parts_swallowed(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        memory::write(call.word(4), 0_usize);
    }
    rv
}

fn decrypt_loses(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        memory::write(call.word(4), call.pointed(4).saturating_sub(1));
    }
    rv
}

fn decrypt_any_length(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if !matches!(rv, CKR_ENCRYPTED_DATA_LEN_RANGE | CKR_ENCRYPTED_DATA_INVALID) {
        return rv;
    }
    call.give(3, &[]);
    CKR_OK
}

fn huge_length_general(call: &Call<'_>) -> CK_RV {
    let lengths = [call.word(2), call.word(4)];
    let huge = |length: &usize| *length >= 1 << 62;
    if lengths.iter().any(huge) { CKR_GENERAL_ERROR } else { call.forward() }
}

/// Numbers in a template are read where they stand, and so is everything that an argument points to.
fn misaligned_crash(call: &Call<'_>) -> CK_RV {
    let place = match call.function {
        F::C_CreateObject => Some(1),
        F::C_GetAttributeValue => Some(2),
        _ => None,
    };
    let odd = |address: usize| address > 1 << 20 && address % 2 == 1;
    let template = place.map(|place| call.template(place).attributes).unwrap_or_default();
    let number =
        |attribute: &CK_ATTRIBUTE| attribute.ulValueLen == 8 && odd(attribute.pValue.expose_provenance());
    let pointers = if call.is(F::C_Digest) { [4, 4] } else { [1, 2] };
    if pointers.iter().any(|place| odd(call.word(*place))) || template.iter().any(number) {
        memory::crash();
    }
    call.forward()
}

fn digest_of_nothing(call: &Call<'_>) -> CK_RV {
    let is_final = call.is(F::C_DigestFinal);
    let rv = call.forward();
    if rv == CKR_OK && (is_final || call.word(2) == 0) {
        let place = if is_final { 1 } else { 3 };
        call.give(place, &vec![0; call.pointed(place + 1)]);
    }
    rv
}
