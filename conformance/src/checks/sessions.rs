//! Chapter 5.6, session management, without logins.

use cryptoki_sys::*;

use crate::bench::Bench;
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::nulls;
use crate::raw::{Arg, Function as F};
use crate::report::counted;
use crate::rv::none_wrong;
use crate::signature::takes_a_pin;

use crate::template::{Mechanism, Out, Template, UNAVAILABLE};

table! {
    all sessions;
    "sessions.parallel" Token parallel, "5.6.1 C_OpenSession", "without CKF_SERIAL_SESSION no session opens";
    "sessions.handles" Token handles, "5.6.1 C_OpenSession", "handles are not zero and not shared";
    "sessions.info-public" Token info_public, "5.6.4 C_GetSessionInfo", "a new session has its slot, flags and public state";
    "sessions.close-unknown" Token close_unknown, "5.6.2 C_CloseSession", "a handle that is no session's is refused";
    "sessions.close-twice" Token close_twice, "5.6.2 C_CloseSession", "a second C_CloseSession is CKR_SESSION_HANDLE_INVALID";
    "sessions.use-after-close" Token use_after_close, "5.1.2 CKR_SESSION_HANDLE_INVALID", "every function refuses a closed session" => high;
    "sessions.use-unknown" Token use_unknown, "5.1.2 CKR_SESSION_HANDLE_INVALID", "every function refuses a handle that never was";
    "sessions.close-all" Token close_all, "5.6.3 C_CloseAllSessions", "all sessions of the slot close";
    "sessions.count" Token count, "3.2 CK_TOKEN_INFO", "the token counts its sessions";
    "sessions.many" Token many, "5.6.1 C_OpenSession", "two hundred sessions open, or CKR_SESSION_COUNT says how few" => alone;
    "sessions.end-with-finalize" Token end_with_finalize, "5.4.2 C_Finalize", "a session does not outlive C_Finalize" => high;
    "sessions.read-only-token-object" User read_only_token_object, "5.6 Session management", "a read-only session makes no token object" => token_objects high;
    "sessions.read-only-token-key" User read_only_token_key, "5.6 Session management", "a read-only session generates no token key" => token_objects high;
    "sessions.objects-end" User objects_end, "5.6.2 C_CloseSession", "a session's objects go with it" => high;
    "sessions.objects-shared" User objects_shared, "5.6 Session management", "a session's objects are seen by the application's other sessions";
    "sessions.operations-apart" User operations_apart, "5.6 Session management", "two sessions digest at the same time, each its own";
    "sessions.close-in-operation" User close_in_operation, "5.6.2 C_CloseSession", "a session closes with an operation in it";
    "sessions.cancel" Public cancel, "5.6.5 C_SessionCancel", "an operation that was cancelled is over";
    "sessions.cancel-nothing" Public cancel_nothing, "5.6.5 C_SessionCancel", "cancelling what is not there is no error, or CKR_OPERATION_CANCEL_FAILED";
    "sessions.cancel-other" Public cancel_other, "5.6.5 C_SessionCancel", "an operation that was not named goes on";
    "sessions.validation-flags" Public validation_flags, "5.6 C_GetSessionValidationFlags (3.2)", "a session says whether its last operation was validated, or that this is not supported";
}

fn parallel(bench: &Bench) -> Verdict {
    let mut handle: CK_SESSION_HANDLE = 0;
    for flags in [0, CKF_RW_SESSION] {
        let arguments =
            [Arg::number(bench.slot()?), Arg::number(flags), Arg::NULL, Arg::NULL, Arg::of_mut(&mut handle)];
        bench.module.call(F::C_OpenSession, &arguments).is(CKR_SESSION_PARALLEL_NOT_SUPPORTED)?;
    }
    Ok(())
}

fn handles(bench: &Bench) -> Verdict {
    let (one, other) = (bench.session()?.handle, bench.read_only()?.handle);
    ensure(one != 0 && other != 0 && one != other, "two handles that are not zero", format!("{one}, {other}"))
}

fn info_public(bench: &Bench) -> Verdict {
    let states = [
        (CKF_SERIAL_SESSION, CKS_RO_PUBLIC_SESSION),
        (CKF_SERIAL_SESSION | CKF_RW_SESSION, CKS_RW_PUBLIC_SESSION),
    ];
    for (flags, state) in states {
        if flags & CKF_RW_SESSION != 0 && bench.is_write_protected() {
            continue;
        }
        let info = bench.open(flags)?.info()?;
        let expected = (bench.slot()?, flags, state);
        let seen = (info.slotID, info.flags, info.state);
        ensure(seen == expected, format!("slot, flags, state {expected:?}"), format!("{seen:?}"))?;
    }
    Ok(())
}

