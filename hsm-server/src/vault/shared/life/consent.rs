//! Whether this node takes part when the shares of a key are to become others: on administrators' order, or by the
//! schedule. It believes neither the coordinator nor any other node, but its own membership document, its own share
//! and certificate, and its own clock.

use std::{collections::BTreeMap, sync::Arc};

use strongroom_shared::{fault::FaultCode, object::ObjectId, wire::CallId};

use crate::{
    cluster::{
        Member,
        order::{Order, OrderedAct, SignedOrder},
    },
    crypto::threshold::{self, CeremonyId, Epoch, Outcome, Party, Resharing, Setup, Started},
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault,
        cluster::View,
        partition::Partition,
        record::Change,
        shared::{
            bans::SignedBan,
            ceremony::{
                ceremonies::{Chore, Coordinator, Going, Kind, Work},
                party::{About, digits, names},
            },
            certificate::{Certified, sha256},
            kept::StandingRecord,
            keys::SharedKey,
            life::{case::Case, moves::Move},
            words::Renewal,
        },
    },
};

/// How many epochs new shares by the schedule may be ahead of the highest that this node has seen: nobody ordered them.
const SCHEDULED_SPAN: u64 = 8;
/// How many shares one order may have made that do not become active.
const TRIES: usize = 4;
/// How many shares of one key may wait at once. None is given up: a certificate of it may be somewhere.
const WAITING: usize = 16;
/// How many more may by an order to reshare: so one that leaves a bad node out always finds a place.
const SPARE: usize = 16;

/// How a renewal began.
pub enum Consent {
    /// It is under way.
    Begun(Box<Going>),
    /// This node knows of bans that the coordinator did not tell.
    Behind(Vec<SignedBan>),
}

/// What this node takes part in, and on whose word.
struct Agreed {
    act: OrderedAct,
    /// Who ordered it, in words; or that the schedule asks for it.
    by: String,
    to: Move,
    /// Whether a mark is to be lifted that the key was destroyed here.
    marked: bool,
    /// This node's own share, if it gives something of it.
    share: Option<Arc<SharedKey>>,
}

