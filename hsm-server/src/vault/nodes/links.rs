//! How the other nodes are, and the sealed sessions with them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use minicbor::bytes::ByteVec;
use strongroom_shared::message::MemberState;

use super::{questions::NodeError, turns::Turns};
use crate::{
    cluster::{Member, NodeId, noise::Session},
    platform::Time,
};

const SECOND: Time = 1_000_000;
/// How long a caller uses a session before it makes a new one.
const RENEW: Time = 1800 * SECOND;
/// How long the other end knows it.
const LIFE: Time = 3600 * SECOND;
/// How long a node is left out that was found out.
const LEFT_OUT: Time = 3600 * SECOND;
/// How long a node is asked to sign after others only, since a signature did not come about with it.
const DOUBTED: Time = 600 * SECOND;
/// How many sessions of one caller are known at once: its threads may shake hands at the same time.
const SESSIONS: usize = 4;
/// How many refusals of one node's questions come on record within [`REFUSED`].
const REFUSALS: u32 = 60;
/// For how long they are counted.
const REFUSED: Time = 60 * SECOND;
/// The longest wait before a node that does not answer is greeted again.
const MAX_BACKOFF: Time = 10 * SECOND;

/// How the other nodes are, and the sessions with them.
#[derive(Default)]
pub struct Links {
    health: Mutex<HashMap<NodeId, Health>>,
    /// By whom this vault calls.
    pub(super) outgoing: Mutex<HashMap<NodeId, SessionTo>>,
    /// By the session's number, which this vault gave it.
    incoming: Mutex<HashMap<u64, SessionFrom>>,
    /// Whose turn it is to shake hands with a node.
    pub(super) turns: Turns,
    /// Nodes that broke a protocol, until when.
    left_out: Mutex<HashMap<NodeId, Time>>,
    /// With how many signatures in a row that did not come about each had to do, and until when that counts.
    doubts: Mutex<HashMap<NodeId, (u32, Time)>>,
    /// Whose questions were refused lately.
    refusals: Mutex<HashMap<NodeId, Refusals>>,
    pub(super) requests: AtomicU64,
}

/// How another node is.
#[derive(Clone, Debug, Default)]
struct Health {
    reachable: bool,
    sealed: bool,
    version: Option<u64>,
    digest: Option<ByteVec>,
    seen: Option<Time>,
    trouble: String,
    failures: u32,
    /// When it is to be greeted again, by the uptime.
    due: Time,
}

/// Refusals of one node's questions within [`REFUSED`].
struct Refusals {
    member: Member,
    count: u32,
    until: Time,
}

/// A session in which this vault asks.
#[derive(Clone)]
pub struct SessionTo {
    pub number: u64,
    pub session: Arc<Session>,
    pub made: Time,
    /// Under which membership document.
    pub document: [u8; 32],
}

/// A session in which this vault is asked.
pub struct SessionFrom {
    pub from: NodeId,
    pub session: Arc<Session>,
    pub made: Time,
    /// Under which membership document.
    pub document: [u8; 32],
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// The document has changed: every session has ended, and everybody is greeted anew.
    pub fn renew(&self) {
        lock(&self.outgoing).clear();
        lock(&self.incoming).clear();
        lock(&self.doubts).clear();
        for health in lock(&self.health).values_mut() {
            (health.sealed, health.due) = (false, 0);
        }
    }

    /// How a node is, for an administrator.
    pub fn state(&self, member: &Member) -> MemberState {
        let health = lock(&self.health).get(&member.id).cloned().unwrap_or_default();
        MemberState {
            name: member.name.clone(),
            reachable: health.reachable,
            sealed: health.sealed,
            version: health.version,
            seen: health.seen.map(|seen| seen / SECOND),
            trouble: health.trouble,
            digest: health.digest,
        }
    }

    /// Leaves a node out of new ceremonies for an hour: it broke the protocol.
    pub fn leave_out(&self, node: NodeId, now: Time) {
        lock(&self.left_out).insert(node, now.saturating_add(LEFT_OUT));
    }

    /// Whether it is left out.
    pub fn is_left_out(&self, node: NodeId, now: Time) -> bool {
        lock(&self.left_out).get(&node).is_some_and(|until| now < *until)
    }

    /// A signature did not come about that this node had to do with. It may be the fault of another.
    pub fn doubt(&self, node: NodeId, now: Time) {
        let mut doubts = lock(&self.doubts);
        doubts.retain(|_, (_, until)| now < *until);
        let (count, until) = doubts.entry(node).or_default();
        (*count, *until) = (count.saturating_add(1), now.saturating_add(DOUBTED));
    }

    /// It has signed, with all the others that were asked.
    pub fn trust(&self, node: NodeId) {
        lock(&self.doubts).remove(&node);
    }

    /// How little it is to be asked, compared with others.
    pub fn doubts(&self, node: NodeId, now: Time) -> u32 {
        lock(&self.doubts).get(&node).filter(|(_, until)| now < *until).map_or(0, |(count, _)| *count)
    }

