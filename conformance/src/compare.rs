//! Two reports side by side: of two modules, or of two versions of one.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::check::Outcome;
use crate::checks::general::CLEAN_END;
use crate::performance::Figure;
use crate::report::{Document, Row, counted};

/// What a check is called that a report does not have: another run may have chosen others.
const ABSENT: &str = "not in the report";

/// What differs.
pub struct Comparison<'a> {
    /// Findings of the second, of checks that the first made without one.
    pub new: Vec<&'a Row>,
    /// Findings of the second, of checks that the first has not or did not make: the fault may be as old as it.
    pub unknown_to_first: Vec<&'a Row>,
    /// Findings of the first only, which the second passes.
    pub mended: Vec<&'a Row>,
    /// Checks that came to something else, and findings of the first of which the second says nothing: id, first, second.
    pub other: Vec<(&'a str, &'static str, &'static str)>,
    /// Checks that the first made and the second has not.
    pub lacked_by_second: Vec<&'a Row>,
    /// Checks that the second made and the first has not.
    pub lacked_by_first: Vec<&'a Row>,
    /// What both measured: first, second.
    pub speed: Vec<(&'a Figure, &'a Figure)>,
}

/// Compares two documents.
pub fn compare<'a>(first: &'a Document, second: &'a Document) -> Comparison<'a> {
    let by_id = |document: &'a Document| -> BTreeMap<&'a str, &'a Row> {
        document.checks.iter().map(|row| (row.id.as_str(), row)).collect()
    };
    let (before, after) = (by_id(first), by_id(second));
    let lacking = |all: &BTreeMap<&'a str, &'a Row>, other: &BTreeMap<&'a str, &'a Row>| -> Vec<&'a Row> {
        let is_lacking = |row: &&&Row| was_made(row) && !other.contains_key(row.id.as_str());
        all.values().filter(is_lacking).copied().collect()
    };
    let mut comparison = Comparison {
        new: Vec::new(),
        unknown_to_first: Vec::new(),
        mended: Vec::new(),
        other: Vec::new(),
        lacked_by_second: lacking(&before, &after),
        lacked_by_first: lacking(&after, &before),
        speed: pairs(&first.performance, &second.performance),
    };
    for (id, row) in &after {
        match before.get(id) {
            Some(earlier) if row.is_finding() && earlier.is_finding() => {}
            Some(earlier) if row.is_finding() && was_looked_at(earlier) => comparison.new.push(row),
            // A run looks at the ends of its processes, whatever was chosen.
            None if row.is_finding() && *id == CLEAN_END => comparison.new.push(row),
            _ if row.is_finding() => comparison.unknown_to_first.push(row),
            Some(earlier) if word(earlier) != word(row) && !earlier.is_finding() => {
                comparison.other.push((id, word(earlier), word(row)));
            }
            Some(_) | None => {}
        }
    }
    for (id, row) in before.iter().filter(|(_, row)| row.is_finding()) {
        match after.get(id) {
            Some(later) if matches!(later.outcome, Outcome::Pass) => comparison.mended.push(row),
            Some(later) if !later.is_finding() => comparison.other.push((id, word(row), word(later))),
            Some(_) => {}
            None => comparison.other.push((id, word(row), ABSENT)),
        }
    }
    comparison
}

/// Whether a check came to something.
const fn was_made(row: &Row) -> bool {
    matches!(row.outcome, Outcome::Pass | Outcome::Fail { .. })
}

/// Whether a check came to something, were it that what it is about was not offered.
const fn was_looked_at(row: &Row) -> bool {
    was_made(row) || matches!(row.outcome, Outcome::NotOffered)
}

/// How many checks of each chapter these are.
fn by_chapter(rows: &[&Row]) -> String {
    let mut chapters: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *chapters.entry(&row.group).or_default() += 1;
    }
    let told = chapters.iter().map(|(chapter, count)| format!("{} {count}", printable(chapter)));
    told.collect::<Vec<_>>().join(", ")
}

