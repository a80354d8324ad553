//! The suite catches every fault: SoftHSM2 or NSS behind the mutant (`mutant/`), which misbehaves in one way at a time.
//!
//! The faults of a network are `packaging/xtask/tests/network.rs`'s, which has a server.
//! Each row of the mutant's table names the checks that must fail, and the same checks pass on the real module itself.
//! Needs both modules and certutil (`cargo xtask test` installs them).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use strongroom_mutant::faults::{self, Behind, Fault};

const PIN: &str = "1234-user";
const SO_PIN: &str = "1234-officer";
const LABEL: &str = "mutants";

/// SoftHSM 2.6.1 is a module of 2.40 and has no interfaces. The mutant makes one of its function list.
const ONLY_BEHIND_THE_MUTANT: &str = "general.interface-";

/// The faults that end the process or keep it waiting. Any other that did would be caught for a mistake in the mutant.
const VIOLENT: &[&str] = &[
    "crash-on-null",
    "event-blocks",
    "event-sleeps-on",
    "finalize-crashes",
    "find-huge-count-hangs",
    "key-destroyed-crash",
    "misaligned-crash",
    "refusal-keeps-lock",
    "set-pin-crashes",
];

/// What a run says that could not clear the token.
const LEFT: &str = "left on the token, which C_DestroyObject does not take away";

/// The real module.
fn real(behind: Behind) -> PathBuf {
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let name = match behind {
        Behind::SoftHsm | Behind::Newer => "softhsm/libsofthsm2.so",
        Behind::Nss => "libsoftokn3.so",
        Behind::Network => panic!("packaging/xtask/tests/network.rs has those"),
    };
    let folders = [triplet.as_str(), "/usr/lib64", "/usr/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed (packages softhsm2, libnss3)"))
}

/// Cargo puts the mutant beside the test that depends on it.
fn mutant() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let module = folder.join("libstrongroom_mutant.so");
    assert!(module.is_file(), "{} was not built", module.display());
    module
}

/// A folder with the token of a real module, which is copied for each mutant.
struct Tokens {
    folder: tempfile::TempDir,
    behind: Behind,
}

impl Tokens {
    fn new(behind: Behind) -> Self {
        match behind {
            Behind::Nss => Self::nss(),
            Behind::SoftHsm | Behind::Newer | Behind::Network => Self::softhsm(behind),
        }
    }

