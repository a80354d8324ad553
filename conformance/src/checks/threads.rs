//! Many threads in one module (chapter 2 and 5.4.1: `CKF_OS_LOCKING_OK`): right results, no crash, no hang.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::raw::{Arg, Function as F, Module};
use crate::rv::Rv;
use crate::template::{Mechanism, Out, Template};

table! {
    all sessions high;
    "threads.own-sessions" User own_sessions, "5.6 Session management", "threads that sign in their own sessions get their own signatures";
    "threads.shared-session" User shared_session, "5.6 Session management", "threads that share a session get their own signatures, or are told that it is busy";
    "threads.close-while-signing" User close_while_signing, "5.6.2 C_CloseSession", "a session that is closed while it signs says so";
    "threads.close-all-while-signing" Token close_all_while_signing, "5.6.3 C_CloseAllSessions", "a session that C_CloseAllSessions closes while it signs says so, and the login ends" => session_objects;
    "threads.find-while-creating" User find_while_creating, "5.7.8 C_FindObjects", "a search is not disturbed by objects that come and go";
    "threads.log-in-and-out" Token log_in_and_out, "5.6.8 C_Login", "of threads that log in and out, each is told what happened to it";
}

const THREADS: u8 = 8;
const ROUNDS: usize = 40;

/// A signature by calls that share nothing with other threads but the module.
fn hmac(module: &Module, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE, data: &[u8]) -> (Rv, Vec<u8>) {
    let mechanism = Mechanism::plain(CKM_SHA256_HMAC);
    let begun = module.call(F::C_SignInit, &[Arg::number(session), mechanism.arg(), Arg::number(key)]);
    if !begun.was(CKR_OK) {
        return (begun, Vec::new());
    }
    let mut out = Out::room(32);
    let [buffer, length] = out.args();
    let data = [Arg::slice(data), Arg::number(data.len() as CK_ULONG)];
    let rv = module.call(F::C_Sign, &[Arg::number(session), data[0], data[1], buffer, length]);
    (rv, out.bytes().to_vec())
}