/// Measurements of the same, in the order in which they were made.
fn pairs<'a>(first: &'a [Figure], second: &'a [Figure]) -> Vec<(&'a Figure, &'a Figure)> {
    let mut rest: Vec<&Figure> = second.iter().collect();
    let mut pairs = Vec::new();
    for figure in first {
        if let Some(place) = rest.iter().position(|other| other.measures_as(figure)) {
            pairs.push((figure, rest.remove(place)));
        }
    }
    pairs
}

fn word(row: &Row) -> &'static str {
    match (&row.outcome, &row.waived) {
        (Outcome::Pass, _) => "passed",
        (Outcome::Fail { .. }, None) => "finding",
        (Outcome::Fail { .. }, Some(_)) => "waived",
        (Outcome::Skipped { .. }, _) => "not made",
        (Outcome::NotOffered, _) => "not offered",
    }
}

/// Text of a report, which may be anybody's, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Writes the comparison for a person.
///
/// # Errors
/// When the output cannot be written.
pub fn write(first: &Document, second: &Document, output: &mut dyn Write) -> io::Result<()> {
    let comparison = compare(first, second);
    for (name, document) in [("A", first), ("B", second)] {
        let (manifest, survey) = (&document.manifest, &document.survey);
        writeln!(
            output,
            "{name}: {} ({} {}, {}): {}",
            printable(&manifest.module),
            printable(&survey.library),
            printable(&survey.library_version),
            printable(&manifest.began),
            counted(document.tally.failed, "finding")
        )?;
    }
    for (name, document) in [("A", first), ("B", second)] {
        if let Some(why) = &document.incomplete {
            writeln!(output, "{name} is INCOMPLETE: {}", printable(why))?;
        }
    }
    for (word, rows) in [("NEW   ", &comparison.new), ("ONLY B", &comparison.unknown_to_first)] {
        for row in rows {
            if let Outcome::Fail { severity, seen, .. } = &row.outcome {
                let (id, severity) = (printable(&row.id), severity.word());
                writeln!(output, "{word} {id:<44} {severity:<13} {}", printable(seen))?;
            }
        }
    }
    for row in &comparison.mended {
        writeln!(output, "MENDED {:<44} {}", printable(&row.id), printable(&row.title))?;
    }
    for (id, before, after) in &comparison.other {
        writeln!(output, "OTHER  {:<44} {before} → {after}", printable(id))?;
    }
    for (rows, lacks, made) in
        [(&comparison.lacked_by_second, "B", "A"), (&comparison.lacked_by_first, "A", "B")]
    {
        if !rows.is_empty() {
            let (count, chapters) = (counted(rows.len(), "check"), by_chapter(rows));
            writeln!(output, "LACKS  {lacks} lacks {count} that {made} made: {chapters}")?;
        }
    }
    if !comparison.speed.is_empty() {
        writeln!(output, "SPEED  {:<36} {:>7} {:>21} {:>21}", "", "threads", "a second", "99 %, µs")?;
    }
    for (a, b) in &comparison.speed {
        let times = b.per_second as f64 / (a.per_second as f64).max(1.0);
        writeln!(
            output,
            "SPEED  {:<36} {:>7} {:>9} → {:>9} {:>9} → {:>9}  × {times:.2}",
            printable(&a.title()),
            a.threads,
            a.per_second,
            b.per_second,
            a.p99,
            b.p99
        )?;
    }
    writeln!(
        output,
        "{} in B that A has not, {} of checks that A did not make, {} in A that B has not, {}",
        counted(comparison.new.len(), "finding"),
        comparison.unknown_to_first.len(),
        comparison.mended.len(),
        counted(comparison.other.len(), "other difference")
    )
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_report_does_not_command_the_terminal() {
        assert_eq!(printable("seen \u{1b}[2J\u{9b}1m\n"), "seen \u{fffd}[2J\u{fffd}1m\u{fffd}");
        assert_eq!(printable("0x30 — Schlüssel"), "0x30 — Schlüssel");
    }
}
