//! The shares that this node holds, those that wait for all nodes to have theirs, and those that have been replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
};

use strongroom_shared::{
    fault::FaultCode,
    message::SecretBytes,
    object::{ObjectId, Shares},
    shares::{Certificate, Claim},
};

use super::{
    super::{Error, nodes::Question, partition::Partition, record::Change, records::decode},
    bans::SignedBan,
    children::Children,
    end::{destroyed::Destroyed, promise::Promises},
    generate::FIRST,
    kept::{FormerRecord, PendingRecord, ShareRecord, StandingRecord},
    life::{proof::Proof, traces::Traces},
};
use crate::{
    cluster::{Member, Membership, NodeId, order::SignedOrder},
    crypto::threshold::{Epoch, Party, PublicShares, Share},
    platform::Time,
    store::{PartitionId, Path},
};

/// A key of several nodes, and where it is at this one.
#[derive(Clone, Copy, Debug)]
pub struct KeyHere<'a> {
    /// The partition's name, which it has at all nodes.
    pub name: &'a str,
    /// The partition.
    pub partition: &'a Partition,
    /// The private key.
    pub id: ObjectId,
}

impl KeyHere<'_> {
    /// What another node is asked that is to say what it has of the key.
    pub fn question(self) -> Question {
        Question::Certificate { partition: self.name.into(), key: self.id }
    }
}

/// A key of which this node holds a share.
pub struct SharedKey {
    /// The share.
    pub share: Share,
    /// The nodes that hold the shares, in the order of their seats: their Ed25519 keys.
    pub seats: Vec<[u8; 32]>,
    /// Every node's word, encoded.
    pub certificate: Vec<u8>,
    /// What administrators ordered, if they did.
    pub order: Option<SignedOrder>,
    /// When it became active; 0 if that is not known.
    pub made: Time,
    standing: RwLock<StandingRecord>,
    bans: RwLock<Bans>,
}

/// What is known of pairs that must not sign together.
struct Bans {
    known: Vec<SignedBan>,
    /// Whether the store holds all of it.
    kept: bool,
}

impl SharedKey {
    /// How it is shared.
    pub fn shares(&self) -> Shares {
        let committee = self.share.public().committee();
        Shares { threshold: committee.threshold(), parties: committee.parties() }
    }

    /// The private key's object.
    pub fn id(&self) -> ObjectId {
        ObjectId(self.share.public().key().0)
    }

    /// From what was kept.
    ///
    /// # Errors
    /// `IntegrityViolated`: it is nothing that this server wrote.
    pub fn open(
        record: ShareRecord,
        mut standing: StandingRecord,
        bans: Vec<SignedBan>,
    ) -> Result<Self, Error> {
        // Nodes kept proofs once without their signers' words.
        if !standing.proofs.iter().all(Proof::has_words) {
            standing.proofs.clear();
        }
        let broken = |what: &dyn std::fmt::Display| {
            Error::caller(FaultCode::IntegrityViolated, format!("a kept share: {what}"))
        };
        let share = Share::from_bytes(&record.share.0).map_err(|error| broken(&error))?;
        let certificate: Certificate = decode(&record.certificate)?;
        let claim: Claim = decode(&certificate.claim)?;
        Ok(Self {
            share,
            seats: claim.seats,
            certificate: record.certificate,
            order: record.order,
            made: record.made.unwrap_or_default(),
            standing: RwLock::new(standing),
            bans: RwLock::new(Bans { known: bans, kept: true }),
        })
    }

    /// The share as it is kept.
    ///
    /// # Errors
    /// The library cannot write its state.
    pub fn record(&self) -> Result<ShareRecord, Error> {
        let secret = self.share.to_secret_bytes();
        let secret = secret.map_err(Error::internal)?;
        Ok(ShareRecord {
            share: SecretBytes(secret),
            certificate: self.certificate.clone(),
            order: self.order.clone(),
            made: Some(self.made),
        })
    }

    /// The epoch of the share.
    pub fn epoch(&self) -> Epoch {
        self.share.public().epoch()
    }

    /// Whether these are shares of the same public key, by the same scheme.
    pub fn is_same_key(&self, other: &PublicShares) -> bool {
        let own = self.share.public();
        let keys = (own.public_key(), other.public_key());
        own.scheme() == other.scheme() && matches!(keys, (Ok(own), Ok(other)) if own == other)
    }

