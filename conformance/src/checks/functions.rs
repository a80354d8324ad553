//! Every function of the standard in the states in which it must refuse: before `C_Initialize`, after `C_Finalize`, in
//! a session that is not there, for a slot that does not exist, without the operation that it goes on with; and
//! nowhere with a return value that its section does not list (chapter 5).
//!
//! The calls are built from what the arguments of each function are (`well_formed.rs`).

use cryptoki_sys::*;

use crate::bench::{Bench, Stage};
use crate::check::{Check, Stop, Verdict};
use crate::raw::{Arg, Function as F};
use crate::returns;
use crate::rv::{Rv, none_wrong};
use crate::signature::{self, Kind, takes_a_pin};
use crate::template::UNAVAILABLE;
use crate::well_formed::{self, NOWHERE, Props};

/// A state in which a function must refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeforeInitialize,
    AfterFinalize,
    UnknownSession,
    ClosedSession,
    UnknownSlot,
    NotBegun,
    Listed,
}

const STATES: &[State] = &[
    State::BeforeInitialize,
    State::AfterFinalize,
    State::UnknownSession,
    State::ClosedSession,
    State::UnknownSlot,
    State::NotBegun,
    State::Listed,
];

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::BeforeInitialize => "before-initialize",
            Self::AfterFinalize => "after-finalize",
            Self::UnknownSession => "unknown-session",
            Self::ClosedSession => "closed-session",
            Self::UnknownSlot => "unknown-slot",
            Self::NotBegun => "not-begun",
            Self::Listed => "listed",
        }
    }

    const fn clause(self) -> &'static str {
        match self {
            Self::BeforeInitialize | Self::AfterFinalize => "5.1.1 CKR_CRYPTOKI_NOT_INITIALIZED",
            Self::UnknownSession | Self::ClosedSession => "5.1.2 CKR_SESSION_HANDLE_INVALID",
            Self::UnknownSlot => "5.1.3 CKR_SLOT_ID_INVALID",
            Self::NotBegun => "5.1.6 CKR_OPERATION_NOT_INITIALIZED",
            Self::Listed => "5.1, return values (which says that lists may have gaps)",
        }
    }

    fn title(self, name: &str) -> String {
        match self {
            Self::BeforeInitialize => format!("{name} needs C_Initialize"),
            Self::AfterFinalize => format!("{name} is over with C_Finalize"),
            Self::UnknownSession => format!("{name} refuses a session that never was"),
            Self::ClosedSession => format!("{name} refuses a closed session"),
            Self::UnknownSlot => format!("{name} refuses a slot that does not exist"),
            Self::NotBegun => format!("{name} needs an operation to go on with"),
            Self::Listed => format!("{name} answers nothing that the standard does not list for it"),
        }
    }

    const fn stage(self) -> Stage {
        match self {
            Self::BeforeInitialize | Self::AfterFinalize => Stage::Loaded,
            Self::UnknownSession | Self::ClosedSession | Self::UnknownSlot => Stage::Token,
            Self::NotBegun | Self::Listed => Stage::Public,
        }
    }

    /// What a function answers in it.
    const fn answers(self) -> (&'static str, &'static [CK_RV]) {
        match self {
            Self::BeforeInitialize | Self::AfterFinalize => {
                ("CKR_CRYPTOKI_NOT_INITIALIZED", &[CKR_CRYPTOKI_NOT_INITIALIZED])
            }
            Self::UnknownSession | Self::ClosedSession => {
                ("CKR_SESSION_HANDLE_INVALID", &[CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED])
            }
            Self::UnknownSlot => ("CKR_SLOT_ID_INVALID", &[CKR_SLOT_ID_INVALID]),
            Self::NotBegun => ("CKR_OPERATION_NOT_INITIALIZED", &[CKR_OPERATION_NOT_INITIALIZED]),
            Self::Listed => ("a listed return value", &[]),
        }
    }

    /// Whether a function can be in it.
    fn is_for(self, function: F) -> bool {
        let kinds = signature::of(function);
        match self {
            Self::BeforeInitialize | Self::AfterFinalize => !starts_the_module(function),
            Self::UnknownSession | Self::ClosedSession => kinds.first() == Some(&Kind::Session),
            Self::UnknownSlot => kinds.first() == Some(&Kind::Slot),
            Self::NotBegun => goes_on(function),
            Self::Listed => !starts_the_module(function) && !costs_something(function),
        }
    }
}

const fn starts_the_module(function: F) -> bool {
    matches!(
        function,
        F::C_Initialize | F::C_Finalize | F::C_GetFunctionList | F::C_GetInterfaceList | F::C_GetInterface
    )
}

/// A try of a PIN, a token, or the sessions of others.
fn costs_something(function: F) -> bool {
    takes_a_pin(function) || matches!(function, F::C_CloseAllSessions)
}

/// Whether it goes on with an operation that another function begins.
fn goes_on(function: F) -> bool {
    let name = function.name();
    let works = ["Encrypt", "Decrypt", "Digest", "Sign", "Verify", "FindObjects"];
    let begins = name.ends_with("Init") || function == F::C_DigestKey;
    works.iter().any(|work| name.contains(work)) && !begins
}

