//! BIP-32 descendants of shared keys on secp256k1, not hardened: which there are, and their shares.
//!
//! A descendant has no share in the store. Every node makes its own out of its share of the master when it is used, and
//! keeps a few of those that were used last. So it is of its master's epoch always, and of no other.

mod derive;
pub mod descendant;
mod inherit;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use minicbor::{Decode, Encode};
use strongroom_shared::{
    fault::FaultCode,
    object::{Descent, ObjectId, Template},
};

use crate::{
    crypto::threshold::{Refusal, Share},
    platform::Time,
    store::{PartitionId, Path},
    vault::{
        Error,
        record::Change,
        shared::{
            certificate::key_id,
            keys::{SharedKey, SharedKeys},
        },
    },
};

/// How many shares of descendants a partition keeps in memory: 105 KB each for 2 of 3.
const KEPT: usize = 32;

/// A descendant, as it is kept beside its object.
#[derive(Debug, Encode, Decode)]
pub enum ChildRecord {
    /// It waits until all who hold a share of the master have said the same.
    #[n(0)]
    Waiting {
        /// Where it comes from.
        #[n(0)]
        descent: Descent,
        /// What this node has said of it, encoded.
        #[cbor(n(1), with = "minicbor::bytes")]
        claim: Vec<u8>,
        /// The attributes of its object.
        #[n(2)]
        attributes: Template,
        /// Since when it waits.
        #[n(3)]
        made: Time,
    },
    /// It is there.
    #[n(1)]
    Certified {
        /// Where it comes from.
        #[n(0)]
        descent: Descent,
        /// Every node's word that it has the object, encoded.
        #[cbor(n(1), with = "minicbor::bytes")]
        certificate: Vec<u8>,
    },
}

impl ChildRecord {
    const fn descent(&self) -> &Descent {
        match self {
            Self::Waiting { descent, .. } | Self::Certified { descent, .. } => descent,
        }
    }
}

/// A partition's descendants, by their objects.
#[derive(Default)]
pub struct Children {
    records: RwLock<BTreeMap<ObjectId, Arc<ChildRecord>>>,
    /// The last one used stands last.
    kept: Mutex<VecDeque<Kept>>,
}

/// The share of a descendant.
struct Kept {
    id: ObjectId,
    master: ObjectId,
    /// Of whose share it was made.
    family: Arc<SharedKey>,
    share: Arc<Share>,
}

impl Children {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectId, Arc<ChildRecord>>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<ObjectId, Arc<ChildRecord>>> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the store holds.
    pub fn load(&self, records: BTreeMap<ObjectId, Arc<ChildRecord>>) {
        *self.write() = records;
    }

    /// What is known of this one.
    pub fn record(&self, id: ObjectId) -> Option<Arc<ChildRecord>> {
        self.read().get(&id).cloned()
    }

    /// Another descendant, or more of one that was known; the store holds it.
    pub fn put(&self, id: ObjectId, record: ChildRecord) {
        self.write().insert(id, Arc::new(record));
    }

    /// A descendant is gone from the store.
    pub fn remove(&self, id: ObjectId) {
        self.write().remove(&id);
        self.kept().retain(|kept| kept.id != id);
    }

    /// Those that wait.
    pub fn waiting(&self) -> Vec<(ObjectId, Arc<ChildRecord>)> {
        let waits = |record: &ChildRecord| matches!(record, ChildRecord::Waiting { .. });
        self.read()
            .iter()
            .filter(|(_, record)| waits(record))
            .map(|(id, record)| (*id, record.clone()))
            .collect()
    }

    /// Where a descendant that is there comes from.
    pub fn descent(&self, id: ObjectId) -> Option<Descent> {
        match &**self.read().get(&id)? {
            ChildRecord::Certified { descent, .. } => Some(descent.clone()),
            ChildRecord::Waiting { .. } => None,
        }
    }

    /// The descendants of a key: those that are there, and those that wait.
    pub fn of(&self, master: ObjectId) -> (Vec<ObjectId>, Vec<ObjectId>) {
        let all = self.read();
        let of = all.iter().filter(|(_, record)| record.descent().master == master);
        let (there, wait): (Vec<_>, Vec<_>) =
            of.partition(|(_, record)| matches!(***record, ChildRecord::Certified { .. }));
        let ids = |list: Vec<(&ObjectId, _)>| list.into_iter().map(|(id, _)| *id).collect();
        (ids(there), ids(wait))
    }

