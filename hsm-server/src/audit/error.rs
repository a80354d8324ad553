//! What can be wrong with the log, in words that an operator can act on.

use std::{fmt, io, path::PathBuf};

/// Why the log did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// There is no log: neither a head nor a record.
    Empty,
    /// A new log was to be made where one already has records.
    AlreadyExists,
    /// There is no folder.
    Missing {
        /// Where it should be.
        folder: PathBuf,
    },
    /// Another process has it open.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The head is missing although there are records.
    HeadMissing,
    /// The head was changed, or is another log's.
    HeadChanged,
    /// A record is not as it was written.
    Tampered {
        /// Its number.
        sequence: u64,
        /// What was done to it.
        what: Tampering,
    },
    /// An earlier write failed: nothing more goes on record, so nothing more may be done.
    NotDurable {
        /// How it failed.
        reason: String,
    },
    /// The record is longer than a record may be.
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The operating system refused.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        file: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

/// What was done to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// Its bytes, or the link before it, were changed.
    Changed,
    /// Another record stands in its place.
    Misplaced {
        /// The number of that record.
        found: u64,
    },
    /// The log, or a segment of it, ends before it.
    Missing,
    /// The log ends in the middle of it.
    CutOff,
    /// It fits the chain and cannot be read: a newer server wrote it.
    Unreadable,
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("its bytes do not fit the chain"),
            Self::Misplaced { found } => write!(f, "record {found} stands in its place"),
            Self::Missing => f.write_str("it is missing"),
            Self::CutOff => f.write_str("it is cut off"),
            Self::Unreadable => f.write_str("it cannot be read by this version of the server"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "there is no audit log: either `hsm-server init` never finished, or it was deleted; \
                 restore it from a backup, or initialise a new server",
            ),
            Self::AlreadyExists => {
                f.write_str("there already is an audit log; a new one needs an empty folder")
            }
            Self::Missing { folder } => write!(f, "there is no audit log at {}", folder.display()),
            Self::InUse { folder } => {
                write!(
                    f,
                    "{} is open in another process: is a second server running on it?",
                    folder.display()
                )
            }
            Self::HeadMissing => {
                f.write_str("the head of the audit log is missing, although there are records")
            }
            Self::HeadChanged => {
                f.write_str("the head of the audit log was changed, or belongs to another server's log")
            }
            Self::Tampered { sequence, what } => {
                write!(f, "the audit log was tampered with at record {sequence}: {what}")
            }
            Self::NotDurable { reason } => {
                write!(f, "the audit log takes no more records, because a write failed: {reason}")
            }
            Self::TooLong { length, limit } => {
                write!(f, "an audit record of {length} bytes is too long, the limit is {limit}")
            }
            Self::Io { what, file, error } => write!(f, "cannot {what} {}: {error}", file.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Empty
            | Self::AlreadyExists
            | Self::Missing { .. }
            | Self::InUse { .. }
            | Self::HeadMissing
            | Self::HeadChanged
            | Self::Tampered { .. }
            | Self::NotDurable { .. }
            | Self::TooLong { .. } => None,
        }
    }
}
