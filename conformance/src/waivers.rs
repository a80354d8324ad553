//! Failures that somebody has accepted, each with a reason and a date after which it counts again.
//!
//! ```toml
//! [[waiver]]
//! check = "general.interface-null"
//! reason = "the vendor mends it in 2.7, ticket 4711"
//! expires = "2027-06-30"
//! ```

use std::path::Path;

use serde::Deserialize;
use time::{Date, Month};

use crate::check::{Outcome, by_id};
use crate::marks::{Effect, Severity};
use crate::report::Row;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    waiver: Vec<Waiver>,
}

/// An accepted failure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check's id.
    pub check: String,
    /// Why it is accepted.
    pub reason: String,
    /// The last day on which it is, `YYYY-MM-DD`.
    pub expires: String,
}

/// The waivers of a file.
///
/// # Errors
/// A sentence, when the file cannot be read or names what does not exist.
pub fn read(file: &Path) -> Result<Vec<Waiver>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let waivers: File = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    for waiver in &waivers.waiver {
        let wrong = |what: &str| Err(format!("{}: waiver of {:?}: {what}", file.display(), waiver.check));
        if by_id(&waiver.check).is_none() {
            return wrong("there is no such check; --list shows them all");
        }
        if waiver.reason.trim().is_empty() {
            return wrong("no reason is given");
        }
        if !is_date(&waiver.expires) {
            return wrong("`expires` is no date of the form YYYY-MM-DD");
        }
    }
    Ok(waivers.waiver)
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

/// Marks the failures that are waived today. A waiver past its date is a finding of its own.
pub fn apply(waivers: &[Waiver], today: &str, rows: &mut Vec<Row>) {
    for waiver in waivers {
        if waiver.expires.as_str() < today {
            rows.push(expired(waiver));
            continue;
        }
        let failed = |row: &&mut Row| row.id == waiver.check && matches!(row.outcome, Outcome::Fail { .. });
        for row in rows.iter_mut().filter(failed) {
            row.waived = Some(format!("{} (until {})", waiver.reason, waiver.expires));
        }
    }
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
    fn dates_are_dates() {
        assert!(is_date("2028-02-29"));
        for wrong in ["2027-02-29", "2027-2-3", "soon", "", "2027-13-01", "02027-01-01"] {
            assert!(!is_date(wrong), "{wrong}");
        }
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
