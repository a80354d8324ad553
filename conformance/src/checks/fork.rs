//! Processes that part while the module is in use (5.4.1 C_Initialize, on POSIX systems): whatever a child gets,
//! its parent goes on, and their random numbers are not the same.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::random::has_source;
use crate::raw::{Arg, Function as F, in_forked_child};
use crate::template::Mechanism;

table! {
    "fork.parent-goes-on" User parent_goes_on, "5.4.1 C_Initialize, fork", "a child that uses the module does not disturb its parent" => sessions high;
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

fn random(bench: &Bench) -> Verdict {
    has_source(bench)?;
    let session = bench.session()?.handle;
    fill(bench, session).ok_or_else(|| Stop::fail("random bytes", "none"))?;
    let child = in_forked_child(|| fill(bench, session).unwrap_or_default());
    let of_child = child.map_err(|why| Stop::fail("a child that ends", why))?;
    let of_parent = fill(bench, session).ok_or_else(|| Stop::fail("random bytes", "none"))?;
    ensure(of_child != of_parent, "other bytes in the child", "the same in both")
}
