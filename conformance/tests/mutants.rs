//! The suite catches every fault: SoftHSM2 behind the mutant (`mutant/`), which misbehaves in one way at a time.
//!
//! Each row of the mutant's table names the checks that must fail, and the same checks pass on SoftHSM2 itself.
//! Needs SoftHSM2 (`cargo xtask test` installs it).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use strongroom_mutant::faults::{self, Fault};

const PIN: &str = "1234-user";
const SO_PIN: &str = "1234-officer";
const LABEL: &str = "mutants";

/// SoftHSM 2.6.1 is a module of 2.40 and has no interfaces. The mutant makes one of its function list.
const ONLY_BEHIND_THE_MUTANT: &str = "general.interface-";

/// The faults that end the process or keep it waiting. Any other that did would be caught for a mistake in the mutant.
const VIOLENT: &[&str] = &[
    "crash-on-null",
    "event-blocks",
    "finalize-crashes",
    "find-huge-count-hangs",
    "key-destroyed-crash",
    "misaligned-crash",
    "refusal-keeps-lock",
];

fn softhsm() -> &'static Path {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    let found = places.map(Path::new).into_iter().find(|path| path.exists());
    found.expect("SoftHSM2 is installed (package softhsm2)")
}

/// Cargo puts the mutant beside the test that depends on it.
fn mutant() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let module = folder.join("libstrongroom_mutant.so");
    assert!(module.is_file(), "{} was not built", module.display());
    module
}

/// A folder of tokens that is copied for each mutant.
struct Tokens {
    folder: tempfile::TempDir,
}

impl Tokens {
    /// One token with both PINs.
    fn new() -> Self {
        let tokens = Self::empty();
        let run = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", tokens.settings())
            .output()
            .expect("softhsm2-util is installed (package softhsm2)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        tokens
    }

    fn empty() -> Self {
        let tokens = Self { folder: tempfile::tempdir().unwrap() };
        let place = tokens.folder.path().join("tokens");
        std::fs::create_dir(&place).unwrap();
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", place.display());
        std::fs::write(tokens.settings(), settings).unwrap();
        tokens
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    fn copy(&self) -> Self {
        let copy = Self::empty();
        for token in std::fs::read_dir(self.folder.path().join("tokens")).unwrap() {
            let token = token.unwrap();
            let place = copy.folder.path().join("tokens").join(token.file_name());
            std::fs::create_dir(&place).unwrap();
            for file in std::fs::read_dir(token.path()).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), place.join(file.file_name())).unwrap();
            }
        }
        copy
    }

    /// Makes checks, and gives what came of each. A fault may spoil a check more than once.
    fn check(&self, module: &Path, fault: Option<&str>, checks: &[&str]) -> Result<Outcomes, String> {
        let json = self.folder.path().join("report.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_p11-conformance"));
        command
            .args(["--module", module.to_str().unwrap(), "--token-label", LABEL, "--timeout", "8"])
            .args(["--json", json.to_str().unwrap()])
            .args(checks.iter().flat_map(|check| ["--check", check]))
            .env("P11_CONFORMANCE_PIN", PIN)
            .env("P11_CONFORMANCE_SO_PIN", SO_PIN)
            .env("SOFTHSM2_CONF", self.settings())
            .env("MUTANT_MODULE", softhsm());
        match fault {
            Some(fault) => command.env("MUTANT_FAULT", fault),
            None => command.env_remove("MUTANT_FAULT"),
        };
        let run = command.output().unwrap();
        let error = String::from_utf8_lossy(&run.stderr).into_owned();
        if !matches!(run.status.code(), Some(0 | 1)) {
            return Err(format!("{}: {error}", run.status));
        }
        let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        let mut outcomes = Outcomes::new();
        for check in report["checks"].as_array().unwrap() {
            let id = check["id"].as_str().unwrap().to_owned();
            let seen = check["seen"].as_str().or(check["why"].as_str()).unwrap_or_default();
            let outcome = (check["outcome"].as_str().unwrap().to_owned(), seen.to_owned());
            outcomes.entry(id).or_default().push(outcome);
        }
        Ok(outcomes)
    }
}

/// By the check's id: outcome and what was seen.
type Outcomes = BTreeMap<String, Vec<(String, String)>>;

fn comes_to(outcomes: &Outcomes, check: &str, expected: &str) -> bool {
    outcomes.get(check).is_some_and(|seen| seen.iter().any(|(outcome, _)| outcome == expected))
}

/// Every check that must fail for some fault.
fn killers() -> Vec<&'static str> {
    let all: BTreeSet<_> = faults::all().flat_map(|fault| fault.killed_by).copied().collect();
    all.into_iter().collect()
}

/// What is left of a fault that not every check saw.
fn survivor(tokens: &Tokens, fault: &Fault) -> Option<String> {
    let outcomes = match tokens.copy().check(&mutant(), Some(fault.name), fault.killed_by) {
        Ok(outcomes) => outcomes,
        Err(error) => return Some(format!("{}: {error}", fault.name)),
    };
    let blind: Vec<_> = fault.killed_by.iter().filter(|check| !comes_to(&outcomes, check, "fail")).collect();
    let seen = || outcomes.values().flatten().map(|(_, seen)| seen);
    let violent = seen().any(|seen| seen.starts_with("SIG") || seen.starts_with("no answer"));
    let expected = VIOLENT.contains(&fault.name);
    (!blind.is_empty() || violent != expected)
        .then(|| format!("{} ({}): not seen by {blind:?}: {outcomes:?}", fault.name, fault.does))
}

#[test]
fn every_mutant_is_killed() {
    let tokens = Tokens::new();
    let all: Vec<&Fault> = faults::all().collect();
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(2, usize::from).min(8);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(fault) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    survivors.lock().unwrap().extend(survivor(&tokens, fault));
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{} of {} live:\n{}", survivors.len(), all.len(), survivors.join("\n"));
}

/// What kills a mutant is the fault: the same checks pass on SoftHSM2, and behind a mutant without a fault.
#[test]
fn the_checks_that_kill_pass_without_a_fault() {
    let tokens = Tokens::new();
    let killers = killers();
    assert!(killers.len() >= 400, "only {} checks are shown to be able to fail", killers.len());
    let bare = tokens.copy().check(softhsm(), None, &killers).unwrap();
    let behind = tokens.copy().check(&mutant(), None, &killers).unwrap();
    for check in killers {
        let expected = if check.starts_with(ONLY_BEHIND_THE_MUTANT) { "not-offered" } else { "pass" };
        assert!(comes_to(&bare, check, expected), "{check} on SoftHSM2: {:?}", bare.get(check));
        assert!(comes_to(&behind, check, "pass"), "{check} behind the mutant: {:?}", behind.get(check));
    }
}

#[test]
fn a_mutant_that_cannot_work_says_why() {
    let tokens = Tokens::new();
    let error = tokens.check(&mutant(), Some("no-such-fault"), &["random.exact"]).unwrap_err();
    assert!(error.contains("MUTANT_FAULT=no-such-fault: there is no such fault"), "{error}");
}
