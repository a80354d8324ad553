//! Who reads on in the audit log. To read it is an act on record; to read on from where the last answer ended, on
//! the same connection, is the same act still. Anything else that is read is a record of its own.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Where the last answer to each connection ended, as the number of a record.
#[derive(Debug, Default)]
pub struct Readers {
    ends: Mutex<HashMap<u64, u64>>,
}

impl Readers {
    /// Whether reading after this record goes on where the connection's last answer ended.
    pub fn read_on(&self, connection: u64, after: Option<u64>) -> bool {
        after.is_some() && self.lock().get(&connection).copied() == after
    }

    /// The connection's last answer ended here.
    pub fn stop_at(&self, connection: u64, end: u64) {
        self.lock().insert(connection, end);
    }

    /// The connection is gone, and what it read with it.
    pub fn leave(&self, connection: u64) {
        self.lock().remove(&connection);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_connection_reads_on_and_only_from_its_end() {
        let readers = Readers::default();
        assert!(!readers.read_on(1, None) && !readers.read_on(1, Some(7)));
        readers.stop_at(1, 7);
        assert!(readers.read_on(1, Some(7)));
        assert!(!readers.read_on(1, None) && !readers.read_on(1, Some(6)) && !readers.read_on(1, Some(8)));
        assert!(!readers.read_on(2, Some(7)));
        readers.leave(1);
        assert!(!readers.read_on(1, Some(7)));
    }
}