fn close_unknown(bench: &Bench) -> Verdict {
    let _session = bench.session()?;
    for handle in [0, 0x7fff_fff0, UNAVAILABLE] {
        bench.module.call(F::C_CloseSession, &[Arg::number(handle)]).is(CKR_SESSION_HANDLE_INVALID)?;
    }
    Ok(())
}

fn close_twice(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    session.close().ok()?;
    session.close().one_of(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED])
}

/// What a function answers to a session that is not there. The two of old answer what they always did.
const DEAD: &[CK_RV] =
    &[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_FUNCTION_NOT_SUPPORTED, CKR_FUNCTION_NOT_PARALLEL];

fn refused_everywhere(bench: &Bench, handle: CK_SESSION_HANDLE) -> Verdict {
    let mut wrong = Vec::new();
    // Those that take a PIN have checks of their own: `functions.*`.
    let takes_session = |row: &&nulls::Row| {
        row.arguments.first() == Some(&nulls::Kind::Session) && !takes_a_pin(row.function)
    };
    for row in nulls::ROWS.iter().filter(takes_session) {
        let rv = nulls::honest(bench, row, handle);
        if !DEAD.contains(&rv.code) {
            wrong.push(rv);
        }
    }
    let alone = [F::C_Logout, F::C_FindObjectsFinal, F::C_GetFunctionStatus, F::C_CancelFunction];
    for function in alone {
        let rv = bench.module.call(function, &[Arg::number(handle)]);
        if !DEAD.contains(&rv.code) {
            wrong.push(rv);
        }
    }
    none_wrong("CKR_SESSION_HANDLE_INVALID", &wrong)
}

fn use_after_close(bench: &Bench) -> Verdict {
    let _other = bench.session()?;
    let session = bench.session()?;
    session.close().ok()?;
    refused_everywhere(bench, session.handle)
}

fn use_unknown(bench: &Bench) -> Verdict {
    let _other = bench.session()?;
    refused_everywhere(bench, 0x7fff_fff0)
}

fn close_all(bench: &Bench) -> Verdict {
    let sessions = [bench.session()?, bench.read_only()?, bench.session()?];
    bench.module.call(F::C_CloseAllSessions, &[Arg::number(bench.slot()?)]).ok()?;
    for session in sessions {
        session.close().one_of(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED])?;
    }
    Ok(())
}

fn count(bench: &Bench) -> Verdict {
    let slot = bench.slot()?;
    let before = bench.token_info(slot)?;
    if before.ulSessionCount == UNAVAILABLE || before.ulRwSessionCount == UNAVAILABLE {
        return Err(Stop::NotOffered);
    }
    let _sessions = [bench.session()?, bench.read_only()?];
    let during = bench.token_info(slot)?;
    bench.module.call(F::C_CloseAllSessions, &[Arg::number(slot)]).ok()?;
    let after = bench.token_info(slot)?;
    let grown = during.ulSessionCount >= before.ulSessionCount + 2
        && during.ulRwSessionCount > before.ulRwSessionCount;
    let seen = |info: &CK_TOKEN_INFO| format!("{} and {}", info.ulSessionCount, info.ulRwSessionCount);
    ensure(grown, "two sessions more, one of them read-write", seen(&during))?;
    ensure(after.ulSessionCount < during.ulSessionCount, "fewer when they are closed", seen(&after))
}

fn many(bench: &Bench) -> Verdict {
    let mut handles = Vec::new();
    for _ in 0..200 {
        match bench.session() {
            Ok(session) => handles.push(session.handle),
            Err(Stop::Fail { seen, .. }) if seen.contains("CKR_SESSION_COUNT") => break,
            Err(stop) => return Err(stop),
        }
    }
    handles.sort_unstable();
    let opened = handles.len();
    handles.dedup();
    ensure(opened > 1 && handles.len() == opened, "many sessions, each its own", counted(opened, "session"))
}

fn end_with_finalize(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    bench.module.call(F::C_Finalize, &[Arg::NULL]).ok()?;
    let arguments = bench.initialize_args(CKF_OS_LOCKING_OK, 0);
    bench.module.call(F::C_Initialize, &[Arg::of(&arguments)]).ok()?;
    let mut info = CK_SESSION_INFO::default();
    session
        .call(F::C_GetSessionInfo, &[Arg::of_mut(&mut info)])
        .one_of(&[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED])
}

