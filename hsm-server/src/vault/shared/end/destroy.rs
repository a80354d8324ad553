//! Destroying a shared key: every node of the cluster that has something of it, or may have, destroys that, or none
//! does.

use pkcs11_sys::CKA_DESTROYABLE;
use strongroom_shared::{
    fault::FaultCode,
    mandate::Mandated,
    message::DestroyObject,
    object::{ObjectId, Template},
    wire::CallId,
};

use crate::{
    cluster::Member,
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault,
        keyring::{Object, Owner},
        login::Role,
        mandates::CheckedMandate,
        nodes::Question,
        object::check_access,
        record::Change,
        shared::{
            children::ChildRecord,
            children::descendant::lineage,
            end::{PATIENCE, destroyed::DestroyedRecord},
            keys::{KeyHere, SharedKeys},
            meant,
            words::Agreement,
        },
    },
};

/// How far a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destruction<'a> {
    /// It says whether it would.
    Ask,
    /// It destroys its share, if everybody has agreed who holds one.
    Do(&'a [Agreement]),
}

/// Whether the application may destroy this key: it was shown it, nothing of it is frozen, and it can be destroyed.
fn check_right(mandate: &CheckedMandate, object: &Object) -> Result<(), Error> {
    mandate.check_seen(object)?;
    let rules = mandate.partition.rules();
    rules.check_thawed(object.lineage)?;
    rules.check_family(&object.attributes)?;
    match object.attributes.bool(CKA_DESTROYABLE) {
        Some(false) => Err(Error::attribute(FaultCode::ActionProhibited, CKA_DESTROYABLE)),
        Some(true) | None => Ok(()),
    }
}

/// The object of a key that has none here, as every share of it would make it that waits, and as it was that of one that
/// was replaced.
fn unused(shared: &SharedKeys, id: ObjectId) -> Result<Vec<Object>, Error> {
    let object = |attributes: &Template, lineage| Object::new(id, attributes.clone(), Owner::Token, lineage);
    let pending = shared.pending();
    let waiting = pending.range((id, 0)..=(id, u64::MAX));
    let mut objects: Vec<Object> = waiting.map(|(_, pending)| object(&pending.private, id)).collect();
    if let Some(former) = shared.former(id) {
        let kept = former.object.as_ref().ok_or_else(|| {
            let text = "a share that was replaced is kept here without its object: it goes when those after it have signed";
            Error::forbidden(text)
        })?;
        objects.push(object(&kept.attributes, kept.lineage));
    }
    Ok(objects)
}

impl<P: Platform> Vault<P> {
    /// Destroys this node's share of a key, or says whether it would. A share that is not there is destroyed already.
    pub(in crate::vault) fn destroy_share(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        destruction: Destruction<'_>,
    ) -> Result<CheckedMandate, Error> {
        context.call = CallId::DestroyShared;
        let mandate = self.check_mandate(mandated, CallId::DestroyObject)?;
        self.destroy_by(context, &mandate, destruction)?;
        Ok(mandate)
    }

    fn destroy_by(
        &self,
        context: &mut Context<'_>,
        mandate: &CheckedMandate,
        destruction: Destruction<'_>,
    ) -> Result<(), Error> {
        let partition = &mandate.partition;
        let DestroyObject { object: id } = meant(mandate)?;
        context.subject.clone_from(&partition.rules().record.name);
        context.object = Some(id);
        context.detail = format!("for client {}", mandate.client);
        let _turn = partition.object_turn();
        if let Some(record) = partition.shared.children.record(id) {
            return self.destroy_child(context, mandate, id, &record, destruction);
        }
        if partition.shared.key(id).is_none() {
            // What was never used or is used no more is destroyed by the same right as what is used.
            if !partition.keyring.has(id) {
                unused(&partition.shared, id)?.iter().try_for_each(|object| check_right(mandate, object))?;
            }
            return match destruction {
                Destruction::Ask => Ok(()),
                Destruction::Do(agreements) => self.destroy_rest(context, mandate, id, agreements),
            };
        }
        let (me, missing) = (context.application_id(), FaultCode::ObjectHandleInvalid);
        let object = partition.keyring.object(id, me, Role::User, missing)?;
        check_right(mandate, &object)?;
        let (there, wait) = partition.shared.children.of(id);
        if !there.is_empty() {
            let text = format!("{} keys descend from it: destroy them first", there.len());
            return Err(Error::caller(FaultCode::ActionProhibited, text));
        }
        match destruction {
            Destruction::Ask => Ok(()),
            Destruction::Do(agreements) => {
                self.check_agreed(mandate, id, agreements)?;
                let change = partition.shared.erase_destroyed(Change::new(), partition.id, id);
                // Those that wait must not come to life without it.
                let forget =
                    |change: Change, child: &ObjectId| change.delete(Path::Child(partition.id, *child));
                let change = wait.iter().fold(change, forget);
                let change = change.delete(Path::Object(partition.id, id));
                let destroyed = DestroyedRecord::WAS_HERE;
                self.change(context, change.put(Path::Destroyed(partition.id, id), &destroyed))?;
                partition.shared.destroyed.put(id, destroyed);
                wait.into_iter().for_each(|child| partition.shared.children.remove(child));
                partition.keyring.remove(id);
                partition.shared.remove_destroyed(id);
                Ok(())
            }
        }
    }

