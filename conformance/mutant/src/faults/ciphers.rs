//! Chapter 6, the mechanisms that encrypt: tags that nobody checks, padding that talks, IVs that do not matter.
//!
//! Where the real module keeps its word, the plaintext comes from the same key in counter mode, which is what GCM is
//! but for its tag, and from CBC without padding.

use std::collections::BTreeMap;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "gcm-tag-unchecked" [C_DecryptInit C_Decrypt] |call| gcm_released(call, true), "6.13 AES-GCM", "a ciphertext is decrypted whatever its tag", ["ciphers.gcm-forged"];
    "gcm-plaintext-with-error" [C_DecryptInit C_Decrypt] |call| gcm_released(call, false), "6.13 AES-GCM", "the plaintext of a forged ciphertext comes with the error", ["ciphers.gcm-forged"];
    "gcm-released-early" [C_DecryptInit C_DecryptUpdate] gcm_released_early, "6.13 AES-GCM", "plaintext comes out before the tag is checked", ["ciphers.gcm-early"];
    "gcm-iv-ignored" [C_EncryptInit C_DecryptInit] |call| gcm_with(call, |gcm| gcm.pIv = FIXED.as_ptr().cast_mut()), "6.13 AES-GCM (SP 800-38D, 8.2)", "every message is encrypted with one IV", ["ciphers.gcm-forged" "ciphers.iv-matters"];
    "gcm-aad-ignored" [C_EncryptInit C_DecryptInit] |call| gcm_with(call, |gcm| gcm.ulAADLen = 0), "6.13 AES-GCM", "additional data is not authenticated", ["ciphers.gcm-forged"];
    "gcm-long-tag" [C_EncryptInit] |call| gcm_with(call, |gcm| gcm.ulTagBits = 128), "6.13 AES-GCM", "a tag of 96 bits is 128 bits", ["ciphers.gcm-short-tag"];
    "gcm-any-parameter" [C_EncryptInit C_DecryptInit] |call| call.instead_of(&[CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD], CKR_OK), "6.13 AES-GCM", "a parameter of any length is accepted", ["ciphers.gcm-parameter" "ciphers.ctr-bits"];
    "cbc-iv-ignored" [C_EncryptInit C_DecryptInit] cbc_iv_ignored, "6.10 AES-CBC", "the IV is zero whatever the caller says", ["ciphers.cbc-vector" "ciphers.iv-matters"];
    "cbc-padding-oracle" [C_DecryptInit C_Decrypt] |call| padding(call, Padding::Told), "6.10 AES-CBC with PKCS padding (Vaudenay 2002)", "two answers tell how the padding is bad", ["ciphers.cbc-pad-oracle"];
    "cbc-padding-unchecked" [C_DecryptInit C_Decrypt] |call| padding(call, Padding::Ignored), "6.10 AES-CBC with PKCS padding", "bad padding is plaintext", ["ciphers.cbc-pad-oracle"];
    "cbc-plaintext-with-error" [C_DecryptInit C_Decrypt] |call| padding(call, Padding::Released), "6.10 AES-CBC with PKCS padding", "plaintext with bad padding comes with the error", ["ciphers.cbc-pad-oracle"];
    "cbc-any-length" [C_Encrypt] cbc_any_length, "6.10 AES-CBC", "half a block is passed over", ["ciphers.cbc-length"];
    "oaep-repeats" [C_EncryptInit C_Encrypt] oaep_repeats, "6.1 CKM_RSA_PKCS_OAEP", "one text has one ciphertext", ["ciphers.oaep-round-trip"];
    "rsa-encrypt-refused" [C_EncryptInit] rsa_encrypt_refused, "5.5.6 C_GetMechanismInfo", "an encryption that is offered is refused", ["ciphers.rsa-round-trip"];
    "decrypt-is-encrypt" [C_DecryptInit C_Decrypt] decrypt_is_encrypt, "5.10 Decryption functions", "a decryption encrypts", ["ciphers.cbc-vector" "client.aes"];
}

/// The only IV.
static FIXED: [u8; 12] = [0x42; 12];

