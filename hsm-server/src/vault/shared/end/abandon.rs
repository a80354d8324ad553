//! Giving up a new key that never came about: shares of it wait at nodes, and no node has the certificate that would make
//! them a key.
//!
//! Whether there is one, no node can tell: whoever had the key made may keep it to itself, and an application may have
//! the key. So none is given up but on administrators' order, and never while any node that holds a share is silent. One
//! that has the key in use hands the certificate on, and nothing is given up. If none has, each promises to take no
//! certificate for a while; and only if all have promised, each drops its share and keeps for ever that it did, so that a
//! certificate that turns up later is good for nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pkcs11_sys::CKA_LABEL;
use strongroom_shared::{
    fault::FaultCode,
    message::{ListWaiting, WaitingShare, WaitingShares},
    object::ObjectId,
    shares::Claim,
    wire::{CallId, Handle},
};

use crate::{
    cluster::{
        Member,
        order::{Order, OrderedAct, SignedOrder},
    },
    crypto::threshold::{PublicShares, Ready},
    platform::{Platform, Time},
    store::Path,
    vault::{
        Context, Error, Vault,
        cluster::View,
        nodes::{Answer, Question},
        partition::Partition,
        record::Change,
        records::decode,
        shared::{
            ceremony::party::{forbidden, refusal},
            end::destroyed::DestroyedRecord,
            generate::{ACTIVATION, FIRST},
            kept::PendingRecord,
            keys::SharedKeys,
            life::{
                activate::reached,
                renew::{Renewed, Subject},
            },
            words::Account,
        },
    },
};

/// How long a share waits before it may be given up: nodes that were busy or away have asked for its certificate.
const YOUNGEST: Time = 3600 * 1_000_000;
/// How long a node takes no certificate after it has promised so.
const PROMISE: Time = 60 * 1_000_000;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The keys whose shares this node makes active for a while for nobody, and until when: it has promised.
#[derive(Default)]
pub struct Promises(Mutex<BTreeMap<ObjectId, Time>>);

impl Promises {
    fn until(&self, now: Time) -> MutexGuard<'_, BTreeMap<ObjectId, Time>> {
        let mut promises = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        promises.retain(|_, until| now < *until);
        promises
    }

    /// Whether a certificate of this key is not taken now.
    pub fn holds(&self, id: ObjectId, now: Time) -> bool {
        self.until(now).contains_key(&id)
    }

    fn promise(&self, id: ObjectId, now: Time) {
        self.until(now).insert(id, now.saturating_add(PROMISE));
    }
}

/// A new key that waits, as every node describes it.
pub(in crate::vault::shared) struct NewKey {
    /// What this node has signed of it.
    pub claim: Claim,
    /// Everybody's public shares.
    pub public: PublicShares,
    /// The public key, as an order names it.
    pub public_key: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: Vec<u8>,
    /// When this node made its share.
    pub made: Time,
}

impl NewKey {
    fn of(pending: &PendingRecord) -> Result<Self, Error> {
        let claim: Claim = decode(&pending.claim)?;
        let ready = Ready::from_bytes(&claim.ready).map_err(|error| forbidden(error.to_string()))?;
        let public = ready.shares().clone();
        let public_key = public.public_key().map_err(|error| refusal(&error))?;
        let label = pending.private.bytes(CKA_LABEL).unwrap_or_default().to_vec();
        Ok(Self { claim, public, public_key, label, made: pending.made })
    }
}

impl SharedKeys {
    /// The new key of this id of which a share waits here, if there is one.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub(in crate::vault::shared) fn new_key(&self, id: ObjectId) -> Result<Option<NewKey>, Error> {
        if self.key(id).is_some() || self.waiting(id) != [FIRST.0] {
            return Ok(None);
        }
        let pending = self.pending().get(&(id, FIRST.0)).cloned();
        pending.filter(|pending| pending.order.is_none()).map(|pending| NewKey::of(&pending)).transpose()
    }
}

