//! Whether this node takes part when the shares of a key are to become others: on administrators' order, or by the
//! schedule. It believes neither the coordinator nor any other node, but its own membership document, its own share
//! and certificate, and its own clock.

use std::{collections::BTreeMap, sync::Arc};

use pkcs11_sys::{CKA_CLASS, CKA_KEY_TYPE, CKO_PRIVATE_KEY};
use strongroom_shared::{
    fault::FaultCode,
    object::{ObjectId, Shares, Template},
    wire::CallId,
};

use crate::{
    cluster::{
        Member,
        order::{Order, OrderedAct, SignedOrder},
    },
    crypto::threshold::{self, CeremonyId, Epoch, Party, Resharing, Setup},
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault, attributes,
        cluster::View,
        keyring::Keyring,
        partition::Partition,
        record::Change,
        shared::{
            bans::SignedBan,
            ceremony::{
                ceremonies::{Chore, Coordinator, Going, Kind, Work},
                draft::Draft,
                party::{About, digits, names},
                plan::{Plan, likeness},
            },
            certificate::{Certified, sha256},
            kept::StandingRecord,
            keys::SharedKey,
            life::moves::Move,
            words::{Objects, Renewal},
        },
    },
};

/// How many epochs new shares may be ahead of those that they come from: attempts that came to nothing leave gaps.
pub(in crate::vault::shared) const SPAN: u64 = 64;
/// The same by the schedule, from the highest epoch that this node has seen: nobody ordered it.
const SCHEDULED_SPAN: u64 = 8;
/// How many shares one order may have made that do not become active.
const TRIES: usize = 4;
/// How many shares of one key may wait at once. None is given up: a certificate of it may be somewhere.
const WAITING: usize = 16;
/// How many more may by an order to reshare: so one that leaves a bad node out always finds a place.
const SPARE: usize = 16;

/// How a renewal began.
pub enum Renewing {
    /// It is under way.
    Begun(Box<Going>),
    /// This node knows of bans that the coordinator did not tell.
    Behind(Vec<SignedBan>),
}

/// What this node has of a key before its shares become others.
struct Own<'a> {
    partition: &'a Arc<Partition>,
    shared: Option<Arc<SharedKey>>,
    node: [u8; 32],
}

