//! A key whose shares are to become others, as a node has it before it when it is asked to take part: the certificate of
//! the shares that there are, which the coordinator shows, and what this node itself has of the key. Every check here
//! holds the one against the other.

use std::{collections::BTreeMap, sync::Arc};

use pkcs11_sys::{CKA_CLASS, CKA_KEY_TYPE, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY};
use strongroom_shared::{
    fault::FaultCode,
    object::{ObjectId, Shares},
};

use crate::{
    cluster::{Member, order::OrderedAct},
    crypto::threshold::{Party, Setup},
    vault::{
        Error, attributes,
        partition::Partition,
        shared::{
            bans::SignedBan,
            ceremony::{
                draft::Draft,
                plan::{Plan, likeness},
            },
            certificate::{Certified, sha256},
            keys::SharedKey,
            life::moves::Move,
            words::{Objects, Renewal},
        },
    },
};

/// How many epochs new shares may be ahead of those that they come from: attempts that came to nothing leave gaps.
pub(super) const SPAN: u64 = 64;

/// What a node has of a key before its shares become others.
pub(super) struct Case {
    /// The certificate of the shares that there are, as the coordinator shows it.
    pub old: Certified,
    /// The private key.
    pub id: ObjectId,
    /// Its partition here.
    pub partition: Arc<Partition>,
    /// The key, if this node holds a share of it.
    pub shared: Option<Arc<SharedKey>>,
    /// This node's Ed25519 key.
    pub node: [u8; 32],
}

impl Case {
    /// The key, if the share here is one of those that there are.
    pub fn current(&self) -> Option<&Arc<SharedKey>> {
        self.shared.as_ref().filter(|shared| shared.epoch() == self.old.epoch())
    }

    /// The bans that whoever told these does not know, if there are any.
    pub fn unknown_to(&self, told: &[SignedBan]) -> Option<Vec<SignedBan>> {
        let unknown = self.current()?.unknown_to(told);
        Some(unknown).filter(|unknown| !unknown.is_empty())
    }

    /// Whether a mark has to be lifted that the key was destroyed here, which administrators do who have this node hold a
    /// share.
    pub fn check_mark(&self, to: &Move, act: &OrderedAct) -> Result<bool, Error> {
        let (destroyed, id, public) = (&self.partition.shared.destroyed, self.id, &self.old.claim.key);
        let seats = matches!(act, OrderedAct::Reshare { .. } | OrderedAct::Repair { .. });
        if seats && to.seat(&self.node).is_some() {
            return destroyed.is_to_be_lifted(id, public);
        }
        destroyed.check(id, public).map(|()| false)
    }

