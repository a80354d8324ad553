//! SARIF 2.1.0 (OASIS), as code-scanning dashboards read it: a rule for each check, a result for each finding.

use serde_json::{Value, json};

use crate::check::Outcome;
use crate::marks::Severity;
use crate::report::{Document, Row};

/// The file's text.
///
/// # Errors
/// None that a document of this program meets.
pub fn text(document: &Document) -> Result<String, String> {
    let failed: Vec<&Row> =
        document.checks.iter().filter(|row| matches!(row.outcome, Outcome::Fail { .. })).collect();
    let rules: Vec<Value> = failed.iter().map(|row| rule(row)).collect();
    let results: Vec<Value> =
        failed.iter().enumerate().map(|(place, row)| result(document, row, place)).collect();
    let manifest = &document.manifest;
    let incomplete = document.incomplete.iter();
    let notifications: Vec<Value> = incomplete
        .map(|why| json!({ "level": "error", "message": { "text": format!("incomplete: {why}") } }))
        .collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "p11-conformance",
                "semanticVersion": document.suite,
                "rules": rules,
            } },
            "artifacts": [{
                "location": { "uri": uri(&manifest.module) },
                "hashes": { "sha-256": manifest.sha256 },
                "length": manifest.bytes,
            }],
            "invocations": [{
                "executionSuccessful": document.incomplete.is_none(),
                "startTimeUtc": manifest.began,
                "arguments": manifest.options,
                "toolExecutionNotifications": notifications,
            }],
            "columnKind": "utf16CodeUnits",
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&log).map_err(|error| error.to_string())
}

fn rule(row: &Row) -> Value {
    let severity = row.severity().unwrap_or(Severity::Informational);
    json!({
        "id": row.id,
        "shortDescription": { "text": row.title },
        "fullDescription": { "text": format!("{} ({})", row.title, row.clause) },
        "help": { "text": format!("{}. {}", row.clause, severity.meaning()) },
        "defaultConfiguration": { "level": level(severity) },
        "properties": { "security-severity": score(severity), "tags": tags(row) },
    })
}

fn result(document: &Document, row: &Row, rule: usize) -> Value {
    let Outcome::Fail { severity, expected, seen } = &row.outcome else { return Value::Null };
    let function = row.trace.as_ref().and_then(|trace| trace.calls.last()).map(|call| call.function.clone());
    let mut location = json!({
        "physicalLocation": { "artifactLocation": { "uri": uri(&document.manifest.module), "index": 0 } },
    });
    if let (Some(function), Some(location)) = (function, location.as_object_mut()) {
        location.insert("logicalLocations".to_owned(), json!([{ "name": function, "kind": "function" }]));
    }
    let mut result = json!({
        "ruleId": row.id,
        "ruleIndex": rule,
        "level": level(*severity),
        "message": { "text": format!("{}: {seen}; expected: {expected}", row.title) },
        "locations": [location],
        "partialFingerprints": { "check/v1": row.id },
    });
    if let Some(result) = result.as_object_mut() {
        if let Some(reason) = &row.waived {
            let suppression = json!([{ "kind": "external", "status": "accepted", "justification": reason }]);
            result.insert("suppressions".to_owned(), suppression);
        }
        if let Some(trace) = &row.trace {
            let frame = |call: &crate::trace::Call| json!({ "location": { "message": { "text": call.to_string() } } });
            let frames: Vec<Value> = trace.calls.iter().rev().map(frame).collect();
            let stack = json!([{ "message": { "text": "the calls, the last one first" }, "frames": frames }]);
            result.insert("stacks".to_owned(), stack);
        }
    }
    result
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Informational => "note",
    }
}

/// The score that dashboards sort by.
const fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.5",
        Severity::Low => "2.0",
        Severity::Informational => "0.0",
    }
}

fn tags(row: &Row) -> Vec<&str> {
    [Some("pkcs11"), Some(row.group.as_str()), row.tag.map(crate::marks::Tag::word)]
        .into_iter()
        .flatten()
        .collect()
}

/// A file's name as a relative reference or a `file` URI.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    let letter = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let path: String = path.bytes().map(letter).collect();
    if path.starts_with('/') { format!("file://{path}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_uri() {
        assert_eq!(uri("/usr/lib/a b.so"), "file:///usr/lib/a%20b.so");
        assert_eq!(uri("target/x.so"), "target/x.so");
    }
}
