//! From a share that waits to the one that is used, and what becomes of the one before it.
//!
//! When all nodes have said that they have stored their shares, their signatures are the certificate: each node that
//! holds it makes its share active and the objects visible, in one transaction, and keeps the share before as a
//! *former* one, which nothing uses, until the new ones have signed (`proof.rs`). A node that did not hear of it
//! asks the others, once a second while its own share waits (`lookafter.rs`).

use std::sync::Arc;

use pkcs11_sys::CKA_PUBLIC_KEY_INFO;
use strongroom_shared::{
    fault::FaultCode,
    message::SecretBytes,
    object::{ObjectId, Template},
    wire::CallId,
};

use crate::{
    cluster::order::{Order, OrderedAct, Seat, SignedOrder},
    crypto::threshold::Epoch,
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault,
        cluster::View,
        keyring::{Object, Owner},
        nodes::Question,
        partition::Partition,
        record::Change,
        records::{ObjectRecord, encode},
        shared::{
            certificate::{Certified, sha256},
            generate::FIRST,
            kept::{FormerRecord, PendingRecord, ShareRecord, StandingRecord},
            keys::{SharedKey, erase_active},
            life::{
                import::Whole,
                proof::{self, Proof},
                traces::traces_of,
            },
            words::{Account, Warrant},
        },
    },
};

impl Warrant {
    /// What makes this key's share active.
    pub fn of(key: &SharedKey) -> Self {
        Self { certificate: key.certificate.clone(), order: key.order.clone() }
    }

    /// The question that hands it on.
    pub fn question(&self) -> Question {
        Question::Activate { certificate: self.certificate.clone(), order: self.order.clone() }
    }
}

/// How far another node is, as its account says: the epoch of its share, and what made it active. A certificate that not
/// all have signed whom it names says nothing.
pub(in crate::vault::shared) fn reached(account: &Account) -> Option<(Epoch, Warrant)> {
    let certificate = account.certificate.as_ref()?.to_vec();
    let read = Certified::read(&certificate).ok()?;
    Some((read.epoch(), Warrant { certificate, order: account.order.clone() }))
}

impl<P: Platform> Vault<P> {
    /// Makes a pending share active and its objects visible, on every node's word; or learns that this node holds
    /// no share any more, or that it has lost it.
    pub(in crate::vault) fn activate(
        &self,
        context: &mut Context<'_>,
        warrant: &Warrant,
    ) -> Result<(), Error> {
        self.activate_proven(context, warrant, &[])
    }

    /// The same; that the shares of the certificate sign, these show.
    pub(super) fn activate_proven(
        &self,
        context: &mut Context<'_>,
        warrant: &Warrant,
        proofs: &[Proof],
    ) -> Result<(), Error> {
        let read = Certified::read(&warrant.certificate)?;
        context.call = if read.epoch() == FIRST { CallId::GenerateShared } else { CallId::RenewShares };
        let partition = self.partition_named(&read.claim.partition).ok_or(FaultCode::Forbidden)?;
        (context.subject, context.object) = (read.claim.partition.clone(), Some(read.id()));
        let _turn = partition.object_turn();
        let active = partition.shared.key(read.id());
        if active.as_ref().is_some_and(|active| active.epoch() >= read.epoch()) {
            // It came before.
            return Ok(());
        }
        let pending = partition.shared.pending().get(&(read.id(), read.epoch().0)).cloned();
        if read.epoch() == FIRST {
            partition.shared.promises.check_new(read.id())?;
        }
        match pending.filter(|pending| pending.claim == read.whole.claim) {
            Some(pending) => self.adopt(context, &partition, &read, warrant, &pending),
            None => self.give_way(context, &partition, &read, (warrant, proofs), active),
        }
    }

