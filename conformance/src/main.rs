//! `p11-conformance --module X.so`: checks any PKCS#11 module against the clauses of the standard.
//!
//! It knows only the C interface. A check is a row and a function in `checks/`, a file per chapter of the standard;
//! ordinary use goes through the `cryptoki` crate (`client.rs`), everything that no careful program does
//! through `raw.rs`. The token is left as it was found, with its PINs.

#![allow(non_snake_case, reason = "fields of the standard's structures")]

mod bench;
mod check;
mod checks;
mod client;
mod compare;
mod coverage;
mod files;
mod gate;
mod interrupt;
mod manifest;
mod marks;
mod mechanisms;
mod names;
mod observations;
mod options;
mod oracle;
mod performance;
mod probe;
mod profiles;
mod progress;
mod proxy;
mod raw;
mod report;
mod reproducer;
mod returns;
mod runner;
mod rv;
mod secrets;
mod seed;
mod session;
mod signature;
mod survey;
mod template;
mod trace;
mod tries;
mod vectors;
mod waivers;
mod well_formed;
mod witness;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use clap::Parser;
use cryptoki_sys::{CKF_SO_PIN_LOCKED, CKF_USER_PIN_LOCKED};

use crate::bench::{Swept, Target};
use crate::check::{Check, all};
use crate::checks::lifetimes;
use crate::checks::network::certificates::Probe;
use crate::interrupt::Interrupt;
use crate::manifest::{Manifest, rounded_up};
use crate::marks::Tag;
use crate::options::{Network, Options, Task};
use crate::proxy::{Proxy, desk};
use crate::report::{Document, Row};
use crate::runner::orphans::Orphans;
use crate::runner::{First, Results, Runner};
use crate::survey::Survey;

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
    if let Some(Task::Compare { a, b }) = &options.task {
        return compare(a, b);
    }
    options.refuse_unknown_words()?;
    let chosen: Vec<&Check> = all().filter(|check| options.chooses(check)).collect();
    if chosen.is_empty() {
        let why = "what was chosen is made only with --network or --allow-lockout, or not with --read-only";
        return Err(why.to_owned());
    }
    if options.list {
        return match list(&chosen) {
            // Whoever reads the list has seen enough of it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            listed => listed.map_err(|error| error.to_string()),
        };
    }
    let target = options.target()?;
    if options.is_child() {
        runner::child::follow_parent()?;
    }
    let done = |()| ExitCode::SUCCESS;
    if let Some(question) = options.question {
        return lifetimes::answer(target, question).map(done);
    }
    if options.probe {
        return Probe::make(target).map(done);
    }
    if options.measure {
        return runner::child::measure(target).map(done);
    }
    if let Some(file) = &options.model {
        options.refuse_bad_places()?;
        return probe::show(target, file, &mut io::stdout().lock()).map(done);
    }
    match (options.child, options.preflight, options.look, options.sweep) {
        (true, _, _, _) => runner::child::make_checks(target).map(done),
        (_, true, _, _) => runner::child::preflight(target).map(done),
        (_, _, true, _) => runner::child::look(target).map(done),
        (_, _, _, true) => runner::child::sweep(target).map(done),
        (false, false, false, false) => check(options, &chosen, &target),
    }
}

