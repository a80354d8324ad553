//! The ceremonies that this node takes part in. They live in memory only, are bounded for each coordinator in number
//! and bytes, and end with their deadline, with the process and with the membership document.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use strongroom_shared::{fault::FaultCode, object::ObjectId};

use crate::{
    cluster::{Member, NodeId},
    crypto::threshold::{Ceremony, CeremonyId, Epoch, Held, Outcome, Party},
    platform::Time,
    vault::{
        Error,
        shared::{
            ceremony::{party::About, plan::Plan},
            keys::SharedKey,
            lately::Lately,
            words::{End, Parcel},
        },
    },
};

const SECOND: Time = 1_000_000;
const HOUR: Time = 3600 * SECOND;
/// How many proofs of a key's shares of one epoch one coordinator may have a node sign in an hour. One that begins them
/// itself tries six times, and signs at most two for each.
const PROOFS: u8 = 12;

/// What a node does about the shares of a key from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chore {
    /// It looks whether it is to begin a refresh by the schedule.
    Begin,
    /// It asks the others for the proof of a key's shares, or looks whether it is to begin one.
    Former,
    /// It has the shares of a key prove that they sign.
    Prove,
    /// It begins a refresh by the schedule that has not come about.
    Refresh,
    /// It takes part in a refresh by the schedule, whoever begins it.
    Scheduled,
    /// It asks the others how far they are.
    Ask,
    /// It asks the others for the certificate of a share that has waited for long.
    Wait,
    /// It looks whether its promise to take no certificate of a key has ended.
    Promise,
    /// It says in its log that a share has waited for long.
    Remind,
    /// It puts on record that it does not believe what others say of the key.
    Tell,
}

impl Chore {
    /// How long a key is let alone afterwards.
    const fn pause(self) -> Time {
        match self {
            Self::Begin | Self::Former | Self::Wait => 15 * SECOND,
            Self::Ask | Self::Prove | Self::Refresh | Self::Promise => 600 * SECOND,
            Self::Scheduled | Self::Remind | Self::Tell => HOUR,
        }
    }
}

/// The most ceremonies of one coordinator that a node remembers to have begun: 2,900 a second, all the time.
const BEGUN: usize = 1 << 19;
/// The most bytes of letters that the ceremonies of one coordinator may hold at once.
const BYTES: usize = 64 << 20;

/// What kind of ceremony it is, and so what it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signature.
    Signature,
    /// New shares.
    Shares,
}

impl Kind {
    /// How long it may take.
    const fn life(self) -> Time {
        match self {
            Self::Signature => 5 * SECOND,
            Self::Shares => 60 * SECOND,
        }
    }

    /// How many of one coordinator there may be at once.
    const fn most(self) -> usize {
        match self {
            Self::Signature => 64,
            Self::Shares => 4,
        }
    }
}

/// Who runs a ceremony, as a party sees it.
#[derive(Clone, Debug)]
pub struct Coordinator {
    /// The node.
    pub node: NodeId,
    /// In which of its sealed sessions: a ceremony ends with it. 0 for this node itself.
    pub session: u64,
    /// Its name, for the record.
    pub name: String,
}

/// A ceremony under way at this node.
pub struct Going {
    /// By whom it was asked to take part.
    pub coordinator: Coordinator,
    /// Everybody who takes part, this node included.
    pub parties: BTreeMap<Party, Member>,
    /// This node's own seat.
    pub me: Party,
    /// What it is about, for its records.
    pub about: About,
    /// Its state; none once it has ended.
    pub work: Option<Work>,
    /// What it has not handed out yet.
    pub outbox: VecDeque<Parcel>,
    /// How it ended.
    pub end: Option<End>,
}

/// The state of a ceremony.
pub enum Work {
    /// A signature, the shares that sign: those of its key, or of the master that it descends from; and what for.
    Signing(Ceremony<Held>, Arc<SharedKey>, SignatureOf),
    /// New shares, and what becomes of them.
    Making(Ceremony<Outcome>, Box<Plan>),
}

