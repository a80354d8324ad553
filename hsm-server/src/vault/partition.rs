//! A partition: one token with its roles, switches, policy, limits and objects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use strongroom_shared::{
    fault::FaultCode,
    object::{Descent, ObjectId, Template},
};

use super::{
    Vault,
    error::Error,
    keyring::Keyring,
    login::Role,
    mandates::Admitted,
    records::{PartitionRecord, RolesRecord},
    shared::keys::SharedKeys,
};
use crate::{
    platform::Platform,
    policy::{Ledger, Policy},
    store::PartitionId,
};

/// A partition, as the vault holds it while it runs.
///
/// Whoever needs more than one of its locks takes them in this order: login turn, object turn, rules.
#[derive(Debug)]
pub struct Partition {
    /// Its name for ever, the token's serial number.
    pub id: PartitionId,
    /// Its objects.
    pub keyring: Keyring,
    /// The shares that this node holds of its keys.
    pub shared: SharedKeys,
    /// What its limited keys signed.
    pub ledger: Ledger,
    login: Mutex<()>,
    objects: Mutex<()>,
    roles: RwLock<RolesRecord>,
    rules: RwLock<Rules>,
    admitted: RwLock<Admitted>,
}

/// What an administrator may change of a partition, and what every use of a key is held against.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Its names and switches.
    pub record: PartitionRecord,
    /// The text of its policy.
    pub policy_text: String,
    /// Its policy.
    pub policy: Policy,
}

impl Partition {
    /// A partition with nothing in it.
    pub fn new(id: PartitionId, rules: Rules, roles: RolesRecord, shared: SharedKeys) -> Self {
        Self {
            id,
            keyring: Keyring::new(),
            shared,
            ledger: Ledger::default(),
            login: Mutex::default(),
            objects: Mutex::default(),
            roles: RwLock::new(roles),
            rules: RwLock::new(rules),
            admitted: RwLock::default(),
        }
    }

    /// Its rules, for as long as the caller holds on to them: whoever puts a use on record meanwhile knows
    /// that the record stands before that of any change of the rules.
    pub fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its rules, to be changed. Held until the change is on record.
    pub fn rules_to_change(&self) -> RwLockWriteGuard<'_, Rules> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may log in.
    pub fn roles(&self) -> RolesRecord {
        self.roles.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether tickets of this role and epoch are good: its PIN is still the one that they were given for.
    pub fn accepts(&self, role: Role, epoch: u64) -> bool {
        let roles = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        let pin = match role {
            Role::Public => None,
            Role::User => roles.user.as_ref(),
            Role::SecurityOfficer => roles.security_officer.as_ref(),
        };
        pin.is_some_and(|pin| pin.epoch == epoch)
    }

    /// Puts other roles in place, once the store holds them. Only for whoever has the login turn.
    pub fn set_roles(&self, roles: RolesRecord) {
        *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles;
    }

    /// The keys that clients may sign mandates with.
    pub fn admitted(&self) -> RwLockReadGuard<'_, Admitted> {
        self.admitted.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to be changed, once the store holds the change.
    pub fn admitted_to_change(&self) -> RwLockWriteGuard<'_, Admitted> {
        self.admitted.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn to check or change a PIN: one after the other, whoever asks.
    pub fn login_turn(&self) -> MutexGuard<'_, ()> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn to add, change or destroy objects, so that what was read of them still holds.
    pub fn object_turn(&self) -> MutexGuard<'_, ()> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    /// Those of a partition that has just been made.
    pub fn new(name: &str) -> Self {
        let record =
            PartitionRecord { name: name.into(), label: None, frozen: false, frozen_keys: Vec::new() };
        Self { record, policy_text: String::new(), policy: Policy::open() }
    }

    /// Whether the master of a BIP-32 descendant is frozen: its descendants are with it.
    ///
    /// # Errors
    /// `Frozen`.
    pub fn check_family(&self, attributes: &Template) -> Result<(), Error> {
        Descent::of(attributes).map_or(Ok(()), |descent| self.check_thawed(descent.master))
    }

    /// Whether the partition or this key, by the first of its copies, is frozen.
    ///
    /// # Errors
    /// `Frozen`, saying which.
    pub fn check_thawed(&self, lineage: ObjectId) -> Result<(), Error> {
        if self.record.frozen {
            return Err(Error::caller(
                FaultCode::Frozen,
                format!("partition {} is frozen", self.record.name),
            ));
        }
        if self.record.frozen_keys.contains(&lineage) {
            return Err(Error::caller(FaultCode::Frozen, format!("key {lineage} is frozen")));
        }
        Ok(())
    }
}

impl<P: Platform> Vault<P> {
    /// The partition of this name.
    pub(super) fn partition_named(&self, name: &str) -> Option<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The same, for what several nodes do together.
    ///
    /// # Errors
    /// `Forbidden`: each of them needs the partition.
    pub(super) fn partition_here(&self, name: &str) -> Result<Arc<Partition>, Error> {
        self.partition_named(name).ok_or_else(|| {
            Error::forbidden(format!(
                "no partition {name} at this node: run `hsmctl partition create` here too"
            ))
        })
    }

    /// Every partition that there is now, with its name.
    pub(super) fn all_partitions(&self) -> Vec<(String, Arc<Partition>)> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().map(|(name, partition)| (name.clone(), Arc::clone(partition))).collect()
    }
}
