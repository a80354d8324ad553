//! Chapter 5.4: tables, `C_Initialize` and `C_Finalize`; and the process around them.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::{lists, memory, real};

faults! {
    "list-gap" [C_GetFunctionList] list_gap, "5.4.4 C_GetFunctionList", "a pointer in the function list is null", ["general.list-complete"];
    "list-null-accepted" [C_GetFunctionList] |call| call.instead_of(&[CKR_ARGUMENTS_BAD], CKR_OK), "5.4.4 C_GetFunctionList", "a null ppFunctionList is accepted", ["general.list-null"];
    "list-wrong-version" [C_GetFunctionList] list_wrong_version, "5.4.4 C_GetFunctionList", "the list of C_GetFunctionList says that it is version 3.0", ["general.list-version"];
    "interface-null-list" [C_GetInterfaceList] interface_null_list, "5.4.5 C_GetInterfaceList", "an interface has a null function list", ["general.interface-list"];
    "interface-list-overflow" [C_GetInterfaceList] interface_list_overflow, "5.4.5 C_GetInterfaceList", "interfaces are written although there is no room for them", ["general.interface-list-small"];
    "interface-unstable" [C_GetInterface] interface_unstable, "5.4.6 C_GetInterface", "asked twice, the interface stands elsewhere", ["general.interface-stable"];
    "interface-any-name" [C_GetInterface] |call| call.with(&[(0, 0)]), "5.4.6 C_GetInterface", "an interface of any name is given", ["general.interface-unknown-name"];
    "interface-any-version" [C_GetInterface] |call| call.with(&[(1, 0)]), "5.4.6 C_GetInterface", "an interface of any version is given", ["general.interface-unknown-version"];
    "interface-any-flags" [C_GetInterface] |call| call.with(&[(3, 0)]), "5.4.6 C_GetInterface", "flags that no interface has are passed over", ["general.interface-unknown-flags"];
    "double-init" [C_Initialize] |call| call.instead_of(&[CKR_CRYPTOKI_ALREADY_INITIALIZED], CKR_OK), "5.4.1 C_Initialize", "a second C_Initialize is accepted", ["general.initialize-twice"];
    "init-reserved" [C_Initialize] init_reserved, "5.4.1 C_Initialize", "pReserved and half a set of mutexes are accepted", ["general.initialize-reserved" "general.initialize-some-mutexes"];
    "init-mutexes-ignored" [C_Initialize] mutexes_ignored, "5.4.1 C_Initialize", "the application's mutexes are taken and not used", ["general.initialize-mutexes"];
    "init-null-refused" [C_Initialize] init_null_refused, "5.4.1 C_Initialize", "null arguments are refused", ["general.initialize-null"];
    "init-without-threads-refused" [C_Initialize] |call| refuses_flags(call, CKF_LIBRARY_CANT_CREATE_OS_THREADS), "5.4.1 C_Initialize", "CKF_LIBRARY_CANT_CREATE_OS_THREADS is CKR_GENERAL_ERROR", ["general.initialize-no-threads"];
    "init-either-lock-refused" [C_Initialize] either_lock_refused, "5.4.1 C_Initialize", "mutexes beside CKF_OS_LOCKING_OK are refused", ["general.initialize-either-lock"];
    "init-refused-begins" [C_Initialize] init_refused_begins, "5.4.1 C_Initialize", "a refused C_Initialize initialises", ["general.initialize-refused-is-nothing"];
    "init-leaks-memory" [C_Initialize] leaks_memory, "5.4.2 C_Finalize", "every C_Initialize keeps a megabyte for ever", ["general.no-memory-leak"];
    "init-leaks-descriptor" [C_Initialize] leaks_descriptor, "5.4.2 C_Finalize", "every C_Initialize keeps a file open for ever", ["general.no-leak"];
    "init-leaks-thread" [C_Initialize] leaks_thread, "5.4.2 C_Finalize", "every C_Initialize leaves a thread behind", ["general.no-leak"];
    "finalize-before-init" [C_Finalize] |call| call.instead_of(&[CKR_CRYPTOKI_NOT_INITIALIZED], CKR_OK), "5.4.2 C_Finalize", "C_Finalize needs no C_Initialize", ["general.finalize-first" "general.finalize-twice"];
    "finalize-reserved" [C_Finalize] |call| call.with(&[(0, 0)]), "5.4.2 C_Finalize", "pReserved that is not null is passed over", ["general.finalize-reserved"];
    "uninitialized-general" [C_GetInfo C_GetSlotList C_OpenSession C_Sign C_FindObjects] |call| call.instead_of(&[CKR_CRYPTOKI_NOT_INITIALIZED, CKR_ARGUMENTS_BAD], CKR_GENERAL_ERROR), "5.1.1 Universal return values", "a module that is not initialised says CKR_GENERAL_ERROR", ["general.before-initialize" "general.before-initialize-null" "general.after-finalize"];
    "finalize-does-nothing" [C_Initialize C_Finalize] finalize_does_nothing, "5.4.2 C_Finalize", "C_Finalize only says that it is done, and sessions outlive it", ["general.after-finalize" "sessions.end-with-finalize"];
    "finalize-crashes" [C_Finalize] finalize_crashes, "5.4.2 C_Finalize", "the process dies in the second C_Finalize of its life", ["general.initialize-again"];
    "info-not-padded" [C_GetInfo] info_not_padded, "5.4.3 C_GetInfo", "texts of CK_INFO end with zero bytes", ["general.info"];
    "info-flags" [C_GetInfo] info_flags, "5.4.3 C_GetInfo", "CK_INFO has a flag", ["general.info"];
    "parallel" [C_GetFunctionStatus C_CancelFunction] |call| call.waved_through(), "5.20 Parallel function management", "the functions of old answer CKR_OK", ["general.parallel"];
    "crash-on-null" [C_GetInfo] crash_on_null, "5.1.6 CKR_ARGUMENTS_BAD", "a null pointer is written to", ["general.info-null"];
    "null-general" [
        C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo C_InitToken
        C_InitPIN C_SetPIN C_OpenSession C_GetSessionInfo C_GetOperationState C_SetOperationState
        C_Login C_CreateObject C_CopyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue
        C_FindObjectsInit C_FindObjects C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal
        C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate
        C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
        C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover
        C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
        C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom
        C_WaitForSlotEvent
    ] null_general, "5.1.6 CKR_ARGUMENTS_BAD", "a null pointer is CKR_GENERAL_ERROR", [
        "nulls.slot-list" "nulls.slot-info" "nulls.token-info" "nulls.mechanism-list"
        "nulls.mechanism-info" "nulls.init-token" "nulls.init-pin" "nulls.set-pin" "nulls.open-session"
        "nulls.session-info" "nulls.operation-state" "nulls.set-operation-state" "nulls.login"
        "nulls.create-object" "nulls.copy-object" "nulls.object-size" "nulls.get-attribute"
        "nulls.set-attribute" "nulls.find-init" "nulls.find" "nulls.encrypt-init" "nulls.encrypt"
        "nulls.encrypt-update" "nulls.encrypt-final" "nulls.decrypt-init" "nulls.decrypt"
        "nulls.decrypt-update" "nulls.decrypt-final" "nulls.digest-init" "nulls.digest"
        "nulls.digest-update" "nulls.digest-final" "nulls.sign-init" "nulls.sign" "nulls.sign-update"
        "nulls.sign-final" "nulls.sign-recover-init" "nulls.sign-recover" "nulls.verify-init"
        "nulls.verify" "nulls.verify-update" "nulls.verify-final" "nulls.verify-recover-init"
        "nulls.verify-recover" "nulls.digest-encrypt" "nulls.decrypt-digest" "nulls.sign-encrypt"
        "nulls.decrypt-verify" "nulls.generate-key" "nulls.generate-key-pair" "nulls.wrap-key"
        "nulls.unwrap-key" "nulls.derive-key" "nulls.seed-random" "nulls.generate-random"
        "nulls.wait-for-slot-event"
    ];
    "fork-child-refused" [C_Initialize] fork_child_refused, "Usage Guide 2.40, 2.5", "a child is told that its parent's C_Initialize was its own", ["fork.child-starts"];
    "fork-child-logged-in" [C_Initialize C_GetSessionInfo] fork_child_logged_in, "Usage Guide 2.40, 2.5", "a child is logged in because its parent is", ["fork.child-apart"];
    "fork-child-has-sessions" [C_Initialize C_GetSessionInfo] fork_child_has_sessions, "Usage Guide 2.40, 2.5", "a child has the sessions of its parent", ["fork.child-apart"];
    "fork-shares-link" [C_Initialize C_GetInfo C_GetSlotList C_GenerateRandom] fork_shares_link, "5.4.1 C_Initialize, fork", "a child process writes on its parent's connection, and the parent's next call fails", ["fork.parent-goes-on"];
}

