//! Signing with a shared key, at the node that takes the call: it chooses who signs, runs the ceremony, and gives
//! nothing away but a signature that it has verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    mandate::Mandated,
    mechanism::Mechanism,
    message::{Outcome, Sign, Signature},
    object::ObjectId,
    wire::CallId,
};

use super::{
    super::{Context, Error, Vault, cluster::View, mandates::CheckedMandate, partition::Partition},
    bans::SignedBan,
    ceremony::{
        relay::{Lead, Relay},
        setback::{Incident, Judgement, Setback, Trouble},
    },
    children::SigningKey,
    keys::SharedKey,
    life::lookafter::peer,
    words::{Begin, Task, Warrant},
};
use crate::{
    cluster::{Member, Membership, NodeId},
    crypto::{
        self,
        threshold::{Party, SchemeId, Setup, Signing, Step, combine},
    },
    platform::{Platform, Time},
};

/// How often another quorum is tried.
const ATTEMPTS: usize = 3;
/// How long all attempts may take together: a little less than an application waits.
const BUDGET: Time = 1_700_000;
/// How long a node may take for its part of a round.
const PATIENCE: Duration = Duration::from_millis(600);

/// What earlier attempts have shown.
#[derive(Default)]
struct Lessons {
    out: BTreeSet<Party>,
    apart: Vec<BTreeSet<Party>>,
    reasons: Vec<String>,
    refusals: Vec<Fault>,
    /// Who was brought to the same epoch: nobody is twice.
    met: BTreeSet<Party>,
    /// Whether it was believed once that letters came in sessions that had ended.
    unheard: bool,
    /// The nodes that were asked.
    asked: BTreeMap<NodeId, Member>,
}

impl Lessons {
    fn learn(&mut self, setback: Setback, judgement: Judgement) {
        self.out.extend(judgement.out);
        self.apart.extend(judgement.apart);
        self.reasons.extend(setback.reasons);
        self.refusals.extend(setback.refusals);
    }

    fn allows(&self, signers: &BTreeSet<Party>) -> bool {
        self.out.is_disjoint(signers) && !self.apart.iter().any(|apart| apart.is_subset(signers))
    }

    /// Those of whom it is believed that letters came in sessions that had ended: all who say so first, and nobody again.
    fn believe(&mut self, setback: &Setback) -> BTreeSet<Party> {
        let unheard = setback.incidents.iter().filter_map(|incident| match incident {
            Incident::Unheard(party, _) => Some(*party),
            Incident::Failed(_)
            | Incident::Letters(..)
            | Incident::GaveUp(..)
            | Incident::Behind(..)
            | Incident::Elsewhen(..)
            | Incident::Stuck
            | Incident::Unfit(_) => None,
        });
        let believed: BTreeSet<Party> = unheard.filter(|_| !self.unheard).collect();
        self.unheard |= !believed.is_empty();
        believed
    }

    /// What the application is told: a refusal if that is all there was, or that there are too few nodes. Of nodes that
    /// have left the cluster meanwhile it is told nothing.
    fn fault(&self, membership: &Membership) -> Error {
        let gone = self.asked.values().filter(|member| membership.member(&member.identity).is_none());
        let gone: Vec<String> = gone.map(|member| format!("node {}: ", member.name)).collect();
        let stays = |text: &&str| !gone.iter().any(|name| text.starts_with(name));
        let reasons: Vec<&str> = self.reasons.iter().map(String::as_str).filter(stays).collect();
        let refusals = self.refusals.iter().filter(|refusal| stays(&refusal.detail.as_str()));
        let refusals: Vec<&Fault> = refusals.collect();
        match refusals.first() {
            Some(refusal) if refusals.len() == reasons.len() => {
                let said: BTreeSet<&str> = refusals.iter().map(|said| said.detail.as_str()).collect();
                Error::caller(refusal.code, said.into_iter().collect::<Vec<_>>().join("; "))
            }
            Some(_) | None => Error::quorum_missing(match reasons.is_empty() {
                true => "too few nodes may sign with this key now: see `hsmctl cluster list`".into(),
                false => format!("too few nodes sign: {}", reasons.join("; ")),
            }),
        }
    }
}