impl<P: Platform> Vault<P> {
    /// What an order to abandon a key says, if this node believes it.
    fn abandonment(
        &self,
        context: &mut Context<'_>,
        signed: &SignedOrder,
    ) -> Result<(std::sync::Arc<Partition>, Order, String), Error> {
        context.call = CallId::RenewShares;
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let judged = signed.judge(view.document.membership(), 1);
        let (order, names) = judged.map_err(|refusal| forbidden(refusal.to_string()))?;
        order
            .check_time(self.platform.now() / 1_000_000)
            .map_err(|refusal| forbidden(refusal.to_string()))?;
        (context.subject, context.object) = (order.partition.clone(), Some(order.key));
        if order.act != OrderedAct::Abandon {
            return Err(forbidden("the coordinator means another act than the one that was ordered"));
        }
        let partition = self.partition_named(&order.partition).ok_or_else(|| {
            let name = &order.partition;
            forbidden(format!("no partition {name} at this node: run `hsmctl partition create` here too"))
        })?;
        let by = names.into_iter().collect::<Vec<_>>().join(", ");
        Ok((partition, order, by))
    }

    /// Whether nothing is here of the key of an order but a share of it that has waited for long.
    fn check_abandoned(&self, partition: &Partition, order: &Order) -> Result<(), Error> {
        let (shared, id) = (&partition.shared, order.key);
        if shared.key(id).is_some() || partition.keyring.has(id) {
            return Err(forbidden(
                "the key is in use at this node: order it again, and it hands the certificate on",
            ));
        }
        let Some(new) = shared.new_key(id)? else {
            if shared.holds(id) {
                return Err(forbidden("what this node has of the key is no share of a new one"));
            }
            return Ok(());
        };
        if new.public_key != order.public_key.as_slice() {
            return Err(forbidden("the order is about another public key than the share that waits here"));
        }
        if self.platform.now() < new.made.saturating_add(YOUNGEST) {
            return Err(forbidden(
                "the share has waited for less than an hour: its certificate may be on its way",
            ));
        }
        Ok(())
    }

    /// Promises to take no certificate of a key for a while, if it is not in use here.
    pub(in crate::vault) fn promise_to_abandon(
        &self,
        context: &mut Context<'_>,
        signed: &SignedOrder,
    ) -> Result<(), Error> {
        let (partition, order, _) = self.abandonment(context, signed)?;
        let _turn = partition.object_turn();
        self.check_abandoned(&partition, &order)?;
        partition.shared.promises.promise(order.key, self.platform.uptime());
        Ok(())
    }

    /// Drops the share of a key that all have promised to abandon, and keeps for ever that it did.
    pub(in crate::vault) fn abandon_share(
        &self,
        context: &mut Context<'_>,
        signed: &SignedOrder,
    ) -> Result<(), Error> {
        let (partition, order, by) = self.abandonment(context, signed)?;
        let id = order.key;
        let _turn = partition.object_turn();
        if partition.shared.destroyed.was_here(id) {
            return Ok(());
        }
        if !partition.shared.promises.holds(id, self.platform.uptime()) {
            return Err(forbidden(
                "this node has not promised lately to take no certificate of the key: order it again",
            ));
        }
        self.check_abandoned(&partition, &order)?;
        let destroyed = DestroyedRecord::WAS_HERE;
        let change = partition.shared.erase_destroyed(Change::new(), partition.id, id);
        let change = change.put(Path::Destroyed(partition.id, id), &destroyed);
        context.detail = format!("abandoned, ordered by {by}: no node has a certificate of its shares");
        self.change(context, change)?;
        partition.shared.destroyed.put(id, destroyed);
        partition.shared.remove_destroyed(id);
        Ok(())
    }