    /// The share that waits becomes the one that is used.
    fn adopt(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        read: &Certified,
        warrant: &Warrant,
        pending: &PendingRecord,
    ) -> Result<(), Error> {
        let (claim, id, epoch) = (&read.claim, read.id(), read.epoch());
        let before = partition.shared.key(id);
        if before.is_none() && epoch == FIRST && partition.keyring.has(id) {
            return Err(Error::forbidden("an object here has the id of the new key"));
        }
        if let Some(before) = &before {
            read.check_same_key(before)?;
        }
        let lineage = partition.keyring.lineage(id);
        let made = partition.keyring.token_objects();
        let public = made.iter().find(|object| object.id == claim.public);
        let own = public.filter(|object| object.attributes.bytes(CKA_PUBLIC_KEY_INFO) == Some(&claim.key));
        let publish = pending.public.as_ref().filter(|_| own.is_none());
        if publish.is_some() && partition.keyring.has(claim.public) {
            return Err(Error::forbidden("an object here has the id of the new key"));
        }
        let record = ShareRecord {
            share: pending.share.clone(),
            certificate: warrant.certificate.clone(),
            order: pending.order.clone(),
            made: Some(self.platform.now()),
        };
        let mut change = erase_active(Change::new(), partition.id, id);
        for waiting in partition.shared.waiting(id).into_iter().filter(|waiting| *waiting <= epoch.0) {
            change = change.delete(Path::Pending(partition.id, id, waiting));
        }
        // One of the first shares is none of those that are used from now on.
        change = change.delete_if_there(Path::Promise(partition.id, id));
        let former = self.replaced(partition, (read, pending.order.as_ref()), before.as_deref())?;
        if let Some(former) = &former {
            change = change.put(Path::Former(partition.id, id), former);
        }
        change = change.put(Path::Share(partition.id, id), &record);
        let private = (id, &pending.private);
        let objects: Vec<(ObjectId, &Template)> =
            publish.into_iter().map(|public| (claim.public, public)).chain([private]).collect();
        for (object, attributes) in &objects {
            let lineage = if *object == id { lineage } else { *object };
            let record = ObjectRecord { attributes: (*attributes).clone(), lineage };
            change = change.put(Path::Object(partition.id, *object), &record);
        }
        // Shares of a later epoch may be somewhere still.
        let dealt = before.as_ref().and_then(|before| before.standing().dealt).filter(|dealt| *dealt > epoch);
        let standing = StandingRecord { dealt, ..StandingRecord::default() };
        if dealt.is_some() {
            change = change.put(Path::Standing(partition.id, id), &standing);
        }
        let shared = SharedKey::open(record, standing, Vec::new())?;
        let (children, change) = partition.reseat_children(id, shared.shares(), change);
        context.detail = format!(
            "public key {}; every node has its share of epoch {}{}",
            claim.public,
            epoch.0,
            self.ordered(pending.order.as_ref())
        );
        self.change(context, change)?;
        partition.shared.activate(id, shared);
        partition.shared.promises.remove(id);
        if let Some(former) = former {
            partition.shared.replace(id, former);
        }
        let object = |(object, attributes): (ObjectId, &Template)| {
            let lineage = if object == id { lineage } else { object };
            Object::new(object, attributes.clone(), Owner::Token, lineage)
        };
        partition.keyring.put(objects.into_iter().map(object).chain(children));
        Ok(())
    }

    /// What is kept of a key until its new shares have signed: the last share that has shown that it signs, or the
    /// key itself if it was whole here.
    fn replaced(
        &self,
        partition: &Partition,
        (read, order): (&Certified, Option<&SignedOrder>),
        before: Option<&SharedKey>,
    ) -> Result<Option<FormerRecord>, Error> {
        let successor = encode(&read.whole).to_vec();
        let kept = partition.shared.former(read.id());
        let share = match (before, kept) {
            // The one between them has shown nothing.
            (Some(before), Some(kept)) if before.standing().proofs.is_empty() => kept.share.clone(),
            (Some(before), _) => before.record()?.share,
            (None, _) if partition.keyring.has(read.id()) => {
                SecretBytes(encode(&Whole::check(partition, read.id(), &read.public)?))
            }
            (None, _) => return Ok(None),
        };
        Ok(Some(FormerRecord { share, successor, order: order.cloned(), object: None }))
    }