impl<P: Platform> Vault<P> {
    /// Signs together with other nodes.
    pub(super) fn sign_shared(
        &self,
        context: &mut Context<'_>,
        (mandated, mandate): (&Mandated, &CheckedMandate),
        wanted: Sign,
    ) -> Result<Signature, Error> {
        let Sign { key, mechanism, params: _, input } = wanted;
        let partition = context.partition()?;
        let mut shared = self.key_to_sign_with(context, &partition, key)?;
        shared.family.check_current()?;
        let mechanism = Mechanism::from_number(mechanism).ok_or(FaultCode::MechanismInvalid)?;
        let input = crypto::shared_input(shared.share().public().scheme(), mechanism, &input)?;
        if mandated.text.len() > self.portion() {
            return Err(Error::caller(
                FaultCode::DataLengthRange,
                "the message is longer than nodes may pass on",
            ));
        }
        self.keep_unkept_bans(context, &partition, &shared.family)?;
        let until = self.platform.uptime().saturating_add(BUDGET);
        let mut lessons = Lessons::default();
        for _ in 0..ATTEMPTS {
            if self.platform.uptime() >= until {
                break;
            }
            let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
            let Some(parties) = self.quorum(&view, &shared.family, &lessons) else { break };
            let asked = parties.clone();
            lessons.asked.extend(asked.values().map(|member| (member.id, member.clone())));
            let told = shared.family.bans();
            match self.attempt(context, &view, (mandated, mandate, &input), (&shared, &told), parties, until)
            {
                Ok(bytes) => {
                    asked.values().for_each(|member| self.cluster.links.trust(member.id));
                    return Ok(Signature { bytes });
                }
                Err(Trouble::Own(error)) => {
                    context.recorded = false;
                    return Err(error);
                }
                Err(Trouble::Others(setback)) => {
                    tracing::warn!(%key, reasons = setback.reasons.join("; "), "a shared signature did not come about");
                    let family = &shared.family;
                    let mut believed =
                        self.hear(context, &partition, (family, &told), &setback, &mut lessons)?;
                    believed.extend(self.meet_epochs(context, &view, family, &setback, &mut lessons)?);
                    believed.extend(lessons.believe(&setback));
                    let judgement = setback.judge(&believed);
                    let now = self.platform.uptime();
                    let doubted = judgement.doubted();
                    let doubted = doubted.iter().filter_map(|party| asked.get(party));
                    doubted.for_each(|member| self.cluster.links.doubt(member.id, now));
                    self.accuse(context, family, &view, (&judgement, &setback.reasons))?;
                    lessons.learn(*setback, judgement);
                    shared = self.key_to_sign_with(context, &partition, key)?;
                }
            }
        }
        context.recorded = false;
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        Err(lessons.fault(view.document.membership()))
    }

    /// The key as it signs now.
    fn key_to_sign_with(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        key: ObjectId,
    ) -> Result<SigningKey, Error> {
        if let Some(shared) = partition.shared.signing_key(key)? {
            return Ok(shared);
        }
        context.recorded = false;
        // What was destroyed or has left this node since the call came is gone; any other key is none of shares.
        self.object(context, partition, key, FaultCode::KeyHandleInvalid)?;
        Err(FaultCode::KeyTypeInconsistent.into())
    }

