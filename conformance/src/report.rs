//! What a person reads, and what a machine reads.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::check::Outcome;
use crate::marks::Severity;
use crate::runner::{Report, Results};
use crate::trace::{Answer, Trace};

/// How many checks came to what.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Not made.
    pub skipped: usize,
    /// About something that the module does not have.
    pub not_offered: usize,
}

impl Tally {
    /// Counts.
    pub fn of(reports: &[Report]) -> Self {
        let mut tally = Self::default();
        for report in reports {
            match report.outcome {
                Outcome::Pass => tally.passed += 1,
                Outcome::Fail { .. } => tally.failed += 1,
                Outcome::Skipped { .. } => tally.skipped += 1,
                Outcome::NotOffered => tally.not_offered += 1,
            }
        }
        tally
    }
}

/// Writes the findings, what was skipped, and the verdict.
///
/// # Errors
/// When the output cannot be written.
pub fn text(module: &Path, reports: &[Report], output: &mut dyn Write) -> io::Result<()> {
    for report in reports {
        if let Outcome::Fail { severity, expected, seen } = &report.outcome {
            let word = severity.word();
            writeln!(output, "FAIL {}  ({}) {word}", report.check.id, report.check.clause)?;
            writeln!(output, "     {}", report.check.title)?;
            writeln!(output, "     expected: {expected}")?;
            writeln!(output, "     seen:     {seen}")?;
        }
    }
    for (why, count) in skipped(reports) {
        let checks = if count == 1 { "check" } else { "checks" };
        writeln!(output, "SKIP {count} {checks}: {why}")?;
    }
    for severity in Severity::ALL.iter().rev() {
        let as_grave = |report: &&Report| matches!(&report.outcome, Outcome::Fail { severity: of, .. } if of == severity);
        let count = reports.iter().filter(as_grave).count();
        if count > 0 {
            writeln!(output, "{count:>4} {:<13} {}", severity.word(), severity.meaning())?;
        }
    }
    let tally = Tally::of(reports);
    let verdict = match (tally.failed, tally.passed) {
        (0, 0) => "nothing was checked",
        (0, _) => "no findings",
        (_, _) => "findings",
    };
    writeln!(
        output,
        "{}: {verdict}: {} passed, {} failed, {} skipped, {} not offered",
        module.display(),
        tally.passed,
        tally.failed,
        tally.skipped,
        tally.not_offered
    )
}

/// How many checks were skipped for each reason, in the order in which the reasons came up.
fn skipped(reports: &[Report]) -> Vec<(&str, usize)> {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for report in reports {
        let Outcome::Skipped { why } = &report.outcome else { continue };
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why, 1)),
        }
    }
    reasons
}

#[derive(Serialize)]
struct Json<'a> {
    module: &'a Path,
    tally: Tally,
    checks: Vec<Row<'a>>,
    answers: &'a BTreeSet<Answer>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    group: &'a str,
    clause: &'a str,
    title: &'a str,
    milliseconds: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a Trace>,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl<'a> From<&'a Report> for Row<'a> {
    fn from(report: &'a Report) -> Self {
        let Report { check, outcome, time, trace } = report;
        Self {
            id: &check.id,
            group: check.group(),
            clause: &check.clause,
            title: &check.title,
            milliseconds: time.as_millis(),
            trace: trace.as_ref(),
            outcome,
        }
    }
}

/// Writes every result as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn json(module: &Path, results: &Results, file: &Path) -> io::Result<()> {
    let Results { reports, answers } = results;
    let checks = reports.iter().map(Row::from).collect();
    let whole = Json { module, tally: Tally::of(reports), checks, answers };
    std::fs::write(file, serde_json::to_vec_pretty(&whole)?)
}
