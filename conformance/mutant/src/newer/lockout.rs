//! Chapter 3.2, `CKF_USER_PIN_LOCKED`: a PIN that is locked after wrong ones, until the SO sets it again. SoftHSM2 and NSS
//! lock none.

use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// Wrong PINs in a row.
static WRONG: Mutex<u32> = Mutex::new(0);

/// How many lock the PIN.
const MOST: u32 = 5;

/// Counts wrong PINs of the user, and refuses the right one when there were too many.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    let mut wrong = WRONG.lock().unwrap_or_else(PoisonError::into_inner);
    match (function, words) {
        (F::C_Login, [_, user, ..]) if *user == CKU_USER as usize => {
            if *wrong >= MOST {
                return Some(CKR_PIN_LOCKED);
            }
            let rv = real.call_as_it_is(function, words);
            *wrong = match rv {
                CKR_PIN_INCORRECT => *wrong + 1,
                CKR_OK => 0,
                _ => *wrong,
            };
            Some(rv)
        }
        (F::C_InitPIN, _) => {
            let rv = real.call_as_it_is(function, words);
            *wrong = if rv == CKR_OK { 0 } else { *wrong };
            Some(rv)
        }
        (F::C_GetTokenInfo, [_, place]) => {
            let rv = real.call_as_it_is(function, words);
            if let Some(mut info) =
                memory::read::<CK_TOKEN_INFO>(*place).filter(|_| rv == CKR_OK && *wrong >= MOST)
            {
                info.flags |= CKF_USER_PIN_LOCKED;
                memory::write(*place, info);
            }
            Some(rv)
        }
        (_, _) => None,
    }
}