fn list_gap(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Ok(real), CKR_OK) = (real::real(), rv) {
        memory::write(call.word(0), lists::fresh_list(real.classic, Some(F::C_GetOperationState)));
    }
    rv
}

fn list_wrong_version(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Ok(real), CKR_OK) = (real::real(), rv) {
        let list = lists::fresh_list(real.classic, None);
        memory::write(list, CK_VERSION { major: 3, minor: 0 });
        memory::write(call.word(0), list);
    }
    rv
}

fn interface_null_list(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let place = std::mem::offset_of!(CK_INTERFACE, pFunctionList);
    if rv == CKR_OK && call.word(0) != 0 {
        memory::write(call.word(0) + place, 0_usize);
    }
    rv
}

fn interface_list_overflow(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_BUFFER_TOO_SMALL {
        memory::write(call.word(0), 0_usize);
    }
    rv
}

fn interface_unstable(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Ok(real), CKR_OK) = (real::real(), rv) {
        let Some(mut interface) = memory::read::<CK_INTERFACE>(call.pointed(2)) else { return rv };
        let list = lists::fresh_list(real.classic, None);
        interface.pFunctionList = std::ptr::with_exposed_provenance_mut(list);
        memory::write(call.word(2), memory::address(Box::leak(Box::new(interface))));
    }
    rv
}

