//! Chapter 5.16 of 3.2, signatures that are given before the message, made of `C_Verify`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use super::known;
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// The signatures that verifications began with, by session.
static SIGNATURES: Mutex<BTreeMap<usize, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Answers the four functions.
pub fn answer(real: &Real, function: F, words: &[usize]) -> CK_RV {
    let mut signatures = SIGNATURES.lock().unwrap_or_else(PoisonError::into_inner);
    match (function, words) {
        (F::C_VerifySignatureInit, [session, mechanism, key, signature, length]) => {
            let rv = real.call(F::C_VerifyInit, &[*session, *mechanism, *key]);
            if rv == CKR_OK {
                signatures.insert(*session, memory::list(*signature, *length));
            }
            rv
        }
        (F::C_VerifySignature, [session, data, length]) => match signatures.remove(session) {
            Some(mut signature) => {
                let place = memory::address(signature.as_mut_slice());
                real.call(F::C_Verify, &[*session, *data, *length, place, signature.len()])
            }
            None => known(real, *session, CKR_OPERATION_NOT_INITIALIZED),
        },
        (F::C_VerifySignatureUpdate, [session, ..]) if signatures.contains_key(session) => {
            real.call(F::C_VerifyUpdate, words)
        }
        (F::C_VerifySignatureFinal, [session]) => match signatures.remove(session) {
            Some(mut signature) => {
                let place = memory::address(signature.as_mut_slice());
                real.call(F::C_VerifyFinal, &[*session, place, signature.len()])
            }
            None => known(real, *session, CKR_OPERATION_NOT_INITIALIZED),
        },
        (F::C_VerifySignatureUpdate, [session, ..]) => known(real, *session, CKR_OPERATION_NOT_INITIALIZED),
        (_, _) => CKR_FUNCTION_NOT_SUPPORTED,
    }
}