    /// The others have shares of a later epoch, and this node has none of it: because administrators ordered so, or
    /// because it was put back to an old copy.
    fn give_way(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        read: &Certified,
        (warrant, proofs): (&Warrant, &[Proof]),
        active: Option<Arc<SharedKey>>,
    ) -> Result<(), Error> {
        let (claim, id, epoch) = (&read.claim, read.id(), read.epoch());
        let (view, identity) = (self.cluster.view(), self.cluster.identity());
        let (Some(view), Some(identity), Some(active)) = (view, identity, active) else {
            return Err(Error::forbidden("no share waits here for this certificate"));
        };
        if claim.cluster != view.document.membership().cluster.0 {
            return Err(Error::forbidden("these shares are another cluster's"));
        }
        read.check_same_key(&active)?;
        if claim.seats.contains(&identity.public()) {
            let mut standing = active.standing();
            if standing.missed.is_none_or(|missed| missed < epoch) {
                standing.missed = Some(epoch);
                tracing::error!(key = %id, epoch = epoch.0, "this node has lost its share of this key: it was put back to an old copy");
                context.detail = format!("this node has lost its share of epoch {}", epoch.0);
                self.change(context, Change::new().put(Path::Standing(partition.id, id), &standing))?;
                active.set_standing(standing);
            }
            return active.check_current();
        }
        // If the shares have gone on since, the order that moved them is not shown any more. But that they are in use, their
        // proof says, if enough of those hold them who held shares before.
        if let Err(unordered) = self.check_leave(&view, read, warrant) {
            if !proof::is_proven(&warrant.certificate, proofs)? {
                return Err(unordered);
            }
            let own = Certified::read(&active.certificate)?;
            proof::check_later(read, &own, view.document.membership())?;
        }
        let former = self.replaced(partition, (read, warrant.order.as_ref()), Some(&active))?;
        let attributes = partition.keyring.token_attributes(id)?;
        let object = ObjectRecord { attributes, lineage: partition.keyring.lineage(id) };
        let former = FormerRecord { object: Some(object), ..former.ok_or(FaultCode::Internal)? };
        let change = partition.shared.erase(Change::new(), partition.id, id);
        let change = change.put(Path::Former(partition.id, id), &former);
        let change = change.delete(Path::Object(partition.id, id));
        let (children, change) = partition.leave_children(id, change);
        context.detail = format!(
            "other nodes hold the shares of epoch {}, this one none any more{}",
            epoch.0,
            self.ordered(warrant.order.as_ref())
        );
        tracing::warn!(key = %id, epoch = epoch.0, "administrators moved the shares of this key to other nodes");
        self.change(context, change)?;
        for child in children {
            partition.keyring.remove(child);
            partition.shared.children.remove(child);
        }
        partition.keyring.remove(id);
        partition.shared.remove(id);
        partition.shared.replace(id, former);
        Ok(())
    }

    /// Whether administrators have ordered that the shares move to those who have signed this certificate.
    pub(super) fn check_leave(&self, view: &View, read: &Certified, warrant: &Warrant) -> Result<(), Error> {
        let signed = warrant.order.as_ref().ok_or_else(|| Error::forbidden("nobody ordered these shares"))?;
        let judged = signed.judge(view.document.membership(), 1);
        let (order, _) = judged.map_err(Error::forbidden)?;
        let named = order.partition == read.claim.partition && order.key == read.id();
        let seats: Vec<Seat> = read.claim.seats.iter().copied().map(Seat).collect();
        let moved = matches!(&order.act, OrderedAct::Reshare { seats: ordered, .. } if *ordered == seats);
        let of_it = read.claim.mandate == sha256(&signed.text) && order.epoch < read.epoch().0;
        if named && moved && of_it {
            return Ok(());
        }
        Err(Error::forbidden("the order is not about these shares"))
    }

    /// Who ordered something, for a record.
    pub(in crate::vault::shared) fn ordered(
        &self,
        order: Option<&crate::cluster::order::SignedOrder>,
    ) -> String {
        let (Some(order), Some(view)) = (order, self.cluster.view()) else { return String::new() };
        match order.judge(view.document.membership(), 1) {
            Ok((Order { act, .. }, names)) => {
                let names: Vec<_> = names.into_iter().collect();
                format!("; {act}, ordered by {}", names.join(", "))
            }
            // They have left since.
            Err(_) => "; ordered by administrators of an earlier membership document".into(),
        }
    }

    /// What this node has of a key's shares. One that holds none any more, and has not seen yet that those after its own
    /// sign, shows what made it give its own up: whoever waits for that certificate may find it nowhere else.
    pub(in crate::vault) fn account_of(&self, partition: &str, key: ObjectId) -> Account {
        let Some(partition) = self.partition_named(partition) else { return Account::default() };
        let highest = partition.shared.highest(key);
        let traces = traces_of(&partition.shared, key);
        let traces = traces.unwrap_or_else(|error| {
            tracing::error!(%key, %error, "what is kept of this key's shares cannot be read");
            partition.shared.traces.of(key).nodes
        });
        if let Some(shared) = partition.shared.key(key) {
            return Account {
                certificate: Some(shared.certificate.clone().into()),
                order: shared.order.clone(),
                proofs: shared.standing().proofs,
                highest,
                bans: shared.bans(),
                traces,
                stand: Some(self.stand_on(&partition, key)),
            };
        }
        let stand = Some(self.stand_on(&partition, key));
        let none = Account { highest, traces, stand, ..Account::default() };
        match partition.shared.former(key) {
            Some(former) => Account {
                certificate: Some(former.successor.clone().into()),
                order: former.order.clone(),
                ..none
            },
            None => none,
        }
    }
}
