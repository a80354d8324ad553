//! Chapters 5.6.5, 5.9 and 5.11: messages of 3.0, and operations that are cancelled. SoftHSM2 has neither.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    behind Nss;
    "message-tag-unchecked" [C_DecryptMessage] |call| call.waved_through(), "5.11.2 C_DecryptMessage", "a message is decrypted whatever its tag", ["messages.forged" "messages.forged-goes-on"];
    "message-plaintext-with-error" [C_EncryptMessage C_DecryptMessage] plaintext_with_error, "5.11.2 C_DecryptMessage", "the plaintext of a forged message comes with the error", ["messages.forged"];
    "message-aad-ignored" [C_EncryptMessage C_DecryptMessage] |call| call.with(&[(3, 0), (4, 0)]), "5.9.2 C_EncryptMessage", "additional data is not authenticated", ["messages.round-trip" "messages.forged"];
    "message-tag-zero" [C_EncryptMessage] tag_zero, "6.13 CK_GCM_MESSAGE_PARAMS", "the tag of a message is zeros", ["messages.round-trip"];
    "message-forgery-ends-all" [C_DecryptMessage] forgery_ends_all, "5.11.2 C_DecryptMessage", "after a forged message every message is CKR_GENERAL_ERROR", ["messages.forged-goes-on"];
    "message-final-forgets" [C_MessageEncryptFinal C_MessageDecryptFinal] |_| CKR_OK, "5.9.5 C_MessageEncryptFinal", "messages go on after their end", ["messages.final"];
    "message-init-twice" [C_MessageEncryptInit C_MessageDecryptInit] |call| call.instead_of(&[CKR_OPERATION_ACTIVE], CKR_OK), "5.9.1 C_MessageEncryptInit", "a second initialisation is accepted", ["messages.init-twice"];
    "message-not-begun" [C_EncryptMessage C_DecryptMessage C_MessageEncryptFinal C_MessageDecryptFinal] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.9.2 C_EncryptMessage", "a message without a beginning is answered with CKR_OK", ["messages.not-begun" "messages.final" "functions.C_EncryptMessage-not-begun"];
    "message-any-parameter" [C_EncryptMessage] |call| call.waved_through(), "6.13 CK_GCM_MESSAGE_PARAMS", "a parameter without IV or tag is accepted", ["attacks.d37-message-parameter"];
    "message-iv-repeats" [C_EncryptMessage] |call| iv_of(call, |_| [0x42; 12]), "6.13 CK_GCM_MESSAGE_PARAMS (SP 800-38D, 8.2)", "every message has one IV", ["attacks.d37-generated-ivs"];
    "message-iv-counts-to-4096" [C_EncryptMessage] |call| iv_of(call, |count| [&[7; 8][..], &(count as u32 % 4096).to_be_bytes()].concat().try_into().unwrap_or_default()), "6.13 CK_GCM_MESSAGE_PARAMS (SP 800-38D, 8.2)", "the counter of IVs begins anew after 4096 messages", ["attacks.d37-generated-ivs"];
    "message-fixed-bits-lost" [C_EncryptMessage] |call| iv_of(call, |count| [&count.to_be_bytes()[..], &[0; 4]].concat().try_into().unwrap_or_default()), "6.13 CK_GCM_MESSAGE_PARAMS", "the bits of an IV that the caller fixed are overwritten", ["attacks.d37-fixed-bits"];
    "message-iv-of-caller-lost" [C_EncryptMessage] iv_of_caller_lost, "6.13 CK_GCM_MESSAGE_PARAMS", "the caller's IV is not used", ["messages.round-trip"];
    "cancel-does-nothing" [C_SessionCancel] |_| CKR_OK, "5.6.5 C_SessionCancel", "an operation that was cancelled goes on", ["sessions.cancel"];
    "cancel-takes-all" [C_SessionCancel] |call| call.with(&[(1, usize::MAX >> 1)]), "5.6.5 C_SessionCancel", "all operations are cancelled, whichever was named", ["sessions.cancel-other"];
    "cancel-general" [C_SessionCancel] |_| CKR_GENERAL_ERROR, "5.6.5 C_SessionCancel", "cancelling is CKR_GENERAL_ERROR", ["sessions.cancel" "sessions.cancel-nothing" "sessions.cancel-other"];
}

/// The parameter of a message, if it is that of AES-GCM.
fn parameter(call: &Call<'_>) -> Option<CK_GCM_MESSAGE_PARAMS> {
    let long_enough = call.word(2) == size_of::<CK_GCM_MESSAGE_PARAMS>();
    memory::read(call.word(1)).filter(|_| long_enough)
}

/// The text that was encrypted last is what the forgery was made of.
fn plaintext_with_error(call: &Call<'_>) -> CK_RV {
    static LAST: Memo<Vec<u8>> = Memo::new(Vec::new());
    let rv = call.forward();
    if call.is(F::C_EncryptMessage) {
        *held(&LAST) = call.input(5);
    } else if rv != CKR_OK && call.word(7) != 0 {
        memory::put(call.word(7), &held(&LAST));
    }
    rv
}

fn tag_zero(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let Some(parameter) = parameter(call).filter(|_| rv == CKR_OK) {
        memory::put(parameter.pTag.expose_provenance(), &vec![0_u8; parameter.ulTagBits as usize / 8]);
    }
    rv
}

fn forgery_ends_all(call: &Call<'_>) -> CK_RV {
    static FORGED: AtomicBool = AtomicBool::new(false);
    let rv = call.forward();
    if FORGED.load(Ordering::SeqCst) {
        return CKR_GENERAL_ERROR;
    }
    FORGED.store(rv != CKR_OK, Ordering::SeqCst);
    rv
}

/// Puts another IV where the module puts one that it made.
fn iv_of(call: &Call<'_>, iv: fn(u64) -> [u8; 12]) -> CK_RV {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let rv = call.forward();
    let made = parameter(call).filter(|parameter| parameter.ivGenerator != CKG_NO_GENERATE && rv == CKR_OK);
    if let Some(parameter) = made {
        memory::put(parameter.pIv.expose_provenance(), &iv(COUNT.fetch_add(1, Ordering::SeqCst)));
    }
    rv
}

fn iv_of_caller_lost(call: &Call<'_>) -> CK_RV {
    let mut iv = [0x42_u8; 12];
    let Some(mut parameter) = parameter(call) else { return call.forward() };
    if parameter.ulIvLen == 12 {
        parameter.pIv = iv.as_mut_ptr();
    }
    call.with(&[(1, memory::address(&mut parameter))])
}
