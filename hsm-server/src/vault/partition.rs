//! A partition: one token with its roles, switches, policy, limits and objects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use strongroom_shared::{fault::FaultCode, object::ObjectId};

use super::{
    error::Error,
    keyring::Keyring,
    records::{PartitionRecord, RolesRecord},
};
use crate::{
    policy::{Ledger, Policy},
    store::PartitionId,
};

/// A partition, as the vault holds it while it runs.
#[derive(Debug)]
pub struct Partition {
    /// Its name for ever, the token's serial number.
    pub id: PartitionId,
    /// Its objects.
    pub keyring: Keyring,
    /// What its limited keys signed.
    pub ledger: Ledger,
    /// Held while a PIN is checked, so that guesses come one after the other.
    pub logins: Mutex<()>,
    state: RwLock<Arc<State>>,
}

/// What an administrator or a security officer may change of a partition. Never changed in place.
#[derive(Clone, Debug)]
pub struct State {
    /// Its names and switches.
    pub record: PartitionRecord,
    /// Its roles.
    pub roles: RolesRecord,
    /// The text of its policy.
    pub policy_text: String,
    /// Its policy.
    pub policy: Policy,
}

impl Partition {
    /// A partition with its state and nothing in it.
    pub fn new(id: PartitionId, state: State) -> Self {
        Self {
            id,
            keyring: Keyring::default(),
            ledger: Ledger::default(),
            logins: Mutex::default(),
            state: RwLock::new(Arc::new(state)),
        }
    }

    /// Its state at this moment.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another state in place, once the store holds it.
    pub fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// Waits for its turn to check a PIN.
    pub fn login_turn(&self) -> MutexGuard<'_, ()> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A partition that has just been made.
    pub fn new(name: &str) -> Self {
        let record =
            PartitionRecord { name: name.into(), label: None, frozen: false, frozen_keys: Vec::new() };
        Self { record, roles: RolesRecord::default(), policy_text: String::new(), policy: Policy::open() }
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
