//! Chapter 5.5.4, a wait for an event that blocks until `C_Finalize`: no slot ever changes.

use std::sync::{Condvar, Mutex, PoisonError};

use cryptoki_sys::*;

use crate::functions::Function as F;
use crate::real::Real;

/// How often the module was finalised, and who wants to know.
static ENDED: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// Waits, or wakes those who wait.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    match (function, words) {
        (F::C_WaitForSlotEvent, [flags, slot, 0]) if flags & CKF_DONT_BLOCK as usize == 0 => {
            let look = [CKF_DONT_BLOCK as usize, *slot, 0];
            match real.call_as_it_is(function, &look) {
                CKR_NO_EVENT | CKR_FUNCTION_NOT_SUPPORTED => Some(wait()),
                other => Some(other),
            }
        }
        (F::C_Finalize, _) => {
            let rv = real.call_as_it_is(function, words);
            if rv == CKR_OK {
                *ENDED.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                ENDED.1.notify_all();
            }
            Some(rv)
        }
        (_, _) => None,
    }
}

fn wait() -> CK_RV {
    let mut ended = ENDED.0.lock().unwrap_or_else(PoisonError::into_inner);
    let before = *ended;
    while *ended == before {
        ended = ENDED.1.wait(ended).unwrap_or_else(PoisonError::into_inner);
    }
    CKR_CRYPTOKI_NOT_INITIALIZED
}