/// What a signature is for.
pub enum SignatureOf {
    /// An application has a message signed.
    Message,
    /// The shares show that they sign: the text of the proof.
    Proof(Vec<u8>),
}

/// Every ceremony that this node takes part in, and what it remembers of those before.
#[derive(Default)]
pub struct Ceremonies {
    table: Mutex<Table>,
    turns: AtomicUsize,
    ids: Mutex<()>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<CeremonyId, Entry>,
    begun: HashMap<NodeId, Lately<CeremonyId, ()>>,
    /// When keys are looked after again.
    turns: HashMap<(Chore, ObjectId), Time>,
    refreshed: Option<ObjectId>,
    /// The key that others were asked about last.
    asked: Option<ObjectId>,
    /// How many proofs of a key's shares a coordinator has begun, and until when that counts.
    proofs: HashMap<(NodeId, ObjectId, Epoch), (u8, Time)>,
}

struct Entry {
    coordinator: NodeId,
    session: u64,
    kind: Kind,
    until: Time,
    bytes: usize,
    /// None while a step is being taken.
    going: Option<Box<Going>>,
}

impl Ceremonies {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to keep a share under an id that no other partition has: one after the other.
    pub fn turn_of_ids(&self) -> MutexGuard<'_, ()> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a ceremony that begins. Its id is used up, whatever becomes of it.
    pub fn reserve(
        &self,
        id: CeremonyId,
        coordinator: &Coordinator,
        kind: Kind,
        now: Time,
    ) -> Result<(), Error> {
        let Coordinator { node: of, session, .. } = *coordinator;
        let mut table = self.table();
        table.entries.retain(|_, entry| now < entry.until);
        if table.begun.values().any(|begun| begun.get(&id).is_some()) {
            return Err(Error::forbidden("this ceremony was begun before"));
        }
        let theirs = table.entries.values().filter(|entry| (entry.coordinator, entry.kind) == (of, kind));
        if theirs.count() >= kind.most() {
            return Err(Error::caller(FaultCode::Full, "too many ceremonies of this node at once"));
        }
        if !table.begun.entry(of).or_default().insert(id, (), BEGUN, now) {
            return Err(Error::caller(FaultCode::Full, "too many ceremonies of this node lately"));
        }
        let until = now.saturating_add(kind.life());
        table.entries.insert(id, Entry { coordinator: of, session, kind, until, bytes: 0, going: None });
        Ok(())
    }

    /// A ceremony to be advanced: nobody else can advance it meanwhile.
    pub fn take(
        &self,
        id: CeremonyId,
        coordinator: &Coordinator,
        letters: usize,
        now: Time,
    ) -> Result<Box<Going>, Error> {
        let Coordinator { node: of, session, .. } = *coordinator;
        let mut table = self.table();
        table.entries.retain(|_, entry| now < entry.until);
        let theirs = table.entries.values().filter(|entry| entry.coordinator == of);
        if theirs.map(|entry| entry.bytes).sum::<usize>().saturating_add(letters) > BYTES {
            return Err(Error::caller(FaultCode::Full, "too many letters of this node at once"));
        }
        let entry =
            table.entries.get_mut(&id).filter(|entry| (entry.coordinator, entry.session) == (of, session));
        let entry = entry.ok_or_else(|| Error::forbidden("this ceremony is not under way here"))?;
        entry.bytes = entry.bytes.saturating_add(letters);
        entry
            .going
            .take()
            .ok_or_else(|| Error::caller(FaultCode::Malformed, "two steps of a ceremony at once"))
    }

    /// Puts a ceremony back, to be advanced later. One whose time is over meanwhile is dropped.
    pub fn put(&self, id: CeremonyId, going: Box<Going>) {
        if let Some(entry) = self.table().entries.get_mut(&id) {
            entry.going = Some(going);
        }
    }

    /// Ends a ceremony.
    pub fn end(&self, id: CeremonyId, of: NodeId) {
        let mut table = self.table();
        if table.entries.get(&id).is_some_and(|entry| entry.coordinator == of) {
            table.entries.remove(&id);
        }
    }

