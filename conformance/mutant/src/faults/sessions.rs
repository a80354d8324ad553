//! Chapter 5.6: sessions that are not what they should be.

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "session-parallel" [C_OpenSession] session_parallel, "5.6.1 C_OpenSession", "a session opens without CKF_SERIAL_SESSION", ["sessions.parallel"];
    "session-handle-shared" [C_OpenSession] handle_shared, "5.6.1 C_OpenSession", "two sessions have one handle", ["sessions.handles" "sessions.many"];
    "session-outlives-close" [C_CloseSession] |_| CKR_OK, "5.6.2 C_CloseSession", "C_CloseSession only says that it is done", ["sessions.close-twice" "sessions.use-after-close"];
    "session-close-any" [C_CloseSession] |call| call.instead_of(&[CKR_SESSION_HANDLE_INVALID], CKR_OK), "5.6.2 C_CloseSession", "a handle that is no session's is closed", ["sessions.close-unknown" "sessions.close-twice"];
    "session-close-refused" [C_SignInit C_CloseSession] close_refused, "5.6.2 C_CloseSession", "a session does not close with an operation in it", ["sessions.close-in-operation"];
    "session-close-closes-all" [C_CloseSession] close_closes_all, "5.6.2 C_CloseSession", "C_CloseSession closes every session of the slot", ["login.ends-with-last-session" "sessions.objects-end"];
    "session-close-all-leaves-one" [C_OpenSession C_CloseAllSessions] close_all_leaves_one, "5.6.3 C_CloseAllSessions", "C_CloseAllSessions leaves the last session open", ["sessions.close-all"];
    "session-closed-general" [C_GetSessionInfo C_GenerateRandom C_DigestInit] |call| call.instead_of(&[CKR_SESSION_HANDLE_INVALID], CKR_GENERAL_ERROR), "5.1.2 CKR_SESSION_HANDLE_INVALID", "a closed session is CKR_GENERAL_ERROR", ["sessions.use-after-close" "sessions.use-unknown"];
    "session-objects-survive" [C_CreateObject] objects_survive, "5.6.2 C_CloseSession", "session objects outlive their session", ["sessions.objects-end"];
    "session-objects-apart" [C_CreateObject C_GetAttributeValue] objects_apart, "5.6 Session management", "an application's sessions do not see each other's objects", ["sessions.objects-shared"];
    "session-state-of-another" [C_GetSessionInfo] state_of_another, "5.6.4 C_GetSessionInfo", "a read-only session says that it is read-write", ["sessions.info-public"];
    "session-operations-shared" [C_DigestInit C_Digest C_DigestUpdate C_DigestFinal] operations_shared, "5.6 Session management", "all sessions digest in one", ["sessions.operations-apart"];
    "read-only-session-creates" [C_CreateObject] read_only_creates, "5.6 Session management", "a read-only session makes token objects", ["sessions.read-only-token-object"];
    "read-only-session-generates" [C_GenerateKey] |call| call.instead_of(&[CKR_SESSION_READ_ONLY], CKR_OK), "5.6 Session management", "a read-only session makes token keys", ["sessions.read-only-token-key"];
    "read-only-session-destroys" [C_DestroyObject] |call| call.instead_of(&[CKR_SESSION_READ_ONLY], CKR_OK), "5.7.3 C_DestroyObject", "a read-only session destroys token objects", ["objects.set-read-only-session"];
    "read-only-session-is-read-write" [C_OpenSession] |call| call.with(&[(1, call.word(1) | CKF_RW_SESSION as usize)]), "5.6.1 C_OpenSession", "every session is read-write", ["sessions.info-public" "sessions.read-only-token-object" "functions.C_CopyObject-read-only"];
    "operation-state-of-nothing" [C_GetOperationState] |call| call.waved_through(), "5.6.6 C_GetOperationState", "there is a state to save without an operation", ["sessions.state-of-nothing"];
    "threads-share-output" [C_Sign] threads_share_output, "5.6 Session management", "signatures pass through one buffer, which no lock guards", ["threads.own-sessions"];
    "refusal-keeps-lock" [C_DestroyObject] refusal_keeps_lock, "5.7.3 C_DestroyObject", "a refused call keeps the lock, and the next call waits for ever", ["objects.destroy-unknown-handle"];
}

