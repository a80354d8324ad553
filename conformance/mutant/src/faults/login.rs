//! Chapters 5.5.8 to 5.6.10: PINs that do not count and logins that do not matter.

use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "login-any-pin" [C_Login] |call| call.instead_of(&[CKR_PIN_INCORRECT], CKR_OK), "5.6.8 C_Login", "a wrong PIN is answered with CKR_OK", ["login.wrong" "login.so-wrong"];
    "private-label-shown" [C_CreateObject C_GetAttributeValue] private_label_shown, "5.7.5 C_GetAttributeValue", "the label of a private object is read without a login", ["login.private-guessed"];
    "login-empty-pin" [C_Login] login_empty, "5.6.8 C_Login", "an empty PIN is answered with CKR_OK", ["login.empty"];
    "login-wrong-pin-general" [C_Login] |call| call.instead_of(&[CKR_PIN_INCORRECT], CKR_GENERAL_ERROR), "5.6.8 C_Login", "a wrong PIN is CKR_GENERAL_ERROR", ["login.wrong" "login.too-long"];
    "login-count-hidden" [C_GetTokenInfo] count_hidden, "3.2 CKF_USER_PIN_COUNT_LOW", "a wrong PIN shows in no flag", ["login.count-low"];
    "login-twice" [C_Login] |call| call.instead_of(&[CKR_USER_ALREADY_LOGGED_IN], CKR_OK), "5.6.8 C_Login", "a second login is accepted", ["login.twice"];
    "login-beside-another" [C_Login] |call| call.instead_of(&[CKR_USER_ANOTHER_ALREADY_LOGGED_IN], CKR_OK), "5.6.8 C_Login", "SO and user are logged in at the same time", ["login.other-user" "login.so"];
    "login-any-user" [C_Login] |call| call.instead_of(&[CKR_USER_TYPE_INVALID], CKR_PIN_INCORRECT), "5.6.8 C_Login", "users that do not exist have a PIN", ["login.user-type"];
    "login-context-without-operation" [C_Login] |call| call.instead_of(&[CKR_OPERATION_NOT_INITIALIZED], CKR_OK), "5.6.8 C_Login", "a login for an operation needs no operation", ["login.context"];
    "login-of-one-session" [C_Login C_GetSessionInfo] of_one_session, "5.6 Session management", "only the session that logged in is logged in", ["login.right" "login.new-session"];
    "login-outlives-sessions" [C_Login] outlives_sessions, "5.6.2 C_CloseSession", "the login outlives the last session", ["login.ends-with-last-session"];
    "logout-does-nothing" [C_Logout] |_| CKR_OK, "5.6.10 C_Logout", "C_Logout only says that it is done", ["login.logout"];
    "so-beside-read-only" [C_Login] |call| call.instead_of(&[CKR_SESSION_READ_ONLY_EXISTS], CKR_OK), "5.6.8 C_Login", "the SO logs in beside a read-only session", ["login.so-read-only"];
    "read-only-beside-so" [C_OpenSession] |call| call.instead_of(&[CKR_SESSION_READ_WRITE_SO_EXISTS], CKR_OK), "5.6.1 C_OpenSession", "a read-only session opens while the SO is logged in", ["login.so-then-read-only"];
    "private-visible" [C_CreateObject C_FindObjects] private_visible, "5.7.7 C_FindObjectsInit", "private objects are found without a login", ["login.private-hidden"];
    "private-handle-survives" [C_CreateObject C_GetAttributeValue] private_handle_survives, "5.6.10 C_Logout", "the handle of a private object is good after the logout", ["login.private-handle"];
    "private-objects-survive" [C_CreateObject C_Logout C_FindObjects] private_objects_survive, "5.6.10 C_Logout", "private session objects outlive the logout", ["login.private-ends"];
    "private-without-login" [C_CreateObject] private_without_login, "5.7.1 C_CreateObject", "a private object is made without a login, and is public", ["login.create-private" "login.so-no-private"];
    "public-needs-login" [C_CreateObject] public_needs_login, "5.7.1 C_CreateObject", "a public object needs a login", ["login.create-public"];
    "private-key-without-login" [C_GenerateKey] |call| call.instead_of(&[CKR_USER_NOT_LOGGED_IN], CKR_OK), "5.18.1 C_GenerateKey", "a private key is made without a login", ["login.generate-private"];
    "set-pin-wrong-old" [C_SetPIN] |call| call.instead_of(&[CKR_PIN_INCORRECT], CKR_OK), "5.5.9 C_SetPIN", "a wrong old PIN is answered with CKR_OK", ["login.set-pin-wrong"];
    "set-pin-short" [C_SetPIN] set_pin_short, "5.5.9 C_SetPIN", "a new PIN of any length is accepted", ["login.set-pin-short" "login.set-pin-long"];
    "set-pin-nothing" [C_SetPIN] |_| CKR_OK, "5.5.9 C_SetPIN", "C_SetPIN only says that it is done", ["login.set-pin-other"];
    "set-pin-beside" [C_SetPIN C_Login] set_pin_beside, "5.5.9 C_SetPIN", "the old PIN logs in beside the new one", ["login.set-pin-other"];
    "init-pin-nothing" [C_InitPIN] init_pin_nothing, "5.5.8 C_InitPIN", "C_InitPIN only says that it is done", ["login.init-pin-other"];
    "set-pin-crashes" [C_SetPIN C_Login] set_pin_crashes, "5.5.9 C_SetPIN", "the process crashes when a user who is logged in has set another PIN", ["login.set-pin-other"];
    "set-pin-read-only" [C_SetPIN] |call| call.instead_of(&[CKR_SESSION_READ_ONLY], CKR_OK), "5.5.9 C_SetPIN", "a read-only session sets a PIN", ["login.set-pin-read-only"];
    "set-pin-fails" [C_SetPIN] |_| CKR_FUNCTION_FAILED, "5.5.9 C_SetPIN", "the PIN cannot be changed", ["login.set-pin"];
    "init-pin-by-user" [C_InitPIN] |call| call.instead_of(&[CKR_USER_NOT_LOGGED_IN], CKR_OK), "5.5.8 C_InitPIN", "the user sets the PIN anew", ["login.init-pin-as-user"];
    "always-authenticate-ignored" [C_GenerateKeyPair C_CreateObject] always_authenticate_ignored, "4.9 CKA_ALWAYS_AUTHENTICATE", "a key that asks for the PIN each time signs without it", ["login.always-authenticate"];
    "always-authenticate-once" [C_Sign C_Login] always_authenticate_once, "4.9 CKA_ALWAYS_AUTHENTICATE", "a key that asks for the PIN each time asks once", ["login.always-authenticate"];
}

