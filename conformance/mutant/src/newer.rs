//! Functions of 3.0 and 3.2 that no real module at hand has, made honestly of its older ones if `MUTANT_NEWER` is set: so
//! that faults of them can be shown, too.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use cryptoki_sys::*;

use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// Whether the mutant has more functions than the module behind it.
pub fn is_on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("MUTANT_NEWER").is_some())
}

/// The signatures that verifications began with, by session.
static SIGNATURES: Mutex<BTreeMap<usize, Vec<u8>>> = Mutex::new(BTreeMap::new());

/// Answers a function that the real module does not have.
pub fn answer(real: &Real, function: F, words: &[usize]) -> CK_RV {
    let mut signatures = SIGNATURES.lock().unwrap_or_else(PoisonError::into_inner);
    match (function, words) {
        (F::C_LoginUser, [session, user, pin, length, _, 0]) => {
            real.call(F::C_Login, &[*session, *user, *pin, *length])
        }
        (F::C_LoginUser, [session, ..]) => known(real, *session, CKR_USER_TYPE_INVALID),
        (F::C_GetSessionValidationFlags, [session, kind, place]) => {
            let bad = *place == 0 || *kind != CKS_LAST_VALIDATION_OK as usize;
            let rv = known(real, *session, if bad { CKR_ARGUMENTS_BAD } else { CKR_OK });
            if rv == CKR_OK {
                memory::write(*place, 0_usize);
            }
            rv
        }
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

/// This, if there is such a session.
fn known(real: &Real, session: usize, answer: CK_RV) -> CK_RV {
    let mut info = CK_SESSION_INFO::default();
    match real.call(F::C_GetSessionInfo, &[session, memory::address(&mut info)]) {
        CKR_OK => answer,
        refusal => refusal,
    }
}
