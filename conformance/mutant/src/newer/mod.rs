//! Functions of 3.0 and 3.2, and gifts of old ones, that no real module at hand has, made honestly of what it has if
//! `MUTANT_NEWER` is set: so that faults of them can be shown, too.

mod ccm;
mod encapsulation;
mod events;
mod lockout;
mod signatures;
mod states;
mod trees;
mod wrapping;

use std::sync::OnceLock;

use cryptoki_sys::*;

use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// Whether the mutant has more than the module behind it.
pub fn is_on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("MUTANT_NEWER").is_some())
}

/// The mechanisms that it adds to the list.
const ADDED: [CK_MECHANISM_TYPE; 3] = [CKM_HSS_KEY_PAIR_GEN, CKM_HSS, CKM_AES_CCM];

/// What the mutant does in the place of a function that the real module has; nothing for most calls.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    if let (F::C_GetMechanismList, [slot, place, count]) = (function, words) {
        return Some(list(real, *slot, *place, *count));
    }
    [
        events::instead,
        lockout::instead,
        trees::instead,
        states::instead,
        encapsulation::instead,
        wrapping::instead,
    ]
    .into_iter()
    .find_map(|one| one(real, function, words))
}

/// Answers a function that the real module does not have.
pub fn answer(real: &Real, function: F, words: &[usize]) -> CK_RV {
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
        (
            F::C_VerifySignatureInit
            | F::C_VerifySignature
            | F::C_VerifySignatureUpdate
            | F::C_VerifySignatureFinal,
            _,
        ) => signatures::answer(real, function, words),
        (F::C_EncapsulateKey | F::C_DecapsulateKey, _) => encapsulation::answer(real, function, words),
        (F::C_WrapKeyAuthenticated | F::C_UnwrapKeyAuthenticated, _) => {
            wrapping::answer(real, function, words)
        }
        // Nothing is ever under way: sessions are not asynchronous, and messages are not begun.
        (F::C_AsyncComplete | F::C_AsyncGetID | F::C_AsyncJoin, [session, ..]) => {
            known(real, *session, CKR_SESSION_ASYNC_NOT_SUPPORTED)
        }
        (F::C_SessionCancel, [session, ..]) => known(real, *session, CKR_OPERATION_CANCEL_FAILED),
        (
            F::C_MessageEncryptInit | F::C_MessageDecryptInit | F::C_MessageSignInit | F::C_MessageVerifyInit,
            [session, ..],
        ) => known(real, *session, CKR_MECHANISM_INVALID),
        (_, [session, ..]) => known(real, *session, CKR_OPERATION_NOT_INITIALIZED),
        (_, _) => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

fn list(real: &Real, slot: usize, place: usize, count: usize) -> CK_RV {
    let mut length = 0_usize;
    let rv = real.call_as_it_is(F::C_GetMechanismList, &[slot, 0, memory::address(&mut length)]);
    if rv != CKR_OK || count == 0 {
        return real.call_as_it_is(F::C_GetMechanismList, &[slot, place, count]);
    }
    let mut all = vec![0_usize; length];
    let words = [slot, memory::address(all.as_mut_slice()), memory::address(&mut length)];
    let rv = real.call_as_it_is(F::C_GetMechanismList, &words);
    all.extend(ADDED.map(|number| number as usize));
    let given: usize = memory::read(count).unwrap_or(0);
    memory::write(count, all.len());
    if place != 0 && given < all.len() {
        return CKR_BUFFER_TOO_SMALL;
    }
    memory::put(place, &all);
    rv
}

/// This, if there is such a session.
pub fn known(real: &Real, session: usize, answer: CK_RV) -> CK_RV {
    let mut info = CK_SESSION_INFO::default();
    match real.call_as_it_is(F::C_GetSessionInfo, &[session, memory::address(&mut info)]) {
        CKR_OK => answer,
        refusal => refusal,
    }
}
