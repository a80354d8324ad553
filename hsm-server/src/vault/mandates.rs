//! Mandates: which clients' signed word this server believes, and whether a mandate is such a word.
//!
//! An administrator admits a client's Ed25519 key for a partition, at every node of its own. A mandate that comes
//! with a call, or from another node, is good if it is signed with an admitted key, meant for this cluster and
//! this call, and not over. Nothing here rests on what another node says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use pkcs11_sys::{CKA_ID, CKA_LABEL, CKA_PUBLIC_KEY_INFO};
use strongroom_shared::{
    fault::FaultCode,
    hex::Hex,
    mandate::{Mandate, Mandated, Seen},
    message::{AdmitClient, AdmittedKey, Done},
    wire::{CallId, Handle, decode_body},
};

use super::{
    Context, Error, Vault,
    admin::check_name,
    keyring::Object,
    partition::Partition,
    record::Change,
    shared::{certificate::sha256, lately::Lately},
    sign::Charge,
};
use crate::{
    cluster::NodeId,
    platform::{Platform, Time},
    store::Path,
};

/// The keys that were admitted for a partition, each with its client's name.
pub type Admitted = BTreeMap<[u8; 32], AdmissionRecord>;

/// A key that was admitted, as it is kept.
#[derive(Clone, Debug, Encode, Decode)]
pub struct AdmissionRecord {
    /// The client's name.
    #[n(0)]
    pub client: String,
}

/// How often one coordinator may begin to have a mandate carried out here: it tries three quorums. What another has
/// tried takes nothing from it.
const ATTEMPTS: u8 = 4;
/// The same of an administrators' order.
const ORDERED: u8 = 8;
/// The most mandates of one client that a node remembers: more than sign in the time.
const REMEMBERED: usize = 1 << 19;
/// How long one waits that comes while the same mandate is charged to the key's limits: longer than that takes.
const CHARGING: Duration = Duration::from_millis(500);

/// The mandates that were begun here lately.
#[derive(Default)]
pub struct Begun {
    state: Mutex<State>,
    /// A mandate is being charged no more.
    charged: Condvar,
}

#[derive(Default)]
struct State {
    /// By the key that signed them: one client takes no room from another.
    mandates: BTreeMap<[u8; 32], Remembered>,
    /// Those that are being charged now.
    charging: BTreeSet<[u8; 32]>,
}

/// Under which orders stand: no client has this key.
const NO_CLIENT: [u8; 32] = [0; 32];

/// By the SHA-256 of their texts.
type Remembered = Lately<[u8; 32], Turn>;

/// How far a mandate was carried out here before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// How often each coordinator had it begun: there are no more of them than members.
    begun: Vec<(NodeId, u8)>,
    /// Whether it was charged to the key's limits.
    charged: bool,
}

impl Begun {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to carry a mandate out, as `coordinator` asks.
    ///
    /// # Errors
    /// `Forbidden`: this coordinator began it often enough; `Full`: this client gave too many lately.
    pub fn begin(&self, mandate: &CheckedMandate, coordinator: NodeId, now: Time) -> Result<(), Error> {
        self.begin_of((mandate.key, mandate.id), coordinator, (ATTEMPTS, now))
    }

    /// Uses up a mandate for one new key, whoever coordinates.
    ///
    /// # Errors
    /// `Forbidden`: it was used before; `Full`: this client gave too many lately.
    pub fn begin_once(&self, mandate: &CheckedMandate, now: Time) -> Result<(), Error> {
        let mut state = self.state();
        if state.turn((mandate.key, mandate.id), now).is_some() {
            return Err(Error::forbidden("the mandate was for one key"));
        }
        state.remember((mandate.key, mandate.id), Turn::default(), now)
    }