    /// Ends those of sessions that have ended.
    pub fn end_sessions(&self, ended: &[u64]) {
        self.table().entries.retain(|_, entry| !ended.contains(&entry.session));
    }

    /// Ends those whose time is over.
    pub fn expire(&self, now: Time) {
        self.table().entries.retain(|_, entry| now < entry.until);
    }

    /// Ends all of them: the members are others.
    pub fn clear(&self) {
        self.table().entries.clear();
    }

    /// Whose turn it is among so many.
    pub fn turn(&self, among: usize) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed).checked_rem(among).unwrap_or_default()
    }

    /// Whether it is time to do something about a key's shares, and not only just now that it was done.
    pub fn is_turn(&self, chore: Chore, key: ObjectId, now: Time) -> bool {
        let mut table = self.table();
        if table.turns.get(&(chore, key)).is_some_and(|due| now < *due) {
            return false;
        }
        table.turns.retain(|_, due| now < *due);
        table.turns.insert((chore, key), now.saturating_add(chore.pause()));
        true
    }

    /// Of these keys, in their order, those that others are asked about now: as many as that at most, and each in its
    /// turn, after the last one that was.
    pub fn to_ask(&self, keys: &BTreeSet<ObjectId>, most: usize, now: Time) -> Vec<ObjectId> {
        let last = self.table().asked;
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let until = last.map_or(Bound::Excluded(ObjectId([0; 16])), Bound::Included);
        let turn = keys.range((after, Bound::Unbounded)).chain(keys.range((Bound::Unbounded, until)));
        let now: Vec<ObjectId> =
            turn.copied().filter(|key| self.is_turn(Chore::Ask, *key, now)).take(most).collect();
        if let Some(last) = now.last() {
            self.table().asked = Some(*last);
        }
        now
    }

    /// Something was done about a key's shares, and has taken its time: the pause begins now.
    pub fn rest(&self, chore: Chore, key: ObjectId, now: Time) {
        self.table().turns.insert((chore, key), now.saturating_add(chore.pause()));
    }

    /// The key that this node refreshed last by the schedule.
    pub fn refreshed(&self) -> Option<ObjectId> {
        self.table().refreshed
    }

    /// This one is refreshed by the schedule now.
    pub fn refresh(&self, key: ObjectId) {
        self.table().refreshed = Some(key);
    }

    /// Whether a coordinator may have this node sign another proof of a key's shares of an epoch.
    pub fn may_prove(&self, coordinator: NodeId, (key, epoch): (ObjectId, Epoch), now: Time) -> bool {
        let mut table = self.table();
        table.proofs.retain(|_, (_, until)| now < *until);
        let (begun, _) =
            table.proofs.entry((coordinator, key, epoch)).or_insert((0, now.saturating_add(HOUR)));
        let may = *begun < PROOFS;
        *begun = begun.saturating_add(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_keys_the_others_are_asked_about_each_in_its_turn() {
        let id = |number: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            ObjectId(id)
        };
        let (ceremonies, keys) = (Ceremonies::default(), (0..5000).map(id).collect::<BTreeSet<_>>());
        let mut asked: HashMap<ObjectId, u32> = HashMap::new();
        for second in 0..2500 {
            let now = ceremonies.to_ask(&keys, 4, second * SECOND);
            assert_eq!(now.len(), 4, "second {second}");
            now.into_iter().for_each(|key| *asked.entry(key).or_default() += 1);
        }
        assert!(asked.len() == keys.len() && asked.values().all(|times| *times == 2));
        // Few are not asked about more often for that.
        let (ceremonies, keys) = (Ceremonies::default(), (0..3).map(id).collect::<BTreeSet<_>>());
        let count = |second| ceremonies.to_ask(&keys, 4, second * SECOND).len();
        assert_eq!([0, 1, 599, 600, 601].map(count), [3, 0, 0, 3, 0]);
    }
}