    /// The same of a key of which this node has no share that it uses: one that waits must not come to life when its
    /// certificate arrives late, and one that was replaced is good for nothing any more. Where there is nothing, nothing
    /// must come.
    fn destroy_rest(
        &self,
        context: &mut Context<'_>,
        mandate: &CheckedMandate,
        id: ObjectId,
        agreements: &[Agreement],
    ) -> Result<(), Error> {
        let partition = &mandate.partition;
        if partition.keyring.has(id) {
            // An ordinary object, which ends by a call of its own.
            return Ok(());
        }
        self.check_agreed(mandate, id, agreements)?;
        let holds = partition.shared.holds(id);
        let (destroyed, change) = if holds {
            let change = partition.shared.erase_destroyed(Change::new(), partition.id, id);
            (DestroyedRecord::WAS_HERE, change)
        } else {
            // What this node knows of others it keeps: nothing here shows whose key it is.
            let told = (mandate.client.as_str(), mandate.key);
            match partition.shared.destroyed.unseen(id, mandate.seen()?.public, told)? {
                Some(destroyed) => (destroyed, Change::new()),
                None => return Ok(()),
            }
        };
        self.change(context, change.put(Path::Destroyed(partition.id, id), &destroyed))?;
        partition.shared.destroyed.put(id, destroyed);
        if holds {
            partition.shared.remove_destroyed(id);
        }
        Ok(())
    }

    /// The same of a descendant, which has no share of its own.
    fn destroy_child(
        &self,
        context: &mut Context<'_>,
        mandate: &CheckedMandate,
        id: ObjectId,
        record: &ChildRecord,
        destruction: Destruction<'_>,
    ) -> Result<(), Error> {
        let partition = &mandate.partition;
        let mut change = Change::new().delete(Path::Child(partition.id, id));
        match record {
            ChildRecord::Certified { descent, .. } => {
                let (me, missing) = (context.application_id(), FaultCode::ObjectHandleInvalid);
                let object = partition.keyring.object(id, me, Role::User, missing)?;
                check_right(mandate, &object)?;
                context.detail = format!("{}; {descent}", context.detail);
                change = change.delete(Path::Object(partition.id, id));
            }
            ChildRecord::Waiting { descent, attributes, .. } => {
                let object = Object::new(id, attributes.clone(), Owner::Token, lineage(descent));
                check_right(mandate, &object)?;
            }
        }
        let destroyed = DestroyedRecord::WAS_HERE;
        change = change.put(Path::Destroyed(partition.id, id), &destroyed);
        match destruction {
            Destruction::Ask => Ok(()),
            Destruction::Do(agreements) => {
                self.check_agreed(mandate, id, agreements)?;
                self.change(context, change)?;
                partition.shared.destroyed.put(id, destroyed);
                partition.keyring.remove(id);
                partition.shared.children.remove(id);
                Ok(())
            }
        }
    }

    /// Destroys a key at all nodes that have something of it, or may have.
    pub(in crate::vault::shared) fn destroy_shared(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        mandate: &CheckedMandate,
    ) -> Result<(), Error> {
        let DestroyObject { object: id } = meant(mandate)?;
        let shared = mandate.partition.shared.family(id).ok_or(FaultCode::KeyTypeInconsistent)?;
        let object = self.object(context, &mandate.partition, id, FaultCode::ObjectHandleInvalid)?;
        check_access(context, &object.attributes)?;
        // What this node would not destroy nobody is asked about.
        let mut agreements = vec![self.agree_to_destroy(context, mandated)?];
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let own = view.me().ok_or(FaultCode::Forbidden)?.id;
        let members = shared.members(view.document.membership());
        let holders = members.into_values().filter(|member| member.id != own).collect::<Vec<_>>();
        let failed = |what: &str, troubles: Vec<String>| {
            Err(Error::quorum_missing(format!("{what}: {}", troubles.join("; "))))
        };
        let undone = "nothing was destroyed. Every node that may hold a share of the key has to agree first (one that is gone \
                      for ever is taken out with `hsmctl cluster remove`), and not every one did";
        let holding = holders.iter().map(|member| member.identity).collect();
        let name = mandate.partition.rules().record.name.clone();
        let traces = match mandate.partition.shared.key(id) {
            Some(_) => {
                let key = KeyHere { name: &name, partition: &mandate.partition, id };
                self.find_traces(&view, key, &holding)
            }
            // A descendant has no shares of its own.
            None => Ok(Vec::new()),
        };
        let traces = match traces {
            Ok(traces) => traces,
            Err(troubles) => return failed(undone, troubles),
        };
        let all: Vec<&Member> = holders.iter().chain(traces.iter().map(|trace| trace.member)).collect();
        let mut troubles = Vec::new();
        for answer in self.gather_agreements(&view, &all, mandated) {
            match answer {
                Ok(agreement) => agreements.push(agreement),
                Err(trouble) => troubles.push(trouble),
            }
        }
        if !troubles.is_empty() {
            return failed(undone, troubles);
        }
        let unclean = traces.iter().filter(|trace| !trace.is_clean).map(|trace| trace.member);
        let others: Vec<&Member> = holders.iter().chain(unclean).collect();
        let question = Question::Destroy { mandated: mandated.clone(), agreements: agreements.clone() };
        let troubles = self.ask_all(&view, others.iter().copied(), &question, PATIENCE);
        if !troubles.is_empty() {
            // The key stands here until the last of the others is done, so that it can be asked for again.
            return failed("the key is not destroyed everywhere yet; destroy it again", troubles);
        }
        // The rest has nothing, as far as anybody knows; a ceremony may be under way there.
        let rest = view.others().filter(|member| others.iter().all(|other| other.id != member.id));
        for trouble in self.ask_all(&view, rest, &question, PATIENCE) {
            tracing::warn!(key = %id, trouble, "a node that has nothing of it was not told that it is destroyed");
        }
        self.destroy_share(context, mandated, Destruction::Do(&agreements)).map(drop)
    }
}