impl<P: Platform> Vault<P> {
    /// Takes part, if it may, in a ceremony that makes other shares of a key.
    pub(in crate::vault::shared) fn begin_renewing(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        renewal: Renewal,
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Renewing, Error> {
        context.call = CallId::RenewShares;
        let identity = self.cluster.identity().ok_or(FaultCode::Forbidden)?;
        let old = Certified::read(&renewal.certificate)?;
        let id = old.id();
        (context.subject, context.object) = (old.claim.partition.clone(), Some(id));
        let name = &old.claim.partition;
        let partition = self.partition_named(name).ok_or_else(|| {
            Error::forbidden(format!(
                "no partition {name} at this node: run `hsmctl partition create` here too"
            ))
        })?;
        let membership = view.document.membership();
        let own = Own { shared: partition.shared.key(id), partition: &partition, node: identity.public() };
        let banned = self.hear_of_bans(context, &own, &old, &renewal.bans)?;
        let untold = own.unknown_to(&renewal.bans, &old);
        if !untold.is_empty() {
            return Ok(Renewing::Behind(untold));
        }
        let (act, by) = self.check_order(view, &renewal, &old, &own, banned)?;
        let to = Move::of(&act, &old)?;
        let marked = own.check_mark(&to, &old, &act)?;
        own.check_old(&to, &old)?;
        if to.is_refresh(&old) != renewal.dealers.is_empty() {
            return Err(Error::forbidden("the coordinator means another act than the one that was ordered"));
        }
        let parties = to.parties(&old, &renewal.dealers, membership)?;
        if let Some(shared) = own.shared_of(&old) {
            // One that was put back to an old copy may have forgotten that it takes two to order this.
            self.hear_before(view, shared, &parties, &coordinator)?;
            let untold = own.unknown_to(&renewal.bans, &old);
            if !untold.is_empty() {
                return Ok(Renewing::Behind(untold));
            }
        }
        let me = parties.iter().find(|(_, member)| member.identity == own.node).map(|(party, _)| *party);
        let setup = setup(me.ok_or_else(|| Error::forbidden("this node has no part in it"))?);
        if setup.key != old.public.key() {
            return Err(Error::forbidden("the certificate is another key's"));
        }
        let share = own.share(&to, &old, setup.me, &renewal.dealers)?;
        own.check_epoch(&to, &old, id, &setup)?;
        if own.shared.is_none() {
            self.check_free_elsewhere(&partition, id)?;
        }
        check_waiting(&partition, id, (renewal.order.as_ref(), &act))?;
        if renewal.order.is_none() {
            self.check_turn(&own, id, &setup)?;
        }
        let plan = own.plan(&to, &old, &renewal, id)?;
        let about = About {
            partition: Arc::clone(&partition),
            object: id,
            call: CallId::RenewShares,
            detail: detail(setup.id, &coordinator, &act, &by, &parties),
        };
        about.tell(context);
        let now = self.platform.uptime();
        if let Some(order) = &renewal.order {
            self.cluster.begun.begin_order(sha256(&order.text), coordinator.node, now)?;
        }
        let leaves = to.seat(&own.node).is_none();
        let making = self.launch(context, view, (coordinator, parties), &setup, Kind::Shares, |context| {
            if marked {
                self.lift_mark(context, &partition, id, (&old.claim.key, &format!("{act} {by}")))?;
            }
            if to.seats != old.claim.seats {
                self.note_traces(&partition, id, old.claim.seats.iter().chain(&to.seats))?;
            }
            if leaves {
                self.note_dealt(&partition, id, setup.epoch)?;
            }
            let begun = match (share.as_deref(), to.is_refresh(&old)) {
                (Some(shared), true) => threshold::refresh(&shared.share, &setup),
                (shared, _) => {
                    let share = shared.map(|shared| &shared.share);
                    let (dealers, committee) = (renewal.dealers, to.committee);
                    threshold::reshare(&Resharing { old: &old.public, share, dealers, committee }, &setup)
                }
            };
            let (ceremony, outgoing) = begun?;
            Ok((about, Work::Making(ceremony, Box::new(plan)), outgoing))
        });
        making.map(Renewing::Begun)
    }

    /// Writes down that this node deals for shares of this epoch that it is to hold none of, and so keeps nothing that
    /// waits: should their certificate come to light late, those that are made until then are of a later epoch.
    fn note_dealt(&self, partition: &Partition, id: ObjectId, epoch: Epoch) -> Result<(), Error> {
        let _turn = partition.object_turn();
        let shared = partition.shared.key(id).ok_or(FaultCode::KeyHandleInvalid)?;
        if partition.shared.highest(id) >= Some(epoch.0) {
            return Err(Error::forbidden("another ceremony has made shares of this epoch meanwhile"));
        }
        let standing = StandingRecord { dealt: Some(epoch), ..shared.standing() };
        self.change_silently(Change::new().put(Path::Standing(partition.id, id), &standing))?;
        shared.set_standing(standing);
        Ok(())
    }

    /// Keeps the bans that the coordinator tells; whether there is any.
    fn hear_of_bans(
        &self,
        context: &mut Context<'_>,
        own: &Own<'_>,
        old: &Certified,
        bans: &[SignedBan],
    ) -> Result<bool, Error> {
        match own.shared_of(old) {
            Some(shared) => {
                self.learn(context, own.partition, shared, bans)?;
                Ok(!shared.bans().is_empty())
            }
            None => Ok(!bans.is_empty()),
        }
    }

    /// What administrators have ordered, and who they are; or that the schedule asks for a refresh.
    fn check_order(
        &self,
        view: &View,
        renewal: &Renewal,
        old: &Certified,
        own: &Own<'_>,
        banned: bool,
    ) -> Result<(OrderedAct, String), Error> {
        let membership = view.document.membership();
        if old.claim.cluster != membership.cluster.0 {
            return Err(Error::forbidden("the shares are another cluster's"));
        }
        let Some(signed) = &renewal.order else {
            let shared =
                own.shared.as_deref().ok_or_else(|| Error::forbidden("no share of this key here"))?;
            self.check_schedule(shared, banned)?;
            return Ok((OrderedAct::Refresh, "by the schedule".into()));
        };
        let judged = signed.judge(membership, least(banned));
        let (order, names) = judged.map_err(Error::forbidden)?;
        order.check_time(self.platform.now() / 1_000_000).map_err(Error::forbidden)?;
        if old.public.public_key()? != order.public_key.as_slice() {
            return Err(Error::forbidden(
                "the order is about another public key than the certificate of the shares",
            ));
        }
        let Order { partition, key, epoch, act, .. } = order;
        let of_it = partition == old.claim.partition && key.0 == old.public.key().0;
        if !of_it || epoch != old.epoch().0 {
            return Err(Error::forbidden("the order is about other shares than those of the certificate"));
        }
        Ok((act, format!("ordered by {}", names.into_iter().collect::<Vec<_>>().join(", "))))
    }
}

impl<P: Platform> Vault<P> {
    /// Whether it is time for a refresh by the schedule, and its epoch one that leaves room for orders.
    fn check_turn(&self, own: &Own<'_>, id: ObjectId, setup: &Setup) -> Result<(), Error> {
        let highest = own.partition.shared.highest(id).unwrap_or_default();
        if setup.epoch.0 > highest.saturating_add(SCHEDULED_SPAN) {
            return Err(Error::forbidden(format!(
                "epoch {} is too far for the schedule: this node has seen {highest}",
                setup.epoch.0
            )));
        }
        match self.cluster.ceremonies.is_turn(Chore::Scheduled, id, self.platform.uptime()) {
            true => Ok(()),
            false => Err(Error::forbidden("a refresh by the schedule was begun within the last hour")),
        }
    }
}

/// How many administrators it takes, whatever the document says: a ban ends by two.
pub(in crate::vault::shared) const fn least(banned: bool) -> u32 {
    if banned { 2 } else { 1 }
}

fn detail(
    id: CeremonyId,
    coordinator: &Coordinator,
    act: &OrderedAct,
    by: &str,
    parties: &BTreeMap<Party, Member>,
) -> String {
    let names = names(parties.values());
    format!("ceremony {} of node {}: {act} {by}: {names}", digits(id), coordinator.name)
}

impl Own<'_> {
    /// The key, if the share here is one of those that there are.
    fn shared_of(&self, old: &Certified) -> Option<&Arc<SharedKey>> {
        self.shared.as_ref().filter(|shared| shared.epoch() == old.epoch())
    }

