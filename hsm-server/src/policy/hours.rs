//! Opening hours: days of the week and times of day at a fixed offset from UTC.

use std::fmt;

use serde::Deserialize;

/// A day of the week, as written in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// The week, from the weekday of 1970-01-01 on.
const WEEK_OF_THE_EPOCH: [Day; 7] = [Day::Thu, Day::Fri, Day::Sat, Day::Sun, Day::Mon, Day::Tue, Day::Wed];

/// When keys may be used. `to` is exclusive and not `from`; hours that cross midnight belong to the day they begin on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The days; all if absent.
    pub days: Option<Vec<Day>>,
    /// From this time of day.
    pub from: TimeOfDay,
    /// Until before this time of day.
    pub to: TimeOfDay,
    /// Local time minus UTC, as `+01:00`.
    #[serde(default)]
    pub utc_offset: Offset,
}

/// Minutes since midnight, written `HH:MM`, up to `24:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay(u32);

/// Minutes east of UTC, written `+HH:MM` or `-HH:MM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset(i64);

fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    if hours.len() != 2
        || minutes.len() != 2
        || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')
    {
        return None;
    }
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(hours * 60 + minutes)
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        minutes(&text).map(Self).ok_or_else(|| format!("\"{text}\" is not a time of day, write it as 08:30"))
    }
}

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let sign = match text.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => 0,
        };
        let value = text.get(1..).and_then(minutes).filter(|minutes| sign != 0 && *minutes <= 14 * 60);
        value
            .map(|minutes| Self(sign * i64::from(minutes)))
            .ok_or_else(|| format!("\"{text}\" is not an offset from UTC, write it as +01:00"))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for day in self.days.iter().flatten() {
            write!(f, "{day:?} ")?;
        }
        let time = |TimeOfDay(minutes): TimeOfDay| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let sign = if self.utc_offset.0 < 0 { '-' } else { '+' };
        let offset = self.utc_offset.0.unsigned_abs();
        write!(f, "{} to {} {sign}{:02}:{:02}", time(self.from), time(self.to), offset / 60, offset % 60)
    }
}

impl Hours {
    /// Whether it is open at all: hours that end where they begin say nothing.
    pub fn are_some(&self) -> bool {
        self.from != self.to
    }

    /// Whether it is open at `now`, in microseconds since 1970.
    pub fn contain(&self, now: u64) -> bool {
        let local = i64::try_from(now / 60_000_000).unwrap_or(i64::MAX).saturating_add(self.utc_offset.0);
        let minute = u32::try_from(local.rem_euclid(24 * 60)).unwrap_or_default();
        let day = local.div_euclid(24 * 60);
        if self.from < self.to {
            self.open_on(day) && minute >= self.from.0 && minute < self.to.0
        } else {
            (self.open_on(day) && minute >= self.from.0) || (self.open_on(day - 1) && minute < self.to.0)
        }
    }

    fn open_on(&self, day: i64) -> bool {
        let index = usize::try_from(day.rem_euclid(7)).unwrap_or_default();
        match (&self.days, WEEK_OF_THE_EPOCH.get(index)) {
            (Some(days), Some(day)) => days.contains(day),
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-05 is a Monday.
    const MONDAY: u64 = 1_767_571_200_000_000;
    const HOUR: u64 = 3_600_000_000;

    fn hours(text: &str) -> Hours {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn weekdays_and_times() {
        let desk = hours("days = [\"Mon\"]\nfrom = \"08:00\"\nto = \"17:30\"");
        assert!(!desk.contain(MONDAY + 8 * HOUR - 1));
        assert!(desk.contain(MONDAY + 8 * HOUR));
        assert!(desk.contain(MONDAY + 17 * HOUR));
        assert!(!desk.contain(MONDAY + 17 * HOUR + HOUR / 2));
        assert!(!desk.contain(MONDAY + 24 * HOUR + 9 * HOUR));
    }

    #[test]
    fn an_offset_moves_the_day() {
        let desk = hours("days = [\"Mon\"]\nfrom = \"00:00\"\nto = \"24:00\"\nutc_offset = \"+09:00\"");
        assert!(desk.contain(MONDAY - 9 * HOUR));
        assert!(!desk.contain(MONDAY + 15 * HOUR));
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on() {
        let night = hours("days = [\"Mon\"]\nfrom = \"22:00\"\nto = \"06:00\"");
        assert!(night.contain(MONDAY + 23 * HOUR));
        assert!(night.contain(MONDAY + 29 * HOUR));
        assert!(!night.contain(MONDAY + 5 * HOUR));
    }

    #[test]
    fn hours_read_as_they_are_written() {
        let desk =
            hours("days = [\"Mon\", \"Fri\"]\nfrom = \"08:00\"\nto = \"17:30\"\nutc_offset = \"-03:30\"");
        assert_eq!(desk.to_string(), "Mon Fri 08:00 to 17:30 -03:30");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(toml::from_str::<Hours>("from = \"8:00\"\nto = \"17:00\"").is_err());
        assert!(toml::from_str::<Hours>("from = \"08:00\"\nto = \"24:01\"").is_err());
        assert!(toml::from_str::<Hours>("from = \"08:00\"\nto = \"17:00\"\nutc_offset = \"01:00\"").is_err());
    }
}
