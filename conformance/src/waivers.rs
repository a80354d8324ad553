//! Failures that somebody has accepted, each with a reason and a date after which it counts again.
//!
//! ```toml
//! [[waiver]]
//! check = "general.interface-null"
//! reason = "the vendor mends it in 2.7, ticket 4711"
//! expires = "2027-06-30"
//! ```
//!
//! In the check's name `*` stands for anything: `mechanisms.*-other-key`.

use std::path::Path;

use serde::Deserialize;
use time::{Date, Month};
use toml::{Spanned, Value};

use crate::check::{Outcome, all};
use crate::files;
use crate::marks::{Effect, Severity};
use crate::report::Row;

/// Bytes of the file.
const LONGEST: u64 = 1 << 20;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    waiver: Vec<Spanned<Value>>,
}

/// An accepted failure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check's id, in which `*` stands for anything.
    pub check: String,
    /// Why it is accepted.
    pub reason: String,
    /// The last day on which it is, `YYYY-MM-DD`.
    pub expires: String,
}

/// The waivers of a file.
///
/// # Errors
/// A sentence with the line and the waiver, when the file cannot be read or names what does not exist.
pub fn read(file: &Path) -> Result<Vec<Waiver>, String> {
    let text = files::read(file, LONGEST)?;
    let text = std::str::from_utf8(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    parse(text).map_err(|error| format!("{}: {error}", file.display()))
}

fn parse(text: &str) -> Result<Vec<Waiver>, String> {
    let line = |place: usize| 1 + text.bytes().take(place).filter(|byte| *byte == b'\n').count();
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| format!("line {}: ", line(span.start)));
        line.unwrap_or_default() + error.message()
    })?;
    let mut waivers: Vec<Waiver> = Vec::new();
    for (place, told) in file.waiver.into_iter().enumerate() {
        let line = line(told.span().start);
        let value = told.into_inner();
        let name = match value.get("check").and_then(Value::as_str) {
            Some(check) => format!("waiver of {check:?}"),
            None => format!("waiver number {}", place + 1),
        };
        let waiver = value.try_into().map_err(|error| in_one_line(&error)).and_then(|waiver: Waiver| {
            waiver.refuse_nonsense(&waivers)?;
            Ok(waiver)
        });
        waivers.push(waiver.map_err(|why| format!("line {line}, {name}: {why}"))?);
    }
    Ok(waivers)
}

fn in_one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(", ")
}

impl Waiver {
    /// Sees that it waives something that there is, once, until a day, and for a reason.
    fn refuse_nonsense(&self, others: &[Self]) -> Result<(), &'static str> {
        if !all().any(|check| self.names(&check.id)) {
            return Err("there is no such check; --list shows them all");
        }
        if others.iter().any(|other| other.check == self.check) {
            return Err("it stands twice in the file");
        }
        if self.reason.trim().is_empty() {
            return Err("no reason is given");
        }
        if !is_date(&self.expires) {
            return Err("`expires` is no date of the form YYYY-MM-DD");
        }
        Ok(())
    }

    /// Whether a check is meant.
    fn names(&self, id: &str) -> bool {
        let Some((start, rest)) = self.check.split_once('*') else { return self.check == id };
        let Some(mut left) = id.strip_prefix(start) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let Some((_, behind)) = left.split_once(part) else { return false };
            left = behind;
        }
        left.ends_with(last)
    }
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    let numbers = (year.parse::<i32>(), month.parse::<u8>(), day.parse::<u8>());
    let (Ok(year_number), Ok(month_number), Ok(day_number)) = numbers else { return false };
    let is_padded = year.len() == 4 && month.len() == 2 && day.len() == 2;
    let month = Month::try_from(month_number);
    is_padded && month.is_ok_and(|month| Date::from_calendar_date(year_number, month, day_number).is_ok())
}

/// Marks the failures that are waived today, by the first waiver that names them. A waiver past its date is a finding of its
/// own. Says which waivers are of no use: what they name passes, as far as it was made.
pub fn apply(waivers: &[Waiver], today: &str, rows: &mut Vec<Row>) -> Vec<String> {
    let mut idle = Vec::new();
    for waiver in waivers {
        if waiver.expires.as_str() < today {
            rows.push(expired(waiver));
            continue;
        }
        let named = || rows.iter().filter(|row| waiver.names(&row.id));
        let passes = named().any(|row| matches!(row.outcome, Outcome::Pass));
        if passes && !named().any(|row| matches!(row.outcome, Outcome::Fail { .. })) {
            idle.push(format!(
                "the waiver of {} waives nothing: what it names passes. Take it out",
                waiver.check
            ));
        }
        for row in rows.iter_mut().filter(|row| row.is_finding() && waiver.names(&row.id)) {
            row.waived = Some(format!("{} (until {})", waiver.reason, waiver.expires));
        }
    }
    idle
}

