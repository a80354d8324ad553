//! Chapters 5.6.6 and 5.6.7, operations whose state is saved, and brought back elsewhere.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::rv::Rv;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

table! {
    all operations;
    "sessions.state-moves" Public state_moves, "5.6.6, 5.6.7 C_SetOperationState", "a digest whose state is saved goes on in another session";
    "sessions.state-changed" Public state_changed, "5.6.7 C_SetOperationState", "a state that was changed, or cut off, is CKR_SAVED_STATE_INVALID" => high;
    "sessions.state-of-nothing" Public state_of_nothing, "5.6.6 C_GetOperationState", "without an operation there is no state to save";
    "sessions.state-with-key" User with_key, "5.6.7 C_SetOperationState", "a signature whose state is saved goes on in another session, with its key";
    "sessions.state-key-needed" User key_needed, "5.6.7 C_SetOperationState", "without its key it is CKR_KEY_NEEDED, unless the state has the key in it";
    "sessions.state-key-changed" User key_changed, "5.6.7 C_SetOperationState", "with another key it is CKR_KEY_CHANGED" => high;
    "sessions.state-key-not-needed" User key_not_needed, "5.6.7 C_SetOperationState", "a digest that is given a key is CKR_KEY_NOT_NEEDED";
}

/// A session in the midst of a digest, and its state.
fn digesting(bench: &Bench) -> Result<(Session<'_>, Vec<u8>), Stop> {
    bench.offers(CKM_SHA256, CKF_DIGEST)?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    session.feed(F::C_DigestUpdate, b"one part and ").ok()?;
    let state = saved(&session)?;
    Ok((session, state))
}

/// The state of a session's operation. Tokens need not be able to save it.
fn saved(session: &Session<'_>) -> Result<Vec<u8>, Stop> {
    let mut out = Out::room(4096);
    let rv = session.call(F::C_GetOperationState, &out.args());
    if [CKR_STATE_UNSAVEABLE, CKR_FUNCTION_NOT_SUPPORTED].contains(&rv.code) {
        return Err(Stop::NotOffered);
    }
    rv.ok()?;
    Ok(out.bytes().to_vec())
}

fn restored(session: &Session<'_>, state: &[u8]) -> Rv {
    restored_with(session, state, 0)
}

/// Brings a state back, with the key of a signature.
fn restored_with(session: &Session<'_>, state: &[u8], key: CK_OBJECT_HANDLE) -> Rv {
    let length = Arg::number(state.len() as CK_ULONG);
    session.call(F::C_SetOperationState, &[Arg::slice(state), length, Arg::number(0), Arg::number(key)])
}

fn state_moves(bench: &Bench) -> Verdict {
    let (first, state) = digesting(bench)?;
    let other = bench.session()?;
    restored(&other, &state).ok()?;
    let mut digests = Vec::new();
    for session in [first, other] {
        session.feed(F::C_DigestUpdate, b"another").ok()?;
        let mut out = Out::room(32);
        session.finish(F::C_DigestFinal, &mut out).ok()?;
        digests.push(out.bytes().to_vec());
    }
    let whole = bench.sha256(b"one part and another")?;
    let right = digests.iter().all(|digest| *digest == whole);
    ensure(right, "the digest of both parts", format!("{digests:02x?}"))
}

/// What a changed state is of a digest nobody can say: the module must know its own.
fn state_changed(bench: &Bench) -> Verdict {
    let (_, state) = digesting(bench)?;
    let cut = state.get(..state.len() / 2).unwrap_or_default();
    let mut changed = state.clone();
    if let Some(byte) = changed.first_mut() {
        *byte ^= 0x80;
    }
    for wrong in [cut, &changed] {
        restored(&bench.session()?, wrong).is(CKR_SAVED_STATE_INVALID)?;
    }
    Ok(())
}

fn state_of_nothing(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let mut length: CK_ULONG = 0;
    session.call(F::C_GetOperationState, &[Arg::NULL, Arg::of_mut(&mut length)]).one_of(&[
        CKR_OPERATION_NOT_INITIALIZED,
        CKR_STATE_UNSAVEABLE,
        CKR_FUNCTION_NOT_SUPPORTED,
    ])
}

/// A session with an HMAC key, the state of a signature that has one part of its message, and the signature of both.
fn signing(bench: &Bench) -> Result<(Session<'_>, CK_OBJECT_HANDLE, Vec<u8>, Vec<u8>), Stop> {
    let session = bench.session()?;
    let (key, mechanism) = (session.hmac_key()?, Mechanism::plain(CKM_SHA256_HMAC));
    let whole = session.sign(&mechanism, key, b"one part and another")?;
    session.init(F::C_SignInit, &mechanism, Some(key)).ok()?;
    session.feed(F::C_SignUpdate, b"one part and ").ok()?;
    let state = saved(&session).map_err(|stop| match stop {
        Stop::Fail { seen, .. } => Stop::at_most(Severity::Low, "a state, or CKR_STATE_UNSAVEABLE", seen),
        other => other,
    })?;
    Ok((session, key, state, whole))
}

/// Goes on with the second part, to the signature of both.
fn goes_on(session: &Session<'_>, whole: &[u8]) -> Verdict {
    session.feed(F::C_SignUpdate, b"another").ok()?;
    let mut out = Out::room(64);
    session.finish(F::C_SignFinal, &mut out).ok()?;
    ensure(out.bytes() == whole, "the signature of both parts by the key that it began with", "another")
}

/// As [`signing`], for checks of the key alone: why a module does not save a signature's state, `sessions.state-with-key` tells.
fn savable(bench: &Bench) -> Result<(CK_OBJECT_HANDLE, Vec<u8>, Vec<u8>), Stop> {
    signing(bench).map(|(_, key, state, whole)| (key, state, whole)).map_err(|_| Stop::NotOffered)
}

fn with_key(bench: &Bench) -> Verdict {
    let (first, key, state, whole) = signing(bench)?;
    let other = bench.session()?;
    match restored_with(&other, &state, key) {
        rv if rv.was(CKR_KEY_NOT_NEEDED) => restored(&other, &state).ok()?,
        rv => rv.ok()?,
    }
    [first, other].iter().try_for_each(|session| goes_on(session, &whole))
}

fn key_needed(bench: &Bench) -> Verdict {
    let (_, state, whole) = savable(bench)?;
    let other = bench.session()?;
    match restored(&other, &state) {
        rv if rv.was(CKR_OK) => goes_on(&other, &whole),
        rv => rv.is(CKR_KEY_NEEDED),
    }
}

fn key_changed(bench: &Bench) -> Verdict {
    let (_, state, _) = savable(bench)?;
    let other = bench.session()?;
    let template = Template::secret(CKK_GENERIC_SECRET, &[0x0c; 32]).bool(CKA_PRIVATE, true);
    let another = other.create(&template.usages(&[CKA_SIGN, CKA_VERIFY]))?;
    restored_with(&other, &state, another).one_of(&[CKR_KEY_CHANGED, CKR_KEY_NOT_NEEDED])
}

fn key_not_needed(bench: &Bench) -> Verdict {
    let (_, state) = digesting(bench)?;
    let other = bench.session()?;
    let key = other.hmac_key()?;
    restored_with(&other, &state, key).is(CKR_KEY_NOT_NEEDED)
}
