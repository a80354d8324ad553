//! Chapters 5.5.8, 5.5.9 and 5.6.8, PINs: how many tries they have, what none can be, and how they are set.

use cryptoki_sys::*;

use crate::bench::another_pin::{is_set, set_pin as change, try_pin};
use crate::bench::{Bench, Pin, Stage};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::login::{WRONG, login};
use crate::marks::Severity;
use crate::raw::Function as F;
use crate::session::Session;

table! {
    all authentication;
    "login.count-low" Token count_low, "3.2 CKF_USER_PIN_COUNT_LOW", "a wrong PIN raises the flag and the right one lowers it" => pins;
    "login.locks" Token locks, "3.2 CKF_USER_PIN_LOCKED", "after wrong PINs the PIN is locked, the right one too, and stays so when the module starts again" => lockout patience(120);
    "login.too-long" Token too_long, "5.6.8 C_Login", "a PIN that is too long is refused" => pins;
    "login.empty" Token empty, "5.6.8 C_Login", "an empty PIN is refused" => pins critical;
    "login.init-pin-as-user" Token init_pin_as_user, "5.5.8 C_InitPIN", "only the SO sets the user's PIN anew" => pins critical;
    "login.set-pin" Token set_pin, "5.5.9 C_SetPIN", "the PIN is set (to itself), and is then the PIN" => pins;
    "login.set-pin-wrong" Token set_pin_wrong, "5.5.9 C_SetPIN", "a wrong old PIN is CKR_PIN_INCORRECT" => pins critical;
    "login.set-pin-short" Token set_pin_short, "5.5.9 C_SetPIN", "a new PIN that is too short is CKR_PIN_LEN_RANGE" => pins;
    "login.set-pin-long" Token set_pin_long, "5.5.9 C_SetPIN", "a new PIN that is too long is CKR_PIN_LEN_RANGE" => pins;
    "login.set-pin-other" Token set_pin_other, "5.5.9 C_SetPIN", "another PIN is the PIN when it is set, also when the module starts again, and the old one is none; it is set back" => pins high patience(30);
    "login.init-pin-other" Token init_pin_other, "5.5.8 C_InitPIN", "another PIN that the SO sets is the user's, also when the module starts again, and the old one is none; it is set back" => pins high patience(30);
    "login.set-pin-read-only" Token set_pin_read_only, "5.5.9 C_SetPIN", "a read-only session sets no PIN" => pins;
}

/// How many wrong PINs a token may take before it locks the PIN.
const MOST_TRIES: usize = 100;

/// The SO sets the PIN again, whatever came of it.
fn locks(bench: &Bench) -> Verdict {
    let (pin, so_pin) = (bench.pin()?, bench.so_pin()?);
    let verdict = stays_locked(bench, &pin);
    bench.reset(Stage::Token);
    let session = bench.session()?;
    session.login(CKU_SO, &so_pin).ok()?;
    session.feed(F::C_InitPIN, &pin).ok()?;
    session.logout().ok()?;
    session.login(CKU_USER, &pin).ok()?;
    verdict
}

fn stays_locked(bench: &Bench, pin: &[u8]) -> Verdict {
    let session = bench.session()?;
    let mut tries = 0;
    loop {
        let rv = session.login(CKU_USER, WRONG);
        if rv.was(CKR_PIN_LOCKED) {
            break;
        }
        rv.is(CKR_PIN_INCORRECT)?;
        tries += 1;
        ensure(tries < MOST_TRIES, "CKR_PIN_LOCKED at last", format!("{tries} wrong PINs, and no end"))?;
    }
    session.login(CKU_USER, pin).is(CKR_PIN_LOCKED)?;
    bench.reset(Stage::Loaded);
    bench.prepare(Stage::Token)?;
    let flags = bench.token_info(bench.slot()?)?.flags;
    ensure(flags & CKF_USER_PIN_LOCKED != 0, "CKF_USER_PIN_LOCKED", format!("flags {flags:#x}"))?;
    bench.session()?.login(CKU_USER, pin).is(CKR_PIN_LOCKED)
}

fn count_low(bench: &Bench) -> Verdict {
    let session = bench.session()?;
    let pin = bench.pin()?;
    let flag = || Ok(bench.token_info(bench.slot()?)?.flags & CKF_USER_PIN_COUNT_LOW != 0);
    let refused = session.login(CKU_USER, WRONG);
    let after_wrong: Result<bool, crate::check::Stop> = flag();
    session.login(CKU_USER, &pin).ok()?;
    let after_right = flag()?;
    refused.refused()?;
    if !after_wrong? {
        // "may always be set to false if the token ... will not reveal the information" (3.2).
        let expected = "CKF_USER_PIN_COUNT_LOW after a wrong PIN";
        return Err(Stop::graded(Severity::Informational, expected, "not set"));
    }
    ensure(!after_right, "no CKF_USER_PIN_COUNT_LOW after the right PIN", "still set")
}

