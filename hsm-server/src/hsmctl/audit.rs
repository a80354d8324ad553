//! The audit log, as an administrator sees it.

use std::{thread, time::Duration};

use clap::Subcommand;
use strongroom_shared::{
    mechanism::Mechanism,
    message::{AuditRecord, Outcome, TailAudit, VerifyAudit},
};

use super::{
    client::Connection,
    error::CtlError,
    manage::told,
    output::{Cell, For, Format, Heading, Table},
};

/// How often `audit tail --follow` asks.
const FOLLOW: Duration = Duration::from_millis(500);
/// For how long it tries to reach a server that ended the connection.
const RETURN: Duration = Duration::from_secs(10);
/// How many records one answer may bring.
const PAGE: u32 = 1000;

/// `hsmctl audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Prints the newest records, oldest first.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        count: u32,
        /// Goes on with new ones as they come.
        #[arg(long, short)]
        follow: bool,
    },
    /// Has the server read the whole log and check every link of it.
    Verify,
}

const RECORDS: &[(&str, For)] = &[
    ("sequence", For::All),
    ("time", For::All),
    ("partition", For::All),
    ("client", For::All),
    ("act", For::All),
    ("outcome", For::All),
    ("mechanism", For::All),
    ("object", For::All),
    ("detail", For::All),
    ("certificate", For::Machines),
    ("instance", For::Machines),
    ("session", For::Machines),
    ("request", For::Machines),
    ("message_hash", For::Machines),
    ("store_version", For::Machines),
];

const VERIFIED: &[(&str, For)] = &[("records", For::All), ("head", For::All), ("whole", For::All)];

impl Audit {
    /// Carries the command out.
    ///
    /// # Errors
    /// The server refused or cannot be reached, or the log is not whole.
    pub fn run(&self, server: &mut Connection, format: Format) -> Result<(), CtlError> {
        match self {
            Self::Tail { count, follow: false } => {
                let records = server.call(&TailAudit { count: *count, after: None })?.records;
                told(table(records).print(format))
            }
            Self::Tail { count, follow: true } => follow(server, *count, format),
            Self::Verify => {
                let verified = server.call(&VerifyAudit {})?;
                let row = [Cell::Number(verified.records), Cell::bytes(&verified.head), Cell::Flag(true)];
                told(Table::new(VERIFIED).row(row).print_one(format))
            }
        }
    }
}

fn follow(server: &mut Connection, count: u32, format: Format) -> Result<(), CtlError> {
    // At least one, to know after which record the new ones begin.
    let mut records = server.call(&TailAudit { count: count.max(1), after: None })?.records;
    let mut last = records.last().map_or(0, |record| record.sequence);
    records.truncate(count as usize);
    let mut heading = Heading::Shown;
    loop {
        told(table(records).print_more(format, heading))?;
        heading = Heading::Omitted;
        records = match server.call(&TailAudit { count: PAGE, after: Some(last) }) {
            Ok(answer) => answer.records,
            Err(error) if error.is_lost() => {
                server.reopen(RETURN).map_err(|error| {
                    if error.is_lost() {
                        CtlError::new("the server ended the connection; run it again")
                    } else {
                        error
                    }
                })?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        match records.last() {
            Some(record) => last = record.sequence,
            None => thread::sleep(FOLLOW),
        }
    }
}

fn table(records: Vec<AuditRecord>) -> Table {
    Table::new(RECORDS).rows(records.into_iter().map(row))
}

fn row(record: AuditRecord) -> Vec<Cell> {
    let outcome = match record.outcome {
        Outcome::Done => "done",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
    };
    vec![
        Cell::Number(record.sequence),
        Cell::Time(record.time),
        Cell::text(record.partition),
        Cell::text(record.client),
        Cell::text(record.act),
        Cell::text(outcome),
        record.mechanism.map_or(Cell::Empty, mechanism),
        record.object.map_or(Cell::Empty, |object| Cell::text(object.to_string())),
        Cell::text(record.detail),
        Cell::bytes(&record.certificate),
        Cell::bytes(&record.instance.0),
        Cell::Number(record.session),
        Cell::text(format!("{:016x}", record.request)),
        Cell::bytes(&record.message_hash),
        record.store_version.map_or(Cell::Empty, Cell::Number),
    ]
}

fn mechanism(number: u64) -> Cell {
    Cell::text(
        Mechanism::from_number(number).map_or_else(|| format!("{number:#x}"), |known| format!("{known:?}")),
    )
}
