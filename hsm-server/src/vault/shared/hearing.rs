//! Hearing of bans that other nodes know.
//!
//! A node that was put back to an old copy has forgotten the bans that it declared or heard of since. So after every
//! start a node asks the other holders of a key for theirs before it signs with it: each of them once, and those with
//! whom it signs until they have answered. Afterwards it asks again when a greeting says that there are more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use minicbor::{Decode, Encode};
use strongroom_shared::{fault::FaultCode, object::ObjectId, wire::CallId};

use super::{
    super::{
        Error, Vault,
        cluster::View,
        nodes::{Answer, NodeError, Question},
        partition::Partition,
    },
    bans::SignedBan,
    ceremony::ceremonies::Coordinator,
    keys::SharedKey,
    life::lookafter::peer,
};
use crate::{
    cluster::{Member, NodeId},
    crypto::threshold::Party,
    platform::{Platform, Time},
};

/// How long a node may take to say which bans it knows.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it may take to say all of them.
const DEADLINE: Time = 1_000_000;
/// The same while a coordinator waits to sign, which must not hold the delay against the one that asks.
const HURRY: Time = 350_000;
/// How many pages one node's bans may have.
const PAGES: usize = 1024;

/// The bans of one key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyBans {
    /// The partition's name.
    #[n(0)]
    pub partition: String,
    /// The private key.
    #[n(1)]
    pub key: ObjectId,
    /// Those of the epoch of its shares.
    #[n(2)]
    pub bans: Vec<SignedBan>,
}

/// Some of the bans that a node knows, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KnownBans {
    /// Keys with their bans.
    #[n(0)]
    pub keys: Vec<KeyBans>,
    /// Whether others follow.
    #[n(1)]
    pub more: bool,
}

/// Which nodes this one has heard since it was started.
#[derive(Default)]
pub struct Hearing(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    asked: HashSet<NodeId>,
    /// How many bans each knew.
    heard: HashMap<NodeId, u64>,
}

impl Hearing {
    fn state(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The members are others: everybody is asked anew.
    pub fn clear(&self) {
        *self.state() = Heard::default();
    }

    fn has_heard(&self, node: NodeId) -> bool {
        self.state().heard.contains_key(&node)
    }
}

impl<P: Platform> Vault<P> {
    /// Every shared key of which a pair is banned, with its partition's name, in the order of the keys.
    fn banned(&self) -> BTreeMap<ObjectId, (String, Vec<SignedBan>)> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_partition = |(name, partition): (&String, &Arc<Partition>)| {
            let keys = partition.shared.banned().into_iter();
            keys.map(|(key, bans)| (key, (name.clone(), bans))).collect::<Vec<_>>()
        };
        partitions.iter().flat_map(of_partition).collect()
    }

    /// How many bans this node knows.
    pub(in super::super) fn count_bans(&self) -> u64 {
        self.banned().values().map(|(_, bans)| bans.len() as u64).sum()
    }

    /// The bans of the keys after this one, as many as fit into a frame.
    pub(in super::super) fn bans_after(&self, after: Option<ObjectId>) -> KnownBans {
        // A signed ban takes about 130 bytes, and a key 80.
        let (one, around) = (160, 100);
        let mut room = self.portion();
        let mut known = KnownBans { keys: Vec::new(), more: false };
        for (key, (partition, bans)) in self.banned() {
            if after.is_some_and(|after| key <= after) {
                continue;
            }
            let length = around + one * bans.len();
            if length > room && !known.keys.is_empty() {
                known.more = true;
                break;
            }
            room = room.saturating_sub(length);
            known.keys.push(KeyBans { partition, key, bans });
        }
        known
    }

    /// Asks a node for its bans if its greeting says that it knows another number of them than when it was heard.
    pub(in super::super) fn hear_again(
        &self,
        view: &View,
        member: &Member,
        number: u64,
    ) -> Result<(), NodeError> {
        if self.cluster.hearing.state().heard.get(&member.id) == Some(&number) {
            return Ok(());
        }
        self.hear_bans(view, member, DEADLINE)
    }

