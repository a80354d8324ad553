//! What a person reads on a terminal.

use std::io::{self, Write};

use crate::marks::Severity;
use crate::observations;
use crate::performance;
use crate::report::causes::{self, Cause};
use crate::report::{Document, LeftOut, counted};

/// Vectors of a finding that are shown, and letters of their values. The other reports have more.
const VECTORS: usize = 1;
const VALUE: usize = 96;

/// Writes the findings, what was not made, and the verdict.
///
/// # Errors
/// When the output cannot be written.
pub fn write(document: &Document, output: &mut dyn Write) -> io::Result<()> {
    for row in &document.checks {
        if let Some(reason) = &row.waived {
            writeln!(output, "WAIVED {}: {reason}", row.id)?;
        }
    }
    for cause in causes::of(&document.findings()) {
        tell(&cause, output)?;
    }
    for (why, count) in document.not_made() {
        writeln!(output, "NOT MADE {}: {why}", counted(count, "check"))?;
    }
    for LeftOut { why, checks } in &document.left_out {
        writeln!(output, "LEFT OUT {}: {why}", counted(*checks, "check"))?;
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
        "{}: {}: {} passed, {} failed{waived}, {} not made, {} not offered",
        document.manifest.module,
        document.headline(),
        tally.passed,
        tally.failed,
        tally.not_made,
        tally.not_offered
    )
}

/// A finding, or some of one cause with the names of all of them.
fn tell(cause: &Cause<'_>, output: &mut dyn Write) -> io::Result<()> {
    let severity = cause.rows.first().and_then(|row| row.severity()).map_or("", Severity::word);
    let many = match cause.rows.len() {
        1 => String::new(),
        count => format!("{count} × "),
    };
    writeln!(output, "FAIL {many}{}  ({}) {severity}", cause.ids, cause.clause)?;
    writeln!(output, "     {}", cause.title)?;
    writeln!(output, "     expected: {}", cause.expected)?;
    writeln!(output, "     seen:     {}", cause.seen)?;
    if cause.rows.len() > 1 {
        let ids: Vec<&str> = cause.rows.iter().map(|row| row.id.as_str()).collect();
        writeln!(output, "     checks:   {}", ids.join(" "))?;
    }
    for vector in
        cause.rows.iter().filter_map(|row| row.trace.as_ref()).flat_map(|trace| &trace.vectors).take(VECTORS)
    {
        writeln!(output, "     vector:   {}", vector.name())?;
        for (name, value) in vector.lines(VALUE) {
            writeln!(output, "               {name} = {value}")?;
        }
    }
    Ok(())
}