fn init_reserved(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_ARGUMENTS_BAD { plainly(call) } else { rv }
}

fn mutexes_ignored(call: &Call<'_>) -> CK_RV {
    let mutexes = memory::read::<CK_C_INITIALIZE_ARGS>(call.word(0))
        .is_some_and(|arguments| arguments.CreateMutex.is_some() && arguments.UnlockMutex.is_some());
    if !mutexes {
        return call.forward();
    }
    plainly(call)
}

/// Initialises the real module as the simplest of applications would.
fn plainly(call: &Call<'_>) -> CK_RV {
    let mut arguments = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: CKF_OS_LOCKING_OK,
        pReserved: std::ptr::null_mut(),
    };
    call.with(&[(0, memory::address(&mut arguments))])
}

fn leaks_memory(call: &Call<'_>) -> CK_RV {
    Box::leak(vec![1_u8; 1 << 20].into_boxed_slice()).fill(2);
    call.forward()
}

fn leaks_descriptor(call: &Call<'_>) -> CK_RV {
    static OPEN: Memo<Vec<File>> = Memo::new(Vec::new());
    held(&OPEN).extend(File::open("/dev/null"));
    call.forward()
}

fn leaks_thread(call: &Call<'_>) -> CK_RV {
    thread::spawn(|| thread::sleep(Duration::from_secs(3600)));
    call.forward()
}

fn finalize_does_nothing(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_Initialize) {
        return call.instead_of(&[CKR_CRYPTOKI_ALREADY_INITIALIZED], CKR_OK);
    }
    CKR_OK
}