    /// Asks a node for its bans, and keeps those that are new here.
    fn hear_bans(&self, view: &View, member: &Member, deadline: Time) -> Result<(), NodeError> {
        let malformed = |error: &dyn std::fmt::Display| NodeError::Malformed(error.to_string());
        let (mut after, mut number) = (None, 0);
        let until = self.platform.uptime().saturating_add(deadline);
        for _ in 0..PAGES {
            let rest = until.saturating_sub(self.platform.uptime());
            if rest == 0 {
                return Err(malformed(&"it takes too long to tell its bans"));
            }
            let patience = PATIENCE.min(Duration::from_micros(rest));
            let KnownBans { keys, more } =
                match self.consult(view, member, &Question::Bans(after), patience)? {
                    Answer::Bans(known) => known,
                    other => return Err(other.strange()),
                };
            for KeyBans { partition, key, bans } in &keys {
                number += bans.len() as u64;
                self.take_bans(member, partition, *key, bans).map_err(|error| malformed(&error))?;
            }
            let last = keys.last().map(|bans| bans.key);
            if !more || last <= after {
                self.cluster.hearing.state().heard.insert(member.id, number);
                return Ok(());
            }
            after = last;
        }
        Err(malformed(&"it knows bans without end"))
    }

    /// Keeps those that are of the share that is here.
    fn take_bans(
        &self,
        member: &Member,
        partition: &str,
        key: ObjectId,
        bans: &[SignedBan],
    ) -> Result<(), Error> {
        let Some(partition) = self.partition_named(partition) else { return Ok(()) };
        let Some(shared) = partition.shared.key(key) else { return Ok(()) };
        let epoch = shared.share.public().epoch();
        let bans: Vec<_> = bans.iter().filter(|signed| signed.ban.epoch == epoch).cloned().collect();
        let peer = peer(member);
        let mut context = self.about_shares(&peer, CallId::SignShared);
        (context.subject, context.object) = (partition.rules().record.name.clone(), Some(key));
        self.learn(&mut context, &partition, &shared, &bans)
    }

    /// Hears what the other holders of a key know, as far as that is still to be done, before this node signs with
    /// `parties`, or lets the shares become others. A coordinator tells its bans itself.
    ///
    /// # Errors
    /// `Hindered`: one of those with whom it is to sign has not said which bans it knows since this node was started.
    pub(super) fn hear_before(
        &self,
        view: &View,
        shared: &SharedKey,
        parties: &BTreeMap<Party, Member>,
        coordinator: &Coordinator,
    ) -> Result<(), Error> {
        let hearing = &self.cluster.hearing;
        let me = view.me().ok_or(FaultCode::Forbidden)?.id;
        let other = |member: &Member| member.id != me && member.id != coordinator.node;
        let signs = |member: &Member| parties.values().any(|party| party.id == member.id);
        let mut members: Vec<Member> = shared.members(view.document.membership()).into_values().collect();
        // Who only gets a share knows of no ban.
        let needed: Vec<(Party, Member)> = parties
            .iter()
            .filter(|(_, member)| other(member) && members.iter().any(|holder| holder.id == member.id))
            .map(|(party, member)| (*party, member.clone()))
            .collect();
        members.retain(|member| {
            let mut state = hearing.state();
            let due =
                !state.heard.contains_key(&member.id) && (signs(member) || !state.asked.contains(&member.id));
            other(member) && due && (state.asked.insert(member.id) || signs(member))
        });
        thread::scope(|scope| {
            for member in &members {
                let hear = move || {
                    if let Err(error) = self.hear_bans(view, member, HURRY) {
                        tracing::warn!(node = member.name, %error, "it does not say which bans it knows");
                    }
                };
                let thread = thread::Builder::new().name("hearing".into());
                if thread.spawn_scoped(scope, hear).is_err() {
                    hear();
                }
            }
        });
        match needed.iter().find(|(_, member)| !hearing.has_heard(member.id)) {
            None => Ok(()),
            Some((party, silent)) => Err(Error::Hindered(
                *party,
                format!(
                    "node {} has not told since this node was started which pairs must not sign together",
                    silent.name
                ),
            )),
        }
    }
}