    /// Whether one more refusal of what a node asks comes on record: it may ask all day, and a log that is full stops
    /// every signature. How many do not, [`Self::left_out`] tells.
    pub fn may_record(&self, member: &Member, now: Time) -> bool {
        let mut refusals = lock(&self.refusals);
        let new = || Refusals { member: member.clone(), count: 0, until: now.saturating_add(REFUSED) };
        let refusals = refusals.entry(member.id).or_insert_with(new);
        refusals.count = refusals.count.saturating_add(1);
        if refusals.count == REFUSALS + 1 {
            tracing::error!(
                node = member.name,
                "it asks for too much that is refused: {REFUSALS} refusals of this minute are on record, of more only how \
                 many"
            );
        }
        refusals.count <= REFUSALS
    }

    /// Of whom refusals were left out of the record in minutes that have ended, and how many. It tells of each once.
    pub fn left_out(&self, now: Time) -> Vec<(Member, u32)> {
        let ended = lock(&self.refusals).extract_if(|_, refusals| refusals.until <= now).collect::<Vec<_>>();
        let many = |(_, Refusals { member, count, .. }): (NodeId, Refusals)| {
            Some((member, count.checked_sub(REFUSALS).filter(|more| *more > 0)?))
        };
        ended.into_iter().filter_map(many).collect()
    }

    pub fn is_due(&self, node: NodeId, now: Time) -> bool {
        lock(&self.health).get(&node).is_none_or(|health| health.due <= now)
    }

    /// It answered a greeting.
    pub fn well(&self, node: NodeId, version: u64, digest: Option<ByteVec>, now: Time) {
        let mut health = lock(&self.health);
        let health = health.entry(node).or_default();
        *health = Health {
            reachable: true,
            version: Some(version),
            digest,
            seen: Some(now),
            sealed: health.sealed,
            trouble: std::mem::take(&mut health.trouble),
            failures: health.failures,
            due: 0,
        };
    }

    /// Its vault has proved who it is.
    pub fn vouched(&self, node: NodeId) {
        if let Some(health) = lock(&self.health).get_mut(&node) {
            (health.sealed, health.failures) = (true, 0);
            health.trouble.clear();
        }
    }

    /// Whether it answered when it was last asked, and its vault proved who it is.
    pub fn is_well(&self, node: NodeId) -> bool {
        lock(&self.health).get(&node).is_some_and(|health| health.sealed)
    }

    /// Something went wrong with it; the first time in a row it is told in the log.
    pub fn ill(&self, member: &Member, error: &NodeError, now: Time) {
        let mut health = lock(&self.health);
        let health = health.entry(member.id).or_default();
        let trouble = error.to_string();
        let split = matches!(error, NodeError::Split(_));
        if split && health.trouble != trouble {
            tracing::error!(node = member.name, %error, "the cluster is split");
        } else if !split && health.failures == 0 {
            tracing::warn!(node = member.name, %error, "another node has trouble");
        }
        (health.trouble, health.sealed) = (trouble, false);
        if matches!(error, NodeError::Unreachable(_)) {
            health.reachable = false;
        }
        let wait = SECOND.saturating_mul(1 << health.failures.min(5)).min(MAX_BACKOFF);
        health.failures = health.failures.saturating_add(1);
        health.due = now.saturating_add(wait);
    }

    pub fn outgoing(&self, node: NodeId, document: &[u8; 32], now: Time) -> Option<SessionTo> {
        let outgoing = lock(&self.outgoing);
        let link = outgoing.get(&node)?;
        (link.document == *document && now < link.made.saturating_add(RENEW)).then(|| link.clone())
    }

    /// A session that no other thread has replaced meanwhile.
    pub fn drop_outgoing(&self, node: NodeId, number: u64) {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.get(&node).is_some_and(|link| link.number == number) {
            outgoing.remove(&node);
        }
    }

    pub fn incoming(
        &self,
        number: u64,
        from: NodeId,
        document: &[u8; 32],
        now: Time,
    ) -> Option<Arc<Session>> {
        let incoming = lock(&self.incoming);
        let link = incoming.get(&number)?;
        let good = link.from == from && link.document == *document && now < link.made.saturating_add(LIFE);
        good.then(|| Arc::clone(&link.session))
    }

    /// Takes a new session; the numbers of those that have ended for it. One that begins a session may have been started
    /// anew, and its sessions with it: it is greeted at once, however long it was away.
    pub fn admit(&self, number: u64, link: SessionFrom) -> Vec<u64> {
        if let Some(health) = lock(&self.health).get_mut(&link.from) {
            health.due = 0;
        }
        let mut incoming = lock(&self.incoming);
        let now = link.made;
        incoming.retain(|_, old| now < old.made.saturating_add(LIFE));
        let mut theirs: Vec<_> =
            incoming.iter().filter(|(_, old)| old.from == link.from).map(|(n, old)| (old.made, *n)).collect();
        theirs.sort_unstable();
        let many = (theirs.len() + 1).saturating_sub(SESSIONS);
        let ended: Vec<u64> = theirs.into_iter().take(many).map(|(_, oldest)| oldest).collect();
        ended.iter().for_each(|oldest| drop(incoming.remove(oldest)));
        incoming.insert(number, link);
        ended
    }
}
