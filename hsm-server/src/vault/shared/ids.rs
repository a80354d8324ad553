//! The ids of new keys. A coordinator chooses them, and what nodes tell one another of bans and proofs goes by the id: so
//! none is two keys' at a node, in whatever partitions.

use std::sync::PoisonError;

use strongroom_shared::object::ObjectId;

use super::super::{Error, Vault, partition::Partition};
use crate::platform::Platform;

impl Partition {
    /// Whether something has this id here: an object, a share in whatever state, or a descendant.
    fn has_id(&self, id: ObjectId) -> bool {
        self.keyring.has(id) || self.shared.holds(id) || self.shared.children.record(id).is_some()
    }
}

impl<P: Platform> Vault<P> {
    /// Whether a new pair may have these ids.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(super) fn check_pair(&self, public: ObjectId, private: ObjectId) -> Result<(), Error> {
        if public == private {
            return Err(taken());
        }
        [public, private].into_iter().try_for_each(|id| self.check_free(id))
    }

    /// Whether a new key may have this id: nothing has it, and no key that had it was destroyed or
    /// abandoned here.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(super) fn check_free(&self, id: ObjectId) -> Result<(), Error> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.values().try_for_each(|partition| {
            partition.shared.destroyed.check_new(id)?;
            partition.shared.promises.check_new(id)?;
            if partition.has_id(id) { Err(taken()) } else { Ok(()) }
        })
    }

    /// Whether no other partition than this one has something of this id, which a key gets here, or its shares.
    ///
    /// # Errors
    /// `Forbidden`.
    pub(super) fn check_free_elsewhere(&self, own: &Partition, id: ObjectId) -> Result<(), Error> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let mut others = partitions.values().filter(|partition| partition.id != own.id);
        if others.any(|partition| partition.has_id(id)) { Err(taken()) } else { Ok(()) }
    }
}

fn taken() -> Error {
    Error::forbidden("the coordinator gives the new key an id that is taken")
}