    /// The bans that whoever told these does not know.
    fn unknown_to(&self, told: &[SignedBan], old: &Certified) -> Vec<SignedBan> {
        self.shared_of(old).map(|shared| shared.unknown_to(told)).unwrap_or_default()
    }

    /// Whether a mark has to be lifted that the key was destroyed here, which administrators do who have this node hold a
    /// share.
    fn check_mark(&self, to: &Move, old: &Certified, act: &OrderedAct) -> Result<bool, Error> {
        let (destroyed, id, public) = (&self.partition.shared.destroyed, old.id(), &old.claim.key);
        let seats = matches!(act, OrderedAct::Reshare { .. } | OrderedAct::Repair { .. });
        if seats && to.seat(&self.node).is_some() {
            return destroyed.is_to_be_lifted(id, public);
        }
        destroyed.check(id, public).map(|()| false)
    }

    /// Whether the shares that there are, as the coordinator says, are those that this node knows. Whoever holds a share
    /// compares, whether it deals or not: the certificate alone says only what the nodes that it names say. One that
    /// is to get a share again, or knows that it has lost this one, has an older share of the same key.
    fn check_old(&self, to: &Move, old: &Certified) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
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

    /// This node's own share, if it is to give something of it.
    fn share(
        &self,
        to: &Move,
        old: &Certified,
        me: Party,
        dealers: &BTreeMap<Party, Party>,
    ) -> Result<Option<Arc<SharedKey>>, Error> {
        if !to.is_refresh(old) && !dealers.contains_key(&me) {
            return Ok(None);
        }
        let shared = self.shared.clone().ok_or_else(|| {
            Error::forbidden(
                "this node has lost its share of the key: `hsmctl key repair` gives it one again",
            )
        })?;
        shared.check_current()?;
        if !old.is_own(&shared)? {
            return Err(Error::forbidden("a node whose share is lost deals none"));
        }
        Ok(Some(shared))
    }