    /// One attempt of one quorum, under an id and with randomness of its own.
    fn attempt(
        &self,
        context: &mut Context<'_>,
        view: &View,
        (mandated, mandate, input): (&Mandated, &CheckedMandate, &[u8]),
        (shared, told): (&SigningKey, &[SignedBan]),
        parties: BTreeMap<Party, Member>,
        until: Time,
    ) -> Result<Vec<u8>, Trouble> {
        let public = shared.share().public();
        let me = shared.share().party();
        let signers: BTreeSet<Party> = parties.keys().copied().collect();
        let lead = match public.scheme() {
            SchemeId::EcdsaSecp256k1 | SchemeId::EcdsaP256 => Lead::Together,
            SchemeId::Ed25519 | SchemeId::Bip340 => Lead::First,
        };
        let mut relay =
            Relay::new(self, view, parties, (until, PATIENCE), lead).map_err(Trouble::Own)?.of(mandate);
        if !signers.contains(&me) {
            // Whoever has others sign checks and records the same as if it signed.
            let detail = |client: &str| format!("others sign, for client {client}");
            let own = view.me().ok_or(FaultCode::Forbidden).map_err(|code| Trouble::Own(code.into()))?;
            self.allow(context, (mandate, own.id), shared, detail).map_err(Trouble::Own)?;
        }
        let task = Task::Sign { mandated: mandated.clone(), signers: signers.clone(), bans: told.to_vec() };
        let (id, key, epoch) = (relay.id, public.key(), public.epoch());
        relay.run(context, &Begin { id, key, epoch, task, parcels: Vec::new() })?;
        let signing = Signing { signers, input: input.to_vec() };
        let combining = combine(shared.share(), &signing, &Setup { key, id, epoch, me });
        let combining = combining.map_err(|error| Trouble::Own(Error::internal(error)))?;
        let setback =
            Setback::new(signing.signers.iter().copied(), signing.signers.contains(&me).then_some(me));
        match combining.step(relay.collected()) {
            Step::Done(signature, _) => Ok(signature),
            Step::Abort(abort) => Err(setback.with(abort.to_string(), Incident::Unfit(abort.blame)).into()),
            Step::Refused(_, rejected) => {
                Err(setback.with(rejected.to_string(), Incident::Failed(rejected.from)).into())
            }
            Step::Continue(combining, _) => {
                let missing = combining.missing().into_iter();
                let silent = |party| (format!("{party} did not give its part"), Incident::Failed(party));
                let add = |setback: Setback, (reason, incident)| setback.with(reason, incident);
                Err(missing.map(silent).fold(setback, add).into())
            }
        }
    }

    /// Who signs: this node and those that are well, if they may sign together; then whoever may.
    fn quorum(&self, view: &View, shared: &SharedKey, lessons: &Lessons) -> Option<BTreeMap<Party, Member>> {
        let now = self.platform.uptime();
        let me = shared.share.party();
        let members = shared.members(view.document.membership());
        let mut candidates: Vec<(Party, Member)> = members
            .into_iter()
            .filter(|(_, member)| !self.cluster.links.is_left_out(member.id, now))
            .collect();
        // In turn, so that no node does all the work.
        let turn = self.cluster.ceremonies.turn(candidates.len());
        candidates.rotate_left(turn);
        // Nobody may know whose fault it was that signatures did not come about: those are asked last who had to do with
        // the most of them, so that one who spoils them in silence is soon asked no more.
        candidates.sort_by_key(|(party, member)| {
            let links = &self.cluster.links;
            (*party != me, !links.is_well(member.id), links.doubts(member.id, now))
        });
        let seats: Vec<Party> = candidates.iter().map(|(party, _)| *party).collect();
        let count = usize::from(shared.share.public().committee().threshold());
        let fits = |signers: &BTreeSet<Party>| shared.may_sign(signers) && lessons.allows(signers);
        let chosen = choose(&seats, count, &mut BTreeSet::new(), &fits)?;
        Some(candidates.into_iter().filter(|(party, _)| chosen.contains(party)).collect())
    }

    /// Keeps the bans that others told: who told what this node had not told them, and was believed.
    fn hear(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        (shared, told): (&SharedKey, &[SignedBan]),
        setback: &Setback,
        lessons: &mut Lessons,
    ) -> Result<BTreeSet<Party>, Error> {
        let mut believed = BTreeSet::new();
        for (party, bans) in setback.bans() {
            match self.learn(context, partition, shared, bans) {
                Ok(()) if bans.iter().all(|ban| told.contains(ban)) => {}
                Ok(()) => drop(believed.insert(party)),
                Err(Error::Caller(FaultCode::Forbidden, text)) => {
                    lessons.reasons.push(format!("{party} tells {text}"));
                }
                Err(error) => {
                    context.recorded = false;
                    return Err(error);
                }
            }
        }
        Ok(believed)
    }