    /// As [`Self::begin`], of an administrators' order, by the SHA-256 of its text.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_order(&self, id: [u8; 32], coordinator: NodeId, now: Time) -> Result<(), Error> {
        self.begin_of((NO_CLIENT, id), coordinator, (ORDERED, now))
    }

    fn begin_of(
        &self,
        mandate: ([u8; 32], [u8; 32]),
        coordinator: NodeId,
        limit: (u8, Time),
    ) -> Result<(), Error> {
        self.state().begin(mandate, coordinator, limit)
    }

    /// Does something that a mandate is charged for once: another attempt costs nothing more. Of several at the same time
    /// one is charged, and the others wait for what comes of that.
    ///
    /// # Errors
    /// That of `act`, and then nothing was charged; `Full`: another attempt takes too long.
    pub fn charge<T>(
        &self,
        mandate: &CheckedMandate,
        act: impl FnOnce(Charge) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.charge_of((mandate.key, mandate.id), act)
    }

    fn charge_of<T>(
        &self,
        (key, id): ([u8; 32], [u8; 32]),
        act: impl FnOnce(Charge) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let waited =
            self.charged.wait_timeout_while(self.state(), CHARGING, |state| state.charging.contains(&id));
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Error::caller(
                FaultCode::Full,
                "another attempt at this mandate takes too long here",
            ));
        }
        let turn = |state: &State| state.mandates.get(&key).and_then(|mandates| mandates.get(&id)).cloned();
        if turn(&state).is_some_and(|turn| turn.charged) {
            drop(state);
            return act(Charge::Done);
        }
        state.charging.insert(id);
        drop(state);
        let _charging = Charging { begun: self, id };
        let done = act(Charge::Now)?;
        if let Some(turn) = self.state().mandates.get_mut(&key).and_then(|mandates| mandates.get_mut(&id)) {
            turn.charged = true;
        }
        Ok(done)
    }
}

impl State {
    fn turn(&mut self, (key, id): ([u8; 32], [u8; 32]), now: Time) -> Option<&Turn> {
        self.mandates.retain(|_, mandates| mandates.forget(now));
        self.mandates.get(&key)?.get(&id)
    }

    fn begin(
        &mut self,
        (key, id): ([u8; 32], [u8; 32]),
        coordinator: NodeId,
        (most, now): (u8, Time),
    ) -> Result<(), Error> {
        let mut turn = self.turn((key, id), now).cloned().unwrap_or_default();
        match turn.begun.iter_mut().find(|(node, _)| *node == coordinator) {
            Some((_, times)) if *times >= most => return Err(Error::forbidden("the mandate is used up")),
            Some((_, times)) => *times = times.saturating_add(1),
            None => turn.begun.push((coordinator, 1)),
        }
        self.remember((key, id), turn, now)
    }

    fn remember(&mut self, (key, id): ([u8; 32], [u8; 32]), turn: Turn, now: Time) -> Result<(), Error> {
        if self.mandates.entry(key).or_default().insert(id, turn, REMEMBERED, now) {
            return Ok(());
        }
        Err(Error::caller(FaultCode::Full, "too many mandates of this client lately: try again in a minute"))
    }
}

/// A mandate that is being charged: whatever comes of it, those that wait go on afterwards.
struct Charging<'a> {
    begun: &'a Begun,
    id: [u8; 32],
}

impl Drop for Charging<'_> {
    fn drop(&mut self) {
        self.begun.state().charging.remove(&self.id);
        self.begun.charged.notify_all();
    }
}

/// A mandate that is good here and now.
#[derive(Clone, Debug)]
pub struct CheckedMandate {
    /// The partition that it is for.
    pub partition: Arc<Partition>,
    /// The client that signed it.
    pub client: String,
    /// The key that signed it.
    pub key: [u8; 32],
    /// SHA-256 of its text: what this mandate is known by.
    pub id: [u8; 32],
    /// The call that is meant, as it travels.
    pub body: Vec<u8>,
    seen: Option<Seen>,
}

impl CheckedMandate {
    /// What the application was shown of the key.
    ///
    /// # Errors
    /// `Forbidden`: the mandate does not say.
    pub fn seen(&self) -> Result<&Seen, Error> {
        let silent = || Error::forbidden("the mandate does not say which key the application was shown");
        self.seen.as_ref().ok_or_else(silent)
    }