/// How an encryption or decryption began: the caller's parameter may be gone when the data comes.
#[derive(Clone, Default)]
struct Begun {
    mechanism: CK_MECHANISM_TYPE,
    iv: Vec<u8>,
    tag: usize,
    key: usize,
    seen: Vec<u8>,
}

static BEGUN: Memo<BTreeMap<usize, Begun>> = Memo::new(BTreeMap::new());

fn mechanism(call: &Call<'_>) -> Option<CK_MECHANISM> {
    memory::read(call.word(1))
}

fn gcm_parameter(raw: &CK_MECHANISM) -> Option<CK_GCM_PARAMS> {
    let long_enough = raw.ulParameterLen as usize >= size_of::<CK_GCM_PARAMS>();
    let parameter = memory::read(raw.pParameter.expose_provenance());
    parameter.filter(|_| raw.mechanism == CKM_AES_GCM && long_enough)
}

/// Passes the beginning of an operation on, and remembers it.
fn note(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let Some(raw) = mechanism(call).filter(|_| rv == CKR_OK) else { return rv };
    let mut begun = Begun { mechanism: raw.mechanism, key: call.word(2), ..Begun::default() };
    match gcm_parameter(&raw) {
        Some(gcm) => {
            begun.iv = memory::list(gcm.pIv.expose_provenance(), gcm.ulIvLen as usize);
            begun.tag = gcm.ulTagBits as usize / 8;
        }
        None => begun.iv = memory::list(raw.pParameter.expose_provenance(), raw.ulParameterLen as usize),
    }
    held(&BEGUN).insert(call.word(0), begun);
    rv
}

fn begun(call: &Call<'_>, kind: CK_MECHANISM_TYPE) -> Option<Begun> {
    held(&BEGUN).get(&call.word(0)).cloned().filter(|begun| begun.mechanism == kind)
}

/// Decrypts in a session without an operation.
fn decrypted(
    call: &Call<'_>,
    session: usize,
    raw: &mut CK_MECHANISM,
    key: usize,
    input: &mut [u8],
) -> Vec<u8> {
    let (mut output, mut length) = (vec![0_u8; input.len() + 32], input.len() + 32);
    let _begun = call.aside(F::C_DecryptInit, &[session, memory::address(raw), key]);
    let words = [
        memory::address(input),
        input.len(),
        memory::address(output.as_mut_slice()),
        memory::address(&mut length),
    ];
    let rv = call.aside(F::C_Decrypt, &[&[session], words.as_slice()].concat());
    output.truncate(if rv == CKR_OK { length } else { 0 });
    output
}

/// What GCM with an IV of twelve bytes encrypted: counter mode from the second block on (SP 800-38D, 7.1).
fn counter_mode(call: &Call<'_>, session: usize, begun: &Begun, ciphertext: &[u8]) -> Vec<u8> {
    let mut cb = [0_u8; 16];
    for (place, byte) in cb.iter_mut().zip(begun.iv.iter().chain(&[0, 0, 0, 2])) {
        *place = *byte;
    }
    let mut parameter = CK_AES_CTR_PARAMS { ulCounterBits: 32, cb };
    let mut raw = CK_MECHANISM {
        mechanism: CKM_AES_CTR,
        pParameter: std::ptr::from_mut(&mut parameter).cast(),
        ulParameterLen: size_of::<CK_AES_CTR_PARAMS>() as CK_ULONG,
    };
    decrypted(call, session, &mut raw, begun.key, &mut ciphertext.to_vec())
}

fn gcm_released(call: &Call<'_>, accepted: bool) -> CK_RV {
    if call.is(F::C_DecryptInit) {
        return note(call);
    }
    let rv = call.forward();
    let Some(begun) = begun(call, CKM_AES_GCM) else { return rv };
    if matches!(rv, CKR_OK | CKR_BUFFER_TOO_SMALL) {
        return rv;
    }
    let input = call.input(1);
    let ciphertext = input.get(..input.len().saturating_sub(begun.tag)).unwrap_or_default();
    call.give(3, &counter_mode(call, call.word(0), &begun, ciphertext));
    if accepted { CKR_OK } else { rv }
}

