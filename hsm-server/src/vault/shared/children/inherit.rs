//! What becomes of a key's descendants when its shares move: a node that gets a share of the key gets them too, and
//! one that leaves keeps none.
//!
//! Who brings them is not believed: the certificate of a descendant says what its object is like, and it is taken only
//! if as many of those who signed it are members as sign with the key, and this node's own share makes the same key.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pkcs11_sys::CKA_PUBLIC_KEY_INFO;
use strongroom_shared::{
    fault::FaultCode,
    object::{CKA_STRONGROOM_EPOCH, Descent, ObjectId, Shares, Template},
    shares::Certificate,
    wire::CallId,
};

use crate::{
    cluster::Member,
    platform::{Platform, Time},
    store::Path,
    vault::{
        Context, Error, Vault, attributes,
        cluster::View,
        keyring::{Object, Owner},
        nodes::Question,
        partition::Partition,
        record::Change,
        records::{ObjectRecord, decode},
        shared::{
            ceremony::plan::likeness,
            children::{
                ChildRecord,
                descendant::{ChildClaim, values_of},
            },
        },
    },
};

/// How long a node may take for one descendant.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after its share of the master became active a node takes descendants with it, in microseconds. What was
/// destroyed here it does not take then either; what was destroyed while it held no share of the master, and heard
/// nothing of it, a bad node can bring for that long and no longer, for its certificate is good for ever.
const LATEST: Time = 600 * 1_000_000;

impl<P: Platform> Vault<P> {
    /// Takes a descendant of a key of which this node holds a share, and which it does not have.
    pub(in crate::vault) fn inherit_child(
        &self,
        context: &mut Context<'_>,
        attributes: Template,
        certificate: &[u8],
    ) -> Result<(), Error> {
        context.call = CallId::DeriveShared;
        let whole: Certificate = decode(certificate)?;
        let said: ChildClaim = decode(&whole.claim)?;
        let id = said.id();
        let partition = self.partition_named(&said.partition).ok_or(FaultCode::Forbidden)?;
        context.subject.clone_from(&said.partition);
        context.object = Some(id);
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let membership = view.document.membership();
        let _turn = partition.object_turn();
        if let Some(ChildRecord::Certified { .. }) = partition.shared.children.record(id).as_deref() {
            return Ok(());
        }
        let public = attributes.bytes(CKA_PUBLIC_KEY_INFO).unwrap_or_default();
        partition.shared.destroyed.check(id, public)?;
        self.check_not_agreed(id)?;
        let master = said.descent.master;
        let family = partition.shared.key(master).ok_or_else(|| {
            Error::forbidden(format!("no share of key {master} here, from which this one descends"))
        })?;
        family.check_current()?;
        if self.platform.now() > family.made.saturating_add(LATEST) {
            return Err(Error::forbidden(
                "descendants come with a share, and this node has had its own for longer: a repair of it brings them",
            ));
        }
        let seats: BTreeSet<_> = said.seats.iter().collect();
        let known = seats.into_iter().filter(|seat| membership.member(seat).is_some()).count();
        if said.cluster != membership.cluster
            || known < usize::from(family.share.public().committee().threshold())
        {
            return Err(Error::forbidden(
                "too few of the nodes that signed this descendant are members still: destroy it and derive it again",
            ));
        }
        if partition.keyring.has(id) {
            return Err(Error::forbidden("an object here has the id of the descendant"));
        }
        let share = family.descendant(id, &said.descent.path)?;
        let own = values_of(&share, &attributes)?;
        let same = own.iter().all(|own| attributes.value(own.kind) == Some(&own.value))
            && Descent::of(&attributes).as_ref() == Some(&said.descent)
            && attributes.value(CKA_STRONGROOM_EPOCH).is_none()
            && likeness(&attributes) == said.object;
        if !same {
            return Err(Error::forbidden("this is not what the nodes have signed of the descendant"));
        }
        let detail = format!("{}; it came with the share of its master", said.descent);
        self.adopt_child(context, &partition, &whole, said, &attributes, detail)
    }

    /// Brings descendants of a key to nodes that hold a share of it since now: what is still to be done.
    pub(in crate::vault::shared) fn bring_children(
        &self,
        view: &View,
        children: &[(ObjectId, Question)],
        to: &[&Member],
    ) -> Vec<String> {
        let mut notes = Vec::new();
        for (child, question) in children {
            for trouble in self.ask_all(view, to.iter().copied(), question, PATIENCE) {
                notes.push(format!(
                    "key {child}, which descends from this one, is not there; a repair of that node brings it: {trouble}"
                ));
            }
        }
        notes
    }
}

impl Partition {
    /// The descendants of a key that are here, as they are brought to another node.
    pub(in crate::vault::shared) fn children_to_bring(&self, master: ObjectId) -> Vec<(ObjectId, Question)> {
        let there = self.shared.children.of(master).0;
        if there.is_empty() {
            return Vec::new();
        }
        let objects: BTreeMap<ObjectId, _> =
            self.keyring.token_objects().into_iter().map(|object| (object.id, object)).collect();
        let bring = |child: ObjectId| match self.shared.children.record(child).as_deref() {
            Some(ChildRecord::Certified { certificate, .. }) => {
                let attributes = objects.get(&child)?.attributes.clone();
                Some((child, Question::Inherit { attributes, certificate: certificate.clone() }))
            }
            Some(ChildRecord::Waiting { .. }) | None => None,
        };
        there.into_iter().filter_map(bring).collect()
    }

    /// The objects of a key's descendants as they are under a new committee, and what the store is to hold of them.
    pub(in crate::vault::shared) fn reseat_children(
        &self,
        master: ObjectId,
        shares: Shares,
        change: Change,
    ) -> (Vec<Object>, Change) {
        let there: BTreeSet<ObjectId> = self.shared.children.of(master).0.into_iter().collect();
        if there.is_empty() {
            return (Vec::new(), change);
        }
        let objects = self.keyring.token_objects().into_iter();
        let objects = objects.filter(|object| {
            there.contains(&object.id) && attributes::shares(&object.attributes) != Some(shares)
        });
        let of_it = objects.map(|object| {
            let attributes = attributes::with_shares(object.attributes.clone(), shares);
            Object::new(object.id, attributes, Owner::Token, object.lineage)
        });
        let objects: Vec<Object> = of_it.collect();
        let change = objects.iter().fold(change, |change, object| {
            let record = ObjectRecord { attributes: object.attributes.clone(), lineage: object.lineage };
            change.put(Path::Object(self.id, object.id), &record)
        });
        (objects, change)
    }

    /// Has the store hold nothing of a key's descendants any more, and says which there were.
    pub(in crate::vault::shared) fn leave_children(
        &self,
        master: ObjectId,
        change: Change,
    ) -> (Vec<ObjectId>, Change) {
        let (there, wait) = self.shared.children.of(master);
        let change = there.iter().fold(change, |change, child| change.delete(Path::Object(self.id, *child)));
        let all: Vec<ObjectId> = there.into_iter().chain(wait).collect();
        let change = all.iter().fold(change, |change, child| change.delete(Path::Child(self.id, *child)));
        (all, change)
    }
}