impl<P: Platform> Vault<P> {
    /// Takes part, if it may, in a ceremony that makes other shares of a key. What must hold is checked in this order,
    /// because each check relies on those before it; nothing is written but bans until all of it holds.
    pub(in crate::vault::shared) fn begin_renewing(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        renewal: Renewal,
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Consent, Error> {
        context.call = CallId::RenewShares;
        let case = self.case(context, &renewal.certificate)?;
        let banned = self.hear_of_bans(context, &case, &renewal.bans)?;
        if let Some(untold) = case.unknown_to(&renewal.bans) {
            return Ok(Consent::Behind(untold));
        }
        let (act, by) = self.check_order(view, &case, &renewal, banned)?;
        let to = Move::of(&act, &case.old)?;
        let marked = case.check_mark(&to, &act)?;
        case.check_old(&to)?;
        case.check_dealers(&to, &renewal.dealers)?;
        let parties = to.parties(&case.old, &renewal.dealers, view.document.membership())?;
        if let Some(shared) = case.current() {
            // One that was put back to an old copy may have forgotten that it takes two to order this.
            self.hear_before(view, shared, &parties, &coordinator)?;
        }
        if let Some(untold) = case.unknown_to(&renewal.bans) {
            return Ok(Consent::Behind(untold));
        }
        let setup = case.setup(&parties, setup)?;
        let share = case.share(&to, setup.me, &renewal.dealers)?;
        case.check_epoch(&to, &setup)?;
        self.check_room(&case, (renewal.order.as_ref(), &act), setup.epoch)?;
        let plan = case.plan(&to, &renewal)?;
        let about = About {
            partition: Arc::clone(&case.partition),
            object: case.id,
            call: CallId::RenewShares,
            detail: detail(setup.id, &coordinator, &act, &by, &parties),
        };
        about.tell(context);
        if let Some(order) = &renewal.order {
            let now = self.platform.uptime();
            self.cluster.begun.begin_order(sha256(&order.text), coordinator.node, now)?;
        }
        let agreed = Agreed { act, by, to, marked, share };
        let making = self.launch(context, view, (coordinator, parties), &setup, Kind::Shares, |context| {
            self.note_renewal(context, &case, &agreed, setup.epoch)?;
            let (ceremony, outgoing) = agreed.begin(&case.old, renewal.dealers, &setup)?;
            Ok((about, Work::Making(ceremony, Box::new(plan)), outgoing))
        });
        making.map(Consent::Begun)
    }

    /// What the coordinator shows of a key, and what this node has of it; from here on the record says which key it is.
    fn case(&self, context: &mut Context<'_>, certificate: &[u8]) -> Result<Case, Error> {
        let node = self.cluster.identity().ok_or(FaultCode::Forbidden)?.public();
        let old = Certified::read(certificate)?;
        let (id, name) = (old.id(), &old.claim.partition);
        (context.subject, context.object) = (name.clone(), Some(id));
        let partition = self.partition_here(name)?;
        Ok(Case { shared: partition.shared.key(id), old, id, partition, node })
    }

    /// Whether shares of this epoch may wait here: their id is free, not too many wait already, and the schedule is due if
    /// it is the schedule that has them made.
    fn check_room(
        &self,
        case: &Case,
        (order, act): (Option<&SignedOrder>, &OrderedAct),
        epoch: Epoch,
    ) -> Result<(), Error> {
        if case.shared.is_none() {
            self.check_free_elsewhere(&case.partition, case.id)?;
        }
        check_waiting(&case.partition, case.id, (order, act))?;
        if order.is_none() {
            self.check_turn(case, epoch)?;
        }
        Ok(())
    }

    /// Writes down what has to be known of a renewal whatever becomes of it, before this node says a word in it.
    fn note_renewal(
        &self,
        context: &mut Context<'_>,
        Case { old, id, partition, node, .. }: &Case,
        Agreed { act, by, to, marked, .. }: &Agreed,
        epoch: Epoch,
    ) -> Result<(), Error> {
        if *marked {
            self.lift_mark(context, partition, *id, (&old.claim.key, &format!("{act} {by}")))?;
        }
        if to.seats != old.claim.seats {
            self.note_traces(partition, *id, old.claim.seats.iter().chain(&to.seats))?;
        }
        if to.seat(node).is_none() {
            self.note_dealt(partition, *id, epoch)?;
        }
        Ok(())
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
        case: &Case,
        bans: &[SignedBan],
    ) -> Result<bool, Error> {
        match case.current() {
            Some(shared) => {
                self.learn(context, &case.partition, shared, bans)?;
                Ok(!shared.bans().is_empty())
            }
            None => Ok(!bans.is_empty()),
        }
    }

    /// What administrators have ordered, and who they are; or that the schedule asks for a refresh.
    fn check_order(
        &self,
        view: &View,
        Case { old, shared, .. }: &Case,
        renewal: &Renewal,
        banned: bool,
    ) -> Result<(OrderedAct, String), Error> {
        let membership = view.document.membership();
        if old.claim.cluster != membership.cluster.0 {
            return Err(Error::forbidden("the shares are another cluster's"));
        }
        let Some(signed) = &renewal.order else {
            let shared = shared.as_deref().ok_or_else(|| Error::forbidden("no share of this key here"))?;
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
    fn check_turn(&self, case: &Case, epoch: Epoch) -> Result<(), Error> {
        let highest = case.partition.shared.highest(case.id).unwrap_or_default();
        if epoch.0 > highest.saturating_add(SCHEDULED_SPAN) {
            return Err(Error::forbidden(format!(
                "epoch {} is too far for the schedule: this node has seen {highest}",
                epoch.0
            )));
        }
        match self.cluster.ceremonies.is_turn(Chore::Scheduled, case.id, self.platform.uptime()) {
            true => Ok(()),
            false => Err(Error::forbidden("a refresh by the schedule was begun within the last hour")),
        }
    }
}

impl Agreed {
    /// This node's first word.
    fn begin(
        &self,
        old: &Certified,
        dealers: BTreeMap<Party, Party>,
        setup: &Setup,
    ) -> Result<Started<Outcome>, Error> {
        let begun = match (self.share.as_deref(), self.to.is_refresh(old)) {
            (Some(shared), true) => threshold::refresh(&shared.share, setup),
            (shared, _) => {
                let (share, committee) = (shared.map(|shared| &shared.share), self.to.committee);
                threshold::reshare(&Resharing { old: &old.public, share, dealers, committee }, setup)
            }
        };
        Ok(begun?)
    }
}

/// How many administrators it takes, whatever the document says: a ban ends by two.
pub(super) const fn least(banned: bool) -> u32 {
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

/// Whether not too many shares of a key wait already: a coordinator that has them made and keeps their certificates to
/// itself gets few of them.
pub(super) fn check_waiting(
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
