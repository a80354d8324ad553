//! What a person reads on a terminal.

use std::io::{self, Write};

use crate::check::Outcome;
use crate::observations;
use crate::performance;
use crate::report::{Document, LeftOut};

/// Writes the findings, what was skipped, and the verdict.
///
/// # Errors
/// When the output cannot be written.
pub fn write(document: &Document, output: &mut dyn Write) -> io::Result<()> {
    for row in &document.checks {
        let Outcome::Fail { severity, expected, seen } = &row.outcome else { continue };
        if let Some(reason) = &row.waived {
            writeln!(output, "WAIVED {}: {reason}", row.id)?;
            continue;
        }
        writeln!(output, "FAIL {}  ({}) {}", row.id, row.clause, severity.word())?;
        writeln!(output, "     {}", row.title)?;
        writeln!(output, "     expected: {expected}")?;
        writeln!(output, "     seen:     {seen}")?;
    }
    for (why, count) in document.skipped() {
        let checks = if count == 1 { "check" } else { "checks" };
        writeln!(output, "SKIP {count} {checks}: {why}")?;
    }
    for LeftOut { why, checks } in &document.left_out {
        writeln!(output, "LEFT OUT {checks} {}: {why}", if *checks == 1 { "check" } else { "checks" })?;
    }
    for profile in document.profiles.iter().filter(|profile| profile.was_looked_at()) {
        writeln!(output, "PROFILE {:<32} {profile}", profile.name)?;
    }
    observations::write(&document.observations, output)?;
    performance::write(&document.performance, output)?;
    for (severity, count) in document.by_severity() {
        if count > 0 {
            writeln!(output, "{count:>4} {:<13} {}", severity.word(), severity.meaning())?;
        }
    }
    for note in &document.notes {
        writeln!(output, "NOTE {note}")?;
    }
    if let Some(why) = &document.incomplete {
        writeln!(output, "INCOMPLETE {why}")?;
    }
    let tally = &document.tally;
    let waived = if tally.waived > 0 { format!(", {} waived", tally.waived) } else { String::new() };
    writeln!(
        output,
        "{}: {}: {} passed, {} failed{waived}, {} skipped, {} not offered",
        document.manifest.module,
        document.verdict(),
        tally.passed,
        tally.failed,
        tally.skipped,
        tally.not_offered
    )
}
