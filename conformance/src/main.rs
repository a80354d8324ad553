//! `p11-conformance --module X.so`: checks any PKCS#11 module against the clauses of the standard.
//!
//! It knows only the C interface. A check is a row and a function in `checks/`, a file per chapter of the standard;
//! ordinary use goes through the `cryptoki` crate (`checks/client.rs`), everything that no careful program does
//! through `raw.rs`. The token is left as it was found, with its PINs.

#![allow(non_snake_case, reason = "fields of the standard's structures")]

mod bench;
mod check;
mod checks;
mod marks;
mod raw;
mod report;
mod runner;
mod rv;
mod session;
mod template;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::bench::{Pin, Target};
use crate::check::{Check, all};
use crate::marks::{Effect, Tag};

/// Checks a PKCS#11 module against the clauses of the standard.
///
/// Use a token that you can lose: it makes keys and changes PINs.
///
/// Exit code 0: no findings. 1: findings. 2: the checks could not be made.
#[derive(Parser)]
#[command(name = "p11-conformance", version)]
struct Options {
    /// The module, a shared library
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    module: Option<PathBuf>,
    /// The token's label; without it, the first initialised token
    #[arg(long, value_name = "LABEL")]
    token_label: Option<String>,
    /// A file with the user's PIN; without it, the environment variable P11_CONFORMANCE_PIN
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// A file with the SO's PIN; without it, the environment variable P11_CONFORMANCE_SO_PIN
    #[arg(long, value_name = "FILE")]
    so_pin_file: Option<PathBuf>,
    /// Print the checks and make none
    #[arg(long)]
    list: bool,
    /// Make only this check; may be repeated
    #[arg(long, value_name = "ID")]
    check: Vec<String>,
    /// Make only the checks of this chapter or group of abuse cases (a letter, its word, or `attacks` for all of them); may
    /// be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Make only checks that write nothing to the token and cost no try of a PIN
    #[arg(long)]
    read_only: bool,
    /// Make also the checks that lock a PIN or the token
    #[arg(long, conflicts_with = "read_only")]
    allow_lockout: bool,
    /// Write every result to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds after which a check counts as hanging
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Make the checks that the input names, in this process
    #[arg(long, hide = true)]
    child: bool,
    /// See whether the token can be checked, in this process
    #[arg(long, hide = true)]
    preflight: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(reason) => {
            let _written = writeln!(io::stderr(), "p11-conformance: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let chosen: Vec<&Check> = all().filter(|check| options.chooses(check)).collect();
    if chosen.is_empty() {
        return Err("there is no such check; --list shows them all".to_owned());
    }
    if options.list {
        return list(&chosen).map_err(|error| error.to_string());
    }
    let target = options.target()?;
    if options.child {
        return runner::child(target).map(|()| ExitCode::SUCCESS);
    }
    if options.preflight {
        return runner::preflight_child(target).map(|()| ExitCode::SUCCESS);
    }
    let limit = Duration::from_secs(options.timeout);
    runner::preflight(limit)?;
    let reports = runner::run(&chosen, limit)?;
    if let Some(file) = &options.json {
        report::json(&target.module, &reports, file).map_err(|error| error.to_string())?;
    }
    report::text(&target.module, &reports, &mut io::stdout().lock()).map_err(|error| error.to_string())?;
    let tally = report::Tally::of(&reports);
    Ok(match (tally.failed, tally.passed) {
        (0, 0) => ExitCode::from(2),
        (0, _) => ExitCode::SUCCESS,
        (_, _) => ExitCode::from(1),
    })
}

impl Options {
    fn chooses(&self, check: &Check) -> bool {
        let harmless = check.effect.is_read_only() || !self.read_only;
        let allowed = harmless && (self.allow_lockout || check.effect != Effect::Lockout);
        let all = self.check.is_empty() && self.group.is_empty();
        let named = self.check.iter().any(|id| *id == check.id);
        allowed && (all || named || self.group.iter().any(|group| belongs(check, group)))
    }

    fn target(&self) -> Result<Target, String> {
        Ok(Target {
            module: self.module.clone().unwrap_or_default(),
            token_label: self.token_label.clone(),
            pin: pin(self.pin_file.as_deref(), "P11_CONFORMANCE_PIN")?,
            so_pin: pin(self.so_pin_file.as_deref(), "P11_CONFORMANCE_SO_PIN")?,
        })
    }
}

fn belongs(check: &Check, group: &str) -> bool {
    let tagged =
        check.tag.is_some_and(|tag| group == "attacks" || group == tag.word() || group == tag.letter());
    tagged || group == check.group()
}

fn pin(file: Option<&Path>, variable: &str) -> Result<Option<Pin>, String> {
    match file {
        Some(file) => {
            let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(Some(Pin::new(Pin::new(text).trim_ascii_end().to_vec())))
        }
        None => Ok(std::env::var(variable).ok().map(|pin| Pin::new(pin.into_bytes()))),
    }
}

fn list(chosen: &[&Check]) -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    for check in chosen {
        let (severity, effect) = (check.severity.word(), check.effect.word());
        let tag = check.tag.map_or("-", Tag::letter);
        let Check { id, clause, title, .. } = check;
        writeln!(output, "{id:<44} {tag} {severity:<13} {effect:<15} {clause:<40} {title}")?;
    }
    Ok(ExitCode::SUCCESS)
}