fn read_only_token_object(bench: &Bench) -> Verdict {
    let session = bench.read_only()?;
    let template = Template::data().without(CKA_TOKEN).bool(CKA_TOKEN, true);
    session.try_create(&template).0.one_of(&[CKR_SESSION_READ_ONLY, CKR_TOKEN_WRITE_PROTECTED])
}

fn read_only_token_key(bench: &Bench) -> Verdict {
    bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE)?;
    let template = crate::session::aes(32).without(CKA_TOKEN).bool(CKA_TOKEN, true);
    let session = bench.read_only()?;
    session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &template).0.is(CKR_SESSION_READ_ONLY)
}

fn objects_end(bench: &Bench) -> Verdict {
    let (short, long) = (bench.session()?, bench.session()?);
    let object = short.create(&Template::data())?;
    short.close().ok()?;
    long.query(object, &mut Template::new().ask(CKA_LABEL)).is(CKR_OBJECT_HANDLE_INVALID)
}

fn objects_shared(bench: &Bench) -> Verdict {
    let (maker, other) = (bench.session()?, bench.session()?);
    let object = maker.create(&Template::data())?;
    other.attribute(object, CKA_LABEL)?;
    let found = other.find(&Template::new().bytes(CKA_LABEL, crate::bench::LABEL))?;
    ensure(found.contains(&object), "the object among those found", format!("{found:?}"))
}

fn operations_apart(bench: &Bench) -> Verdict {
    let expected = (bench.sha256(b"one")?, bench.sha256(b"other")?);
    let (one, other) = (bench.session()?, bench.session()?);
    let digest = Mechanism::plain(CKM_SHA256);
    one.init(F::C_DigestInit, &digest, None).ok()?;
    other.init(F::C_DigestInit, &digest, None).ok()?;
    one.feed(F::C_DigestUpdate, b"one").ok()?;
    other.feed(F::C_DigestUpdate, b"other").ok()?;
    let (mut first, mut second) = (Out::room(32), Out::room(32));
    one.finish(F::C_DigestFinal, &mut first).ok()?;
    other.finish(F::C_DigestFinal, &mut second).ok()?;
    let good = first.bytes() == expected.0 && second.bytes() == expected.1;
    ensure(good, "the digest of each session's own input", "another")
}

fn close_in_operation(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let key = session.hmac_key()?;
    session.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key)).ok()?;
    let searching = bench.session()?;
    searching.find_init(&Template::new()).ok()?;
    searching.close().ok()?;
    session.close().ok()
}

fn has_cancel(bench: &Bench) -> Verdict {
    if bench.module.has_3_0() { Ok(()) } else { Err(Stop::NotOffered) }
}

fn cancel(bench: &Bench) -> Verdict {
    has_cancel(bench)?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let rv = session.call(F::C_SessionCancel, &[Arg::number(CKF_DIGEST)]);
    if rv.was(CKR_OPERATION_CANCEL_FAILED) {
        return Ok(());
    }
    rv.ok()?;
    session.feed(F::C_DigestUpdate, b"more").is(CKR_OPERATION_NOT_INITIALIZED)
}

fn cancel_nothing(bench: &Bench) -> Verdict {
    has_cancel(bench)?;
    let session = bench.session()?;
    let rv = session.call(F::C_SessionCancel, &[Arg::number(CKF_SIGN | CKF_FIND_OBJECTS)]);
    rv.one_of(&[CKR_OK, CKR_OPERATION_CANCEL_FAILED])
}

fn cancel_other(bench: &Bench) -> Verdict {
    has_cancel(bench)?;
    let session = bench.session()?;
    session.init(F::C_DigestInit, &Mechanism::plain(CKM_SHA256), None).ok()?;
    let rv = session.call(F::C_SessionCancel, &[Arg::number(CKF_SIGN)]);
    rv.one_of(&[CKR_OK, CKR_OPERATION_CANCEL_FAILED])?;
    session.feed(F::C_DigestUpdate, b"more").ok()
}

fn validation_flags(bench: &Bench) -> Verdict {
    if !bench.module.has_3_2() {
        return Err(Stop::NotOffered);
    }
    let mut flags: CK_FLAGS = 0;
    let arguments = [Arg::number(CKS_LAST_VALIDATION_OK), Arg::of_mut(&mut flags)];
    let rv = bench.session()?.call(F::C_GetSessionValidationFlags, &arguments);
    rv.one_of(&[CKR_OK, CKR_FUNCTION_NOT_SUPPORTED])
}
