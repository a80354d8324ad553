//! JUnit XML, as build servers read it: a suite for each chapter, a case for each check. A run that is incomplete has
//! an error, so that no build passes by it.

use std::fmt::Write;

use crate::check::Outcome;
use crate::report::markup::escape;
use crate::report::{Document, Row};

/// The file's text.
pub fn text(document: &Document) -> String {
    let tally = &document.tally;
    let seconds = document.manifest.seconds;
    let errors = usize::from(document.incomplete.is_some());
    let all = document.checks.len() + errors;
    let skipped = tally.not_made + tally.not_offered + tally.waived;
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"p11-conformance\" tests=\"{all}\" \
         failures=\"{}\" skipped=\"{skipped}\" errors=\"{errors}\" time=\"{seconds}\">\n",
        tally.failed
    );
    for chapter in document.chapters() {
        let rows: Vec<&Row> = document.checks.iter().filter(|row| row.group == chapter).collect();
        let failures = rows.iter().filter(|row| row.is_finding()).count();
        let skipped =
            rows.iter().filter(|row| !row.is_finding() && !matches!(row.outcome, Outcome::Pass)).count();
        let time: u64 = rows.iter().map(|row| row.milliseconds).sum();
        let _infallible = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" \
             time=\"{}\">",
            escape(chapter),
            rows.len(),
            seconds_of(time)
        );
        rows.iter().for_each(|row| case(row, &mut text));
        text.push_str("  </testsuite>\n");
    }
    if let Some(why) = &document.incomplete {
        let _infallible = writeln!(
            text,
            "  <testsuite name=\"run\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\" time=\"{seconds}\">\n    \
             <testcase classname=\"run\" name=\"complete\" time=\"{seconds}\"><error message=\"{}\"/></testcase>\n  \
             </testsuite>",
            escape(why)
        );
    }
    text.push_str("</testsuites>\n");
    text
}

fn case(row: &Row, text: &mut String) {
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\"",
        escape(&row.group),
        escape(&row.id),
        seconds_of(row.milliseconds)
    );
    let inside = match (&row.outcome, &row.waived) {
        (Outcome::Pass, _) => {
            let _infallible = writeln!(text, "{head}/>");
            return;
        }
        (Outcome::Fail { .. }, Some(reason)) => format!("<skipped message=\"waived: {}\"/>", escape(reason)),
        (Outcome::Fail { severity, expected, seen }, None) => {
            let calls = row.trace.iter().flat_map(|trace| &trace.calls).map(|call| format!("{call}\n"));
            let calls: String = calls.collect();
            format!(
                "<failure type=\"{}\" message=\"{}\">{}\n{}\nexpected: {}\nseen: {}\n\n{}</failure>",
                severity.word(),
                escape(seen),
                escape(&row.title),
                escape(&row.clause),
                escape(expected),
                escape(seen),
                escape(&calls)
            )
        }
        (Outcome::Skipped { why }, _) => format!("<skipped message=\"not made: {}\"/>", escape(why)),
        (Outcome::NotOffered, _) => "<skipped message=\"not offered\"/>".to_owned(),
    };
    let _infallible = writeln!(text, "{head}>{inside}</testcase>");
}

fn seconds_of(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}