/// The SO is told that the PIN is set, and everybody else what the real module says.
fn init_pin_nothing(call: &Call<'_>) -> CK_RV {
    let mut info = CK_SESSION_INFO::default();
    let _rv = call.aside(F::C_GetSessionInfo, &[call.word(0), memory::address(&mut info)]);
    if info.state == CKS_RW_SO_FUNCTIONS { CKR_OK } else { call.forward() }
}

fn set_pin_crashes(call: &Call<'_>) -> CK_RV {
    static HAS_LOGGED_IN: AtomicBool = AtomicBool::new(false);
    let rv = call.forward();
    if call.is(F::C_Login) {
        HAS_LOGGED_IN.store(true, Ordering::SeqCst);
    } else if rv == CKR_OK && call.input(1) != call.input(3) && HAS_LOGGED_IN.load(Ordering::SeqCst) {
        memory::crash();
    }
    rv
}

/// The PIN before the last one is taken for the last one.
fn set_pin_beside(call: &Call<'_>) -> CK_RV {
    static CHANGE: Memo<Option<(Vec<u8>, Vec<u8>)>> = Memo::new(None);
    let mut change = held(&CHANGE);
    if call.is(F::C_SetPIN) {
        let rv = call.forward();
        if rv == CKR_OK {
            *change = Some((call.input(1), call.input(3)));
        }
        return rv;
    }
    match change.as_mut() {
        Some((old, new)) if *old == call.input(2) => {
            call.with(&[(2, memory::address(new.as_mut_slice())), (3, new.len())])
        }
        _ => call.forward(),
    }
}

fn count_hidden(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Some(mut info), CKR_OK) = (memory::read::<CK_TOKEN_INFO>(call.word(1)), rv) {
        info.flags &= !(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
        memory::write(call.word(1), info);
    }
    rv
}

fn of_one_session(call: &Call<'_>) -> CK_RV {
    static USER: Memo<usize> = Memo::new(0);
    let rv = call.forward();
    if call.is(F::C_Login) {
        *held(&USER) = call.word(0);
    } else if let (Some(mut info), CKR_OK) = (memory::read::<CK_SESSION_INFO>(call.word(1)), rv) {
        let public =
            if info.flags & CKF_RW_SESSION == 0 { CKS_RO_PUBLIC_SESSION } else { CKS_RW_PUBLIC_SESSION };
        info.state = if *held(&USER) == call.word(0) { info.state } else { public };
        memory::write(call.word(1), info);
    }
    rv
}

/// A session that nobody closes keeps it.
fn outlives_sessions(call: &Call<'_>) -> CK_RV {
    let _hidden = call.hidden_session(call.slot(call.word(0)));
    call.forward()
}

