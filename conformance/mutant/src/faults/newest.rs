//! What the mutant adds in `newer/` beside functions of 3.x: waits, locked PINs, saved states, trees, encapsulation, wrapping by
//! AES-GCM; and every function of 3.x in a session that is not there.

use cryptoki_sys::*;

use super::faults;
use crate::call::Call;
use crate::functions::Function as F;
use crate::memory;

faults! {
    behind Newer;
    "event-sleeps-on" [C_WaitForSlotEvent] event_sleeps_on, "5.4.2 C_Finalize", "C_Finalize leaves a thread that waits for an event waiting", ["slots.event-ends"];
    "event-ends-general" [C_WaitForSlotEvent] |call| call.instead_of(&[CKR_CRYPTOKI_NOT_INITIALIZED], CKR_GENERAL_ERROR), "5.5.4 C_WaitForSlotEvent", "why a wait ended is not said", ["slots.event-ends"];
    "event-does-not-wait" [C_WaitForSlotEvent] |_| CKR_NO_EVENT, "5.5.4 C_WaitForSlotEvent", "a call that blocks does not", ["slots.event-ends"];
    "pin-never-locks" [C_Login] |call| call.instead_of(&[CKR_PIN_LOCKED], CKR_PIN_INCORRECT), "3.2 CKF_USER_PIN_LOCKED", "a PIN may be guessed for ever", ["login.locks"];
    "pin-lock-opens" [C_Login] pin_lock_opens, "3.2 CKF_USER_PIN_LOCKED", "a locked PIN still logs in when it is right", ["login.locks"];
    "pin-lock-not-told" [C_GetTokenInfo] pin_lock_not_told, "3.2 CKF_USER_PIN_LOCKED", "a token with a locked PIN does not say so", ["login.locks"];
    "state-any" [C_SetOperationState] |call| call.instead_of(&[CKR_SAVED_STATE_INVALID], CKR_OK), "5.6.7 C_SetOperationState", "a state that was changed is taken", ["sessions.state-changed"];
    "state-lost" [C_SetOperationState] |_| CKR_OK, "5.6.7 C_SetOperationState", "a state is taken and not brought back", ["sessions.state-moves" "sessions.state-with-key"];
    "state-key-not-asked" [C_SetOperationState] |call| call.instead_of(&[CKR_KEY_NEEDED], CKR_OK), "5.6.7 C_SetOperationState", "a signature is brought back without its key, and is not there", ["sessions.state-key-needed"];
    "state-key-any" [C_SetOperationState] |call| call.instead_of(&[CKR_KEY_CHANGED], CKR_OK), "5.6.7 C_SetOperationState", "a signature goes on with another key", ["sessions.state-key-changed"];
    "state-key-stray" [C_SetOperationState] |call| call.instead_of(&[CKR_KEY_NOT_NEEDED], CKR_OK), "5.6.7 C_SetOperationState", "a digest is brought back with a key", ["sessions.state-key-not-needed"];
    "tree-index-twice" [C_Sign] tree_index_twice, "6.66 CKM_HSS (RFC 8554, 9.2)", "two signatures of a tree have one index", ["attacks.d40-index"];
    "tree-without-end" [C_SignInit C_Sign] |call| call.instead_of(&[CKR_KEY_EXHAUSTED, CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.1.6 CKR_KEY_EXHAUSTED", "a tree signs when it is used up", ["attacks.d40-exhausted"];
    "tree-extractable" [C_GenerateKeyPair C_GetAttributeValue] tree_extractable, "6.66 CKM_HSS", "the private key of a tree is extractable", ["attacks.d40-extractable"];
    "encapsulation-shorter" [C_DecapsulateKey] |call| call.with_template(3, &mut shorter(call)), "5.18 C_DecapsulateKey (3.2)", "one side has a shorter secret", ["encapsulation.round-trip"];
    "encapsulation-twice" [C_EncapsulateKey] encapsulation_twice, "5.18 C_EncapsulateKey (3.2)", "one secret is encapsulated again and again", ["encapsulation.fresh"];
    "encapsulation-of-anything" [C_DecapsulateKey] encapsulation_of_anything, "5.18 C_DecapsulateKey (3.2)", "a changed ciphertext gives the same secret", ["encapsulation.forged" "encapsulation.length"];
    "encapsulation-any-room" [C_EncapsulateKey] |call| call.instead_of(&[CKR_BUFFER_TOO_SMALL], CKR_OK), "5.2 Two-call convention", "a ciphertext that does not fit is CKR_OK", ["encapsulation.length-query"];
    "encapsulation-refused" [C_EncapsulateKey] |_| CKR_MECHANISM_INVALID, "5.5.6 C_GetMechanismInfo", "ECDH says that it encapsulates, and does not", ["mechanisms.ecdh1-derive-encapsulate" "encapsulation.round-trip"];
    "encapsulation-any-key" [C_EncapsulateKey C_DecapsulateKey] |call| call.instead_of(&[CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_OK), "5.18 C_EncapsulateKey (3.2)", "a key without CKA_ENCAPSULATE encapsulates", ["mechanisms.ecdh1-derive-not-allowed"];
    "wrapping-any-blob" [C_UnwrapKey C_UnwrapKeyAuthenticated] |call| call.instead_of(&[CKR_WRAPPED_KEY_INVALID], CKR_OK), "6.13 AES-GCM (3.2)", "a key is unwrapped whatever its tag", ["wrapping.forged"];
    "wrapping-nonce-lost" [C_WrapKey C_WrapKeyAuthenticated] |call| nonce_lost(call, CKM_AES_GCM), "6.13 CK_GCM_WRAP_PARAMS (3.2)", "a key is wrapped with another nonce than the parameter's", ["wrapping.round-trip"];
    "wrapping-nonce-twice" [C_WrapKey C_WrapKeyAuthenticated] |call| nonce_twice(call, CKM_AES_GCM), "6.13 CK_GCM_WRAP_PARAMS (SP 800-38D, 8.2)", "every nonce that the module makes is the same", ["wrapping.nonces"];
    "wrapping-any-parameter" [C_WrapKey C_WrapKeyAuthenticated] |call| call.instead_of(&[CKR_MECHANISM_PARAM_INVALID], CKR_OK), "6.13 CK_GCM_WRAP_PARAMS (3.2)", "a parameter without nonce or tag is accepted", ["wrapping.parameters"];
    "wrapping-ccm-any-blob" [C_UnwrapKey C_UnwrapKeyAuthenticated] |call| ccm_instead_of(call, CKR_WRAPPED_KEY_INVALID), "6.13 AES-CCM (3.2)", "a key is unwrapped by AES-CCM whatever its tag", ["wrapping.forged"];
    "wrapping-ccm-nonce-lost" [C_WrapKey C_WrapKeyAuthenticated] |call| nonce_lost(call, CKM_AES_CCM), "6.13 CK_CCM_WRAP_PARAMS (3.2)", "a key is wrapped by AES-CCM with another nonce than the parameter's", ["wrapping.round-trip"];
    "wrapping-ccm-nonce-twice" [C_WrapKey C_WrapKeyAuthenticated] |call| nonce_twice(call, CKM_AES_CCM), "6.13 CK_CCM_WRAP_PARAMS (SP 800-38C, 5.3)", "every nonce that the module makes for AES-CCM is the same", ["wrapping.nonces"];
    "wrapping-ccm-any-parameter" [C_WrapKey C_WrapKeyAuthenticated] |call| ccm_instead_of(call, CKR_MECHANISM_PARAM_INVALID), "6.13 CK_CCM_WRAP_PARAMS (3.2)", "a parameter of AES-CCM without nonce or tag is accepted", ["wrapping.parameters"];
    "newest-any-session" [C_EncapsulateKey C_DecapsulateKey C_AsyncComplete C_AsyncGetID C_AsyncJoin C_WrapKeyAuthenticated C_UnwrapKeyAuthenticated] any_session, "5.1.2 CKR_SESSION_HANDLE_INVALID", "functions of 3.2 answer to a session that is not there", ["functions.C_EncapsulateKey-unknown-session" "functions.C_DecapsulateKey-unknown-session" "functions.C_AsyncComplete-unknown-session" "functions.C_AsyncGetID-unknown-session" "functions.C_AsyncJoin-unknown-session" "functions.C_WrapKeyAuthenticated-unknown-session" "functions.C_UnwrapKeyAuthenticated-unknown-session" "functions.C_AsyncComplete-closed-session" "functions.C_AsyncGetID-closed-session" "functions.C_AsyncJoin-closed-session"];
    "newer-any-session" [C_SessionCancel C_MessageEncryptInit C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal C_MessageSignInit C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal] any_session, "5.1.2 CKR_SESSION_HANDLE_INVALID", "functions of 3.0 answer to a session that is not there", ["functions.C_SessionCancel-unknown-session" "functions.C_MessageEncryptInit-unknown-session" "functions.C_EncryptMessage-unknown-session" "functions.C_EncryptMessageBegin-unknown-session" "functions.C_EncryptMessageNext-unknown-session" "functions.C_MessageEncryptFinal-unknown-session" "functions.C_MessageDecryptInit-unknown-session" "functions.C_DecryptMessage-unknown-session" "functions.C_DecryptMessageBegin-unknown-session" "functions.C_DecryptMessageNext-unknown-session" "functions.C_MessageDecryptFinal-unknown-session" "functions.C_MessageSignInit-unknown-session" "functions.C_SignMessage-unknown-session" "functions.C_SignMessageBegin-unknown-session" "functions.C_SignMessageNext-unknown-session" "functions.C_MessageSignFinal-unknown-session" "functions.C_MessageVerifyInit-unknown-session" "functions.C_VerifyMessage-unknown-session" "functions.C_VerifyMessageBegin-unknown-session" "functions.C_VerifyMessageNext-unknown-session" "functions.C_MessageVerifyFinal-unknown-session"];
    "newer-not-begun" [C_EncryptMessageBegin C_EncryptMessageNext C_DecryptMessageBegin C_DecryptMessageNext C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.1.6 CKR_OPERATION_NOT_INITIALIZED", "messages that were not begun are gone on with", ["functions.C_EncryptMessageBegin-not-begun" "functions.C_EncryptMessageNext-not-begun" "functions.C_DecryptMessageBegin-not-begun" "functions.C_DecryptMessageNext-not-begun" "functions.C_SignMessage-not-begun" "functions.C_SignMessageBegin-not-begun" "functions.C_SignMessageNext-not-begun" "functions.C_MessageSignFinal-not-begun" "functions.C_VerifyMessage-not-begun" "functions.C_VerifyMessageBegin-not-begun" "functions.C_VerifyMessageNext-not-begun" "functions.C_MessageVerifyFinal-not-begun"];
    "async-unlisted" [C_AsyncComplete C_AsyncGetID C_AsyncJoin] |call| call.instead_of(&[CKR_SESSION_ASYNC_NOT_SUPPORTED], CKR_PIN_INCORRECT), "5.1, return values", "a session that is not asynchronous says that a PIN is wrong", ["functions.C_AsyncComplete-listed" "functions.C_AsyncGetID-listed" "functions.C_AsyncJoin-listed"];
}

fn any_session(call: &Call<'_>) -> CK_RV {
    call.instead_of(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED], CKR_OK)
}

fn event_sleeps_on(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    while rv == CKR_CRYPTOKI_NOT_INITIALIZED && call.word(0) & CKF_DONT_BLOCK as usize == 0 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    rv
}

/// The token is asked, past what counts.
fn pin_lock_opens(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv != CKR_PIN_LOCKED {
        return rv;
    }
    match call.as_it_is() {
        CKR_OK => CKR_OK,
        _ => rv,
    }
}

fn pin_lock_not_told(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let Some(mut info) = memory::read::<CK_TOKEN_INFO>(call.word(1)).filter(|_| rv == CKR_OK) {
        info.flags &= !CKF_USER_PIN_LOCKED;
        memory::write(call.word(1), info);
    }
    rv
}

fn tree_index_twice(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        let mut signature = call.given(3);
        if let Some(last) = signature.get_mut(7) {
            *last /= 2;
        }
        call.give(3, &signature);
    }
    rv
}

fn tree_extractable(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_GenerateKeyPair) {
        return call.with_template(4, &mut call.template(4).without(CKA_EXTRACTABLE));
    }
    let rv = call.forward();
    for attribute in call.template(2).attributes.iter().filter(|one| one.type_ == CKA_EXTRACTABLE) {
        memory::write(attribute.pValue.expose_provenance(), CK_TRUE);
    }
    rv
}

/// The template of a shorter secret.
fn shorter(call: &Call<'_>) -> crate::call::Template {
    call.template(3).and(CKA_VALUE_LEN, &16_u64.to_ne_bytes())
}

/// What was encapsulated first stands for all.
fn encapsulation_twice(call: &Call<'_>) -> CK_RV {
    use crate::call::{Memo, held};
    static FIRST: Memo<Option<(Vec<u8>, usize)>> = Memo::new(None);
    let rv = call.forward();
    if rv != CKR_OK || call.word(5) == 0 {
        return rv;
    }
    let mut first = held(&FIRST);
    let (ciphertext, key) = first.get_or_insert_with(|| (call.given(5), call.pointed(7)));
    call.give(5, ciphertext);
    memory::write(call.word(7), *key);
    rv
}

/// Any ciphertext is taken for the one that was good.
fn encapsulation_of_anything(call: &Call<'_>) -> CK_RV {
    use crate::call::{Memo, held};
    static GOOD: Memo<Option<usize>> = Memo::new(None);
    let rv = call.forward();
    let mut good = held(&GOOD);
    if rv == CKR_OK {
        *good = Some(call.pointed(7));
        return rv;
    }
    let _given = good.map(|key| memory::write(call.word(7), key));
    CKR_OK
}

/// The mechanism of a call and the words of its parameter, if it wraps by this; and where the nonce's address stands in them:
/// length, fixed bits and generator come behind it.
fn wrapping(call: &Call<'_>, number: CK_MECHANISM_TYPE) -> Option<(CK_MECHANISM, Vec<usize>, usize)> {
    let raw = memory::read::<CK_MECHANISM>(call.word(1)).filter(|raw| raw.mechanism == number)?;
    let (length, nonce) = match number {
        CKM_AES_CCM => (size_of::<CK_CCM_WRAP_PARAMS>(), 1),
        _ => (size_of::<CK_GCM_WRAP_PARAMS>(), 0),
    };
    let words = memory::list(raw.pParameter.expose_provenance(), length / size_of::<usize>());
    (raw.ulParameterLen as usize == length).then_some((raw, words, nonce))
}

/// Passes the call on with another parameter.
fn with_parameter(call: &Call<'_>, raw: CK_MECHANISM, mut words: Vec<usize>) -> CK_RV {
    let pParameter = std::ptr::with_exposed_provenance_mut(memory::address(words.as_mut_slice()));
    let mut raw = CK_MECHANISM { pParameter, ..raw };
    call.with(&[(1, memory::address(&mut raw))])
}

/// Changes the nonce that the real function sees.
fn nonce_lost(call: &Call<'_>, number: CK_MECHANISM_TYPE) -> CK_RV {
    let Some((raw, mut words, place)) = wrapping(call, number) else { return call.forward() };
    let mut other = [0x42_u8; 12];
    if let Some([nonce @ (1..), 12, _, generator, ..]) = words.get_mut(place..)
        && *generator == CKG_NO_GENERATE as usize
    {
        *nonce = memory::address(&mut other);
    }
    with_parameter(call, raw, words)
}

/// Makes the nonce, which is always the same.
fn nonce_twice(call: &Call<'_>, number: CK_MECHANISM_TYPE) -> CK_RV {
    let Some((raw, mut words, place)) = wrapping(call, number) else { return call.forward() };
    if let Some([nonce, 12, _, generator, ..]) = words.get_mut(place..)
        && *generator == CKG_GENERATE as usize
    {
        *generator = CKG_NO_GENERATE as usize;
        memory::put(*nonce, &[0x42_u8; 12]);
    }
    with_parameter(call, raw, words)
}

/// Passes the call on, and says that all is well if AES-CCM is refused with this.
fn ccm_instead_of(call: &Call<'_>, refusal: CK_RV) -> CK_RV {
    match wrapping(call, CKM_AES_CCM) {
        Some(_) => call.instead_of(&[refusal], CKR_OK),
        None => call.forward(),
    }
}
