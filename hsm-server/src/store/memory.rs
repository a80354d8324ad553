//! A store in memory, for tests: a clone is the same store, as a file is after a restart.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Error, Row, Store};

/// Rows in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<String, Row>,
    disk: Disk,
}

/// How the disk behaves that a [`Memory`] plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// It works.
    #[default]
    Good,
    /// It has no space: a commit changes nothing.
    Full,
    /// It fails while a commit is written, and the commit is there nevertheless.
    Failing,
}

impl Memory {
    /// From now on the disk behaves like this.
    pub fn set_disk(&self, disk: Disk) {
        self.lock().disk = disk;
    }

    /// The row at `path`.
    pub fn row(&self, path: &str) -> Option<Row> {
        self.lock().rows.get(path).cloned()
    }

    /// Puts a row in behind the server's back.
    pub fn tamper(&self, row: Row) {
        self.lock().rows.insert(row.path.clone(), row);
    }

    /// Takes a row away behind the server's back.
    pub fn steal(&self, path: &str) -> Option<Row> {
        self.lock().rows.remove(path)
    }

    /// Another store with the same rows: a backup.
    pub fn copy(&self) -> Self {
        let rows = self.lock().rows.clone();
        Self(Arc::new(Mutex::new(State { rows, disk: Disk::Good })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn load(&self) -> Result<Vec<Row>, Error> {
        Ok(self.lock().rows.values().cloned().collect())
    }

    fn commit(&self, puts: &[Row], deletes: &[String]) -> Result<(), Error> {
        let mut state = self.lock();
        let file = PathBuf::from("memory");
        if state.disk == Disk::Full {
            return Err(Error::Full { file });
        }
        for path in deletes {
            state.rows.remove(path);
        }
        for row in puts {
            state.rows.insert(row.path.clone(), row.clone());
        }
        match state.disk {
            Disk::Good | Disk::Full => Ok(()),
            Disk::Failing => {
                Err(Error::Io { what: "write", file, error: std::io::Error::other("the disk is failing") })
            }
        }
    }
}