fn expired(waiver: &Waiver) -> Row {
    let seen = format!("the waiver of {} expired on {}: {}", waiver.check, waiver.expires, waiver.reason);
    let expected = "a waiver that is renewed, or taken out of the file".to_owned();
    Row {
        id: format!("waivers.{}", waiver.check),
        group: "waivers".to_owned(),
        tag: None,
        clause: "the file of waivers".to_owned(),
        title: "a waiver ends on its date".to_owned(),
        effect: Effect::Nothing,
        milliseconds: 0,
        outcome: Outcome::Fail { severity: Severity::Medium, expected, seen },
        waived: None,
        trace: None,
        reproducer: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_waiver_is_told_with_its_line_and_name() {
        let good = "[[waiver]]\ncheck = \"digest.sha1\"\nreason = \"r\"\nexpires = \"2999-01-01\"\n";
        assert!(parse(good).is_ok_and(|waivers| waivers.len() == 1));
        for (bad, expected) in [
            (
                "[[waiver]]\ncheck = \"digest.sha256\"\nreason = \"r\"\n",
                "line 5, waiver of \"digest.sha256\": missing field `expires`",
            ),
            (
                "[[waiver]]\ncheck = \"digest.sha256\"\nreason = 5\nexpires = \"\"",
                "line 5, waiver of \"digest.sha256\": invalid type: integer `5`, expected a string, in `reason`",
            ),
            ("[[waiver]]\nchecks = \"digest.sha256\"\n", "line 5, waiver number 2: unknown field `checks`"),
            (good, "line 5, waiver of \"digest.sha1\": it stands twice"),
            ("[[waiver]]\ncheck = \"none\nreason = \"\"", "line 6: "),
        ] {
            let told = parse(&(good.to_owned() + bad)).err().unwrap_or_default();
            assert!(told.starts_with(expected) && told.lines().count() == 1, "{told}");
        }
    }

    #[test]
    fn dates_are_dates() {
        assert!(is_date("2028-02-29"));
        for wrong in ["2027-02-29", "2027-2-3", "soon", "", "2027-13-01", "02027-01-01"] {
            assert!(!is_date(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        let names = |check: &str, id: &str| {
            let waiver = Waiver { check: check.to_owned(), reason: String::new(), expires: String::new() };
            waiver.names(id)
        };
        for pattern in
            ["mechanisms.*", "mechanisms.*-other-key", "*", "*.aes*-key", "mechanisms.aes-cbc-other-key"]
        {
            assert!(names(pattern, "mechanisms.aes-cbc-other-key"), "{pattern}");
        }
        for pattern in ["mechanisms.*-keys", "mechanism", "*.des*", "mechanisms.aes", "aes*", ""] {
            assert!(!names(pattern, "mechanisms.aes-cbc-other-key"), "{pattern}");
        }
        assert!(!names("a*a", "a"), "a letter stands for one");
    }

    #[test]
    fn a_waiver_that_waives_nothing_is_told() {
        let waiver = |check: &str| Waiver {
            check: check.to_owned(),
            reason: "known".to_owned(),
            expires: "2999-01-01".to_owned(),
        };
        let row = |id: &str, outcome| Row { id: id.to_owned(), outcome, ..expired(&waiver("x")) };
        let failed = || expired(&waiver("x")).outcome;
        let mut rows = vec![row("a.x", Outcome::Pass), row("a.y", failed()), row("b.x", Outcome::NotOffered)];
        let waivers = ["a.x", "a.*", "b.x", "a.y"].map(waiver);
        let idle = apply(&waivers, "2026-11-22", &mut rows);
        assert!(matches!(&*idle, [only] if only.contains("of a.x waives nothing")), "{idle:?}");
        assert!(!rows.iter().any(Row::is_finding));
    }

    #[test]
    fn a_waiver_holds_until_its_date() {
        let waiver = |expires: &str| Waiver {
            check: "digest.sha1".to_owned(),
            reason: "known".to_owned(),
            expires: expires.to_owned(),
        };
        let failed = || Row { id: "digest.sha1".to_owned(), ..expired(&waiver("2020-01-01")) };
        let mut rows = vec![failed()];
        apply(&[waiver("2026-11-22")], "2026-11-22", &mut rows);
        assert!(!rows.iter().any(Row::is_finding), "its last day is a day");
        let mut rows = vec![failed()];
        apply(&[waiver("2026-11-21")], "2026-11-22", &mut rows);
        assert_eq!(rows.iter().filter(|row| row.is_finding()).count(), 2, "the failure and the waiver");
    }
}