    /// What is known of it beside its certificate.
    pub fn standing(&self) -> StandingRecord {
        self.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, once the store holds it.
    pub fn set_standing(&self, standing: StandingRecord) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Whether the share may be used: it is not, once the others have shares of a later epoch.
    ///
    /// # Errors
    /// `Forbidden`, saying what is to be done.
    pub fn check_current(&self) -> Result<(), Error> {
        match self.standing().missed {
            None => Ok(()),
            Some(Epoch(missed)) => Err(Error::forbidden(format!(
                "the share here is of epoch {}, and this node has lost the one of epoch {missed}, which the others \
                     have: `hsmctl key repair` gives it one again",
                self.epoch().0
            ))),
        }
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
        bans.known.iter().filter(|signed| signed.ban.epoch == epoch).cloned().collect()
    }

    /// Whether the store holds every ban.
    pub fn has_kept_bans(&self) -> bool {
        self.bans.read().unwrap_or_else(PoisonError::into_inner).kept
    }

    /// These pairs are banned from now on; [`Self::keep_bans`] is to follow.
    pub fn ban(&self, new: Vec<SignedBan>) {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        bans.known.extend(new);
        bans.kept = false;
    }

    /// Has all bans written down, if they are not.
    ///
    /// # Errors
    /// Those of `write`: they are not kept then.
    pub fn keep_bans(&self, write: impl FnOnce(&Vec<SignedBan>) -> Result<(), Error>) -> Result<(), Error> {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        if !bans.kept {
            write(&bans.known)?;
            bans.kept = true;
        }
        Ok(())
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
            if known.known.iter().chain(&new).all(|other| other.ban != ban.ban) {
                new.push(ban.clone());
            }
        }
        new
    }

    /// Those that whoever told `heard` does not know.
    pub fn unknown_to(&self, heard: &[SignedBan]) -> Vec<SignedBan> {
        self.bans().into_iter().filter(|own| heard.iter().all(|other| other.ban != own.ban)).collect()
    }
}

/// A partition's shared keys, by the private key's object.
#[derive(Default)]
pub struct SharedKeys {
    active: RwLock<BTreeMap<ObjectId, Arc<SharedKey>>>,
    pending: RwLock<Pending>,
    /// Shares that others have replaced, and that are kept still.
    former: RwLock<BTreeMap<ObjectId, Arc<FormerRecord>>>,
    /// The keys' descendants.
    pub children: Children,
    /// Those that were destroyed.
    pub destroyed: Destroyed,
    /// Which nodes may have something left of them that their certificates do not name.
    pub traces: Traces,
    /// Those of which it takes no certificate, because they are to be abandoned.
    pub promises: Promises,
    /// Held while this node has the others make one.
    making: Mutex<()>,
}

/// The shares that wait, by key and epoch. A later one may be begun while an earlier one waits: whoever may have the
/// earlier one's certificate, the later one's is stronger.
pub type Pending = BTreeMap<(ObjectId, u64), Arc<PendingRecord>>;

impl std::fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedKeys({}, {} pending)", self.read().len(), self.pending().len())
    }
}

