//! The shares that this node holds, and those that wait for all nodes to have theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use minicbor::{Decode, Encode};
use strongroom_shared::{
    fault::FaultCode,
    message::SecretBytes,
    object::{ObjectId, Template},
};

use super::{
    super::{Error, record::Change, records::decode},
    bans::SignedBan,
    certificate::{Certificate, Claim},
    children::Children,
};
use crate::{
    cluster::{Member, Membership},
    crypto::threshold::{Party, Share},
    platform::Time,
    store::{PartitionId, Path},
};

/// A share, as it is kept.
#[derive(Debug, Encode, Decode)]
pub struct ShareRecord {
    /// The share itself.
    #[n(0)]
    pub share: SecretBytes,
    /// Every node's word that it holds its own, encoded.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// A share that waits for its certificate, with the objects that it will make.
#[derive(Debug, Encode, Decode)]
pub struct PendingRecord {
    /// The share itself.
    #[n(0)]
    pub share: SecretBytes,
    /// What this node claims of it, encoded.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub claim: Vec<u8>,
    /// The attributes of the public key.
    #[n(2)]
    pub public: Template,
    /// The attributes of the private key.
    #[n(3)]
    pub private: Template,
    /// When it was made.
    #[n(4)]
    pub made: Time,
}

/// A key of which this node holds a share.
pub struct SharedKey {
    /// The share.
    pub share: Share,
    /// The nodes that hold the shares, in the order of their seats: their Ed25519 keys.
    pub seats: Vec<[u8; 32]>,
    /// Every node's word, encoded.
    pub certificate: Vec<u8>,
    bans: RwLock<Vec<SignedBan>>,
}

impl SharedKey {
    /// From what was kept.
    ///
    /// # Errors
    /// `IntegrityViolated`: it is nothing that this server wrote.
    pub fn open(record: ShareRecord, bans: Vec<SignedBan>) -> Result<Self, Error> {
        let broken = |what: &dyn std::fmt::Display| {
            Error::caller(FaultCode::IntegrityViolated, format!("a kept share: {what}"))
        };
        let share = Share::from_bytes(&record.share.0).map_err(|error| broken(&error))?;
        let certificate: Certificate = decode(&record.certificate)?;
        let claim: Claim = decode(&certificate.claim)?;
        Ok(Self { share, seats: claim.seats, certificate: record.certificate, bans: RwLock::new(bans) })
    }

    /// The nodes that hold the shares, as the document has them now. One that was removed is not among them.
    pub fn members(&self, membership: &Membership) -> BTreeMap<Party, Member> {
        let seats = (1..).map_while(Party::new).zip(&self.seats);
        seats.filter_map(|(party, identity)| Some((party, membership.member(identity)?.clone()))).collect()
    }

    /// The pairs that are banned in the epoch of this share.
    pub fn bans(&self) -> Vec<SignedBan> {
        let epoch = self.share.public().epoch();
        let bans = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        bans.iter().filter(|signed| signed.ban.epoch == epoch).cloned().collect()
    }

    /// Whether these may sign together.
    pub fn may_sign(&self, signers: &BTreeSet<Party>) -> bool {
        !self.bans().iter().any(|ban| ban.forbids(signers))
    }

    /// Whose word a ban rests on.
    pub fn identity(&self, party: Party) -> Option<&[u8; 32]> {
        self.seats.get(usize::from(party.number()).checked_sub(1)?)
    }

    /// Those of `heard` that are not known yet, each once.
    pub fn unknown(&self, heard: &[SignedBan]) -> Vec<SignedBan> {
        let known = self.bans.read().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<SignedBan> = Vec::new();
        for ban in heard {
            if known.iter().chain(&new).all(|other| other.ban != ban.ban) {
                new.push(ban.clone());
            }
        }
        new
    }

    /// Those that whoever told `heard` does not know.
    pub fn unknown_to(&self, heard: &[SignedBan]) -> Vec<SignedBan> {
        self.bans().into_iter().filter(|own| heard.iter().all(|other| other.ban != own.ban)).collect()
    }

    /// What is to be removed from the store with the share.
    pub fn forget(&self, change: Change, partition: PartitionId, id: ObjectId) -> Change {
        let change = change.delete(Path::Share(partition, id));
        match self.bans.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            true => change,
            false => change.delete(Path::Bans(partition, id)),
        }
    }

    /// The bans, to be changed once the store holds the change.
    pub fn bans_to_change(&self) -> RwLockWriteGuard<'_, Vec<SignedBan>> {
        self.bans.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition's shared keys, by the private key's object.
#[derive(Default)]
pub struct SharedKeys {
    active: RwLock<BTreeMap<ObjectId, Arc<SharedKey>>>,
    pending: RwLock<BTreeMap<ObjectId, Arc<PendingRecord>>>,
    /// The keys' descendants.
    pub children: Children,
}

impl std::fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedKeys({}, {} pending)", self.read().len(), self.pending().len())
    }
}

impl SharedKeys {
    /// What was kept.
    pub fn new(
        active: BTreeMap<ObjectId, Arc<SharedKey>>,
        pending: BTreeMap<ObjectId, Arc<PendingRecord>>,
    ) -> Self {
        Self { active: RwLock::new(active), pending: RwLock::new(pending), children: Children::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectId, Arc<SharedKey>>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a share of this key is here, active or pending.
    pub fn holds(&self, id: ObjectId) -> bool {
        self.read().contains_key(&id) || self.pending().contains_key(&id)
    }

    /// The key, if this node holds an active share of it.
    pub fn key(&self, id: ObjectId) -> Option<Arc<SharedKey>> {
        self.read().get(&id).cloned()
    }

    /// What waits.
    pub fn pending(&self) -> BTreeMap<ObjectId, Arc<PendingRecord>> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A share waits from now on; the store holds it.
    pub fn wait(&self, id: ObjectId, record: PendingRecord) {
        self.pending.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(record));
    }

    /// A share has been made active; the store holds it.
    pub fn activate(&self, id: ObjectId, key: SharedKey) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(key));
        self.drop_pending(id);
        self.children.wipe(id);
    }

    /// A pending share is gone from the store.
    pub fn drop_pending(&self, id: ObjectId) {
        self.pending.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// A share is gone from the store.
    pub fn remove(&self, id: ObjectId) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.children.wipe(id);
    }

    /// What is to be removed from the store with all of them.
    pub fn forget(&self, change: Change, partition: PartitionId) -> Change {
        let change = self.read().iter().fold(change, |change, (id, key)| key.forget(change, partition, *id));
        let change =
            self.pending().keys().fold(change, |change, id| change.delete(Path::Pending(partition, *id)));
        self.children.forget(change, partition)
    }

    /// Removes all of them.
    pub fn clear(&self) {
        self.active.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.pending.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.children.clear();
    }
}