    /// What is to be removed from the store with all of them.
    pub fn forget(&self, change: Change, partition: PartitionId) -> Change {
        self.read().keys().fold(change, |change, id| change.delete(Path::Child(partition, *id)))
    }

    /// Removes all of them.
    pub fn clear(&self) {
        self.write().clear();
        self.kept().clear();
    }

    /// The share of a key is another or none: what was made of the one before is erased.
    pub fn wipe(&self, master: ObjectId) {
        self.kept().retain(|kept| kept.master != master);
    }
}

/// A key as it signs: a share of its own, or what a descendant makes of its master's.
pub struct SigningKey {
    /// The key that descends from none: its bans, its seats and its epoch are the whole family's.
    pub family: Arc<SharedKey>,
    descendant: Option<Arc<Share>>,
}

impl SigningKey {
    /// The share that signs.
    pub fn share(&self) -> &Share {
        self.descendant.as_deref().unwrap_or(&self.family.share)
    }
}

impl SharedKey {
    /// The share of a descendant.
    ///
    /// # Errors
    /// `MechanismParamInvalid` if one of the indices has no child; `KeyTypeInconsistent` if the key has none.
    pub fn descendant(&self, id: ObjectId, path: &[u32]) -> Result<Share, Error> {
        let none = |error: Refusal| match error {
            Refusal::Child if self.share.public().chain_code().is_some() => {
                let text = "one of the indices has no child: take the next one (BIP-32)";
                Error::caller(FaultCode::MechanismParamInvalid, text)
            }
            Refusal::Child => Error::caller(FaultCode::KeyTypeInconsistent, "the key has no chain code"),
            other => Error::internal(other),
        };
        let (first, rest) = path.split_first().ok_or(FaultCode::MechanismParamInvalid)?;
        let child = self.share.child(key_id(id), *first).map_err(none)?;
        rest.iter().try_fold(child, |share, index| share.child(key_id(id), *index).map_err(none))
    }
}

impl SharedKeys {
    /// The key that this one descends from, or itself, if this node holds an active share of it.
    pub fn family(&self, id: ObjectId) -> Option<Arc<SharedKey>> {
        self.key(self.children.descent(id).map_or(id, |descent| descent.master))
    }

    /// A key as it signs, if this node holds an active share of it or of its master.
    ///
    /// # Errors
    /// As [`SharedKey::descendant`].
    pub fn signing_key(&self, id: ObjectId) -> Result<Option<SigningKey>, Error> {
        let Some(Descent { master, path }) = self.children.descent(id) else {
            return Ok(self.key(id).map(|family| SigningKey { family, descendant: None }));
        };
        let Some(family) = self.key(master) else { return Ok(None) };
        let share = match self.kept_share(id, &family) {
            Some(share) => share,
            None => {
                let share = Arc::new(family.descendant(id, &path)?);
                self.keep(Kept { id, master, family: Arc::clone(&family), share: Arc::clone(&share) });
                share
            }
        };
        Ok(Some(SigningKey { family, descendant: Some(share) }))
    }

    fn kept_share(&self, id: ObjectId, family: &Arc<SharedKey>) -> Option<Arc<Share>> {
        let mut all = self.children.kept();
        let at = all.iter().position(|kept| kept.id == id && Arc::ptr_eq(&kept.family, family))?;
        let kept = all.remove(at)?;
        let share = Arc::clone(&kept.share);
        all.push_back(kept);
        Some(share)
    }

    fn keep(&self, kept: Kept) {
        let mut all = self.children.kept();
        // The master's share may have been replaced or erased meanwhile, and what was made of it with it.
        let is_current = self.key(kept.master).is_some_and(|family| Arc::ptr_eq(&family, &kept.family));
        if !is_current {
            return;
        }
        all.retain(|other| other.id != kept.id);
        if all.len() >= KEPT {
            all.pop_front();
        }
        all.push_back(kept);
    }
}
