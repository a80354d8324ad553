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
mod mechanisms;
mod options;
mod oracle;
mod progress;
mod raw;
mod report;
mod runner;
mod rv;
mod seed;
mod session;
mod signature;
mod survey;
mod template;
mod trace;
mod vectors;
mod witness;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::check::{Check, all};
use crate::marks::Tag;
use crate::options::Options;
use crate::runner::Runner;

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
        return runner::child::make_checks(target).map(|()| ExitCode::SUCCESS);
    }
    if options.preflight {
        return runner::child::preflight(target).map(|()| ExitCode::SUCCESS);
    }
    if options.sweep {
        return runner::child::sweep(target).map(|()| ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let runner = Runner {
        limit: Duration::from_secs(options.timeout),
        jobs: options.jobs,
        seed: target.seed,
        folder: folder.path().to_owned(),
    };
    let _survey = runner.preflight()?;
    let results = runner.run(&chosen)?;
    let reports = &results.reports;
    if let Some(file) = &options.json {
        report::json(&target.module, &results, file).map_err(|error| error.to_string())?;
    }
    report::text(&target.module, reports, &mut io::stdout().lock()).map_err(|error| error.to_string())?;
    let tally = report::Tally::of(reports);
    Ok(match (tally.failed, tally.passed) {
        (0, 0) => ExitCode::from(2),
        (0, _) => ExitCode::SUCCESS,
        (_, _) => ExitCode::from(1),
    })
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
