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
    "init-leaks-memory" [C_Initialize] leaks_memory, "5.4.2 C_Finalize", "every C_Initialize keeps a megabyte for ever", ["general.no-memory-leak"];
    "init-leaks-descriptor" [C_Initialize] leaks_descriptor, "5.4.2 C_Finalize", "every C_Initialize keeps a file open for ever", ["general.no-leak"];
    "init-leaks-thread" [C_Initialize] leaks_thread, "5.4.2 C_Finalize", "every C_Initialize leaves a thread behind", ["general.no-leak"];
    "finalize-before-init" [C_Finalize] |call| call.instead_of(&[CKR_CRYPTOKI_NOT_INITIALIZED], CKR_OK), "5.4.2 C_Finalize", "C_Finalize needs no C_Initialize", ["general.finalize-first" "general.finalize-twice"];
    "finalize-does-nothing" [C_Initialize C_Finalize] finalize_does_nothing, "5.4.2 C_Finalize", "C_Finalize only says that it is done, and sessions outlive it", ["general.after-finalize" "sessions.end-with-finalize"];
    "finalize-crashes" [C_Finalize] finalize_crashes, "5.4.2 C_Finalize", "the process dies in the second C_Finalize of its life", ["general.initialize-again"];
    "info-not-padded" [C_GetInfo] info_not_padded, "5.4.3 C_GetInfo", "texts of CK_INFO end with zero bytes", ["general.info"];
    "info-flags" [C_GetInfo] info_flags, "5.4.3 C_GetInfo", "CK_INFO has a flag", ["general.info"];
    "parallel" [C_GetFunctionStatus C_CancelFunction] |call| call.waved_through(), "5.20 Parallel function management", "the functions of old answer CKR_OK", ["general.parallel"];
    "crash-on-null" [C_GetInfo] crash_on_null, "5.1.6 CKR_ARGUMENTS_BAD", "a null pointer is written to", ["general.info-null"];
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
