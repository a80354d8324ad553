//! Keys that were destroyed here: what a node keeps of each for ever, so that nobody brings one back.
//!
//! A certificate is good for ever, and whoever kept one could show it when it comes in useful: that of a descendant, to
//! a node whose share of the master became another just now. So a node takes nothing any more of a key that was destroyed
//! here: no share of it, no descendant by that name, and no new key under its id.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use minicbor::{Decode, Encode};
use strongroom_shared::object::ObjectId;

use crate::vault::{
    Error,
    shared::{ceremony::party::forbidden, certificate::sha256},
};

/// What is kept of a key that was destroyed, or abandoned before it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DestroyedRecord {
    /// SHA-256 of the public key (`CKA_PUBLIC_KEY_INFO`) that the application was shown, where nothing of the key was
    /// here that it could be compared with: another key of this id is none that the application destroyed. None where
    /// it was compared: nothing of this id is taken.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub shown: Option<[u8; 32]>,
}

impl DestroyedRecord {
    /// Of a key that was here, or that administrators had nodes abandon.
    pub const WAS_HERE: Self = Self { shown: None };

    /// Whether it is about a key with this public key (`CKA_PUBLIC_KEY_INFO`).
    fn is_of(&self, public: &[u8]) -> bool {
        self.shown.is_none_or(|shown| shown == sha256(public))
    }
}

/// The keys of a partition that were destroyed at this node.
#[derive(Default)]
pub struct Destroyed(RwLock<BTreeMap<ObjectId, DestroyedRecord>>);

impl Destroyed {
    /// Takes over what the store holds.
    pub fn load(&self, records: BTreeMap<ObjectId, DestroyedRecord>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = records;
    }

    /// A key is destroyed; the store says so.
    pub fn put(&self, id: ObjectId, record: DestroyedRecord) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, record);
    }

    fn record(&self, id: ObjectId) -> Option<DestroyedRecord> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// What is to be kept of a key of which this node has had nothing, if that is more than it keeps already. An
    /// application that was shown two keys by one name has destroyed whatever goes by it.
    pub fn unseen(&self, id: ObjectId, shown: [u8; 32]) -> Option<DestroyedRecord> {
        let new = DestroyedRecord { shown: Some(shown) };
        match self.record(id) {
            None => Some(new),
            Some(kept) if kept == new || kept == DestroyedRecord::WAS_HERE => None,
            Some(_) => Some(DestroyedRecord::WAS_HERE),
        }
    }

    /// Whether this node takes nothing of this id any more, whatever it is.
    pub fn was_here(&self, id: ObjectId) -> bool {
        self.record(id) == Some(DestroyedRecord::WAS_HERE)
    }

    /// Whether a new key may have this id.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_new(&self, id: ObjectId) -> Result<(), Error> {
        match self.record(id) {
            None => Ok(()),
            Some(_) => Err(destroyed(id)),
        }
    }

    /// Whether something may come here of the key of this id and public key (`CKA_PUBLIC_KEY_INFO`).
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check(&self, id: ObjectId, public: &[u8]) -> Result<(), Error> {
        match self.record(id) {
            Some(record) if record.is_of(public) => Err(destroyed(id)),
            Some(_) | None => Ok(()),
        }
    }
}

fn destroyed(id: ObjectId) -> Error {
    forbidden(format!("key {id} was destroyed at this node, and does not come back"))
}