fn finalize_crashes(call: &Call<'_>) -> CK_RV {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    let rv = call.forward();
    if rv == CKR_OK && ROUNDS.fetch_add(1, Ordering::SeqCst) > 0 {
        memory::crash();
    }
    rv
}

fn info_not_padded(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Some(mut info), CKR_OK) = (memory::read::<CK_INFO>(call.word(0)), rv) {
        info.libraryDescription = [0; 32];
        memory::write(call.word(0), info);
    }
    rv
}

fn info_flags(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if let (Some(mut info), CKR_OK) = (memory::read::<CK_INFO>(call.word(0)), rv) {
        info.flags = 1;
        memory::write(call.word(0), info);
    }
    rv
}

fn crash_on_null(call: &Call<'_>) -> CK_RV {
    if call.word(0) == 0 {
        memory::crash();
    }
    call.forward()
}

/// Whether the process is another than the one that came here first.
fn is_child() -> bool {
    static FIRST: Memo<Option<u32>> = Memo::new(None);
    *held(&FIRST).get_or_insert_with(std::process::id) != std::process::id()
}

fn fork_child_refused(call: &Call<'_>) -> CK_RV {
    if is_child() { CKR_CRYPTOKI_ALREADY_INITIALIZED } else { call.forward() }
}

fn fork_child_logged_in(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let spoilt = is_child() && call.is(F::C_GetSessionInfo) && rv == CKR_OK;
    if let Some(mut info) = memory::read::<CK_SESSION_INFO>(call.word(1)).filter(|_| spoilt) {
        info.state = CKS_RW_USER_FUNCTIONS;
        memory::write(call.word(1), info);
    }
    rv
}

fn fork_child_has_sessions(call: &Call<'_>) -> CK_RV {
    let in_child = is_child();
    match call.forward() {
        CKR_SESSION_HANDLE_INVALID if in_child => CKR_OK,
        rv => rv,
    }
}

/// The connection is a socket pair: what a child writes on it stays in the parent's way.
fn fork_shares_link(call: &Call<'_>) -> CK_RV {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    static LINK: Memo<Option<(u32, UnixStream, UnixStream)>> = Memo::new(None);
    if call.is(F::C_Initialize) {
        *held(&LINK) = UnixStream::pair().ok().map(|(here, there)| {
            let _blocking = here.set_nonblocking(true);
            (std::process::id(), here, there)
        });
    }
    if let Some((owner, here, there)) = held(&LINK).as_mut() {
        if *owner != std::process::id() {
            let _written = there.write(b"x");
        } else if here.read(&mut [0]).is_ok() {
            return CKR_DEVICE_ERROR;
        }
    }
    call.forward()
}

fn init_null_refused(call: &Call<'_>) -> CK_RV {
    if call.word(0) == 0 { CKR_CANT_LOCK } else { call.forward() }
}

fn refuses_flags(call: &Call<'_>, flags: CK_FLAGS) -> CK_RV {
    let given = memory::read::<CK_C_INITIALIZE_ARGS>(call.word(0));
    if given.is_some_and(|given| given.flags & flags != 0) { CKR_GENERAL_ERROR } else { call.forward() }
}

fn either_lock_refused(call: &Call<'_>) -> CK_RV {
    let mutexes = memory::read::<CK_C_INITIALIZE_ARGS>(call.word(0))
        .is_some_and(|given| given.CreateMutex.is_some() && given.flags & CKF_OS_LOCKING_OK != 0);
    if mutexes { CKR_CANT_LOCK } else { call.forward() }
}

fn init_refused_begins(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_ARGUMENTS_BAD {
        let _initialized = plainly(call);
    }
    rv
}

/// Lengths and handles may be zero in good calls, which is why only refusals count.
fn null_general(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    let null = (0..8).any(|place| call.has(place) && call.word(place) == 0);
    if rv != CKR_OK && null { CKR_GENERAL_ERROR } else { rv }
}
