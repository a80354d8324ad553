//! Processes that part while the module is in use (5.4.1 C_Initialize, on POSIX systems): whatever a child gets,
//! its parent goes on, and their random numbers are not the same.

use cryptoki_sys::*;

use crate::bench::{Bench, reason};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::random::has_source;
use crate::raw::{Arg, Function as F, in_forked_child};
use crate::rv;
use crate::template::Mechanism;

table! {
    "fork.parent-goes-on" User parent_goes_on, "5.4.1 C_Initialize, fork", "a child that uses the module does not disturb its parent" => sessions high;
    "fork.child-starts" User child_starts, "Usage Guide 2.40, 2.5; 5.4.1 C_Initialize", "a child that calls C_Initialize works with the module, and its parent goes on" => sessions patience(30);
    "fork.child-apart" User child_apart, "Usage Guide 2.40, 2.5; 5.6.8 C_Login", "a child that has called C_Initialize has neither the sessions nor the login of its parent" => sessions high patience(30);
    "fork.safe-interface" User safe_interface, "5.4.6 CKF_INTERFACE_FORK_SAFE", "if the interface says that it is fork-safe, a child goes on in its parent's session with its parent's keys" => sessions high patience(30);
    "fork.random" Public random, "beyond 5.19.2 C_GenerateRandom, fork", "a child does not have its parent's random numbers, although the standard promises nothing after a fork" => randomness informational;
}

const BYTES: usize = 32;

fn fill(bench: &Bench, session: CK_SESSION_HANDLE) -> Option<Vec<u8>> {
    let mut memory = vec![0_u8; BYTES];
    let arguments = [Arg::number(session), Arg::slice_mut(&mut memory), Arg::number(BYTES as CK_ULONG)];
    bench.module.call(F::C_GenerateRandom, &arguments).was(CKR_OK).then_some(memory)
}

/// The child does what a child does that knows nothing of the module's state: any answer is fine.
fn parent_goes_on(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    let hmac = Mechanism::plain(CKM_SHA256_HMAC);
    let before = session.sign(&hmac, key, b"before and after")?;
    let child = in_forked_child(|| {
        let _info = bench.module.call(F::C_GetInfo, &[Arg::of_mut(&mut CK_INFO::default())]);
        let _random = fill(bench, session.handle);
        let _closed = session.close();
        let _finalized = bench.module.call(F::C_Finalize, &[Arg::NULL]);
        let arguments = bench.initialize_args(CKF_OS_LOCKING_OK, 0);
        let _initialized = bench.module.call(F::C_Initialize, &[Arg::of(&arguments)]);
        Vec::new()
    });
    child.map_err(|why| Stop::fail("a child that ends", why))?;
    bench.module.call(F::C_GetInfo, &[Arg::of_mut(&mut CK_INFO::default())]).ok()?;
    let after = session.sign(&hmac, key, b"before and after")?;
    ensure(after == before, "the parent's signature as before", "another")?;
    bench.session()?.info().map(drop)
}