/// Makes the checks and writes the reports.
fn check(options: &Options, chosen: &[&'static Check], target: &Target) -> Result<ExitCode, String> {
    options.refuse_bad_places()?;
    let waivers = options.waivers.as_deref().map(waivers::read).transpose()?.unwrap_or_default();
    let key = options.sign_with.as_deref().map(manifest::read_key).transpose()?;
    let mut manifest = Manifest::new(&target.module, target.seed, &target.secrets())?;
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    let runner = Runner {
        limit: Duration::from_secs(options.timeout),
        jobs: options.jobs,
        seed: target.seed,
        folder: folder.path().to_owned(),
        secrets: target.secrets(),
        most: Duration::from_secs(options.run_timeout),
        began: Instant::now(),
        interrupt: Interrupt::listen()?,
    };
    let _orphans = Orphans::take_in()?;
    let proxy = options.network.map(|network| start_proxy(options, network, folder.path())).transpose()?;
    let First { survey, verdict, answers, end } = runner.preflight()?;
    let is_behind = proxy.as_ref().map_or(Ok(()), refuse_bypassed);
    let earlier = match verdict.and_then(|earlier| is_behind.map(|()| earlier)) {
        Ok(earlier) => earlier,
        Err(why) => {
            manifest.seconds = rounded_up(runner.began.elapsed(), Duration::from_secs(1));
            let results = Results::of_none(why.clone(), answers);
            let document = Document::new(manifest, survey, &results, Vec::new());
            return match write_reports(options, &document, key.as_ref()) {
                Ok(()) => Err(why),
                Err(error) => Err(format!("{why}; and no report of it could be written: {error}")),
            };
        }
    };
    let mut results = runner.run(chosen, end)?;
    manifest.seconds = rounded_up(runner.began.elapsed(), Duration::from_secs(1));
    let mut rows: Vec<Row> = results.reports.iter().map(|report| Row::of(report, survey.slot)).collect();
    let idle_waivers = waivers::apply(&waivers, &manifest::today(), &mut rows);
    let figures =
        if options.performance && results.incomplete.is_none() { runner.measure() } else { Ok(vec![]) };
    let performance = figures.unwrap_or_else(|reason| {
        results.incomplete = Some(reason);
        Vec::new()
    });
    if results.incomplete.is_none() {
        results.incomplete = options.missing_pin(&survey, &rows);
    }
    let notes = [notes(&survey, earlier, &mut results), idle_waivers].concat();
    let left_out = options.left_out();
    let document =
        Document { performance, notes, left_out, ..Document::new(manifest, survey, &results, rows) };
    // The reports come first: whoever reads the text may be gone, or the disk full that it goes to.
    write_reports(options, &document, key.as_ref())?;
    let told = report::text::write(&document, &mut io::stdout().lock());
    told.map_err(|error| format!("the text of the report cannot be written to standard output: {error}"))?;
    if let Some(why) = document.incomplete {
        return Err(format!("the run is incomplete: {why}"));
    }
    Ok(match (document.tally.failed, document.tally.passed + document.tally.waived) {
        (0, 0) => ExitCode::from(2),
        (0, _) => ExitCode::SUCCESS,
        (_, _) => ExitCode::from(1),
    })
}

/// What a reader has to know of the run beside its findings.
fn notes(survey: &Survey, earlier: Swept, results: &mut Results) -> Vec<String> {
    let mut notes = Vec::new();
    let locked = [("user PIN", CKF_USER_PIN_LOCKED), ("SO PIN", CKF_SO_PIN_LOCKED)];
    for (name, _) in locked.into_iter().filter(|(_, flag)| survey.flags & flag != 0) {
        notes.push(format!("the token says that the {name} is locked"));
    }
    notes.extend(
        earlier.destroyed.iter().map(|what| format!("destroyed what an earlier run had left: {what}")),
    );
    notes.extend(results.unclear.take());
    notes
}

fn start_proxy(options: &Options, network: Network, folder: &Path) -> Result<Proxy, String> {
    let proxy = Proxy::start(network.listen, network.upstream)
        .map_err(|error| format!("--network: nothing can listen on {}: {error}", network.listen))?;
    desk::open(folder, proxy.clone(), options.restart_command.clone())
        .map_err(|error| format!("cannot make a socket in a temporary folder: {error}"))?;
    Ok(proxy)
}

/// A module that does not come by the proxy would pass every check of the network.
fn refuse_bypassed(proxy: &Proxy) -> Result<(), String> {
    match proxy.tally().connections {
        0 => Err(format!(
            "--network: the module made no connection to {}; its configuration has to name this address as its server's",
            proxy.address()
        )),
        _ => Ok(()),
    }
}

fn write_reports(options: &Options, document: &Document, key: Option<&Ed25519KeyPair>) -> Result<(), String> {
    let put = |file: &Option<PathBuf>, text: &dyn Fn() -> Result<Vec<u8>, String>| match file {
        Some(file) => files::write(file, &text()?),
        None => Ok(()),
    };
    put(&options.json, &|| document.json())?;
    put(&options.html, &|| Ok(report::html::text(document).into_bytes()))?;
    put(&options.junit, &|| Ok(report::junit::text(document).into_bytes()))?;
    put(&options.sarif, &|| report::sarif::text(document).map(String::into_bytes))?;
    match &options.manifest {
        Some(file) => manifest::write(document, file, key),
        None => Ok(()),
    }
}

fn compare(a: &Path, b: &Path) -> Result<ExitCode, String> {
    let (first, second) = (Document::read(a)?, Document::read(b)?);
    compare::write(&first, &second, &mut io::stdout().lock()).map_err(|error| error.to_string())?;
    let comparison = compare::compare(&first, &second);
    let is_whole = first.incomplete.is_none() && second.incomplete.is_none();
    Ok(match (comparison.new.len(), comparison.unknown_to_first.len()) {
        (0, _) if !is_whole => ExitCode::from(2),
        (0, 0) => ExitCode::SUCCESS,
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