    /// Whether the new shares are later than all that this node has ever said to have.
    fn check_epoch(&self, to: &Move, old: &Certified, id: ObjectId, setup: &Setup) -> Result<(), Error> {
        let (from, new) = (old.epoch().0, setup.epoch.0);
        let later = self.shared.as_ref().is_some_and(|shared| shared.epoch().0 > from);
        if later && to.lost != Some(self.node) {
            return Err(Error::forbidden(format!(
                "the order starts from epoch {from}, and this node is further: ask for the state of the key again"
            )));
        }
        let highest = self.partition.shared.highest(id).unwrap_or_default();
        if new <= highest.max(from) || new > from.max(highest).saturating_add(SPAN) {
            return Err(Error::forbidden(format!(
                "epoch {new} cannot follow here: this node has seen {highest}"
            )));
        }
        Ok(())
    }

    /// What the objects are to be like: as they are here, or as the coordinator says and others confirm.
    fn plan(&self, to: &Move, old: &Certified, renewal: &Renewal, id: ObjectId) -> Result<Plan, Error> {
        let keyring = &self.partition.keyring;
        let Objects { public, private } = match &self.shared {
            Some(_) => Objects { public: None, private: own_object(keyring, id)? },
            None => {
                check_given(self.partition, &renewal.objects, id, old.claim.public)?;
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

/// Whether not too many shares of a key wait already: a coordinator that has them made and keeps their certificates to
/// itself gets few of them.
pub(in crate::vault::shared) fn check_waiting(
    partition: &Partition,
    id: ObjectId,
    (order, act): (Option<&SignedOrder>, &OrderedAct),
) -> Result<(), Error> {
    let pending = partition.shared.pending();
    let waiting: Vec<_> = pending.range((id, 0)..=(id, u64::MAX)).map(|(_, pending)| pending).collect();
    let alike = waiting.iter().filter(|pending| pending.order.as_ref() == order).count();
    let most = if order.is_some() { TRIES } else { 1 };
    let room = if matches!(act, OrderedAct::Reshare { .. }) { WAITING + SPARE } else { WAITING };
    if alike < most && waiting.len() < room {
        return Ok(());
    }
    let advice = match act {
        OrderedAct::Share { .. } => {
            "the key is whole still at the node that has it: order it anew (`hsmctl key share`), and if a node is at fault, \
             among others"
        }
        OrderedAct::Refresh
        | OrderedAct::Repair { .. }
        | OrderedAct::Reshare { .. }
        | OrderedAct::Abandon => {
            "order it anew, and if a node is at fault, a reshare without it (`hsmctl key reshare`)"
        }
    };
    let text = format!("shares of this key wait for a certificate that no node shows: {advice}");
    Err(Error::caller(FaultCode::Full, text))
}

/// The attributes of the private key's object.
pub(in crate::vault::shared) fn own_object(keyring: &Keyring, id: ObjectId) -> Result<Template, Error> {
    let objects = keyring.token_objects();
    let object = objects.iter().find(|object| object.id == id);
    object.map(|object| object.attributes.clone()).ok_or_else(|| FaultCode::KeyHandleInvalid.into())
}

/// Whether objects that this node does not have can be made here as the coordinator describes them. What the private
/// key's is like, those confirm who have it; a public one shows nothing that the key itself does not say.
pub(in crate::vault::shared) fn check_given(
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
        public.ulong(CKA_CLASS) == Some(pkcs11_sys::CKO_PUBLIC_KEY)
            && public.ulong(CKA_KEY_TYPE) == private.ulong(CKA_KEY_TYPE)
    });
    if shared && public { Ok(()) } else { Err(Error::forbidden("these are no objects of a shared key")) }
}