fn gcm_released_early(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_DecryptInit) {
        return note(call);
    }
    let rv = call.forward();
    let Some(mut begun) = begun(call, CKM_AES_GCM).filter(|_| rv == CKR_OK) else { return rv };
    let part = call.input(1);
    begun.seen.extend_from_slice(&part);
    let hidden = call.hidden_session(call.slot(call.word(0)));
    let plaintext = counter_mode(call, hidden, &begun, &begun.seen);
    let _closed = call.aside(F::C_CloseSession, &[hidden]);
    call.give(3, plaintext.get(begun.seen.len() - part.len()..).unwrap_or_default());
    held(&BEGUN).insert(call.word(0), begun);
    rv
}

fn gcm_with(call: &Call<'_>, change: fn(&mut CK_GCM_PARAMS)) -> CK_RV {
    let Some(mut raw) = mechanism(call) else { return call.forward() };
    let Some(mut gcm) = gcm_parameter(&raw) else { return call.forward() };
    change(&mut gcm);
    raw.pParameter = std::ptr::from_mut(&mut gcm).cast();
    call.with(&[(1, memory::address(&mut raw))])
}

fn cbc_iv_ignored(call: &Call<'_>) -> CK_RV {
    let Some(mut raw) = mechanism(call) else { return call.forward() };
    let mut zero = [0_u8; 16];
    if raw.mechanism == CKM_AES_CBC && raw.ulParameterLen == 16 {
        raw.pParameter = zero.as_mut_ptr().cast();
    }
    call.with(&[(1, memory::address(&mut raw))])
}

/// What becomes of a plaintext whose padding is bad.
#[derive(Clone, Copy)]
enum Padding {
    Told,
    Ignored,
    Released,
}

fn padding(call: &Call<'_>, what: Padding) -> CK_RV {
    if call.is(F::C_DecryptInit) {
        return note(call);
    }
    let rv = call.forward();
    let Some(mut begun) = begun(call, CKM_AES_CBC_PAD) else { return rv };
    if matches!(rv, CKR_OK | CKR_BUFFER_TOO_SMALL) {
        return rv;
    }
    let mut raw = CK_MECHANISM {
        mechanism: CKM_AES_CBC,
        pParameter: begun.iv.as_mut_ptr().cast(),
        ulParameterLen: begun.iv.len() as CK_ULONG,
    };
    let plaintext = decrypted(call, call.word(0), &mut raw, begun.key, &mut call.input(1));
    match (what, plaintext.last().copied().unwrap_or(0)) {
        (Padding::Told, 1..=16) => CKR_ENCRYPTED_DATA_INVALID,
        (Padding::Told, _) => CKR_ENCRYPTED_DATA_LEN_RANGE,
        (Padding::Ignored, _) => {
            call.give(3, &plaintext);
            CKR_OK
        }
        (Padding::Released, _) => {
            call.give(3, &plaintext);
            rv
        }
    }
}

fn cbc_any_length(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_DATA_LEN_RANGE {
        call.give(3, &[]);
        return CKR_OK;
    }
    rv
}

fn oaep_repeats(call: &Call<'_>) -> CK_RV {
    static FIRST: Memo<BTreeMap<Vec<u8>, Vec<u8>>> = Memo::new(BTreeMap::new());
    if call.is(F::C_EncryptInit) {
        return note(call);
    }
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 && begun(call, CKM_RSA_PKCS_OAEP).is_some() {
        let first = held(&FIRST).entry(call.input(1)).or_insert_with(|| call.given(3)).clone();
        call.give(3, &first);
    }
    rv
}

fn rsa_encrypt_refused(call: &Call<'_>) -> CK_RV {
    if mechanism(call).is_some_and(|raw| raw.mechanism == CKM_RSA_PKCS) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    call.forward()
}

fn decrypt_is_encrypt(call: &Call<'_>) -> CK_RV {
    let other = if call.is(F::C_DecryptInit) { F::C_EncryptInit } else { F::C_Encrypt };
    let words = [call.word(0), call.word(1), call.word(2), call.word(3), call.word(4)];
    call.aside(other, words.get(..if call.is(F::C_DecryptInit) { 3 } else { 5 }).unwrap_or_default())
}