    /// Whether the shares that there are, as the coordinator says, are those that this node knows. Whoever holds a share
    /// compares, whether it deals or not: the certificate alone says only what the nodes that it names say. One that
    /// is to get a share again, or knows that it has lost this one, has an older share of the same key.
    pub fn check_old(&self, to: &Move) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let old = &self.old;
        old.check_same_key(shared)?;
        let lost = to.lost == Some(self.node) || shared.standing().missed == Some(old.epoch());
        if old.is_own(shared)? || (lost && old.claim.seats.contains(&self.node)) {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "the order starts from the shares of epoch {}, and the one here is of epoch {}",
            old.epoch().0,
            shared.epoch().0
        )))
    }

    /// Whether the coordinator means what was ordered: where shares are only made anew, nobody deals.
    pub fn check_dealers(&self, to: &Move, dealers: &BTreeMap<Party, Party>) -> Result<(), Error> {
        match to.is_refresh(&self.old) == dealers.is_empty() {
            true => Ok(()),
            false => Err(Error::forbidden("the coordinator means another act than the one that was ordered")),
        }
    }

    /// The ceremony as this node takes part in it, at its seat among these.
    pub fn setup(
        &self,
        parties: &BTreeMap<Party, Member>,
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Setup, Error> {
        let me = parties.iter().find(|(_, member)| member.identity == self.node).map(|(party, _)| *party);
        let setup = setup(me.ok_or_else(|| Error::forbidden("this node has no part in it"))?);
        match setup.key == self.old.public.key() {
            true => Ok(setup),
            false => Err(Error::forbidden("the certificate is another key's")),
        }
    }

    /// This node's own share, if it is to give something of it.
    pub fn share(
        &self,
        to: &Move,
        me: Party,
        dealers: &BTreeMap<Party, Party>,
    ) -> Result<Option<Arc<SharedKey>>, Error> {
        if !to.is_refresh(&self.old) && !dealers.contains_key(&me) {
            return Ok(None);
        }
        let shared = self.shared.clone().ok_or_else(|| {
            Error::forbidden(
                "this node has lost its share of the key: `hsmctl key repair` gives it one again",
            )
        })?;
        shared.check_current()?;
        if !self.old.is_own(&shared)? {
            return Err(Error::forbidden("a node whose share is lost deals none"));
        }
        Ok(Some(shared))
    }

    /// Whether the new shares are later than all that this node has ever said to have.
    pub fn check_epoch(&self, to: &Move, setup: &Setup) -> Result<(), Error> {
        let (from, new) = (self.old.epoch().0, setup.epoch.0);
        let later = self.shared.as_ref().is_some_and(|shared| shared.epoch().0 > from);
        if later && to.lost != Some(self.node) {
            return Err(Error::forbidden(format!(
                "the order starts from epoch {from}, and this node is further: ask for the state of the key again"
            )));
        }
        let highest = self.partition.shared.highest(self.id).unwrap_or_default();
        if new <= highest.max(from) || new > from.max(highest).saturating_add(SPAN) {
            return Err(Error::forbidden(format!(
                "epoch {new} cannot follow here: this node has seen {highest}"
            )));
        }
        Ok(())
    }

    /// What the objects are to be like: as they are here, or as the coordinator says and others confirm.
    pub fn plan(&self, to: &Move, renewal: &Renewal) -> Result<Plan, Error> {
        let (keyring, old) = (&self.partition.keyring, &self.old);
        let Objects { public, private } = match &self.shared {
            Some(_) => Objects { public: None, private: keyring.token_attributes(self.id)? },
            None => {
                check_given(&self.partition, &renewal.objects, self.id, old.claim.public)?;
                renewal.objects.clone()
            }
        };
        let public = public.filter(|_| !keyring.has(old.claim.public));
        let (threshold, parties) = (to.committee.threshold(), to.committee.parties());
        let draft = Draft {
            scheme: old.public.scheme(),
            shares: Shares { threshold, parties },
            public: public.clone().unwrap_or_else(|| private.clone()),
            private,
        };
        Ok(Plan {
            publish: public.is_some(),
            text: renewal.order.as_ref().map(|order| sha256(&order.text)).unwrap_or_default(),
            order: renewal.order.clone(),
            object: Some(likeness(&draft.private)),
            lifts: None,
            seats: to.seats.clone(),
            public: old.claim.public,
            draft,
        })
    }
}

/// Whether objects that this node does not have can be made here as the coordinator describes them. What the private
/// key's is like, those confirm who have it; a public one shows nothing that the key itself does not say.
pub(super) fn check_given(
    partition: &Partition,
    given: &Objects,
    id: ObjectId,
    public: ObjectId,
) -> Result<(), Error> {
    if partition.keyring.has(id) || partition.shared.key(public).is_some() || public == id {
        return Err(Error::forbidden("an object here has the id of the key"));
    }
    if partition.rules().record.label.is_none() {
        return Err(FaultCode::TokenNotInitialized.into());
    }
    let private = &given.private;
    let shared = attributes::shares(private).is_some()
        && private.ulong(CKA_CLASS) == Some(CKO_PRIVATE_KEY)
        && private.ulong(CKA_KEY_TYPE).is_some()
        && attributes::holds_no_secret(private);
    let public = given.public.as_ref().is_none_or(|public| {
        public.ulong(CKA_CLASS) == Some(CKO_PUBLIC_KEY)
            && public.ulong(CKA_KEY_TYPE) == private.ulong(CKA_KEY_TYPE)
    });
    if shared && public { Ok(()) } else { Err(Error::forbidden("these are no objects of a shared key")) }
}
