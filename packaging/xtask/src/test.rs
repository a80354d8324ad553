//! `cargo xtask test`: everything that a landing must pass, in one command, on a bare machine.

use std::time::Instant;

use crate::{
    Outcome, house, packages,
    shell::{Echo, Shell, heading, note},
    workspace,
};

/// What came of the checks and tests so far.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    complaints: Vec<String>,
}

impl Tally {
    /// Counts a check, which may go on when it fails: the reader wants to know all that is wrong.
    fn check(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{error}");
                self.failed += 1;
                self.complaints.push(name.into());
            }
        }
    }

    /// Counts what a test binary says of itself: `test result: ok. 3 passed; 0 failed; …`.
    fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let number_before = |word: &str| -> u64 {
            let words: Vec<&str> = counts.split_whitespace().collect();
            let position = words.iter().position(|each| each.trim_end_matches(';') == word);
            position
                .and_then(|place| words.get(place.checked_sub(1)?))
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        self.passed += number_before("passed");
        self.failed += number_before("failed");
    }
}

/// Runs every check and test. The last line says how many passed and failed.
///
/// # Errors
/// Something failed, or what the tests need could not be installed.
pub fn run() -> Outcome {
    let begun = Instant::now();
    packages::install(&[packages::DEMO, packages::SOFTHSM, packages::TEST])?;
    let shell = Shell::new(Echo::Commands);
    install_cargo_deny(&shell)?;
    let mut tally = Tally::default();

    heading("Form");
    tally.check("rustfmt", cargo(&shell, &["fmt", "--all", "--check"]));
    tally.check("clippy", clippy(&shell));
    heading("House rules");
    for (name, check) in house::CHECKS {
        tally.check(name, check());
        note(name);
    }
    heading("Licences, bans and sources of dependencies");
    tally.check("cargo-deny", deny(&shell));
    heading("Tests");
    let before = tally.failed;
    let tests = run_tests(&shell, &mut tally);
    if tally.failed > before {
        tally.complaints.push("tests".into());
    } else {
        // One check more: they compiled, and no test binary died before it could count.
        tally.check("tests", tests);
    }

    println!("\n{:.0} minutes", begun.elapsed().as_secs_f32() / 60.0);
    if !tally.complaints.is_empty() {
        println!("failed: {}", tally.complaints.join(", "));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 { Ok(()) } else { Err("not everything passed".into()) }
}

fn cargo(shell: &Shell, words: &[&str]) -> Outcome {
    let cargo = workspace::cargo();
    shell.stream(&[&[cargo.to_str().unwrap_or("cargo")], words].concat(), |_| ())
}

fn clippy(shell: &Shell) -> Outcome {
    // The bench hides behind a feature, so that nobody else builds it; here it is looked at too.
    let words = ["clippy", "--workspace", "--all-targets", "--features", "xtask/bench", "--locked"];
    cargo(shell, &[&words[..], &["--", "-D", "warnings"]].concat())
}

fn deny(shell: &Shell) -> Outcome {
    // No advisories: their database cannot be reached from where CI runs.
    cargo(
        shell,
        &["deny", "--locked", "--config", "packaging/deny.toml", "check", "licenses", "bans", "sources"],
    )
}

/// Builds cargo-deny without optimisation: it runs for a second, and is built in two minutes instead of seven.
fn install_cargo_deny(shell: &Shell) -> Outcome {
    let name = workspace::cargo();
    if Shell::new(Echo::Nothing).run(&[name.to_str().unwrap_or("cargo"), "deny", "--version"]).is_ok() {
        return Ok(());
    }
    heading("Installing cargo-deny");
    cargo(shell, &["install", "--locked", "--debug", "--version", "0.20.2", "cargo-deny"])
}

fn run_tests(shell: &Shell, tally: &mut Tally) -> Outcome {
    let build = ["test", "--workspace", "--locked", "--no-run", "--quiet"];
    cargo(shell, &build)?;
    cargo(shell, &["build", "--workspace", "--locked", "--quiet"])?;
    let artefacts = workspace::target().join("debug");
    let shell = shell.with(workspace::ARTEFACTS, &artefacts.display().to_string());
    let name = workspace::cargo();
    let words = ["test", "--workspace", "--locked", "--no-fail-fast"];
    shell.stream(&[&[name.to_str().unwrap_or("cargo")], &words[..]].concat(), |line| tally.read(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_cargo_test_prints() {
        let mut tally = Tally::default();
        tally.read(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.read("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.read("test a::b ... ok");
        assert_eq!((tally.passed, tally.failed), (15, 2));
    }
}