    /// Whether the application means this key: it was shown what stands here.
    ///
    /// # Errors
    /// `Forbidden`, saying what is different.
    pub fn check_seen(&self, object: &Object) -> Result<(), Error> {
        let seen = self.seen()?;
        let own = |kind| object.attributes.bytes(kind).unwrap_or_default();
        let differs = [
            ("CKA_PUBLIC_KEY_INFO", sha256(own(CKA_PUBLIC_KEY_INFO)) == seen.public),
            ("CKA_LABEL", own(CKA_LABEL) == seen.label),
            ("CKA_ID", own(CKA_ID) == seen.id),
        ];
        let differs: Vec<_> = differs.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        if differs.is_empty() {
            return Ok(());
        }
        let text = format!(
            "the application was shown another key by this name: {} differs from what stands here; look at the node \
             that it asked",
            differs.join(", ")
        );
        tracing::error!(key = %object.id, client = self.client, "{text}");
        Err(Error::forbidden(text))
    }
}

impl<P: Platform> Vault<P> {
    /// What a mandate says, if this server believes it.
    ///
    /// # Errors
    /// `Forbidden`, saying what is to be done; `Malformed` if it is no mandate.
    pub(super) fn check_mandate(
        &self,
        mandated: &Mandated,
        expected: CallId,
    ) -> Result<CheckedMandate, Error> {
        let mandate: Mandate = decode_body(&mandated.text)
            .map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let view = self.cluster.view().filter(|view| view.own.is_some());
        let view =
            view.ok_or_else(|| Error::forbidden("this server is in no cluster: see `hsmctl cluster`"))?;
        let cluster = view.document.membership().cluster;
        if cluster.0 != mandate.cluster {
            return Err(Error::forbidden(format!(
                "the mandate is for another cluster; this server is in {cluster}"
            )));
        }
        let partition = self.partition_here(&mandate.partition)?;
        let admission = partition.admitted().get(&mandate.key).cloned().ok_or_else(|| {
            Error::forbidden(format!(
                "the client's mandate key is not admitted to partition {} at this node: run `hsmctl client admit` \
                 here too",
                mandate.partition
            ))
        })?;
        UnparsedPublicKey::new(&ED25519, mandate.key)
            .verify(&Mandate::to_sign(&mandated.text), &mandated.signature)
            .map_err(|_| Error::forbidden("the signature of the mandate is wrong"))?;
        let now = self.platform.now() / 1_000_000;
        if mandate.expires <= now || mandate.expires > now + Mandate::LONGEST {
            return Err(Error::forbidden(format!(
                "the mandate ends at {}, and it is {now} here: it may end at most {} seconds ahead; are the clocks \
                 set alike?",
                mandate.expires,
                Mandate::LONGEST
            )));
        }
        if mandate.call != expected as u16 {
            return Err(Error::forbidden(format!(
                "the mandate is for another call than this {}",
                expected.name()
            )));
        }
        let AdmissionRecord { client } = admission;
        let id = sha256(&mandated.text);
        Ok(CheckedMandate { partition, client, key: mandate.key, id, body: mandate.body, seen: mandate.seen })
    }

    /// As [`Self::check_mandate`], of a mandate that its own client brings.
    pub(super) fn check_own_mandate(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        expected: CallId,
    ) -> Result<CheckedMandate, Error> {
        let mandate = self.check_mandate(mandated, expected)?;
        let own = context.partition()?;
        if own.id != mandate.partition.id || context.peer.client != mandate.client {
            return Err(Error::forbidden(format!(
                "the mandate is client {}'s, for another connection than this",
                mandate.client
            )));
        }
        context.detail = format!("mandate {}", Hex(mandate.id.get(..16).unwrap_or_default()));
        Ok(mandate)
    }