/// Each thread signs a message of its own; what it gets is its signature, or one of these.
fn sign_in(
    bench: &Bench,
    sessions: &[CK_SESSION_HANDLE],
    key: CK_OBJECT_HANDLE,
    allowed: &[CK_RV],
) -> Verdict {
    let mut expected = Vec::new();
    let own = bench.session()?;
    for number in 0..THREADS {
        let (rv, signature) = hmac(&bench.module, own.handle, key, &[number; 40]);
        rv.ok()?;
        expected.push(signature);
    }
    let module = &bench.module;
    let one_thread = |number: u8, session: CK_SESSION_HANDLE, expected: &[u8]| {
        for _ in 0..ROUNDS {
            let (rv, signature) = hmac(module, session, key, &[number; 40]);
            if rv.was(CKR_OK) {
                ensure(signature == expected, "the signature of the thread's message", "another")?;
            } else {
                rv.one_of(allowed)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let places = (0..THREADS).zip(sessions).zip(&expected);
        let threads: Vec<_> = places
            .map(|((number, session), expected)| scope.spawn(move || one_thread(number, *session, expected)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
    })
}

fn panicked() -> Stop {
    Stop::Skipped("a thread of the suite failed".to_owned())
}

fn own_sessions(bench: &Bench) -> Verdict {
    let key = bench.session()?.hmac_key()?;
    let sessions: Result<Vec<_>, Stop> =
        (0..THREADS).map(|_| bench.session().map(|session| session.handle)).collect();
    sign_in(bench, &sessions?, key, &[])
}

fn shared_session(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    let sessions = [session.handle; THREADS as usize];
    sign_in(bench, &sessions, key, &[CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED])
}

/// What a call may answer whose session goes away under it.
const GONE: &[CK_RV] = &[
    CKR_SESSION_HANDLE_INVALID,
    CKR_SESSION_CLOSED,
    CKR_OPERATION_NOT_INITIALIZED,
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_USER_NOT_LOGGED_IN,
    CKR_CRYPTOKI_NOT_INITIALIZED,
];

/// Signs until the session is gone, while another thread makes it go.
fn sign_until_gone(
    bench: &Bench,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
    end: impl FnOnce() -> Rv,
) -> Verdict {
    let module = &bench.module;
    let signing = AtomicBool::new(false);
    thread::scope(|scope| {
        let signer = scope.spawn(|| {
            loop {
                let (rv, _) = hmac(module, session, key, b"data");
                if !rv.was(CKR_OK) {
                    return rv.one_of(GONE);
                }
                signing.store(true, Ordering::SeqCst);
            }
        });
        while !signing.load(Ordering::SeqCst) && !signer.is_finished() {
            thread::yield_now();
        }
        let ended = end();
        signer.join().unwrap_or_else(|_| Err(panicked()))?;
        ended.ok()
    })
}

fn close_while_signing(bench: &Bench) -> Verdict {
    let key = bench.session()?.hmac_key()?;
    for _ in 0..20 {
        let session = bench.session()?.handle;
        sign_until_gone(bench, session, key, || {
            bench.module.call(F::C_CloseSession, &[Arg::number(session)])
        })?;
    }
    Ok(())
}

/// A logged-in session and a key in it.
fn logged_in(bench: &Bench) -> Result<(CK_SESSION_HANDLE, CK_OBJECT_HANDLE), Stop> {
    let session = bench.session()?;
    session.login(CKU_USER, &bench.pin()?).ok()?;
    Ok((session.handle, session.hmac_key()?))
}

fn close_all_while_signing(bench: &Bench) -> Verdict {
    let slot = bench.slot()?;
    let (session, key) = logged_in(bench)?;
    let module = &bench.module;
    sign_until_gone(bench, session, key, || module.call(F::C_CloseAllSessions, &[Arg::number(slot)]))
}

fn find_while_creating(bench: &Bench) -> Verdict {
    let mark = || Template::new().bytes(CKA_APPLICATION, b"find-while-creating");
    let session = bench.session()?;
    let kept = session.create(&Template::data().bytes(CKA_APPLICATION, b"find-while-creating"))?;
    let (other, module) = (bench.session()?.handle, &bench.module);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let template = Template::data().bytes(CKA_APPLICATION, b"find-while-creating");
            while !done.load(Ordering::SeqCst) {
                let [attributes, count] = template.args();
                let mut object: CK_OBJECT_HANDLE = 0;
                let arguments = [Arg::number(other), attributes, count, Arg::of_mut(&mut object)];
                module.call(F::C_CreateObject, &arguments).ok()?;
                module.call(F::C_DestroyObject, &[Arg::number(other), Arg::number(object)]).ok()?;
            }
            Ok(())
        });
        let searches = (0..ROUNDS).try_for_each(|_| {
            let found = session.find(&mark())?;
            ensure(found.contains(&kept), "the object that stays", format!("{found:?}"))
        });
        done.store(true, Ordering::SeqCst);
        maker.join().unwrap_or_else(|_| Err(panicked()))?;
        searches
    })
}

fn log_in_and_out(bench: &Bench) -> Verdict {
    let (pin, module) = (bench.pin()?, &bench.module);
    let sessions: Result<Vec<_>, Stop> =
        (0..4).map(|_| bench.session().map(|session| session.handle)).collect();
    let one_thread = |session: CK_SESSION_HANDLE| {
        let pin = [Arg::slice(&pin), Arg::number(pin.len() as CK_ULONG)];
        for _ in 0..5 {
            let login = [Arg::number(session), Arg::number(CKU_USER), pin[0], pin[1]];
            module.call(F::C_Login, &login).one_of(&[CKR_OK, CKR_USER_ALREADY_LOGGED_IN])?;
            let logout = module.call(F::C_Logout, &[Arg::number(session)]);
            logout.one_of(&[CKR_OK, CKR_USER_NOT_LOGGED_IN])?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            sessions?.into_iter().map(|session| scope.spawn(move || one_thread(session))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(panicked())))
    })
}
