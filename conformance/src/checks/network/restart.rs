//! A server that restarts (`--restart-command`): between two calls, within an operation, while threads sign.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use cryptoki_sys::*;

use crate::bench::{Bench, LABEL, Stage};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::network::acts::{Trouble, logged_in, reached};
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::report::counted;
use crate::session::Session;
use crate::template::{Mechanism, Out, Template};

table! {
    all network high alone session_objects;
    "network.restart-idle" Token between_calls, "5.1.3 Return values of functions that use a token", "a module works after its server restarted between two calls" => patience(300);
    "network.restart-operation" Token within_operation, "5.13.3 C_SignUpdate", "an operation in parts over a restart ends with the right result, or with a code that says why" => patience(300);
    "network.restart-search" Token within_search, "5.7.8 C_FindObjects", "a search over a restart ends with the right objects, or with a code that says why" => patience(300);
    "network.restart-while-signing" Token while_signing, "5.13.2 C_Sign", "a restart gives no wrong signature, and signing goes on after it" => patience(300);
    "network.restart-keeps" Token keeps, "4.4 Storage objects", "a token object that was made before a restart is there after it" => token_objects patience(300);
}

/// How long a module may need after the restart command has ended.
const RECOVERY: Duration = Duration::from_secs(20);

/// A logged-in session over a good network.
fn begin(bench: &Bench) -> Result<Session<'_>, Stop> {
    bench.desk()?.heal()?;
    logged_in(bench).or_else(|_| {
        bench.reset(Stage::Loaded);
        bench.prepare(Stage::Token)?;
        logged_in(bench)
    })
}

/// Signs in this session, or in a new one if it is lost; within a bounded time.
fn works_again(bench: &Bench) -> Verdict {
    let deadline = Instant::now() + RECOVERY;
    loop {
        bench.reset(Stage::Token);
        match logged_in(bench).and_then(|session| sign(&session)) {
            Err(Stop::Fail { .. }) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            Err(Stop::Fail { seen, .. }) => {
                let expected =
                    format!("new sessions within {} s of a restart, without C_Finalize", RECOVERY.as_secs());
                return Err(Stop::graded(Severity::Medium, expected, seen));
            }
            other => return other,
        }
    }
}

fn sign(session: &Session<'_>) -> Verdict {
    let key = session.hmac_key()?;
    let made = session.sign(&Mechanism::plain(CKM_SHA256_HMAC), key, b"data")?;
    refuse_wrong(&made, b"data")
}

/// The key is that of [`Session::hmac_key`].
fn refuse_wrong(signature: &[u8], data: &[u8]) -> Verdict {
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[0x0b; 32]), data);
    ensure(signature == expected.as_ref(), "the signature of the data", "another one")
}

/// What may become of a call when the server has restarted: the token is away, or it forgot the session or the login,
/// or session objects.
fn may_be_lost(trouble: Trouble) -> Verdict {
    const FORGOTTEN: &[CK_RV] = &[
        CKR_USER_NOT_LOGGED_IN,
        CKR_OPERATION_NOT_INITIALIZED,
        CKR_KEY_HANDLE_INVALID,
        CKR_OBJECT_HANDLE_INVALID,
    ];
    match trouble {
        Trouble::Lost(_) => Ok(()),
        Trouble::Odd(rv) if FORGOTTEN.contains(&rv.code) => Ok(()),
        Trouble::Odd(rv) => {
            let expected = "CKR_OK, or a code that says that the token was away";
            Err(Stop::graded(Severity::Low, expected, rv.to_string()))
        }
        Trouble::Wrong(stop) => Err(stop),
    }
}

fn between_calls(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    sign(&session)?;
    bench.desk()?.restart()?;
    match sign(&session) {
        Ok(()) => Ok(()),
        Err(Stop::Fail { .. }) => works_again(bench),
        Err(other) => Err(other),
    }
}

fn within_operation(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    let key = session.hmac_key()?;
    session.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key)).ok()?;
    session.feed(F::C_SignUpdate, b"one and ").ok()?;
    bench.desk()?.restart()?;
    let mut out = Out::room(64);
    let ended = reached(session.feed(F::C_SignUpdate, b"two"))
        .and_then(|()| reached(session.finish(F::C_SignFinal, &mut out)));
    match ended {
        Ok(()) => refuse_wrong(out.bytes(), b"one and two")?,
        Err(trouble) => may_be_lost(trouble)?,
    }
    works_again(bench)
}

fn within_search(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    let marked = || Template::data().bytes(CKA_APPLICATION, b"network.restart");
    for _ in 0..3 {
        session.create(&marked())?;
    }
    session.find_init(&Template::new().bytes(CKA_APPLICATION, b"network.restart")).ok()?;
    let (rv, first) = session.find_next(1);
    rv.ok()?;
    bench.desk()?.restart()?;
    let (rv, rest) = session.find_next(8);
    let found = first.len() + rest.len();
    match reached(rv) {
        Ok(()) => {
            let expected = "the three objects, or a code that says why not";
            ensure(found == 3, expected, format!("CKR_OK and {found} objects"))?;
        }
        Err(trouble) => may_be_lost(trouble)?,
    }
    works_again(bench)
}

fn while_signing(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    let (desk, key) = (bench.desk()?, session.hmac_key()?);
    let restarted = AtomicBool::new(false);
    let limit = desk.limit;
    thread::scope(|scope| {
        let restart = scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            let came = desk.restart();
            restarted.store(true, Ordering::SeqCst);
            came
        });
        let mut number = 0_u32;
        while !restarted.load(Ordering::SeqCst) {
            number += 1;
            let (data, since) = (number.to_be_bytes(), Instant::now());
            let mut out = Out::room(64);
            let came = reached(session.init(F::C_SignInit, &Mechanism::plain(CKM_SHA256_HMAC), Some(key)))
                .and_then(|()| reached(session.run(F::C_Sign, &data, &mut out)));
            let expected = format!("an end within {} s (--network-limit)", limit.as_secs());
            ensure(since.elapsed() <= limit, expected, format!("{:?}", since.elapsed()))?;
            match came {
                Ok(()) => refuse_wrong(out.bytes(), &data)?,
                Err(trouble) => may_be_lost(trouble)?,
            }
        }
        restart.join().unwrap_or_else(|_| Err(Stop::Skipped("a thread of the suite failed".to_owned())))
    })?;
    works_again(bench)
}

fn keeps(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    let mark = bench.random().bytes(24);
    let template = Template::data().without(CKA_TOKEN).bool(CKA_TOKEN, true).without(CKA_LABEL);
    session.create(&template.bytes(CKA_LABEL, LABEL).bytes(CKA_APPLICATION, &mark))?;
    bench.desk()?.restart()?;
    works_again(bench)?;
    let session = logged_in(bench)?;
    let found = session.find(&Template::new().bytes(CKA_APPLICATION, &mark))?;
    for object in &found {
        session.destroy(*object).ok()?;
    }
    ensure(found.len() == 1, "the object", counted(found.len(), "object"))
}
