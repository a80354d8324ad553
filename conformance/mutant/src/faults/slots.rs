//! Chapter 5.5: what slots, tokens and mechanisms say of themselves.

use std::thread;
use std::time::Duration;

use cryptoki_sys::*;

use super::faults;
use crate::call::Call;
use crate::functions::Function as F;
use crate::memory;

faults! {
    "slot-twice" [C_GetSlotList] slot_twice, "5.5.1 C_GetSlotList", "a slot stands twice in the list", ["slots.list"];
    "slot-list-overflow" [C_GetSlotList] slot_list_overflow, "5.5.1 C_GetSlotList", "slots are written although there is no room for them", ["slots.list-small"];
    "slot-unknown-general" [C_GetSlotInfo C_GetTokenInfo C_GetMechanismList C_OpenSession] |call| call.instead_of(&[CKR_SLOT_ID_INVALID], CKR_GENERAL_ERROR), "5.1.3 CKR_SLOT_ID_INVALID", "a slot that does not exist is CKR_GENERAL_ERROR", ["slots.unknown"];
    "slot-unknown-flag" [C_GetSlotInfo] slot_unknown_flag, "5.5.2 C_GetSlotInfo", "a slot has a flag that the standard does not know", ["slots.info"];
    "slot-info-fails" [C_GetSlotInfo] |_| CKR_GENERAL_ERROR, "5.5.2 C_GetSlotInfo", "a slot does not describe itself", ["slots.info" "client.info"];
    "token-text-ends-with-zero" [C_GetTokenInfo] token_text, "5.5.3 C_GetTokenInfo", "the token's texts end with zero bytes", ["slots.token-info"];
    "token-not-initialized" [C_GetTokenInfo] token_not_initialized, "5.5.3 C_GetTokenInfo", "an initialised token does not say that it is", ["slots.token-info"];
    "token-pin-lengths-swapped" [C_GetTokenInfo] token_pin_lengths, "5.5.3 C_GetTokenInfo", "the least length of a PIN is more than the most", ["slots.token-limits"];
    "token-clock-lie" [C_GetTokenInfo] token_clock, "3.2 CK_TOKEN_INFO", "a token says that it has a clock and shows no time", ["slots.token-time"];
    "mechanism-twice" [C_GetMechanismList] mechanism_twice, "5.5.5 C_GetMechanismList", "a mechanism stands twice in the list", ["slots.mechanisms"];
    "mechanism-list-overflow" [C_GetMechanismList] slot_list_overflow, "5.5.5 C_GetMechanismList", "mechanisms are written although there is no room for them", ["slots.mechanisms-small"];
    "mechanism-refused" [C_DigestInit] mechanism_refused, "5.5.6 C_GetMechanismInfo", "a mechanism is listed and refused", ["slots.mechanism-digests" "digest.sha512"];
    "mechanism-unlisted" [C_GetMechanismList] mechanism_unlisted, "5.5.5 C_GetMechanismList", "a mechanism works and is not listed", ["slots.mechanism-unlisted"];
    "mechanism-flag-missing" [C_GetMechanismInfo] mechanism_flag_missing, "5.5.6 C_GetMechanismInfo", "a mechanism signs and does not say so", ["slots.mechanism-other-uses"];
    "mechanism-sizes-swapped" [C_GetMechanismInfo] mechanism_sizes, "5.5.6 C_GetMechanismInfo", "the least size of a key is more than the most", ["slots.mechanism-info"];
    "mechanism-any-info" [C_GetMechanismInfo] mechanism_any_info, "5.5.6 C_GetMechanismInfo", "a mechanism that does not exist has an info", ["slots.mechanism-unknown"];
    "event-blocks" [C_WaitForSlotEvent] event_blocks, "5.5.4 C_WaitForSlotEvent", "CKF_DONT_BLOCK blocks", ["slots.no-event"];
    "init-token-in-use" [C_InitToken] |call| call.instead_of(&[CKR_SESSION_EXISTS], CKR_PIN_INCORRECT), "5.5.7 C_InitToken", "a token in use is initialised if the PIN is right", ["slots.init-token-in-use"];
}