    /// Has all nodes that may hold a share of a new key give it up, or has those whose share waits take it into use, if
    /// one of them has the certificate.
    pub(in crate::vault::shared) fn abandon_key(
        &self,
        context: &mut Context<'_>,
        view: &View,
        subject: Subject<'_>,
        signed: &SignedOrder,
    ) -> Result<Renewed, Error> {
        let own = view.me().ok_or(FaultCode::Forbidden)?.id;
        let new = new_here(subject.partition, subject.id)?;
        let membership = view.document.membership();
        let seats = new.claim.seats.iter().filter_map(|seat| membership.member(seat));
        let others: Vec<&Member> = seats.filter(|member| member.id != own).collect();
        let silent = |troubles: Vec<String>| {
            let text = "nothing was abandoned, because not every node that may hold a share would";
            Err(Error::caller(FaultCode::QuorumMissing, format!("{text}: {}", troubles.join("; "))))
        };
        let question = Question::Certificate { partition: subject.name.into(), key: subject.id };
        let account = |answer| if let Answer::Certificate(account) = answer { Some(account) } else { None };
        let (mut accounts, mut troubles) = (Vec::new(), Vec::new());
        for answer in self.ask_each(view, others.iter().copied(), &question, PATIENCE, account) {
            match answer {
                Ok(account) => accounts.push(account),
                Err(trouble) => troubles.push(trouble),
            }
        }
        if let Some(taken) = self.take_into_use(context, view, &others, &accounts) {
            return Ok(taken);
        }
        if !troubles.is_empty() {
            return silent(troubles);
        }
        let question = Question::MayAbandon(signed.clone());
        let mut troubles = self.ask_all(view, others.iter().copied(), &question, PATIENCE);
        troubles.extend(self.promise_to_abandon(context, signed).err().map(|error| error.to_string()));
        if !troubles.is_empty() {
            return silent(troubles);
        }
        let question = Question::Abandon(signed.clone());
        let troubles = self.ask_all(view, others.iter().copied(), &question, PATIENCE);
        if !troubles.is_empty() {
            // It waits here until the last of the others is done, so that it can be ordered again.
            let text =
                format!("not every node has dropped its share yet; order it again: {}", troubles.join("; "));
            return Err(Error::caller(FaultCode::QuorumMissing, text));
        }
        self.abandon_share(context, signed)?;
        let gone = new.claim.seats.len().saturating_sub(others.len() + 1);
        let note = match gone {
            0 => "no node has the key, and none takes it any more".into(),
            gone => format!(
                "no node has the key, and none takes it any more; {gone} that left the cluster were not asked"
            ),
        };
        Ok(Renewed { epoch: FIRST, note })
    }

    /// Makes a key that another node has in use one here and everywhere, if one of these accounts shows it.
    fn take_into_use(
        &self,
        context: &mut Context<'_>,
        view: &View,
        others: &[&Member],
        accounts: &[Account],
    ) -> Option<Renewed> {
        for (epoch, warrant) in accounts.iter().filter_map(reached) {
            // Who shows it is not believed. If it is of other shares than the one that waits here, whoever truly has
            // those in use will not have the key abandoned.
            if let Err(error) = self.activate(context, &warrant) {
                tracing::warn!(%error, "a certificate of a key that is to be abandoned is not taken");
                continue;
            }
            let troubles = self.ask_all(view, others.iter().copied(), &warrant.question(), ACTIVATION);
            let mut note =
                "nothing was abandoned: a node has the key in use, and its certificate is handed on"
                    .to_owned();
            if !troubles.is_empty() {
                note = format!("{note}; not everybody has taken it yet: {}", troubles.join("; "));
            }
            return Some(Renewed { epoch, note });
        }
        None
    }
}

/// The new key of an order to abandon it, of which a share waits here.
///
/// # Errors
/// `KeyHandleInvalid`: none does.
pub(in crate::vault::shared) fn new_here(partition: &Partition, id: ObjectId) -> Result<NewKey, Error> {
    partition.shared.new_key(id)?.ok_or_else(|| {
        let text =
            format!("no share of a new key {id} waits here: see `hsmctl key list PARTITION --waiting`");
        Error::caller(FaultCode::KeyHandleInvalid, text)
    })
}

impl<P: Platform> Handle<ListWaiting> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ListWaiting) -> Result<WaitingShares, Error> {
        let partition = self.named(context, &call.partition)?;
        let view = self.cluster.view();
        let name = |pending: &PendingRecord| {
            let members = &view.as_ref()?.document.membership().members;
            let made_by = members.iter().find(|member| Some(member.id) == pending.coordinator)?;
            Some(made_by.name.clone())
        };
        let waiting = partition.shared.pending();
        let describe =
            |((key, epoch), pending): (&(ObjectId, u64), &std::sync::Arc<PendingRecord>)| WaitingShare {
                key: *key,
                epoch: *epoch,
                label: pending.private.bytes(CKA_LABEL).unwrap_or_default().to_vec(),
                node: name(pending).unwrap_or_default(),
                since: pending.made / 1_000_000,
                new: *epoch == FIRST.0 && pending.order.is_none(),
            };
        Ok(WaitingShares { shares: waiting.iter().map(describe).collect() })
    }
}
