//! Tables for people and JSON for machines, from the same rows. The only place that writes to standard output.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use strongroom_shared::hex::Hex;
use time::OffsetDateTime;

use super::error::CtlError;

/// For whom the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns; times in UTC.
    Human,
    /// JSON: an array of objects, or one object.
    Json,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A count.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// A time, in microseconds since 1970.
    Time(u64),
    /// Nothing to say.
    Empty,
}

impl Cell {
    /// Words, or nothing.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Empty } else { Self::Text(text) }
    }

    /// Bytes in hexadecimal, or nothing.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::text(hex(bytes))
    }

    /// A time in seconds since 1970.
    pub const fn seconds(seconds: u64) -> Self {
        Self::Time(seconds.saturating_mul(1_000_000))
    }

    fn human(&self) -> String {
        match self {
            Self::Text(text) => {
                let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
                lines.join("; ").chars().map(|c| if c.is_control() { '?' } else { c }).collect()
            }
            Self::Number(number) => number.to_string(),
            Self::Flag(true) => "yes".into(),
            Self::Flag(false) => "no".into(),
            Self::Time(micros) => moment(*micros),
            Self::Empty => "-".into(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Time(micros) => moment(*micros).into(),
            Self::Empty => Value::Null,
        }
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// A time as RFC 3339 writes it, in UTC.
fn moment(micros: u64) -> String {
    let nanos = i128::from(micros) * 1000;
    match OffsetDateTime::from_unix_timestamp_nanos(nanos) {
        Ok(at) => {
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second, milli) = at.to_hms_milli();
            let month = u8::from(month);
            let fraction =
                if micros.is_multiple_of(1_000_000) { String::new() } else { format!(".{milli:03}") };
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
        }
        Err(_) => micros.to_string(),
    }
}

/// Whether people see a column; machines see all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// People and machines.
    All,
    /// Machines: too wide or too seldom wanted.
    Machines,
}

/// Rows of the same shape.
#[derive(Clone, Debug)]
pub struct Table {
    columns: &'static [(&'static str, For)],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns, named as in JSON.
    pub const fn new(columns: &'static [(&'static str, For)]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: one cell per column.
    #[must_use]
    pub fn row(mut self, cells: impl IntoIterator<Item = Cell>) -> Self {
        self.rows.push(cells.into_iter().collect());
        self
    }

    /// Adds rows.
    #[must_use]
    pub fn rows(self, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        rows.into_iter().fold(self, Self::row)
    }

    /// Writes the table to standard output, or each row as one line of JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self, format: Format) -> io::Result<()> {
        match format {
            Format::Human => put(&self.aligned(Heading::Shown)),
            Format::Json => {
                let rows = self.rows.iter().map(|row| self.object(row)).collect();
                put(&format!("{:#}\n", Value::Array(rows)))
            }
        }
    }

    /// Writes the rows as they come, for a list without an end.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_more(&self, format: Format, heading: Heading) -> io::Result<()> {
        match format {
            Format::Human => put(&self.aligned(heading)),
            Format::Json => self.rows.iter().try_for_each(|row| put(&format!("{}\n", self.object(row)))),
        }
    }

    /// Writes the only row, a field per line.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print_one(&self, format: Format) -> io::Result<()> {
        let Some(row) = self.rows.first() else { return Ok(()) };
        match format {
            Format::Human => {
                let width = self.columns.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                let line = |((name, _), cell): (&(&str, For), &Cell)| {
                    format!("{:width$}  {}\n", name.replace('_', " "), cell.human())
                };
                put(&self.columns.iter().zip(row).map(line).collect::<String>())
            }
            Format::Json => put(&format!("{:#}\n", self.object(row))),
        }
    }

    fn object(&self, row: &[Cell]) -> Value {
        let fields = self.columns.iter().zip(row).map(|((name, _), cell)| ((*name).to_owned(), cell.json()));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    fn aligned(&self, heading: Heading) -> String {
        let heads = self.columns.iter().map(|(name, _)| name.replace('_', " ").to_uppercase());
        let mut lines: Vec<Vec<String>> = vec![heads.collect()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(Cell::human).collect()));
        let shown: Vec<_> = self.columns.iter().map(|(_, audience)| *audience == For::All).collect();
        for line in &mut lines {
            let mut shown = shown.iter();
            line.retain(|_| shown.next().copied().unwrap_or(false));
        }
        let mut widths = vec![0; shown.len()];
        for line in &lines {
            for (width, text) in widths.iter_mut().zip(line) {
                *width = text.chars().count().max(*width);
            }
        }
        let skip = match heading {
            Heading::Shown => 0,
            Heading::Omitted => 1,
        };
        let mut text = String::new();
        for line in lines.iter().skip(skip) {
            let cells: Vec<_> = line
                .iter()
                .zip(&widths)
                .map(|(text, width)| format!("{text:width$}", width = *width))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Whether a table's columns are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// They are.
    Shown,
    /// They were, on an earlier page.
    Omitted,
}

/// Says something that is not a table, to people only.
///
/// # Errors
/// Standard output is closed.
pub fn say(format: Format, text: &str) -> io::Result<()> {
    match format {
        Format::Human => put(&format!("{text}\n")),
        Format::Json => Ok(()),
    }
}

/// Says on standard error why a command was not done.
pub fn complain(format: Format, error: &CtlError) {
    let text = match format {
        Format::Human => format!("hsmctl: {error}"),
        Format::Json => json!({ "error": error.message(), "advice": error.advice() }).to_string(),
    };
    // Where standard error is closed there is nobody to tell.
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

/// Says on standard error what is worth knowing about a command that was done.
pub fn note(text: &str) {
    // Where standard error is closed there is nobody to tell.
    writeln!(io::stderr(), "hsmctl: {text}").unwrap_or_default();
}

/// Writes text as it is.
///
/// # Errors
/// Standard output is closed.
pub fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[(&str, For)] = &[("name", For::All), ("not_after", For::All), ("secret", For::Machines)];

    #[test]
    fn people_see_columns_and_machines_see_types() {
        let table = Table::new(COLUMNS)
            .row([Cell::text("a"), Cell::seconds(1_700_000_000), Cell::Number(7)])
            .row([Cell::text("long\u{1b}name"), Cell::Empty, Cell::Flag(true)]);
        assert_eq!(
            table.aligned(Heading::Shown),
            "NAME       NOT AFTER\na          2023-11-14T22:13:20Z\nlong?name  -\n"
        );
        assert_eq!(Cell::text("line 1\n\nline 2\r\n").human(), "line 1; line 2");
        let json = table.object(&table.rows[1]);
        assert_eq!(json.to_string(), r#"{"name":"long\u001bname","not_after":null,"secret":true}"#);
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(951_782_400_123_456), "2000-02-29T00:00:00.123Z");
    }
}
