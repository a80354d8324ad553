//! Certificates that must not be accepted: the client's by the server, the server's by the module. A module reads its
//! configuration as the process begins, so each is tried in a process of its own with another environment variable
//! (`--bad-client`, `--bad-server`).

use std::time::{Duration, Instant};

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Slots, Target};
use crate::check::{Stop, Verdict, each, ensure, table};
use crate::marks::Severity;
use crate::raw::{Arg, Function as F};
use crate::runner::again::run_again;
use crate::runner::process::tell;
use crate::rv;

table! {
    all network critical alone writes_nothing;
    "network.bad-client" Token bad_client, "5.6.6 C_OpenSession", "a client whose certificate is expired, revoked or by another authority gets no session" => patience(300);
    "network.bad-server" Token bad_server, "5.6.8 C_Login", "a server whose certificate is not the right one gets no session, and no PIN" => patience(300);
}

/// What a process saw that was configured otherwise.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Probe {
    /// Each call that was made, its `CK_RV`, and how long it took.
    steps: Vec<(String, u64, Duration)>,
}

impl Probe {
    /// Goes as far as the module lets it: to a session, but never to `C_Login`.
    ///
    /// # Errors
    /// A sentence, when the module cannot be loaded or the parent does not listen.
    pub fn make(target: Target) -> Result<(), String> {
        let bench = Bench::new(Target { calls: None, socket: None, ..target })?;
        let mut probe = Self::default();
        probe.walk(&bench);
        tell(&probe)?;
        let _finalized = bench.module.call(F::C_Finalize, &[Arg::NULL]);
        Ok(())
    }

    fn walk(&mut self, bench: &Bench) {
        let arguments = bench.initialize_args(CKF_OS_LOCKING_OK, 0);
        if self.step(bench, F::C_Initialize, &[Arg::of(&arguments)]) != CKR_OK {
            return;
        }
        let since = Instant::now();
        let slots = bench.slots(Slots::All).unwrap_or_default();
        self.steps.push((F::C_GetSlotList.name().to_owned(), CKR_OK, since.elapsed()));
        for slot in slots {
            let mut info = CK_TOKEN_INFO::default();
            self.step(bench, F::C_GetTokenInfo, &[Arg::number(slot), Arg::of_mut(&mut info)]);
            let mut handle: CK_SESSION_HANDLE = 0;
            let flags = Arg::number(CKF_SERIAL_SESSION);
            let arguments = [Arg::number(slot), flags, Arg::NULL, Arg::NULL, Arg::of_mut(&mut handle)];
            self.step(bench, F::C_OpenSession, &arguments);
        }
    }

    fn step(&mut self, bench: &Bench, function: F, arguments: &[Arg<'_>]) -> CK_RV {
        let since = Instant::now();
        let code = bench.module.call(function, arguments).code;
        self.steps.push((function.name().to_owned(), code, since.elapsed()));
        code
    }

    /// Whether the token was away, and the application was told so in time.
    fn judge(&self, limit: Duration) -> Verdict {
        const AWAY: &[CK_RV] = &[
            CKR_TOKEN_NOT_PRESENT,
            CKR_TOKEN_NOT_RECOGNIZED,
            CKR_DEVICE_ERROR,
            CKR_DEVICE_REMOVED,
            CKR_FUNCTION_FAILED,
            CKR_SLOT_ID_INVALID,
        ];
        for (function, code, took) in &self.steps {
            let seen = format!("{function}: {} after {:.1} s", rv::name(*code), took.as_secs_f32());
            ensure(*took <= limit, format!("an end within {} s", limit.as_secs()), seen.as_str())
                .map_err(|stop| regraded(stop, Severity::High))?;
            let is_fine = match function.as_str() {
                "C_OpenSession" if *code == CKR_OK => {
                    return Err(Stop::fail("no session", seen));
                }
                "C_Initialize" => [CKR_OK, CKR_GENERAL_ERROR].contains(code) || AWAY.contains(code),
                // What is known of a token may be told from memory.
                _ => *code == CKR_OK || AWAY.contains(code),
            };
            let expected = "a code that says that the token is not there";
            ensure(is_fine, expected, seen).map_err(|stop| regraded(stop, Severity::Low))?;
        }
        Ok(())
    }
}

fn regraded(stop: Stop, severity: Severity) -> Stop {
    match stop {
        Stop::Fail { expected, seen, .. } => Stop::graded(severity, expected, seen),
        Stop::Skipped(_) | Stop::NotOffered => stop,
    }
}

fn bad_client(bench: &Bench) -> Verdict {
    try_each(bench, &bench.target.bad_clients, "--bad-client")
}

fn bad_server(bench: &Bench) -> Verdict {
    try_each(bench, &bench.target.bad_servers, "--bad-server")
}

/// Tries each setting, once it is known that the module works without it.
fn try_each(bench: &Bench, settings: &[(String, String)], option: &str) -> Verdict {
    if settings.is_empty() {
        return Err(Stop::Skipped(format!("no such configuration was given ({option})")));
    }
    let desk = bench.desk()?;
    desk.heal()?;
    bench.read_only()?;
    each(
        settings,
        |(name, value)| format!("{name}={value}"),
        |(name, value)| {
            // A few calls, each of which may take that long.
            let probe: Probe = run_again(&["--probe"], Some((name, value)), desk.limit * 4)?;
            probe.judge(desk.limit)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_for_a_stranger_is_found() {
        let probe = |steps: &[(F, CK_RV)]| Probe {
            steps: steps.iter().map(|(f, code)| (f.name().to_owned(), *code, Duration::ZERO)).collect(),
        };
        let limit = Duration::from_secs(1);
        assert_eq!(probe(&[(F::C_Initialize, CKR_GENERAL_ERROR)]).judge(limit), Ok(()));
        let away = [(F::C_Initialize, CKR_OK), (F::C_OpenSession, CKR_TOKEN_NOT_PRESENT)];
        assert_eq!(probe(&away).judge(limit), Ok(()));
        for wrong in [(F::C_OpenSession, CKR_OK), (F::C_OpenSession, CKR_PIN_INCORRECT)] {
            assert!(matches!(probe(&[wrong]).judge(limit), Err(Stop::Fail { .. })), "{wrong:?}");
        }
        let mut slow = probe(&away);
        slow.steps.iter_mut().for_each(|(_, _, took)| *took = limit * 2);
        assert!(matches!(slow.judge(limit), Err(Stop::Fail { .. })));
    }
}
