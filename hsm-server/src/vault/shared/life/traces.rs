//! Which nodes may have something left of a key that its certificate does not name: a share that others dealt for and
//! that waits still, or one that was replaced while its holder was away.
//!
//! Whoever takes part in moving shares writes down from whom and to whom before anything is dealt. A key is
//! destroyed with all of those, or not at all: as many as sign, that were away when the others destroyed theirs, would
//! have it still. A node that says later that it has nothing is waited for no longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use minicbor::{Decode, Encode};
use strongroom_shared::{object::ObjectId, shares::Claim};

use crate::{
    cluster::{Member, Membership},
    platform::{Platform, Time},
    store::Path,
    vault::{
        Error, Vault,
        cluster::View,
        nodes::Answer,
        partition::Partition,
        record::Change,
        records::decode,
        shared::{
            certificate::Certified,
            keys::{KeyHere, SharedKeys},
            words::Account,
        },
    },
};

/// How long a node may take to say what it has.
const PATIENCE: Duration = Duration::from_millis(800);
/// For how long a node that says that it has nothing is not believed: a ceremony may be under way that gives it a share.
const RIPE: Time = 3600 * 1_000_000;

/// Which nodes may have something left of a key, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TracesRecord {
    /// Their Ed25519 keys, and when it was last written down that shares moved from or to them.
    #[n(0)]
    pub nodes: BTreeMap<[u8; 32], Time>,
    /// Those that have nothing left from before a time: who heard of their share at that time tells nothing new.
    #[cbor(n(1), default)]
    pub clean: BTreeMap<[u8; 32], Time>,
}

impl TracesRecord {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.clean.is_empty()
    }
}

/// The same of all keys of a partition.
#[derive(Default)]
pub struct Traces(RwLock<BTreeMap<ObjectId, TracesRecord>>);

impl Traces {
    /// Takes over what the store holds.
    pub fn load(&self, records: BTreeMap<ObjectId, TracesRecord>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = records;
    }

    /// Those of a key.
    pub fn of(&self, key: ObjectId) -> TracesRecord {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned().unwrap_or_default()
    }

    /// The keys that have some.
    pub fn keys(&self) -> Vec<ObjectId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Others; the store holds them.
    pub fn put(&self, key: ObjectId, record: TracesRecord) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        drop(if record.is_empty() { all.remove(&key) } else { all.insert(key, record) });
    }

    /// A key is gone from the store, and that with it.
    pub fn remove(&self, key: ObjectId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// All keys are.
    pub fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Account {
    /// Whether the node has nothing of the key, or says so.
    fn is_empty(&self) -> bool {
        self.certificate.is_none() && self.highest.is_none()
    }
}

/// A node that may have something left of a key, and whether it says that it has not.
pub(in crate::vault::shared) struct Trace<'v> {
    pub member: &'v Member,
    pub is_clean: bool,
}

/// The nodes that may have something of a key, as far as what is here of it says, whoever holds the shares in use: those
/// that were written down, those that are to hold what waits here, and those that hold what came after a share kept here.
pub(in crate::vault::shared) fn traces_of(
    shared: &SharedKeys,
    key: ObjectId,
) -> Result<BTreeMap<[u8; 32], Time>, Error> {
    let mut traces = shared.traces.of(key).nodes;
    if let Some(former) = shared.former(key) {
        let seats = Certified::read(&former.successor)?.claim.seats;
        for seat in seats {
            traces.entry(seat).or_insert(0);
        }
    }
    for (_, waits) in shared.pending().range((key, 0)..=(key, u64::MAX)) {
        let seats = decode::<Claim>(&waits.claim)?.seats;
        for seat in seats {
            traces.entry(seat).or_insert(waits.made);
        }
    }
    Ok(traces)
}

impl<P: Platform> Vault<P> {
    /// Writes down that shares of a key move between these nodes.
    pub(super) fn note_traces<'n>(
        &self,
        partition: &Partition,
        key: ObjectId,
        nodes: impl IntoIterator<Item = &'n [u8; 32]>,
    ) -> Result<(), Error> {
        let _turn = partition.object_turn();
        let mut record = partition.shared.traces.of(key);
        let now = self.platform.now();
        record.nodes.extend(nodes.into_iter().map(|node| (*node, now)));
        self.keep_traces(partition, key, record)
    }

    /// For whoever has the turn of objects.
    fn keep_traces(&self, partition: &Partition, key: ObjectId, record: TracesRecord) -> Result<(), Error> {
        let path = Path::Traces(partition.id, key);
        let change = Change::new();
        let change = if record.is_empty() { change.delete_if_there(path) } else { change.put(path, &record) };
        self.change_silently(change)?;
        partition.shared.traces.put(key, record);
        Ok(())
    }

    /// Takes from what a node says of a key whether it has to be waited for any longer, and for whom else.
    pub(super) fn hear_of_traces(
        &self,
        partition: &Partition,
        key: ObjectId,
        (member, account): (&Member, &Account),
        membership: &Membership,
    ) -> Result<(), Error> {
        let _turn = partition.object_turn();
        let before = partition.shared.traces.of(key);
        let Some(since) = before.nodes.get(&member.identity) else { return Ok(()) };
        let (now, mut record) = (self.platform.now(), before.clone());
        // What it knows is known here from now on.
        for (node, moved) in account.traces.iter().filter(|(node, _)| membership.member(node).is_some()) {
            if record.clean.get(node).is_none_or(|clean| clean < moved) {
                record.nodes.entry(*node).or_insert(now.min(*moved));
            }
        }
        if account.is_empty() && now >= since.saturating_add(RIPE) {
            record.nodes.remove(&member.identity);
            record.clean.insert(member.identity, now.saturating_sub(RIPE));
        }
        if record == before { Ok(()) } else { self.keep_traces(partition, key, record) }
    }

    /// Everybody but `holders`, and this node, who may have something left of a key: those that this node knows of, that
    /// the holders know of, and that those know of.
    ///
    /// # Errors
    /// What is wrong with those who do not say.
    pub(in crate::vault::shared) fn find_traces<'v>(
        &self,
        view: &'v View,
        key: KeyHere<'_>,
        holders: &BTreeSet<[u8; 32]>,
    ) -> Result<Vec<Trace<'v>>, Vec<String>> {
        let question = key.question();
        let account = |answer| if let Answer::Certificate(account) = answer { Some(account) } else { None };
        // Whoever's word this node itself wants to see before it destroys its own is asked too.
        let own = traces_of(&key.partition.shared, key.id).map_err(|error| vec![error.to_string()])?;
        let mut known: BTreeSet<[u8; 32]> = own.into_keys().chain(holders.iter().copied()).collect();
        let (mut asked, mut found, mut troubles) = (BTreeSet::new(), Vec::new(), Vec::new());
        loop {
            let is_next =
                |member: &&Member| known.contains(&member.identity) && !asked.contains(&member.identity);
            let next: Vec<&Member> = view.others().filter(is_next).collect();
            if next.is_empty() {
                break;
            }
            asked.extend(next.iter().map(|member| member.identity));
            let answers = self.ask_each(view, next.iter().copied(), &question, PATIENCE, account);
            for (member, answer) in next.into_iter().zip(answers) {
                match answer {
                    Ok(account) => {
                        let is_clean = account.is_empty();
                        known.extend(account.traces.into_keys());
                        if !holders.contains(&member.identity) {
                            found.push(Trace { member, is_clean });
                        }
                    }
                    Err(trouble) => troubles.push(trouble),
                }
            }
        }
        if troubles.is_empty() { Ok(found) } else { Err(troubles) }
    }
}
