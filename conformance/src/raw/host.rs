//! What a module sees of the program that it is in: mutexes of its own, and a fork.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptoki_sys::*;

/// How often the application's own mutexes were made, taken, released and destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MutexUse {
    /// Mutexes made and not destroyed.
    pub alive: usize,
    /// Locks taken in all.
    pub locked: usize,
}

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static LOCKED: AtomicUsize = AtomicUsize::new(0);
static HELD: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// What became of the mutexes in [`initialize_args`].
pub fn mutex_use() -> MutexUse {
    MutexUse { alive: ALIVE.load(Ordering::SeqCst), locked: LOCKED.load(Ordering::SeqCst) }
}

unsafe extern "C" fn create_mutex(place: *mut *mut c_void) -> CK_RV {
    let number = ALIVE.fetch_add(1, Ordering::SeqCst) + 1;
    // SAFETY: the module gives a place for the pointer; what is written there is opaque to it.
    unsafe { *place = ptr::without_provenance_mut(number * 16) };
    CKR_OK
}

unsafe extern "C" fn destroy_mutex(_: *mut c_void) -> CK_RV {
    ALIVE.fetch_sub(1, Ordering::SeqCst);
    CKR_OK
}

unsafe extern "C" fn lock_mutex(mutex: *mut c_void) -> CK_RV {
    LOCKED.fetch_add(1, Ordering::SeqCst);
    match HELD.lock() {
        Ok(mut held) => {
            held.push(mutex.addr());
            CKR_OK
        }
        Err(_) => CKR_GENERAL_ERROR,
    }
}

unsafe extern "C" fn unlock_mutex(mutex: *mut c_void) -> CK_RV {
    let Ok(mut held) = HELD.lock() else { return CKR_GENERAL_ERROR };
    match held.iter().rposition(|other| *other == mutex.addr()) {
        Some(position) => {
            held.remove(position);
            CKR_OK
        }
        None => CKR_MUTEX_NOT_LOCKED,
    }
}

/// Arguments of `C_Initialize` with those of the four mutex functions whose bits are set in `mutexes`
/// (create 1, destroy 2, lock 4, unlock 8).
pub fn initialize_args(flags: CK_FLAGS, mutexes: u8, reserved: usize) -> CK_C_INITIALIZE_ARGS {
    let given = |bit: u8| mutexes & bit != 0;
    CK_C_INITIALIZE_ARGS {
        CreateMutex: given(1).then_some(create_mutex),
        DestroyMutex: given(2).then_some(destroy_mutex),
        LockMutex: given(4).then_some(lock_mutex),
        UnlockMutex: given(8).then_some(unlock_mutex),
        flags,
        pReserved: ptr::without_provenance_mut(reserved),
    }
}

unsafe extern "C" {
    fn fork() -> i32;
    fn alarm(seconds: u32) -> u32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(code: i32) -> !;
}

/// How long a forked child may take, in seconds.
const CHILD_SECONDS: u32 = 8;

/// Does something in a forked child, which then ends without a word to the module, and gives back its bytes.
///
/// # Errors
/// A sentence, when the child did not come to its end.
pub fn in_forked_child(act: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, String> {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
    // SAFETY: a child of the runner has one thread here, so the child of the child may do what it does.
    let child = unsafe { fork() };
    if child == 0 {
        // SAFETY: an alarm ends the process, which nobody waits for longer.
        unsafe { alarm(CHILD_SECONDS) };
        let written = writer.write_all(&act());
        // SAFETY: ends the process at once: buffers and exit handlers are the parent's.
        unsafe { _exit(i32::from(written.is_err())) }
    }
    drop(writer);
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    let mut status = 0;
    // SAFETY: `status` is there to be written.
    let waited = unsafe { waitpid(child, &mut status, 0) };
    match (read, waited == child && child > 0, status) {
        (Ok(_), true, 0) => Ok(bytes),
        (Err(error), _, _) => Err(error.to_string()),
        (_, _, status) => Err(format!("the child's status is {status:#x}")),
    }
}