/// Tries a PIN that cannot be right, and then the right one.
fn impossible(bench: &Bench, pin: &[u8], expected: &[CK_RV]) -> Verdict {
    let session = bench.session()?;
    let right = bench.pin()?;
    let rv = session.login(CKU_USER, pin);
    session.login(CKU_USER, &right).ok()?;
    rv.one_of(expected)
}

fn too_long(bench: &Bench) -> Verdict {
    impossible(bench, &[b'1'; 100_000], &[CKR_PIN_INCORRECT, CKR_PIN_LEN_RANGE])
}

fn empty(bench: &Bench) -> Verdict {
    impossible(bench, b"", &[CKR_PIN_INCORRECT, CKR_PIN_LEN_RANGE, CKR_ARGUMENTS_BAD])
}

fn init_pin_as_user(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let init_pin = |session: &Session<'_>| session.feed(F::C_InitPIN, &pin);
    init_pin(&bench.session()?).is(CKR_USER_NOT_LOGGED_IN)?;
    init_pin(&login(bench)?).is(CKR_USER_NOT_LOGGED_IN)
}

fn set_pin(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    change(&session, &pin, &pin).ok()?;
    session.logout().ok()?;
    session.login(CKU_USER, &pin).ok()
}

fn set_pin_wrong(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = bench.session()?;
    let rv = change(&session, WRONG, &pin);
    session.login(CKU_USER, &pin).ok()?;
    rv.is(CKR_PIN_INCORRECT)
}

/// Tries a new PIN that must be refused, and sets the old one again if it was not.
fn refused_pin(bench: &Bench, new: &[u8]) -> Verdict {
    let pin = bench.pin()?;
    let session = login(bench)?;
    let rv = change(&session, &pin, new);
    if rv.was(CKR_OK) {
        change(&session, new, &pin).ok()?;
    }
    rv.is(CKR_PIN_LEN_RANGE)
}

fn set_pin_short(bench: &Bench) -> Verdict {
    let least = usize::try_from(bench.token_info(bench.slot()?)?.ulMinPinLen).unwrap_or(0);
    if least < 2 {
        return Err(crate::check::Stop::NotOffered);
    }
    refused_pin(bench, &vec![b'1'; least - 1])
}

fn set_pin_long(bench: &Bench) -> Verdict {
    let most = usize::try_from(bench.token_info(bench.slot()?)?.ulMaxPinLen).unwrap_or(usize::MAX);
    if most > 100_000 {
        return Err(crate::check::Stop::NotOffered);
    }
    refused_pin(bench, &vec![b'1'; most + 1])
}

/// What holds of a PIN that was set a moment ago in place of another.
fn is_in_place_of(bench: &Bench, new: &Pin, old: &Pin) -> Verdict {
    bench.reset(Stage::Loaded);
    bench.prepare(Stage::Token)?;
    let session = bench.session()?;
    // The right one last, so that the token counts no wrong try.
    let (by_old, by_new) = (try_pin(&session, old), try_pin(&session, new));
    ensure(!by_old.was(CKR_OK), "CKR_PIN_INCORRECT for the old PIN", "C_Login: CKR_OK with the old PIN")?;
    ensure(by_new.was(CKR_OK), "CKR_OK for the new PIN", format!("{by_new} with the new PIN"))?;
    by_old.is(CKR_PIN_INCORRECT)
}

fn set_pin_other(bench: &Bench) -> Verdict {
    bench.with_another_pin(|pin, other| {
        is_set(change(&login(bench)?, pin, other))?;
        is_in_place_of(bench, other, pin)
    })
}

fn init_pin_other(bench: &Bench) -> Verdict {
    let so_pin = bench.so_pin()?;
    bench.with_another_pin(|pin, other| {
        let session = bench.session()?;
        session.login(CKU_SO, &so_pin).ok()?;
        is_set(session.feed(F::C_InitPIN, other))?;
        session.logout().ok()?;
        is_in_place_of(bench, other, pin)
    })
}

fn set_pin_read_only(bench: &Bench) -> Verdict {
    let pin = bench.pin()?;
    let session = bench.read_only()?;
    change(&session, &pin, &pin).is(CKR_SESSION_READ_ONLY)
}
