//! The child's side: the process that loads the module, makes checks and may die of them.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, FirstLook, Stage, Standing, Target, reason};
use crate::check::{Check, Outcome, by_id};
use crate::marks::Severity;
use crate::observations::Observation;
use crate::performance;
use crate::proxy::desk::Desk;
use crate::runner::process::tell;
use crate::trace::{Answer, Trace};

/// How much the process may grow in one check, in MiB: no check asks for more than one.
const GROWTH: u64 = 512;

/// What a child has to say of a check.
#[derive(Serialize, Deserialize)]
pub struct Line {
    /// The check.
    pub id: String,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Its calls, if it failed.
    pub trace: Option<Trace>,
    /// What functions answered that they had not answered in this child before.
    pub answers: Vec<Answer>,
    /// How the token stands.
    pub standing: Standing,
    /// What was measured beside it.
    pub observations: Vec<Observation>,
}

/// What a child that makes checks says.
#[derive(Serialize, Deserialize)]
pub enum Said {
    /// Whether the module is loaded: what comes after it is the fault of a check.
    Loaded(Result<(), String>),
    /// What came of a check.
    Made(Box<Line>),
    /// What is wrong with the suite itself. Nothing comes after it.
    Fault(String),
}

/// Makes the checks that the input names.
///
/// # Errors
/// A sentence, when the module cannot be loaded.
pub fn make_checks(target: Target) -> Result<(), String> {
    limit_memory(target.memory);
    let secrets = target.secrets();
    let loaded = Bench::new(target);
    tell(&Said::Loaded(loaded.as_ref().map(|_| ()).map_err(String::clone)))?;
    let bench = loaded?;
    let names: Vec<String> = io::stdin().lines().map_while(Result::ok).collect();
    for name in names {
        let Some(check) = by_id(&name) else { continue };
        let outcome = match make(&bench, check) {
            Ok(outcome) => outcome.hiding(&secrets),
            Err(fault) => {
                bench.reset(Stage::Loaded);
                return tell(&Said::Fault(fault));
            }
        };
        let trace = matches!(outcome, Outcome::Fail { .. }).then(|| bench.module.recorder().trace());
        bench.conclude();
        let answers = bench.module.recorder().take_answers();
        let observations = bench.take_observations(&name);
        let standing = bench.standing();
        tell(&Said::Made(Box::new(Line { id: name, outcome, trace, answers, standing, observations })))?;
    }
    bench.reset(Stage::Loaded);
    Ok(())
}

/// Makes a check.
///
/// # Errors
/// A sentence, when it does what its mark does not say.
fn make(bench: &Bench, check: &Check) -> Result<Outcome, String> {
    let ready = bench.prepare(check.stage);
    bench.begin(check);
    let before = start_measuring();
    bench.module.gate().open(check);
    let outcome = Outcome::of(check, ready.and_then(|()| check.make(bench)));
    if let Some(fault) = bench.module.gate().close() {
        return Err(fault);
    }
    // A call that was not made says nothing of the module.
    if let Some(why) = bench.module.ledger().take_withheld() {
        return Ok(Outcome::Skipped { why });
    }
    let grown = peak().saturating_sub(before);
    if grown < GROWTH || matches!(outcome, Outcome::Fail { .. }) {
        return Ok(outcome);
    }
    let expected = format!("less than {GROWTH} MiB of memory for one check");
    let seen = format!("the process grew by {grown} MiB");
    Ok(Outcome::Fail { severity: Severity::High, expected, seen })
}

/// Sees whether the token can be checked. A module that cannot be loaded is an answer, too.
///
/// # Errors
/// A sentence, when the parent does not listen.
pub fn preflight(target: Target) -> Result<(), String> {
    limit_memory(target.memory);
    let secrets = target.secrets();
    let bench = Bench::new(target);
    let verdict = bench.as_ref().map_err(String::clone).and_then(|bench| {
        let survey = bench.survey()?;
        let flags = survey.flags;
        tell(&FirstLook::Survey(Box::new(survey)))?;
        bench.preflight(flags)
    });
    tell(&FirstLook::Verdict(verdict.map_err(|why| secrets.hidden(why))))?;
    if let Ok(bench) = bench {
        bench.reset(Stage::Loaded);
    }
    Ok(())
}

/// Sees whether the module still starts and shows the token.
///
/// # Errors
/// A sentence, when the parent does not listen.
pub fn look(target: Target) -> Result<(), String> {
    limit_memory(target.memory);
    let secrets = target.secrets();
    let seen = Bench::new(target).and_then(|bench| {
        // A check that was ended in bad weather could not see to it.
        let _no_network = bench.desk().and_then(Desk::heal);
        bench.prepare(Stage::Token).map_err(reason)
    });
    tell(&seen.map_err(|why| secrets.hidden(why)))
}

/// Destroys what checks left on the token.
///
/// # Errors
/// A sentence, when the module cannot be loaded or the parent does not listen.
pub fn sweep(target: Target) -> Result<(), String> {
    limit_memory(target.memory);
    let secrets = target.secrets();
    let bench = Bench::new(target)?;
    let _no_network = bench.desk().and_then(Desk::heal);
    tell(&bench.leave().map_err(|stop| secrets.hidden(reason(stop))))?;
    bench.reset(Stage::Loaded);
    Ok(())
}

/// Ends this process with its parent.
///
/// # Errors
/// A sentence, when the system refuses.
pub fn follow_parent() -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())
}

/// Measures how fast the module is.
///
/// # Errors
/// A sentence, when the module cannot be loaded or the parent does not listen.
pub fn measure(target: Target) -> Result<(), String> {
    let bench = Bench::new(target)?;
    bench.module.recorder().pause();
    tell(&performance::measure(&bench).unwrap_or_default())?;
    bench.reset(Stage::Loaded);
    Ok(())
}

/// Bounds the address space, so that a module that asks for more is refused and not the machine's other processes.
fn limit_memory(mebibytes: u64) {
    let hard = getrlimit(Resource::As).maximum;
    let wanted = (of_status("VmSize:") + mebibytes) << 20;
    let current = Some(hard.map_or(wanted, |hard| wanted.min(hard)));
    let _limited = setrlimit(Resource::As, Rlimit { current, maximum: hard });
}

/// Forgets the highest use of memory so far, and says what it is now in MiB.
fn start_measuring() -> u64 {
    // "5 resets the peak" (proc_pid_clear_refs).
    let _reset = fs::write("/proc/self/clear_refs", "5");
    peak()
}

fn peak() -> u64 {
    of_status("VmHWM:")
}

/// A figure of this process in MiB.
fn of_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_measured_from_check_to_check() {
        let grown_by = |mebibytes: usize| {
            let before = start_measuring();
            drop(std::hint::black_box(vec![1_u8; mebibytes << 20]));
            peak() - before
        };
        assert!((40..80).contains(&grown_by(48)));
        assert!(grown_by(1) < 16, "the peak of before is forgotten");
    }
}
