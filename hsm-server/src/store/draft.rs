//! What a batch comes to: one change per row, or a refusal before anything was touched.

use std::collections::BTreeMap;

use strongroom_shared::secret::Wiped;

use super::{
    error::Error,
    path::{Name, PartitionId, Path},
    seal::{self, Key},
    sealed::{Batch, Random, State, Step},
};

/// What becomes of a row.
pub(super) enum Change {
    Put(Wiped),
    Delete,
}

/// The changes of one commit.
#[derive(Default)]
pub(super) struct Draft {
    pub rows: BTreeMap<Name, Change>,
    /// Partitions whose key is new, or gone.
    pub keys: BTreeMap<PartitionId, Option<Key>>,
}

impl Draft {
    /// Works out what `batch` does to `state`.
    ///
    /// # Errors
    /// `Absent`, `NoPartition`, `PartitionExists` if it does not fit.
    pub(super) fn new(state: &State, batch: Batch, random: &Random) -> Result<Self, Error> {
        let mut draft = Self::default();
        for step in batch.steps {
            match step {
                Step::Put(path, plaintext) => draft.put(state, path, plaintext)?,
                Step::Delete(path) => draft.delete(state, path)?,
                Step::DeleteIfThere(path) => draft.delete_if_there(state, path)?,
                Step::CreatePartition(id) => draft.create_partition(state, id, seal::random_key(random))?,
                Step::DeletePartition(id) => draft.delete_partition(state, id)?,
            }
        }
        Ok(draft)
    }

    fn put(&mut self, state: &State, path: Path, plaintext: Wiped) -> Result<(), Error> {
        self.check_partition(state, path)?;
        self.rows.insert(Name::Record(path), Change::Put(plaintext));
        Ok(())
    }

    fn delete(&mut self, state: &State, path: Path) -> Result<(), Error> {
        self.check_partition(state, path)?;
        if !self.is_there(state, path) {
            return Err(Error::Absent(path));
        }
        self.remove(state, Name::Record(path));
        Ok(())
    }

    fn delete_if_there(&mut self, state: &State, path: Path) -> Result<(), Error> {
        self.check_partition(state, path)?;
        if self.is_there(state, path) {
            self.remove(state, Name::Record(path));
        }
        Ok(())
    }

    /// Whether a record will be there, as far as is drafted.
    fn is_there(&self, state: &State, path: Path) -> bool {
        let name = Name::Record(path);
        match self.rows.get(&name) {
            Some(Change::Put(_)) => true,
            Some(Change::Delete) => false,
            None => state.rows.contains_key(&name),
        }
    }

    /// Whether the partition is there that a path belongs to.
    fn check_partition(&self, state: &State, path: Path) -> Result<(), Error> {
        match path.partition() {
            Some(id) if self.key(state, id).is_none() => Err(Error::NoPartition(id)),
            Some(_) | None => Ok(()),
        }
    }

    fn create_partition(&mut self, state: &State, id: PartitionId, key: Key) -> Result<(), Error> {
        if self.key(state, id).is_some() {
            return Err(Error::PartitionExists(id));
        }
        self.rows.insert(Name::Key(id), Change::Put(Wiped::from(key.expose().to_vec())));
        self.keys.insert(id, Some(key));
        Ok(())
    }

    fn delete_partition(&mut self, state: &State, id: PartitionId) -> Result<(), Error> {
        if self.key(state, id).is_none() {
            return Err(Error::NoPartition(id));
        }
        let all = state.rows.keys().chain(self.rows.keys());
        let gone: Vec<Name> = all.filter(|name| name.partition() == Some(id)).copied().collect();
        for name in gone {
            self.remove(state, name);
        }
        self.keys.insert(id, None);
        Ok(())
    }

    /// A row that is on disk is deleted there; one that was only drafted is forgotten.
    fn remove(&mut self, state: &State, name: Name) {
        if state.rows.contains_key(&name) {
            self.rows.insert(name, Change::Delete);
        } else {
            self.rows.remove(&name);
        }
    }

    /// The key of a partition, as it will be.
    pub(super) fn key<'a>(&'a self, state: &'a State, id: PartitionId) -> Option<&'a Key> {
        match self.keys.get(&id) {
            Some(drafted) => drafted.as_ref(),
            None => state.partitions.get(&id),
        }
    }
}
