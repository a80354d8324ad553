//! Giving up a new key that never came about: shares of it wait at nodes, and no node has the certificate that would make
//! them a key.
//!
//! Whether there is one, no node can tell: whoever had the key made may keep it to itself, and an application may have
//! the key. So none is given up but on administrators' order, and never while any node that holds a share is silent. One
//! that has the key in use hands the certificate on, and nothing is given up. If none has, each promises to take no
//! certificate of it (`promise.rs`); and whoever is shown that all have promised drops its share and keeps for ever that it
//! did, so that a certificate that turns up later is good for nothing.

use std::{sync::Arc, time::Duration};

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
            ceremony::making::ACTIVATION,
            end::{
                destroyed::DestroyedRecord,
                promise::{PromiseRecord, check_promised, holders},
            },
            generate::FIRST,
            kept::PendingRecord,
            keys::{KeyHere, SharedKeys},
            life::{activate::reached, renew::Renewed},
            words::{Account, Promised},
        },
    },
};

/// How long a share waits before it may be given up: nodes that were busy or away have asked for its certificate.
const YOUNGEST: Time = 3600 * 1_000_000;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let ready = Ready::from_bytes(&claim.ready).map_err(Error::forbidden)?;
        let public = ready.shares().clone();
        let public_key = public.public_key()?;
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
    ) -> Result<(Arc<Partition>, Order, String), Error> {
        context.call = CallId::RenewShares;
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let judged = signed.judge(view.document.membership(), 1);
        let (order, names) = judged.map_err(Error::forbidden)?;
        self.check_in_time(&order)?;
        (context.subject, context.object) = (order.partition.clone(), Some(order.key));
        if order.act != OrderedAct::Abandon {
            return Err(Error::forbidden("the coordinator means another act than the one that was ordered"));
        }
        let partition = self.partition_here(&order.partition)?;
        let by = names.into_iter().collect::<Vec<_>>().join(", ");
        Ok((partition, order, by))
    }

    fn check_in_time(&self, order: &Order) -> Result<(), Error> {
        let now = self.platform.now() / 1_000_000;
        order.check_time(now).map_err(Error::forbidden)
    }

    /// Whether nothing is here of the key of an order but a share of it that has waited for long.
    fn check_abandoned(&self, partition: &Partition, order: &Order) -> Result<(), Error> {
        let (shared, id) = (&partition.shared, order.key);
        if shared.key(id).is_some() || partition.keyring.has(id) {
            return Err(Error::forbidden(
                "the key is in use at this node: order it again, and it hands the certificate on",
            ));
        }
        let Some(new) = shared.new_key(id)? else {
            if shared.holds(id) {
                return Err(Error::forbidden("what this node has of the key is no share of a new one"));
            }
            return Ok(());
        };
        if new.public_key != order.public_key.as_slice() {
            return Err(Error::forbidden(
                "the order is about another public key than the share that waits here",
            ));
        }
        if self.platform.now() < new.made.saturating_add(YOUNGEST) {
            return Err(Error::forbidden(
                "the share has waited for less than an hour: its certificate may be on its way",
            ));
        }
        Ok(())
    }

    /// Promises to take no certificate of a key, if it is not in use here. The promise is on disk when it is given.
    pub(in crate::vault) fn promise_to_abandon(
        &self,
        context: &mut Context<'_>,
        signed: &SignedOrder,
    ) -> Result<Promised, Error> {
        let (partition, order, by) = self.abandonment(context, signed)?;
        let (id, identity) = (order.key, self.cluster.identity().ok_or(FaultCode::Forbidden)?);
        let _turn = partition.object_turn();
        self.check_abandoned(&partition, &order)?;
        let record = PromiseRecord::of(&order, signed);
        let kept = partition.shared.promises.of(id);
        // One that has dropped its share takes none for ever.
        if !partition.shared.destroyed.was_here(id) && kept != Some(record) {
            kept.map_or(Ok(()), |kept| kept.check_followed(&record))?;
            context.detail = format!("promised to take no certificate of the key, ordered by {by}");
            self.change(context, Change::new().put(Path::Promise(partition.id, id), &record))?;
            partition.shared.promises.put(id, record);
        }
        Ok(Promised::new(&order, signed, &identity))
    }

    /// Drops the share of a key that all who are to hold one have promised to abandon, and keeps for ever that it did.
    pub(in crate::vault) fn abandon_share(
        &self,
        context: &mut Context<'_>,
        signed: &SignedOrder,
        promises: &[Promised],
    ) -> Result<(), Error> {
        let (partition, order, by) = self.abandonment(context, signed)?;
        let id = order.key;
        let _turn = partition.object_turn();
        if partition.shared.destroyed.was_here(id) {
            return Ok(());
        }
        // Once its time is over, this node says that it has dropped nothing for it.
        self.check_in_time(&order)?;
        self.check_abandoned(&partition, &order)?;
        if partition.shared.promises.of(id) != Some(PromiseRecord::of(&order, signed)) {
            return Err(Error::forbidden(
                "this node has not promised by this order to take no certificate of the key: order it again",
            ));
        }
        let Some(new) = partition.shared.new_key(id)? else {
            // There is nothing to drop, and what it promised keeps it from making a share.
            return Ok(());
        };
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        check_promised((&order, signed), promises, holders(&new.claim, view.document.membership()))?;
        let destroyed = DestroyedRecord::WAS_HERE;
        let change = partition.shared.erase_destroyed(Change::new(), partition.id, id);
        let change = change.put(Path::Destroyed(partition.id, id), &destroyed);
        let change = change.delete(Path::Promise(partition.id, id));
        context.detail = format!("abandoned, ordered by {by}: no node takes a certificate of its shares");
        self.change(context, change)?;
        partition.shared.destroyed.put(id, destroyed);
        partition.shared.remove_destroyed(id);
        partition.shared.promises.remove(id);
        Ok(())
    }

    /// Has all nodes that may hold a share of a new key give it up, or has those whose share waits take it into use, if
    /// one of them has the certificate.
    pub(in crate::vault::shared) fn abandon_key(
        &self,
        context: &mut Context<'_>,
        view: &View,
        key: KeyHere<'_>,
        signed: &SignedOrder,
    ) -> Result<Renewed, Error> {
        let own = view.me().ok_or(FaultCode::Forbidden)?.id;
        self.end_promise(view, key).unwrap_or_else(|error| {
            tracing::warn!(key = %key.id, %error, "a promise stands");
        });
        let new = new_here(key.partition, key.id)?;
        let all = holders(&new.claim, view.document.membership());
        let others: Vec<&Member> = all.iter().copied().filter(|member| member.id != own).collect();
        let standing = key.partition.shared.promises.check_new(key.id).err();
        let silent = |mut troubles: Vec<String>| {
            troubles.extend(standing.as_ref().map(Error::to_string));
            let text = "nothing was abandoned, because not every node that may hold a share would";
            Err(Error::quorum_missing(format!("{text}: {}", troubles.join("; "))))
        };
        let question = key.question();
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
        let promised = |answer| if let Answer::Promised(promised) = answer { Some(promised) } else { None };
        let (mut promises, mut troubles) = (Vec::new(), Vec::new());
        for answer in self.ask_each(view, others.iter().copied(), &question, PATIENCE, promised) {
            match answer {
                Ok(promise) => promises.push(promise),
                Err(trouble) => troubles.push(trouble),
            }
        }
        match self.promise_to_abandon(context, signed) {
            Ok(promise) => promises.push(promise),
            Err(error) => troubles.push(error.to_string()),
        }
        let order = Order::from_bytes(&signed.text).map_err(Error::forbidden)?;
        if troubles.is_empty() {
            troubles.extend(
                check_promised((&order, signed), &promises, all).err().map(|error| error.to_string()),
            );
        }
        if !troubles.is_empty() {
            return silent(troubles);
        }
        let question = Question::Abandon { order: signed.clone(), promises: promises.clone() };
        let troubles = self.ask_all(view, others.iter().copied(), &question, PATIENCE);
        if !troubles.is_empty() {
            // It waits here until the last of the others is done, so that it can be ordered again.
            let text =
                format!("not every node has dropped its share yet; order it again: {}", troubles.join("; "));
            return Err(Error::quorum_missing(text));
        }
        self.abandon_share(context, signed, &promises)?;
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