fn private_visible(call: &Call<'_>) -> CK_RV {
    static PRIVATE: Memo<Vec<usize>> = Memo::new(Vec::new());
    let rv = call.forward();
    if call.is(F::C_CreateObject) && call.template(1).is_true(CKA_PRIVATE) {
        held(&PRIVATE).push(call.pointed(3));
    }
    if call.is(F::C_FindObjects) && call.pointed(3) == 0 && !call.is_logged_in(call.word(0)) {
        let found: Vec<usize> = held(&PRIVATE).drain(..).take(call.word(2)).collect();
        memory::put(call.word(1), &found);
        memory::write(call.word(3), found.len());
    }
    rv
}

fn private_handle_survives(call: &Call<'_>) -> CK_RV {
    static PRIVATE: Memo<Vec<usize>> = Memo::new(Vec::new());
    let rv = call.forward();
    if call.is(F::C_CreateObject) {
        held(&PRIVATE).push(call.pointed(3));
        return rv;
    }
    let known = held(&PRIVATE).contains(&call.word(1));
    if rv == CKR_OBJECT_HANDLE_INVALID && known { CKR_OK } else { rv }
}

/// The label of what came in last stands behind every handle that the real module does not know.
fn private_label_shown(call: &Call<'_>) -> CK_RV {
    static LABEL: Memo<Vec<u8>> = Memo::new(Vec::new());
    let rv = call.forward();
    if call.is(F::C_CreateObject) {
        *held(&LABEL) = call.template(1).value(CKA_LABEL).unwrap_or_default();
        return rv;
    }
    let asked = call.template(2).attributes.first().copied();
    match asked.filter(|asked| rv == CKR_OBJECT_HANDLE_INVALID && asked.type_ == CKA_LABEL) {
        Some(asked) => {
            memory::put(asked.pValue.expose_provenance(), &held(&LABEL));
            CKR_OK
        }
        None => rv,
    }
}

/// What the logout destroyed is still found, at the end of the next search.
fn private_objects_survive(call: &Call<'_>) -> CK_RV {
    static PRIVATE: Memo<(Vec<usize>, bool)> = Memo::new((Vec::new(), false));
    let rv = call.forward();
    let (made, logged_out) = &mut *held(&PRIVATE);
    if call.is(F::C_CreateObject) && call.template(1).is_true(CKA_PRIVATE) {
        made.push(call.pointed(3));
    }
    *logged_out |= call.is(F::C_Logout);
    if call.is(F::C_FindObjects) && *logged_out && call.pointed(3) == 0 {
        let found: Vec<usize> = made.drain(..).take(call.word(2)).collect();
        memory::put(call.word(1), &found);
        memory::write(call.word(3), found.len());
    }
    rv
}

fn private_without_login(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv != CKR_USER_NOT_LOGGED_IN {
        return rv;
    }
    call.with_template(1, &mut call.template(1).and(CKA_PRIVATE, &[CK_FALSE]))
}

/// The mutant keeps a PIN that is too short or too long, and takes it as the old one of the next change.
fn set_pin_short(call: &Call<'_>) -> CK_RV {
    static KEPT: Memo<Option<Vec<u8>>> = Memo::new(None);
    let mut kept = held(&KEPT);
    if kept.take_if(|pin| *pin == call.input(1)).is_some() {
        return CKR_OK;
    }
    let rv = call.forward();
    if rv == CKR_PIN_LEN_RANGE {
        *kept = Some(call.input(3));
        return CKR_OK;
    }
    rv
}

fn always_authenticate_ignored(call: &Call<'_>) -> CK_RV {
    let place = if call.is(F::C_CreateObject) { 1 } else { 4 };
    call.with_template(place, &mut call.template(place).without(CKA_ALWAYS_AUTHENTICATE))
}

/// The mutant keeps the PIN of the first login for an operation and gives it for every other.
fn always_authenticate_once(call: &Call<'_>) -> CK_RV {
    static PIN: Memo<Vec<u8>> = Memo::new(Vec::new());
    let user = CKU_CONTEXT_SPECIFIC as usize;
    if call.is(F::C_Login) {
        let rv = call.forward();
        if rv == CKR_OK && call.word(1) == user {
            *held(&PIN) = call.input(2);
        }
        return rv;
    }
    let mut pin = held(&PIN).clone();
    if call.is(F::C_Sign) && !pin.is_empty() {
        let words = [call.word(0), user, memory::address(pin.as_mut_slice()), pin.len()];
        let _rv = call.aside(F::C_Login, &words);
    }
    call.forward()
}

fn login_empty(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if call.word(3) == 0 { CKR_OK } else { rv }
}

fn public_needs_login(call: &Call<'_>) -> CK_RV {
    if call.is_logged_in(call.word(0)) { call.forward() } else { CKR_USER_NOT_LOGGED_IN }
}