fn session_parallel(call: &Call<'_>) -> CK_RV {
    call.with(&[(1, call.word(1) | CKF_SERIAL_SESSION as usize)])
}

/// The handle that was given last, as long as its session is open.
fn handle_shared(call: &Call<'_>) -> CK_RV {
    static LAST: Memo<usize> = Memo::new(0);
    let mut info = CK_SESSION_INFO::default();
    let mut last = held(&LAST);
    if call.aside(F::C_GetSessionInfo, &[*last, memory::address(&mut info)]) == CKR_OK {
        memory::write(call.word(4), *last);
        return CKR_OK;
    }
    let rv = call.forward();
    *last = call.pointed(4);
    rv
}

fn close_closes_all(call: &Call<'_>) -> CK_RV {
    let slot = call.slot(call.word(0));
    let rv = call.forward();
    let _closed = call.aside(F::C_CloseAllSessions, &[slot]);
    rv
}

fn close_all_leaves_one(call: &Call<'_>) -> CK_RV {
    static OPENED: Memo<Vec<usize>> = Memo::new(Vec::new());
    if call.is(F::C_OpenSession) {
        let rv = call.forward();
        held(&OPENED).push(call.pointed(4));
        return rv;
    }
    let mut opened = held(&OPENED);
    let last = opened.pop();
    for session in opened.drain(..) {
        let _closed = call.aside(F::C_CloseSession, &[session]);
    }
    opened.extend(last);
    CKR_OK
}

/// A session that nobody closes has them all.
fn objects_survive(call: &Call<'_>) -> CK_RV {
    if call.template(1).is_true(CKA_TOKEN) {
        return call.forward();
    }
    let hidden = call.hidden_session(call.slot(call.word(0)));
    call.with(&[(0, hidden)])
}

fn objects_apart(call: &Call<'_>) -> CK_RV {
    static MAKERS: Memo<Vec<(usize, usize)>> = Memo::new(Vec::new());
    if call.is(F::C_CreateObject) {
        let rv = call.forward();
        held(&MAKERS).push((call.pointed(3), call.word(0)));
        return rv;
    }
    let foreign =
        held(&MAKERS).iter().any(|(object, maker)| *object == call.word(1) && *maker != call.word(0));
    if foreign { CKR_OBJECT_HANDLE_INVALID } else { call.forward() }
}

fn state_of_another(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Some(mut info), CKR_OK) = (memory::read::<CK_SESSION_INFO>(call.word(1)), rv) {
        info.state = if info.state == CKS_RO_PUBLIC_SESSION { CKS_RW_PUBLIC_SESSION } else { info.state };
        memory::write(call.word(1), info);
    }
    rv
}

fn operations_shared(call: &Call<'_>) -> CK_RV {
    static SHARED: Memo<usize> = Memo::new(0);
    let mut shared = held(&SHARED);
    if *shared == 0 {
        *shared = call.hidden_session(call.slot(call.word(0)));
    }
    let rv = call.with(&[(0, *shared)]);
    if rv == CKR_OPERATION_ACTIVE { CKR_OK } else { rv }
}

fn read_only_creates(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv != CKR_SESSION_READ_ONLY {
        return rv;
    }
    call.with_template(1, &mut call.template(1).and(CKA_TOKEN, &[CK_FALSE]))
}

fn threads_share_output(call: &Call<'_>) -> CK_RV {
    static BUFFER: Memo<Vec<u8>> = Memo::new(Vec::new());
    let rv = call.forward();
    if rv == CKR_OK && call.word(3) != 0 {
        *held(&BUFFER) = call.given(3);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let output = held(&BUFFER).clone();
        call.give(3, &output);
    }
    rv
}

fn refusal_keeps_lock(call: &Call<'_>) -> CK_RV {
    static LOCK: Memo<()> = Memo::new(());
    let lock = held(&LOCK);
    let rv = call.forward();
    if rv != CKR_OK {
        std::mem::forget(lock);
    }
    rv
}

fn close_refused(call: &Call<'_>) -> CK_RV {
    static BUSY: Memo<usize> = Memo::new(0);
    if call.is(F::C_SignInit) {
        *held(&BUSY) = call.word(0);
    }
    if call.is(F::C_CloseSession) && *held(&BUSY) == call.word(0) {
        return CKR_OPERATION_ACTIVE;
    }
    call.forward()
}