/// The checks of this chapter.
pub fn checks() -> Vec<Check> {
    let of_function = |function: &F| {
        let function = *function;
        let states = STATES.iter().filter(move |state| state.is_for(function));
        states.map(move |state| check(function, *state))
    };
    F::ALL.iter().flat_map(of_function).collect()
}

fn check(function: F, state: State) -> Check {
    let name = function.name();
    let id = format!("functions.{name}-{}", state.word());
    let clause = format!("{}; {name}", state.clause());
    let check = Check::case(id, state.stage(), clause, state.title(name), move |bench| {
        if !bench.module.has(function) {
            return Err(Stop::NotOffered);
        }
        meets(bench, function, state)
    });
    let check = match state {
        _ if takes_a_pin(function) => check.pins(),
        // What is called with everything in order does what it is asked.
        State::Listed => check.session_objects(),
        _ => check,
    };
    match state {
        State::Listed => check.informational().operations(),
        State::NotBegun => check.operations(),
        State::BeforeInitialize
        | State::AfterFinalize
        | State::UnknownSession
        | State::ClosedSession
        | State::UnknownSlot => check.sessions(),
    }
}

fn meets(bench: &Bench, function: F, state: State) -> Verdict {
    let answers = match state {
        State::BeforeInitialize => vec![call(bench, function, 1)],
        State::AfterFinalize => {
            let arguments = bench.initialize_args(CKF_OS_LOCKING_OK, 0);
            bench.module.call(F::C_Initialize, &[Arg::of(&arguments)]).ok()?;
            bench.module.call(F::C_Finalize, &[Arg::NULL]).ok()?;
            vec![call(bench, function, 1)]
        }
        State::UnknownSession | State::UnknownSlot => {
            let _other = bench.session()?;
            [NOWHERE, UNAVAILABLE].map(|handle| call(bench, function, handle)).to_vec()
        }
        State::ClosedSession => {
            let _other = bench.session()?;
            let session = bench.session()?;
            session.close().ok()?;
            vec![call(bench, function, session.handle)]
        }
        State::NotBegun => vec![call(bench, function, bench.session()?.handle)],
        State::Listed => return listed(bench, function),
    };
    let (expected, right) = state.answers();
    let is_old = matches!(function, F::C_GetFunctionStatus | F::C_CancelFunction);
    if answers.iter().all(|rv| rv.was(CKR_FUNCTION_NOT_SUPPORTED)) {
        return Err(Stop::NotOffered);
    }
    let is_right = |rv: &Rv| right.contains(&rv.code) || (is_old && rv.was(CKR_FUNCTION_NOT_PARALLEL));
    let wrong: Vec<Rv> = answers.iter().filter(|rv| !is_right(rv)).copied().collect();
    none_wrong(expected, &wrong)
}

/// Calls the function in a session or for a slot that is there, and for one that is not.
fn listed(bench: &Bench, function: F) -> Verdict {
    let takes_slot = signature::of(function).first() == Some(&Kind::Slot);
    let handle = || if takes_slot { bench.slot() } else { bench.session().map(|session| session.handle) };
    let codes = returns::of(function);
    let answers = [call(bench, function, handle()?), call(bench, function, NOWHERE)];
    let is_unlisted = |rv: &&Rv| !codes.contains(&rv.code) && !rv.was(CKR_FUNCTION_NOT_SUPPORTED);
    let unlisted: Vec<String> = answers.iter().filter(is_unlisted).map(Rv::to_string).collect();
    if unlisted.is_empty() {
        return Ok(());
    }
    Err(Stop::fail("a return value that the standard lists for the function", unlisted.join(", ")))
}

/// Calls a function with everything in order but the session or slot, which is this, and what it is about.
fn call(bench: &Bench, function: F, handle: CK_ULONG) -> Rv {
    well_formed::call(bench, function, handle, Props::plain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_its_states() {
        let ids: Vec<String> = checks().iter().map(|check| check.id.to_string()).collect();
        let has = |id: &str| ids.iter().any(|one| one == id);
        for function in F::ALL.iter().filter(|function| !starts_the_module(**function)) {
            assert!(has(&format!("functions.{}-before-initialize", function.name())));
        }
        assert!(
            has("functions.C_VerifySignatureFinal-not-begun") && has("functions.C_InitToken-unknown-slot")
        );
        assert!(!has("functions.C_SignInit-not-begun") && !has("functions.C_Login-listed"));
        assert!(ids.len() > 450, "{}", ids.len());
    }

    #[test]
    fn what_takes_a_pin_is_never_made_read_only() {
        let checks = checks();
        let harmless = |name: &str| {
            let begins = format!("functions.{name}-");
            let mut of_function = checks.iter().filter(|check| check.id.starts_with(&begins));
            of_function.any(|check| check.effect.is_read_only())
        };
        for name in ["C_InitToken", "C_InitPIN", "C_SetPIN", "C_Login", "C_LoginUser"] {
            assert!(!harmless(name), "{name}");
        }
        assert!(harmless("C_Logout"));
    }
}
