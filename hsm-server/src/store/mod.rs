//! The store room: what the vault must not forget, sealed before it touches a disk.
//!
//! The vault speaks to [`SealedStore`] only: it puts and deletes plaintext records under a [`Path`], and
//! every commit is one durable transaction. Below it, a [`Store`] keeps rows that it cannot read: [`sqlite`]
//! is the embedded one, [`memory`] the one of tests. A row that was edited, moved, deleted, put back or
//! rolled back is found when the store is opened; what cannot be seen from here, a whole store put back to an
//! earlier day, the vault sees by comparing [`SealedStore::version`] with the audit log.

mod draft;
mod error;
mod files;
mod manifest;
pub mod memory;
mod open;
mod path;
pub mod root_key;
mod seal;
mod sealed;
pub mod sqlite;

pub use error::{Error, Tampering};
pub use path::{PartitionId, Path};
pub use sealed::{Batch, Random, Record, SealedStore};

/// One row, as a [`Store`] keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name; unique. Shows ids, never labels.
    pub path: String,
    /// The number of the commit that wrote it.
    pub version: u64,
    /// Its sealed content.
    pub sealed: Vec<u8>,
}

/// A durable map of sealed rows.
pub trait Store: Send + Sync + 'static {
    /// Every row.
    ///
    /// # Errors
    /// The store cannot be read, or is damaged.
    fn load(&self) -> Result<Vec<Row>, Error>;

    /// Writes `puts` and removes the rows at `deletes`, all or nothing; on disk when it returns. What removed
    /// rows held is overwritten.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was changed. Any other error: the change may or may not be there after a
    /// restart.
    fn commit(&self, puts: &[Row], deletes: &[String]) -> Result<(), Error>;
}
