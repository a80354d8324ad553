//! Group I, a module whose token is behind a network: in front of Strongroom's own module, and of its server behind the suite's
//! proxy (`packaging/xtask/tests/network.rs`).

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cryptoki_sys::*;

use super::faults;
use crate::call::Call;
use crate::functions::Function as F;
use crate::memory;

faults! {
    behind Network;
    "network-waits" [C_Sign] waits, "5.1.3 CKR_DEVICE_ERROR", "a call does not end in time when nothing answers", ["network.sign-silence"];
    "network-lost-is-done" [C_Sign C_FindObjectsInit] |call| call.instead_of(LOST, CKR_OK), "5.1.3 CKR_DEVICE_ERROR", "what did not reach the server is said to be done", ["network.sign-refused" "network.find-refused"];
    "network-lost-general" [C_Sign] |call| call.instead_of(LOST, CKR_GENERAL_ERROR), "5.1.1 CKR_GENERAL_ERROR", "that the token cannot be reached is not said", ["network.sign-refused"];
    "network-pin-blamed" [C_Login] |call| call.instead_of(LOST, CKR_PIN_INCORRECT), "5.6.8 C_Login", "when the server cannot be reached, the PIN is wrong", ["network.login-refused"];
    "network-never-back" [C_SignInit C_Sign C_OpenSession] never_back, "5.1.3 CKR_DEVICE_ERROR", "once the network was bad, the module does not work again", ["network.sign-refused"];
    "network-dies" [C_Sign] dies, "5.1.3 CKR_DEVICE_ERROR", "what another server answers kills the process", ["network.sign-impostor"];
    "network-impatient" [C_Sign] impatient, "5.1.3 CKR_DEVICE_ERROR", "a slow network is no network", ["network.sign-slow"];
    "network-makes-twice" [C_CreateObject C_GenerateKeyPair] makes_twice, "5.7.1 C_CreateObject", "what is sent twice is made twice", ["network.create-cut-request" "network.generate-cut-request" "network.replay"];
    "fork-safe-lie" [C_Initialize C_SignInit] fork_safe_lie, "5.4.6 CKF_INTERFACE_FORK_SAFE", "a module that says that it is fork-safe has to be initialised by a child", ["fork.safe-interface"];
    "network-pin-in-clear" [C_Login] pin_in_clear, "5.6.8 C_Login", "the PIN is sent as it is", ["network.clear-pin"];
    "network-key-in-clear" [C_CreateObject] key_in_clear, "5.7.1 C_CreateObject", "the value of a key is sent as it is", ["network.clear-key"];
    "network-data-in-clear" [C_Sign] data_in_clear, "5.13.2 C_Sign", "what is signed is sent as it is", ["network.clear-data"];
}

/// What tells an application that the token cannot be reached.
const LOST: &[CK_RV] = &[
    CKR_DEVICE_ERROR,
    CKR_DEVICE_REMOVED,
    CKR_FUNCTION_FAILED,
    CKR_TOKEN_NOT_PRESENT,
    CKR_SESSION_CLOSED,
    CKR_SESSION_HANDLE_INVALID,
];

fn waits(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if LOST.contains(&rv) {
        std::thread::sleep(Duration::from_secs(6));
    }
    rv
}

fn never_back(call: &Call<'_>) -> CK_RV {
    static AWAY: AtomicBool = AtomicBool::new(false);
    let rv = call.forward();
    if AWAY.fetch_or(LOST.contains(&rv), Ordering::SeqCst) { CKR_DEVICE_ERROR } else { rv }
}

fn dies(call: &Call<'_>) -> CK_RV {
    let rv = call.forward();
    if LOST.contains(&rv) {
        memory::crash();
    }
    rv
}

fn impatient(call: &Call<'_>) -> CK_RV {
    let since = Instant::now();
    let rv = call.forward();
    if since.elapsed() > Duration::from_millis(150) { CKR_DEVICE_ERROR } else { rv }
}

fn makes_twice(call: &Call<'_>) -> CK_RV {
    let template = if call.is(F::C_CreateObject) { call.template(1) } else { call.template(2) };
    if template.is_true(CKA_TOKEN) {
        let _first = call.forward();
    }
    call.forward()
}

/// Says something on a connection of its own to where the module's server is (`MUTANT_WIRE`).
fn say(bytes: &[u8]) {
    let server = std::env::var("MUTANT_WIRE").ok().and_then(|place| TcpStream::connect(place).ok());
    let _said = server.map(|mut server| server.write_all(bytes));
}

fn pin_in_clear(call: &Call<'_>) -> CK_RV {
    say(&call.input(2));
    call.forward()
}

fn key_in_clear(call: &Call<'_>) -> CK_RV {
    say(&call.template(1).value(CKA_VALUE).unwrap_or_default());
    call.forward()
}

fn data_in_clear(call: &Call<'_>) -> CK_RV {
    say(&call.input(1));
    call.forward()
}

fn fork_safe_lie(call: &Call<'_>) -> CK_RV {
    static OWNER: AtomicU32 = AtomicU32::new(0);
    if call.is(F::C_Initialize) {
        OWNER.store(std::process::id(), Ordering::SeqCst);
    }
    if OWNER.load(Ordering::SeqCst) == std::process::id() {
        call.forward()
    } else {
        CKR_CRYPTOKI_NOT_INITIALIZED
    }
}
