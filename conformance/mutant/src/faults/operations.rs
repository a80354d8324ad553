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
    "too-small-written" [C_Encrypt C_Decrypt C_Digest C_Sign C_DigestFinal C_SignFinal] too_small_written, "5.2 Variable-length output", "a buffer that is too small is written to", ["encrypt.too-small" "digest.too-small" "sign.too-small" "sign.too-small-final"];
    "too-small-ends-operation" [C_Encrypt C_Decrypt C_Digest C_Sign] too_small_ends, "5.2 Variable-length output", "CKR_BUFFER_TOO_SMALL ends the operation", ["encrypt.too-small" "decrypt.too-small" "digest.too-small" "sign.too-small"];
    "too-small-forgets-length" [C_Encrypt C_Decrypt C_Digest C_Sign] too_small_forgets, "5.2 Variable-length output", "CKR_BUFFER_TOO_SMALL does not tell the length", ["encrypt.too-small" "digest.too-small" "sign.too-small"];
    "too-small-general" [C_Encrypt C_Decrypt C_Digest C_Sign] |call| call.instead_of(&[CKR_BUFFER_TOO_SMALL], CKR_GENERAL_ERROR), "5.2 Variable-length output", "a buffer that is too small is CKR_GENERAL_ERROR", ["digest.too-small" "sign.too-small" "ciphers.oaep-too-small"];
    "operation-goes-on" [C_DigestInit C_Digest C_DigestFinal C_SignInit C_Sign C_SignFinal] goes_on, "5.13.2 C_Sign", "a completed operation goes on", ["digest.over" "digest.over-final" "sign.over" "sign.over-final"];
    "failed-verify-goes-on" [C_VerifyInit C_Verify] failed_verify_goes_on, "5.15.2 C_Verify", "a failed verification may be tried again", ["signatures.ecdsa-over" "signatures.hmac-over"];
    "init-twice" [C_EncryptInit C_DecryptInit C_DigestInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_OPERATION_ACTIVE], CKR_OK), "5.13.1 C_SignInit", "a second initialisation is accepted", ["encrypt.init-twice" "decrypt.init-twice" "digest.init-twice" "sign.init-twice" "verify.init-twice"];
    "refused-init-begins" [C_DigestInit] refused_init_begins, "5.12.1 C_DigestInit", "a refused initialisation begins an operation", ["digest.refused-is-nothing"];
    "not-initialized-general" [C_Encrypt C_Decrypt C_Digest C_Sign C_Verify] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_GENERAL_ERROR), "5.13.2 C_Sign", "a step without an operation is CKR_GENERAL_ERROR", ["encrypt.not-initialized" "digest.not-initialized" "sign.not-initialized" "verify.not-initialized"];
    "mechanism-unknown-general" [C_EncryptInit C_DigestInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_MECHANISM_INVALID], CKR_GENERAL_ERROR), "5.1.6 CKR_MECHANISM_INVALID", "a mechanism that does not exist is CKR_GENERAL_ERROR", ["encrypt.mechanism-unknown" "digest.mechanism-unknown" "sign.mechanism-unknown" "verify.mechanism-unknown"];
    "key-type-ignored" [C_EncryptInit C_DecryptInit C_SignInit C_VerifyInit] |call| call.instead_of(&[CKR_KEY_TYPE_INCONSISTENT], CKR_OK), "5.1.6 CKR_KEY_TYPE_INCONSISTENT", "a key of another type is accepted", ["sign.key-wrong-type" "verify.key-wrong-type"];
    "parts-lose-a-byte" [C_DigestUpdate C_SignUpdate] parts_lose, "5.12.3 C_DigestUpdate", "a part of 17 bytes loses one", ["digest.parts" "sign.parts"];
    "parts-restart" [C_DigestInit C_DigestUpdate] parts_restart, "5.12.3 C_DigestUpdate", "every part of a digest begins it anew", ["digest.parts" "client.digest"];
    "key-destroyed-crash" [C_DestroyObject C_SignUpdate] key_destroyed_crash, "5.7.3 C_DestroyObject", "an operation goes on with the memory of a destroyed key", ["sign.key-destroyed"];
    "operations-disturb" [C_DigestInit C_SignInit] operations_disturb, "5.6 Session management", "a digest in a session ends its signature", ["sign.apart"];
    "digest-of-key-handle" [C_DigestKey] digest_of_handle, "5.12.4 C_DigestKey", "the handle is digested where the key's value is meant", ["digest.with-key"];
    "digest-hogs-memory" [C_DigestInit] digest_hogs_memory, "2 General overview", "a digest takes 640 MiB", ["digest.public"];
    "digest-truncated" [C_Digest] digest_truncated, "6.24 SHA-512", "a digest is one byte too short", ["digest.sha256" "digest.sha512"];
    "digest-another" [C_DigestInit] digest_another, "6.21 SHA-224", "SHA-384 is asked for and SHA-512 is given", ["digest.sha384"];
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
    let place = if matches!(call.function, F::C_DigestFinal | F::C_SignFinal) { 1 } else { 3 };
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

/// What began an operation without a parameter: the function, the mechanism, the key.
#[derive(Clone, Copy)]
struct Begun(F, CK_MECHANISM_TYPE, usize);

static BEGUN: Memo<BTreeMap<usize, Begun>> = Memo::new(BTreeMap::new());

fn note(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK {
        let mechanism = memory::read::<CK_MECHANISM>(call.word(1)).map_or(0, |raw| raw.mechanism);
        held(&BEGUN).insert(call.word(0), Begun(call.function, mechanism, call.word(2)));
    }
    rv
}

fn again(call: &Call<'_>) {
    let begun = held(&BEGUN).get(&call.word(0)).copied();
    if let Some(Begun(init, mechanism, key)) = begun {
        let mut raw = CK_MECHANISM { mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
        let words = [call.word(0), memory::address(&mut raw), key];
        let used = if init == F::C_DigestInit { 2 } else { 3 };
        let _rv = call.aside(init, words.get(..used).unwrap_or_default());
    }
}

fn goes_on(call: &Call<'_>) -> CK_RV {
    if matches!(call.function, F::C_DigestInit | F::C_SignInit) {
        return note(call);
    }
    let place = if matches!(call.function, F::C_DigestFinal | F::C_SignFinal) { 1 } else { 3 };
    let rv = call.forward();
    if rv == CKR_OK && call.word(place) != 0 {
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
    let rv = call.forward();
    if rv == CKR_MECHANISM_INVALID {
        held(&BEGUN).insert(call.word(0), Begun(F::C_DigestInit, CKM_SHA256, 0));
        again(call);
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
    if call.is(F::C_DigestInit) {
        let _ended = drained(call, F::C_SignFinal, &[call.word(0)]);
    }
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