/// Has the store hold nothing of a key's active share any more.
pub fn erase_active(change: Change, partition: PartitionId, id: ObjectId) -> Change {
    let rows = [Path::Share(partition, id), Path::Bans(partition, id), Path::Standing(partition, id)];
    rows.into_iter().fold(change, Change::delete_if_there)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl SharedKeys {
    /// What was kept.
    pub fn new(
        active: BTreeMap<ObjectId, Arc<SharedKey>>,
        pending: Pending,
        former: BTreeMap<ObjectId, Arc<FormerRecord>>,
    ) -> Self {
        Self {
            active: RwLock::new(active),
            pending: RwLock::new(pending),
            former: RwLock::new(former),
            children: Children::default(),
            destroyed: Destroyed::default(),
            traces: Traces::default(),
            promises: Promises::default(),
            making: Mutex::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectId, Arc<SharedKey>>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to have a key made, unless one is being made.
    pub fn turn_to_make(&self) -> Option<MutexGuard<'_, ()>> {
        match self.making.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a share of this key is here, in whatever state.
    pub fn holds(&self, id: ObjectId) -> bool {
        self.read().contains_key(&id) || !self.waiting(id).is_empty() || self.former(id).is_some()
    }

    /// The key, if this node holds an active share of it.
    pub fn key(&self, id: ObjectId) -> Option<Arc<SharedKey>> {
        self.read().get(&id).cloned()
    }

    /// Every key of which this node holds an active share.
    pub fn keys(&self) -> Vec<(ObjectId, Arc<SharedKey>)> {
        self.read().iter().map(|(id, key)| (*id, Arc::clone(key))).collect()
    }

    /// The keys of which a pair is banned, with those bans.
    pub fn banned(&self) -> Vec<(ObjectId, Vec<SignedBan>)> {
        let keys = self.read();
        let bans = keys.iter().filter(|(_, key)| key.has_kept_bans()).map(|(id, key)| (*id, key.bans()));
        bans.filter(|(_, bans)| !bans.is_empty()).collect()
    }

    /// The keys with bans that the store does not hold.
    pub fn unkept(&self) -> Vec<(ObjectId, Arc<SharedKey>)> {
        let keys = self.read();
        let unkept = keys.iter().filter(|(_, key)| !key.has_kept_bans());
        unkept.map(|(id, key)| (*id, Arc::clone(key))).collect()
    }

    /// What waits.
    pub fn pending(&self) -> Pending {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The epochs of this key whose shares wait.
    pub fn waiting(&self, id: ObjectId) -> Vec<u64> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        pending.range((id, 0)..=(id, u64::MAX)).map(|((_, epoch), _)| *epoch).collect()
    }

    /// How many shares wait that this node has had made.
    pub fn waiting_of(&self, coordinator: NodeId) -> usize {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        pending.values().filter(|pending| pending.coordinator == Some(coordinator)).count()
    }

    /// The highest epoch of this key of which this node has ever said that it has a share, or dealt for one, as far as it
    /// knows.
    pub fn highest(&self, id: ObjectId) -> Option<u64> {
        let of_active = self.key(id).and_then(|key| {
            let StandingRecord { missed, dealt, .. } = key.standing();
            Some(key.epoch()).max(missed).max(dealt)
        });
        self.waiting(id).last().copied().max(of_active.map(|epoch| epoch.0))
    }

    /// A share waits from now on; the store holds it.
    pub fn wait(&self, id: ObjectId, epoch: Epoch, record: PendingRecord) {
        write(&self.pending).insert((id, epoch.0), Arc::new(record));
    }

    /// A share has been made active; the store holds it, and nothing that waited for the same or an earlier epoch.
    pub fn activate(&self, id: ObjectId, key: SharedKey) {
        let epoch = key.epoch().0;
        write(&self.active).insert(id, Arc::new(key));
        write(&self.pending).retain(|(other, waiting), _| *other != id || *waiting > epoch);
        self.children.wipe(id);
    }

    /// A share that has been replaced and is kept still.
    pub fn former(&self, id: ObjectId) -> Option<Arc<FormerRecord>> {
        self.former.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The keys of which such a share is kept.
    fn all_former(&self) -> Vec<ObjectId> {
        self.former.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// The keys whose shares have not shown here that they sign, of those that replaced others: such as keep one of
    /// those, such as never had one, and such as have a proof of a kind that is none any more.
    pub fn unproven(&self) -> BTreeSet<ObjectId> {
        let keys = self.read();
        let unproven = keys.iter().filter(|(_, key)| key.epoch() > FIRST && key.standing().proofs.is_empty());
        unproven.map(|(id, _)| *id).chain(self.all_former()).collect()
    }

    /// A share has been replaced; the store holds it as a former one, and no other of the key.
    pub fn replace(&self, id: ObjectId, former: FormerRecord) {
        write(&self.former).insert(id, Arc::new(former));
    }

    /// A former share is gone from the store.
    pub fn drop_former(&self, id: ObjectId) {
        write(&self.former).remove(&id);
    }

    /// A key is gone from the store, with all that belongs to it.
    pub fn remove(&self, id: ObjectId) {
        write(&self.active).remove(&id);
        write(&self.pending).retain(|(other, _), _| *other != id);
        write(&self.former).remove(&id);
        self.children.wipe(id);
    }

    /// A key that was destroyed is gone from the store.
    pub fn remove_destroyed(&self, id: ObjectId) {
        self.remove(id);
        self.traces.remove(id);
    }

    /// Has the store hold nothing of a key that is destroyed.
    pub fn erase_destroyed(&self, change: Change, partition: PartitionId, id: ObjectId) -> Change {
        self.erase(change, partition, id).delete_if_there(Path::Traces(partition, id))
    }

    /// Has the store hold nothing of the shares of a key any more.
    pub fn erase(&self, change: Change, partition: PartitionId, id: ObjectId) -> Change {
        let waiting = self.waiting(id).into_iter().map(|epoch| Path::Pending(partition, id, epoch));
        let change = waiting.fold(erase_active(change, partition, id), Change::delete_if_there);
        change.delete_if_there(Path::Former(partition, id))
    }

    /// What is to be removed from the store with all of them.
    pub fn forget(&self, change: Change, partition: PartitionId) -> Change {
        let pending = self.pending();
        let mut ids: BTreeSet<ObjectId> = self.read().keys().copied().collect();
        ids.extend(pending.keys().map(|(id, _)| *id));
        ids.extend(self.all_former());
        ids.extend(self.traces.keys());
        let change = ids.into_iter().fold(change, |change, id| self.erase_destroyed(change, partition, id));
        self.children.forget(change, partition)
    }

    /// Removes all of them. What was destroyed stays so, and what was promised.
    pub fn clear(&self) {
        write(&self.active).clear();
        write(&self.pending).clear();
        write(&self.former).clear();
        self.traces.clear();
        self.children.clear();
    }
}