    /// Whoever has shares of an earlier epoch takes up those that wait there: the others, or this node. With whom it came
    /// about.
    fn meet_epochs(
        &self,
        context: &mut Context<'_>,
        view: &View,
        shared: &SharedKey,
        setback: &Setback,
        lessons: &mut Lessons,
    ) -> Result<BTreeSet<Party>, Error> {
        let members = shared.members(view.document.membership());
        let mut met = BTreeSet::new();
        for incident in &setback.incidents {
            let Incident::Elsewhen(party, epoch, warrant) = incident else { continue };
            let Some(member) = members.get(party) else { continue };
            let together = if !lessons.met.insert(*party) {
                Err("it is of another epoch still".to_owned())
            } else if *epoch > shared.epoch() {
                let peer = peer(member);
                let activated = self.activate(&mut self.about_shares(&peer, CallId::RenewShares), warrant);
                // If it is this node that has lost its share, that is what is to be told.
                shared.check_current().inspect_err(|_| context.recorded = false)?;
                activated.map_err(|error| error.to_string())
            } else {
                let handed = self.consult(view, member, &Warrant::of(shared).question(), PATIENCE);
                handed.map(drop).map_err(|error| error.to_string())
            };
            match together {
                Ok(()) => drop(met.insert(*party)),
                Err(reason) => lessons.reasons.push(format!("node {}: {reason}", member.name)),
            }
        }
        Ok(met)
    }

    /// Leaves out for an hour whoever has proved to be wrong, on record.
    pub(super) fn accuse(
        &self,
        context: &mut Context<'_>,
        shared: &SharedKey,
        view: &View,
        (judgement, reasons): (&Judgement, &[String]),
    ) -> Result<(), Error> {
        let members = shared.members(view.document.membership());
        for member in judgement.culprits.iter().filter_map(|party| members.get(party)) {
            tracing::error!(node = member.name, "this node broke the protocol: it is left out for an hour");
            self.cluster.links.leave_out(member.id, self.platform.uptime());
            context.detail = format!("node {} broke the protocol: {}", member.name, reasons.join("; "));
            self.log.append(self.record_of(context, Outcome::Failed))?;
        }
        Ok(())
    }
}

/// The first `count` of `seats` that fit, in their order.
fn choose(
    seats: &[Party],
    count: usize,
    chosen: &mut BTreeSet<Party>,
    fits: &impl Fn(&BTreeSet<Party>) -> bool,
) -> Option<BTreeSet<Party>> {
    if !fits(chosen) {
        return None;
    }
    if chosen.len() == count {
        return Some(chosen.clone());
    }
    let (first, rest) = seats.split_first()?;
    chosen.insert(*first);
    if let Some(found) = choose(rest, count, chosen, fits) {
        return Some(found);
    }
    chosen.remove(first);
    choose(rest, count, chosen, fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::document::ClusterId;

    fn member(name: &str, seed: u8) -> Member {
        Member {
            name: name.into(),
            address: "127.0.0.1:7373".into(),
            server_name: "localhost".into(),
            authority: Vec::new(),
            id: NodeId([seed; 32]),
            identity: [seed; 32],
            sealing: [seed; 32],
        }
    }

    fn told(refusals: &[&str], reasons: &[&str], members: Vec<Member>) -> (FaultCode, String) {
        let refusals = refusals.iter().map(|text| Fault::new(FaultCode::Frozen, *text)).collect();
        let reasons = reasons.iter().map(|text| (*text).to_owned()).collect();
        let asked = [("b", 2), ("c", 3)].map(|(name, seed)| (NodeId([seed; 32]), member(name, seed))).into();
        let lessons = Lessons { refusals, reasons, asked, ..Lessons::default() };
        let cluster = ClusterId([7; 16]);
        let membership =
            Membership { cluster, version: 2, members, administrators: Vec::new(), approvals: 1 };
        match lessons.fault(&membership) {
            Error::Caller(code, text) => (code, text),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn nothing_is_told_of_nodes_that_have_left_meanwhile() {
        let all = || vec![member("a", 1), member("b", 2), member("c", 3)];
        let left = || vec![member("a", 1), member("b", 2)];
        let reasons = ["node b: lost", "node c: lost"];
        let few = |text: &str| (FaultCode::QuorumMissing, format!("too few nodes sign: {text}"));
        assert_eq!(told(&[], &reasons, all()), few("node b: lost; node c: lost"));
        assert_eq!(told(&[], &reasons, left()), few("node b: lost"));
        let (_, text) = told(&[], &reasons[1..], left());
        assert!(text.starts_with("too few nodes may sign"), "{text}");
        // What is left are refusals alone.
        let frozen = (FaultCode::Frozen, "node b: frozen".to_owned());
        assert_eq!(told(&["node b: frozen"], &["node b: frozen", "node c: lost"], left()), frozen);
        assert_eq!(
            told(&["node b: frozen"], &["node b: frozen", "node c: lost"], all()).0,
            FaultCode::QuorumMissing
        );
    }
}