/// Changes a structure that the real module gave.
fn changed<T: Copy>(call: &Call<'_>, place: usize, change: fn(&mut T)) -> CK_RV {
    let rv = call.forward();
    if let (Some(mut info), CKR_OK) = (memory::read::<T>(call.word(place)), rv) {
        change(&mut info);
        memory::write(call.word(place), info);
    }
    rv
}

fn slot_twice(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let slots: Vec<usize> = memory::list(call.word(1), call.pointed(2));
    if let (CKR_OK, [first, _, ..]) = (rv, slots.as_slice()) {
        memory::put(call.word(1), &vec![*first; slots.len()]);
    }
    rv
}

fn slot_list_overflow(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_BUFFER_TOO_SMALL {
        memory::write(call.word(1), 0_usize);
    }
    rv
}

fn slot_unknown_flag(call: &Call<'_>) -> CK_RV {
    changed(call, 1, |info: &mut CK_SLOT_INFO| info.flags |= 1 << 20)
}

fn token_text(call: &Call<'_>) -> CK_RV {
    changed(call, 1, |info: &mut CK_TOKEN_INFO| info.model = *b"model\0\0\0\0\0\0\0\0\0\0\0")
}

fn token_not_initialized(call: &Call<'_>) -> CK_RV {
    changed(call, 1, |info: &mut CK_TOKEN_INFO| info.flags &= !CKF_TOKEN_INITIALIZED)
}

fn token_pin_lengths(call: &Call<'_>) -> CK_RV {
    changed(call, 1, |info: &mut CK_TOKEN_INFO| std::mem::swap(&mut info.ulMinPinLen, &mut info.ulMaxPinLen))
}

fn token_clock(call: &Call<'_>) -> CK_RV {
    changed(call, 1, |info: &mut CK_TOKEN_INFO| {
        info.flags |= CKF_CLOCK_ON_TOKEN;
        info.utcTime = [b' '; 16];
    })
}

fn mechanism_twice(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let list: Vec<usize> = memory::list(call.word(1), call.pointed(2));
    if let (CKR_OK, [first, _, rest @ ..]) = (rv, list.as_slice()) {
        memory::put(call.word(1), &[&[*first, *first], rest].concat());
    }
    rv
}

fn mechanism_refused(call: &Call<'_>) -> CK_RV {
    if call.pointed(1) == CKM_SHA512 as usize { CKR_MECHANISM_INVALID } else { call.forward() }
}

fn mechanism_unlisted(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let mut list: Vec<usize> = memory::list(call.word(1), call.pointed(2));
    if rv == CKR_OK && !list.is_empty() {
        list.retain(|mechanism| *mechanism != CKM_SHA224 as usize);
        memory::put(call.word(1), &list);
        memory::write(call.word(2), list.len());
    }
    rv
}

fn mechanism_flag_missing(call: &Call<'_>) -> CK_RV {
    if call.word(1) != CKM_SHA256_HMAC as usize {
        return call.forward();
    }
    changed(call, 2, |info: &mut CK_MECHANISM_INFO| info.flags &= !CKF_SIGN)
}

fn mechanism_sizes(call: &Call<'_>) -> CK_RV {
    changed(call, 2, |info: &mut CK_MECHANISM_INFO| {
        std::mem::swap(&mut info.ulMinKeySize, &mut info.ulMaxKeySize);
    })
}

fn mechanism_any_info(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_MECHANISM_INVALID {
        return call.aside(F::C_GetMechanismInfo, &[call.word(0), CKM_SHA256 as usize, call.word(2)]);
    }
    rv
}

fn event_blocks(call: &Call<'_>) -> CK_RV {
    thread::sleep(Duration::from_secs(3600));
    call.forward()
}
