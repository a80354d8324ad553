//! What can be wrong with a store, in words that an operator can act on.

use std::{fmt, io, path::PathBuf};

use super::path::{PartitionId, Path};

/// Why the store did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// There is no file.
    Missing {
        /// Where it should be.
        file: PathBuf,
    },
    /// A new store was to be made where one already holds rows.
    AlreadyExists,
    /// The store has no rows, not even its manifest.
    Empty,
    /// Another process has it open.
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// Others than its owner may read or write it.
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a store of Strongroom's.
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The file is of another version of the store.
    Schema {
        /// The file.
        file: PathBuf,
        /// The version that it says.
        found: i64,
        /// The version that this server knows.
        known: i64,
    },
    /// The file's own structure is broken.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A row is not as it was written.
    Tampered {
        /// Which row.
        path: String,
        /// What was done to it.
        what: Tampering,
    },
    /// No row opens with this root key.
    WrongRootKey,
    /// The disk is full. Nothing was changed.
    Full {
        /// The file.
        file: PathBuf,
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
    /// SQLite refused.
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// On which file.
        file: PathBuf,
        /// Its reason.
        error: rusqlite::Error,
    },
    /// An earlier commit failed half-way: what is on disk is known again only after a restart.
    Unsure {
        /// How it failed.
        reason: String,
    },
    /// A record or outbox is longer than can be sealed.
    TooLong,
    /// Nothing stands at this path.
    Absent(Path),
    /// There is no such partition.
    NoPartition(PartitionId),
    /// There already is such a partition.
    PartitionExists(PartitionId),
}

impl Error {
    /// A row that is not as it was written. The path may be an attacker's, so only its beginning is kept.
    pub(super) fn tampered(path: impl fmt::Display, what: Tampering) -> Self {
        Self::Tampered { path: path.to_string().chars().take(128).collect(), what }
    }
}

/// What was done to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// Its content or its version was changed.
    Edited,
    /// It holds the content of another row.
    Belongs {
        /// Whose content it is.
        to: String,
    },
    /// It is missing.
    Deleted,
    /// It had been deleted, and is back.
    Returned,
    /// It was put back to what it was before.
    RolledBack {
        /// The commit that it is of.
        found: u64,
        /// The commit that it should be of.
        expected: u64,
    },
    /// The manifest is older than a row.
    Behind {
        /// The commit that the manifest is of.
        found: u64,
        /// A newer row.
        row: String,
        /// The commit that the row is of.
        version: u64,
    },
    /// No row has such a name.
    Unknown,
    /// It opens, but does not hold what such a row holds.
    Malformed,
    /// More than one row was deleted, put back or rolled back.
    Rows {
        /// How many rows there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited => f.write_str("its content or version was changed"),
            Self::Belongs { to } => write!(f, "it holds the content of row {to:?}"),
            Self::Deleted => f.write_str("the row is missing"),
            Self::Returned => f.write_str("the row had been deleted and was put back"),
            Self::RolledBack { found, expected } => {
                write!(f, "it was put back to commit {found}, although commit {expected} wrote it last")
            }
            Self::Behind { found, row, version } => {
                write!(f, "it was put back to commit {found}, although commit {version} wrote row {row:?}")
            }
            Self::Unknown => f.write_str("this server writes no row of that name"),
            Self::Malformed => f.write_str("it opens, but its content cannot be read"),
            Self::Rows { found, expected } => write!(
                f,
                "several rows were deleted, put back or rolled back ({found} rows found, {expected} expected)"
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "there is no store at {}", file.display()),
            Self::AlreadyExists => {
                f.write_str("the store already holds data; a new one needs an empty place")
            }
            Self::Empty => f.write_str(
                "the store is empty: either `hsm-server init` never finished, or its rows were deleted; \
                 restore it from a backup, or initialise a new server",
            ),
            Self::InUse { file } => {
                write!(f, "{} is open in another process: is a second server running on it?", file.display())
            }
            Self::Exposed { file, mode } => write!(
                f,
                "{} may be read or written by others (mode {mode:04o}): run chmod 600 on it",
                file.display()
            ),
            Self::Foreign { file } => write!(f, "{} is not a store of Strongroom's", file.display()),
            Self::Schema { file, found, known } => write!(
                f,
                "{} is a store of version {found}, and this server knows version {known}",
                file.display()
            ),
            Self::Damaged { file, what } => {
                write!(f, "{} is damaged: {what}; restore it from a backup", file.display())
            }
            Self::Tampered { path, what } => write!(f, "the store was tampered with at row {path:?}: {what}"),
            Self::WrongRootKey => f.write_str("the root key does not fit this store"),
            Self::Full { file } => write!(f, "no space left for {}; nothing was changed", file.display()),
            Self::Io { what, file, error } => write!(f, "cannot {what} {}: {error}", file.display()),
            Self::Sqlite { what, file, error } => write!(f, "cannot {what} {}: {error}", file.display()),
            Self::Unsure { reason } => write!(
                f,
                "the store takes no more changes before it is opened anew, because one failed: {reason}"
            ),
            Self::TooLong => f.write_str("the record is too long to be sealed"),
            Self::Absent(path) => write!(f, "the store has no row {path}"),
            Self::NoPartition(id) => write!(f, "the store has no partition {id}"),
            Self::PartitionExists(id) => write!(f, "the store already has partition {id}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Sqlite { error, .. } => Some(error),
            Self::Missing { .. }
            | Self::AlreadyExists
            | Self::Empty
            | Self::InUse { .. }
            | Self::Exposed { .. }
            | Self::Foreign { .. }
            | Self::Schema { .. }
            | Self::Damaged { .. }
            | Self::Tampered { .. }
            | Self::WrongRootKey
            | Self::Full { .. }
            | Self::Unsure { .. }
            | Self::TooLong
            | Self::Absent(_)
            | Self::NoPartition(_)
            | Self::PartitionExists(_) => None,
        }
    }
}