/// An interface that says that it is fork-safe gives each process a copy of everything (5.4.6), so that there is nothing to start.
fn parts_at_fork(bench: &Bench) -> Verdict {
    match bench.module.interface(None, None, 0) {
        Ok(interface) if interface.flags & CKF_INTERFACE_FORK_SAFE != 0 => Err(Stop::NotOffered),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn safe_interface(bench: &Bench) -> Verdict {
    if parts_at_fork(bench).is_ok() {
        return Err(Stop::NotOffered);
    }
    let session = bench.session()?;
    let key = session.hmac_key()?;
    let sign = || session.sign(&Mechanism::plain(CKM_SHA256_HMAC), key, b"before and after");
    let before = sign()?;
    let told = in_forked_child(|| match sign() {
        Ok(signature) => signature,
        Err(stop) => reason(stop).into_bytes(),
    });
    let told = told.map_err(|why| Stop::fail("a child that ends", why))?;
    let seen = format!("in the child, {}", String::from_utf8_lossy(&told));
    ensure(told == before, "the signature that the parent got", seen)?;
    ensure(sign()? == before, "the parent's signature as before", "another")
}

/// `C_Initialize`, as a child calls it that needs the module for itself.
fn initialize(bench: &Bench) -> Verdict {
    let arguments = bench.initialize_args(CKF_OS_LOCKING_OK, 0);
    bench.module.call(F::C_Initialize, &[Arg::of(&arguments)]).ok()
}

/// From `C_Initialize` to a signature and `C_Finalize`.
fn work(bench: &Bench, expected: &[u8]) -> Verdict {
    initialize(bench)?;
    let session = bench.session()?;
    if bench.token_info(bench.slot()?)?.flags & CKF_LOGIN_REQUIRED != 0 {
        session.login(CKU_USER, &bench.pin()?).ok()?;
    }
    let key = session.hmac_key()?;
    let signature = session.sign(&Mechanism::plain(CKM_SHA256_HMAC), key, b"before and after")?;
    ensure(signature == expected, "the signature that its parent got", "another")?;
    bench.module.call(F::C_Finalize, &[Arg::NULL]).ok()
}

fn child_starts(bench: &Bench) -> Verdict {
    parts_at_fork(bench)?;
    let session = bench.session()?;
    let key = session.hmac_key()?;
    let hmac = Mechanism::plain(CKM_SHA256_HMAC);
    let before = session.sign(&hmac, key, b"before and after")?;
    let told = in_forked_child(|| match work(bench, &before) {
        Ok(()) => Vec::new(),
        Err(Stop::Fail { expected, seen, .. }) => format!("{seen}, not {expected}").into_bytes(),
        Err(stop) => reason(stop).into_bytes(),
    });
    let told = told.map_err(|why| Stop::fail("a child that ends", why))?;
    let seen = format!("in the child, {}", String::from_utf8_lossy(&told));
    ensure(told.is_empty(), "a child that works with the module", seen)?;
    ensure(
        session.sign(&hmac, key, b"before and after")? == before,
        "the parent's signature as before",
        "another",
    )
}

/// What a child says that could not start the module, of which another check tells.
const NOT_STARTED: &[u8] = b"not started";

fn child_apart(bench: &Bench) -> Verdict {
    parts_at_fork(bench)?;
    bench.knows_users()?;
    let parents = bench.session()?;
    let told = in_forked_child(|| {
        if initialize(bench).is_err() {
            return NOT_STARTED.to_vec();
        }
        let mut info = CK_SESSION_INFO::default();
        let seen = parents.call(F::C_GetSessionInfo, &[Arg::of_mut(&mut info)]);
        let own = bench.session().and_then(|session| session.info()).map_or(CK_ULONG::MAX, |info| info.state);
        let _finalized = bench.module.call(F::C_Finalize, &[Arg::NULL]);
        [seen.code.to_ne_bytes(), own.to_ne_bytes()].concat()
    });
    let told = told.map_err(|why| Stop::fail("a child that ends", why))?;
    let (Some((of_parent, rest)), false) = (told.split_first_chunk(), told == NOT_STARTED) else {
        return Err(Stop::NotOffered);
    };
    let (of_parent, state) =
        (CK_RV::from_ne_bytes(*of_parent), CK_STATE::from_ne_bytes(rest.try_into().unwrap_or_default()));
    let refused = [CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED].contains(&of_parent);
    let seen = format!("in the child, C_GetSessionInfo for its parent's session: {}", rv::name(of_parent));
    ensure(refused, "CKR_SESSION_HANDLE_INVALID", seen)?;
    let is_public = [CKS_RW_PUBLIC_SESSION, CKS_RO_PUBLIC_SESSION].contains(&state);
    ensure(is_public, "a public session in the child", format!("in the child, a session of state {state}"))
}

fn random(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?.handle;
    fill(bench, session).ok_or_else(|| Stop::fail("random bytes", "none"))?;
    let child = in_forked_child(|| fill(bench, session).unwrap_or_default());
    let of_child = child.map_err(|why| Stop::fail("a child that ends", why))?;
    let of_parent = fill(bench, session).ok_or_else(|| Stop::fail("random bytes", "none"))?;
    ensure(of_child != of_parent, "other bytes in the child", "the same in both")
}