    /// A database with a PIN.
    fn nss() -> Self {
        let tokens = Self::empty(Behind::Nss);
        let pin = tokens.folder.path().join("pin");
        std::fs::write(&pin, PIN).unwrap();
        let run = Command::new("certutil")
            .args(["-N", "-d", &format!("sql:{}", tokens.place().display()), "-f", pin.to_str().unwrap()])
            .output()
            .expect("certutil is installed (package libnss3-tools)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        tokens
    }

    /// One token with both PINs.
    fn softhsm(behind: Behind) -> Self {
        let tokens = Self::empty(behind);
        let run = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", tokens.settings())
            .output()
            .expect("softhsm2-util is installed (package softhsm2)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        tokens
    }

    fn empty(behind: Behind) -> Self {
        let tokens = Self { folder: tempfile::tempdir().unwrap(), behind };
        std::fs::create_dir(tokens.place()).unwrap();
        let settings = format!(
            "directories.tokendir = {}\nlog.level = ERROR\nlibrary.reset_on_fork = true\n",
            tokens.place().display()
        );
        std::fs::write(tokens.settings(), settings).unwrap();
        tokens
    }

    /// Where the files of the tokens are.
    fn place(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    /// The folder of the one token.
    fn token(&self) -> PathBuf {
        let folders = std::fs::read_dir(self.place()).unwrap().map(|entry| entry.unwrap().path());
        folders.into_iter().next().unwrap()
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    fn copy(&self) -> Self {
        let copy = Self::empty(self.behind);
        copy_files(&self.place(), &copy.place());
        copy
    }

    /// What the suite is told of the token.
    fn options(&self) -> Vec<String> {
        let place = self.place();
        let options: &[&str] = match self.behind {
            Behind::SoftHsm | Behind::Newer | Behind::Network => &["--token-label", LABEL],
            Behind::Nss => &[
                "--token-label",
                "NSS Certificate DB",
                "--init-string",
                &format!(
                    "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=",
                    place.display()
                ),
            ],
        };
        options.iter().map(|option| (*option).to_owned()).collect()
    }

    /// Makes checks, and gives what came of each. A fault may spoil a check more than once.
    fn check(&self, module: &Path, fault: Option<&str>, checks: &[&str]) -> Result<Outcomes, String> {
        let json = self.folder.path().join("report.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_p11-conformance"));
        command
            .args(["--module", module.to_str().unwrap(), "--timeout", "8"])
            .args(self.options())
            .args(["--allow-lockout", "--json", json.to_str().unwrap()])
            .args(checks.iter().flat_map(|check| ["--check", check]))
            .env("P11_CONFORMANCE_PIN", PIN)
            .env("SOFTHSM2_CONF", self.settings())
            .env("MUTANT_MODULE", real(self.behind));
        match self.behind {
            Behind::SoftHsm | Behind::Newer | Behind::Network => {
                command.env("P11_CONFORMANCE_SO_PIN", SO_PIN)
            }
            Behind::Nss => command.env_remove("P11_CONFORMANCE_SO_PIN"),
        };
        match self.behind {
            Behind::Newer => command.env("MUTANT_NEWER", "1"),
            Behind::SoftHsm | Behind::Nss | Behind::Network => command.env_remove("MUTANT_NEWER"),
        };
        match fault {
            Some(fault) => command.env("MUTANT_FAULT", fault),
            None => command.env_remove("MUTANT_FAULT"),
        };
        let run = command.output().unwrap();
        let error = String::from_utf8_lossy(&run.stderr).into_owned();
        // A module that destroys nothing leaves objects, which makes the run incomplete.
        let is_left = run.status.code() == Some(2) && error.contains(LEFT);
        if !is_left && !matches!(run.status.code(), Some(0 | 1)) {
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

/// Copies a folder with the folders in it.
fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if from.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_files(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// By the check's id: outcome and what was seen.
type Outcomes = BTreeMap<String, Vec<(String, String)>>;

fn comes_to(outcomes: &Outcomes, check: &str, expected: &str) -> bool {
    outcomes.get(check).is_some_and(|seen| seen.iter().any(|(outcome, _)| outcome == expected))
}

/// Every check that must fail for some fault in front of this module.
fn killers(behind: Behind) -> Vec<&'static str> {
    let faults = faults::all().filter(|fault| fault.behind == behind);
    let all: BTreeSet<_> = faults.flat_map(|fault| fault.killed_by).copied().collect();
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
    let [softhsm, nss, newer] = [Behind::SoftHsm, Behind::Nss, Behind::Newer].map(Tokens::new);
    let all: Vec<&Fault> = faults::all().filter(|fault| fault.behind != Behind::Network).collect();
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(2, usize::from).min(8);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(fault) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let tokens = match fault.behind {
                        Behind::SoftHsm | Behind::Network => &softhsm,
                        Behind::Nss => &nss,
                        Behind::Newer => &newer,
                    };
                    survivors.lock().unwrap().extend(survivor(tokens, fault));
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{} of {} live:\n{}", survivors.len(), all.len(), survivors.join("\n"));
}

/// What kills a mutant is the fault: the same checks pass on the real module, and behind a mutant without a fault.
fn pass_without_a_fault(module: Behind) {
    let tokens = Tokens::new(module);
    let killers = killers(module);
    let bare = tokens.copy().check(&real(module), None, &killers).unwrap();
    let behind = tokens.copy().check(&mutant(), None, &killers).unwrap();
    for check in killers {
        let expected: &[&str] = match module {
            Behind::SoftHsm if check.starts_with(ONLY_BEHIND_THE_MUTANT) => &["not-offered"],
            Behind::SoftHsm | Behind::Nss | Behind::Network => &["pass"],
            // SoftHSM2 locks no PIN.
            Behind::Newer if check == "login.locks" => &["fail"],
            // What the mutant adds is not there.
            Behind::Newer => &["not-offered", "pass"],
        };
        let right = expected.iter().any(|outcome| comes_to(&bare, check, outcome));
        assert!(right, "{check} on {module:?}: {:?}", bare.get(check));
        assert!(comes_to(&behind, check, "pass"), "{check} behind the mutant: {:?}", behind.get(check));
    }
}

#[test]
fn the_checks_that_kill_on_softhsm_pass_without_a_fault() {
    pass_without_a_fault(Behind::SoftHsm);
}

#[test]
fn the_checks_that_kill_on_nss_pass_without_a_fault() {
    pass_without_a_fault(Behind::Nss);
}

/// SoftHSM2 does not offer what the mutant adds.
#[test]
fn the_checks_that_kill_what_the_mutant_adds_pass_without_a_fault() {
    pass_without_a_fault(Behind::Newer);
}

#[test]
fn a_hang_is_one_finding_and_the_next_check_is_made() {
    let tokens = Tokens::new(Behind::SoftHsm);
    let hang = faults::all().find(|fault| fault.name == "find-huge-count-hangs").unwrap();
    let checks = [hang.killed_by, &["threads.own-sessions"]].concat();
    let outcomes = tokens.check(&mutant(), Some(hang.name), &checks).unwrap();
    let hangs = |check: &&&str| {
        outcomes[**check].iter().any(|(_, seen)| seen.starts_with("no answer within 8 s: C_"))
    };
    assert_eq!(hang.killed_by.iter().filter(hangs).count(), hang.killed_by.len(), "{outcomes:?}");
    assert!(comes_to(&outcomes, "threads.own-sessions", "pass"), "{outcomes:?}");
}

/// The process is gone in which the old PIN was to be set back.
#[test]
fn a_check_that_dies_with_another_pin_set_leaves_the_old_one() {
    let tokens = Tokens::new(Behind::SoftHsm);
    let outcomes = tokens.check(&mutant(), Some("set-pin-crashes"), &["login.set-pin-other"]).unwrap();
    assert!(comes_to(&outcomes, "login.set-pin-other", "fail"), "{outcomes:?}");
    let outcomes = tokens.check(&mutant(), None, &["login.right"]).unwrap();
    assert!(comes_to(&outcomes, "login.right", "pass"), "{outcomes:?}");
}

/// What `--read-only` promises holds of a module that lets a read-only session write.
#[test]
fn a_read_only_run_leaves_nothing_on_a_token_that_lets_it() {
    let tokens = Tokens::new(Behind::SoftHsm);
    let before = std::fs::read_dir(tokens.token()).unwrap().count();
    let run = |read_only: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
            .args(["--module", mutant().to_str().unwrap(), "--keep-objects"])
            .args(tokens.options())
            .args(["--group", "functions"])
            .args(read_only)
            .env("P11_CONFORMANCE_PIN", PIN)
            .env_remove("P11_CONFORMANCE_SO_PIN")
            .env("SOFTHSM2_CONF", tokens.settings())
            .env("MUTANT_MODULE", real(Behind::SoftHsm))
            .env("MUTANT_FAULT", "read-only-session-is-read-write")
            .output()
            .unwrap()
    };
    let kept = run(&["--read-only"]);
    let error = String::from_utf8_lossy(&kept.stderr);
    assert!(matches!(kept.status.code(), Some(0 | 1)), "{error}");
    assert_eq!(std::fs::read_dir(tokens.token()).unwrap().count(), before);
    assert_eq!(run(&[]).status.code(), Some(1));
    assert!(std::fs::read_dir(tokens.token()).unwrap().count() > before, "the fault lets sessions write");
}

/// What C_DestroyObject says is gone and is not makes a run incomplete, in which every other check was made.
#[test]
fn what_stays_on_the_token_is_named() {
    let tokens = Tokens::new(Behind::SoftHsm);
    let run = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["--module", mutant().to_str().unwrap(), "--check", "random.exact"])
        .args(tokens.options())
        .env("P11_CONFORMANCE_PIN", PIN)
        .env_remove("P11_CONFORMANCE_SO_PIN")
        .env("SOFTHSM2_CONF", tokens.settings())
        .env("MUTANT_MODULE", real(Behind::SoftHsm))
        .env("MUTANT_FAULT", "destroy-does-nothing")
        .output()
        .unwrap();
    let (text, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(2), "{text}{error}");
    let named = format!("1 object is {LEFT}: data object \"p11-conformance: to be destroyed\"");
    assert!(error.contains(&named) && text.contains("1 passed, 0 failed"), "{text}{error}");
}

#[test]
fn many_checks_are_shown_to_be_able_to_fail() {
    let count: usize =
        [Behind::SoftHsm, Behind::Nss, Behind::Newer].map(|behind| killers(behind).len()).iter().sum();
    assert!(count >= 500, "only {count} checks");
}

#[test]
fn a_mutant_that_cannot_work_says_why() {
    let tokens = Tokens::new(Behind::SoftHsm);
    let error = tokens.check(&mutant(), Some("no-such-fault"), &["random.exact"]).unwrap_err();
    assert!(error.contains("MUTANT_FAULT=no-such-fault: there is no such fault"), "{error}");
}