    /// Where keys of this client are admitted.
    pub(super) fn admissions_of(&self, client: &str) -> Vec<(Arc<Partition>, [u8; 32])> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_partition = |partition: &Arc<Partition>| {
            let admitted = partition.admitted();
            let keys = admitted.iter().filter(|(_, admission)| admission.client == client);
            keys.map(|(key, _)| (Arc::clone(partition), *key)).collect::<Vec<_>>()
        };
        partitions.values().flat_map(of_partition).collect()
    }

    /// Every admitted key, for an administrator.
    pub(super) fn admitted_keys(&self) -> Vec<AdmittedKey> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_partition = |(name, partition): (&String, &Arc<Partition>)| {
            let describe = |(key, admission): (&[u8; 32], &AdmissionRecord)| AdmittedKey {
                name: admission.client.clone(),
                partition: name.clone(),
                key: key.to_vec(),
            };
            partition.admitted().iter().map(describe).collect::<Vec<_>>()
        };
        partitions.iter().flat_map(of_partition).collect()
    }
}

impl<P: Platform> Handle<AdmitClient> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: AdmitClient) -> Result<Done, Error> {
        check_name(&call.name)?;
        let _turn = self.administration_turn();
        let partition = self.named(context, &call.partition)?;
        let key: [u8; 32] = call
            .key
            .try_into()
            .map_err(|_| Error::caller(FaultCode::ArgumentsBad, "an Ed25519 public key has 32 bytes"))?;
        context.detail = format!("client {}, mandate key {}", call.name, Hex(&key));
        let exists = |text: String| Err(Error::caller(FaultCode::AlreadyExists, text));
        if self.is_known_elsewhere(&call.name, Some(&call.partition)) {
            return exists(format!("client {} is known here, and not as one of this partition", call.name));
        }
        match partition.admitted().get(&key) {
            Some(admission) if admission.client == call.name => return Ok(Done {}),
            Some(admission) => {
                return exists(format!("this key is client {}'s already", admission.client));
            }
            None => {}
        }
        let record = AdmissionRecord { client: call.name };
        self.change(context, Change::new().put(Path::Admission(partition.id, key), &record))?;
        partition.admitted_to_change().insert(key, record);
        Ok(Done {})
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_client_that_gives_many_mandates_takes_no_room_from_another() {
        let begun = Begun::default();
        let id = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        };
        let begin = |key, number, node, now| {
            begun.begin_of(([key; 32], id(number)), NodeId([node; 32]), (ATTEMPTS, now))
        };
        for number in 0..REMEMBERED {
            begin(1, number, 1, 0).unwrap();
        }
        assert!(begin(1, REMEMBERED, 1, 1).is_err());
        for _ in 0..ATTEMPTS {
            begin(2, 0, 1, 1).unwrap();
        }
        let used_up = begin(2, 0, 1, 1).unwrap_err();
        assert!(used_up.to_string().contains("used up"), "{used_up}");
        assert!(begin(2, 0, 2, 1).is_ok(), "what one coordinator has tried takes nothing from another");
        assert!(begin(1, REMEMBERED, 1, 180_000_000).is_ok(), "forgotten in time");
    }

    #[test]
    fn of_attempts_side_by_side_one_is_charged_and_none_before_that_one_is_allowed() {
        let (begun, mandate) = (Begun::default(), ([1; 32], [2; 32]));
        begun.begin_of(mandate, NodeId([1; 32]), (ATTEMPTS, 0)).unwrap();
        let all_at_once = |allowed: bool| {
            let charged = AtomicUsize::new(0);
            let attempt = || {
                begun.charge_of(mandate, |charge| {
                    if charge == Charge::Done {
                        return Ok(());
                    }
                    charged.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                    if allowed { Ok(()) } else { Err(Error::forbidden("the limit is reached")) }
                })
            };
            let done = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempt)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(Result::is_ok).count()
            });
            (charged.into_inner(), done)
        };
        assert_eq!(all_at_once(false), (8, 0), "what the policy refuses to one, no other has for nothing");
        assert_eq!(all_at_once(true), (1, 8));
        assert_eq!(all_at_once(false), (0, 8), "and never again");
    }
}
