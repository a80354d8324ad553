//! The embedded store: one SQLite file in WAL mode, one writer, every commit on disk (`synchronous = FULL`).
//!
//! The file is held under an exclusive lock, so that a second server is refused, and its whole schema is
//! compared with what we write: a trigger that somebody added to the file never runs.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig, ffi::ErrorCode, params};

use super::{Error, Row, Store, files};

/// `application_id` of our files: "SRst".
const APPLICATION: i64 = 0x5352_7374;
/// `user_version`: the shape of the table.
const SCHEMA: i64 = 1;
const TABLE: &str = "CREATE TABLE rows \
    (path TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID";
/// How long a server that is just going away may keep its lock.
const PATIENCE: Duration = Duration::from_millis(250);

/// An open store file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Mutex<Connection>,
    file: PathBuf,
}

impl Sqlite {
    /// Makes a new file of mode 0600, or takes one whose making was interrupted.
    ///
    /// # Errors
    /// As [`Sqlite::open`], but for `Missing`.
    pub fn create(file: &Path) -> Result<Self, Error> {
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        match created {
            Ok(_) => files::sync_folder(file).map_err(io_failed("sync the folder of", file))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_failed("create", file)(error)),
        }
        let this = Self::connect(file)?;
        this.initialise().map_err(sqlite_failed("initialise", file))?;
        this.check()?;
        Ok(this)
    }

    /// Opens the file and locks it for this process.
    ///
    /// # Errors
    /// `Missing`, `InUse`, `Exposed`, `Foreign`, `Schema`, `Damaged`, `Io`, `Sqlite`.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let this = Self::connect(file)?;
        this.check()?;
        Ok(this)
    }

    fn connect(file: &Path) -> Result<Self, Error> {
        // Closed again before SQLite opens it: closing any descriptor of the file would drop SQLite's locks.
        match OpenOptions::new().read(true).open(file) {
            Ok(opened) => {
                if let Some(mode) = files::exposed(&opened).map_err(io_failed("read", file))? {
                    return Err(Error::Exposed { file: file.to_path_buf(), mode });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { file: file.to_path_buf() });
            }
            Err(error) => return Err(io_failed("open", file)(error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).map_err(sqlite_failed("open", file))?;
        prepare(&connection).map_err(sqlite_failed("open", file))?;
        Ok(Self { connection: Mutex::new(connection), file: file.to_path_buf() })
    }

    /// Writes the schema if the file is empty.
    fn initialise(&self) -> rusqlite::Result<()> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        let objects: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let application: i64 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if objects == 0 && application == 0 {
            transaction.execute_batch(TABLE)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        transaction.commit()
    }

    /// Whether the file is ours, of this version, sound, and holds our table and nothing else. Only then is
    /// it written.
    fn check(&self) -> Result<(), Error> {
        let connection = self.lock();
        let file = || self.file.clone();
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        if pragma("application_id").map_err(sqlite_failed("read", &self.file))? != APPLICATION {
            return Err(Error::Foreign { file: file() });
        }
        let found = pragma("user_version").map_err(sqlite_failed("read", &self.file))?;
        if found != SCHEMA {
            return Err(Error::Schema { file: file(), found, known: SCHEMA });
        }
        let verdict: String = connection
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .map_err(sqlite_failed("check", &self.file))?;
        if verdict != "ok" {
            return Err(Error::Damaged { file: file(), what: verdict });
        }
        let schema = schema(&connection).map_err(sqlite_failed("read", &self.file))?;
        if schema != [TABLE] {
            let what = format!("its schema is not the server's own: {}", schema.join("; "));
            return Err(Error::Damaged { file: file(), what });
        }
        start_log(&connection).map_err(sqlite_failed("lock", &self.file))
    }

    fn write(&self, connection: &mut Connection, puts: &[Row], deletes: &[String]) -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM rows WHERE path = ?1")?;
            for path in deletes {
                delete.execute(params![path])?;
            }
            let mut put = transaction.prepare_cached(
                "INSERT INTO rows (path, version, sealed) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (path) DO UPDATE SET version = excluded.version, sealed = excluded.sealed",
            )?;
            for row in puts {
                put.execute(params![row.path, row.version.cast_signed(), row.sealed])?;
            }
        }
        transaction.commit()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Sqlite {
    fn load(&self) -> Result<Vec<Row>, Error> {
        read_rows(&self.lock()).map_err(sqlite_failed("read", &self.file))
    }

    fn commit(&self, puts: &[Row], deletes: &[String]) -> Result<(), Error> {
        let mut connection = self.lock();
        self.write(&mut connection, puts, deletes).map_err(sqlite_failed("write to", &self.file))?;
        if !deletes.is_empty() {
            // The deleted rows are zeroes in the file, and still whole in the log beside it: cut that.
            let cut = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            if let Err(error) = cut {
                let file = self.file.display();
                tracing::warn!(%file, %error, "deleted rows are still in the write-ahead log");
            }
        }
        Ok(())
    }
}

fn read_rows(connection: &Connection) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare("SELECT path, version, sealed FROM rows")?;
    let rows = statement.query_map([], |row| {
        let version: i64 = row.get(1)?;
        Ok(Row { path: row.get(0)?, version: version.cast_unsigned(), sealed: row.get(2)? })
    })?;
    rows.collect()
}

/// How the connection behaves, before anything is read.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Exclusive before WAL: the index of the log then is in our own memory, not in a file that others can
    // map.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "synchronous", "FULL")
}

/// Writes to a log from now on, and takes the lock.
fn start_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")
}

/// What the file says it holds.
fn schema(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT coalesce(sql, type || ' ' || name) FROM sqlite_schema")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn io_failed(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_path_buf();
    move |error| Error::Io { what, file, error }
}

fn sqlite_failed(what: &'static str, file: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    let file = file.to_path_buf();
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse { file },
        Some(ErrorCode::NotADatabase) => Error::Foreign { file },
        Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { file, what: error.to_string() },
        Some(ErrorCode::DiskFull) => Error::Full { file },
        Some(_) | None => Error::Sqlite { what, file, error },
    }
}
