//! The coordinator of a ceremony: it asks the parties, and hands on what they say to each other.
//!
//! It has no authority. It can keep letters back or hand them to the wrong party, and so break a ceremony off; it
//! cannot have anybody do what they would not do anyway. A coordinator that is a party itself does its own part
//! while the others do theirs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    thread,
    time::Duration,
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    plain::plain,
};

use crate::{
    cluster::Member,
    crypto::threshold::{CeremonyId, Incoming, Party},
    platform::{Platform, Time},
    vault::{
        Context, Error, Vault,
        cluster::View,
        mandates::CheckedMandate,
        nodes::{Answer, NodeError, Question},
        shared::{
            ceremony::{
                ceremonies::Coordinator,
                party::digits,
                setback::{Incident, Setback, Trouble},
            },
            words::{Begin, Content, End, Parcel, Progress, Verdict},
        },
    },
};

/// The most that one party may say in a ceremony, in bytes: a generation among 16 takes 2.3 MB.
const MOST_SAID: usize = 8 << 20;
/// How long a node may take to hear that a ceremony is over. It would find out by itself.
const CANCEL: Duration = Duration::from_millis(200);

/// Whether the coordinator's own part comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// It does: what it says travels with the first question. Where a part takes little time, this saves a round trip.
    First,
    /// It is done while the others do theirs.
    Together,
}

/// What parties answered.
type Answers = Vec<(Party, Result<Progress, NodeError>)>;

/// A ceremony, as its coordinator runs it.
pub struct Relay<'a, P: Platform> {
    /// Its id, fresh.
    pub id: CeremonyId,
    vault: &'a Vault<P>,
    view: &'a View,
    coordinator: Coordinator,
    parties: BTreeMap<Party, Member>,
    own: Option<Party>,
    lead: Lead,
    /// What the application wants, if this node has checked its word.
    mandate: Option<&'a CheckedMandate>,
    until: Time,
    patience: Duration,
    begun: BTreeSet<Party>,
    /// Who has more to say than fitted.
    more: BTreeSet<Party>,
    inboxes: BTreeMap<Party, VecDeque<Parcel>>,
    said: BTreeMap<Party, usize>,
    /// From whom each was handed letters last.
    senders: BTreeMap<Party, BTreeSet<Party>>,
    ends: BTreeMap<Party, End>,
    collected: Vec<Incoming>,
}

impl<'a, P: Platform> Relay<'a, P> {
    /// A new ceremony of these parties, which ends at `until` (uptime) at the latest. Each question may take as long as
    /// `patience`.
    pub fn new(
        vault: &'a Vault<P>,
        view: &'a View,
        parties: BTreeMap<Party, Member>,
        (until, patience): (Time, Duration),
        lead: Lead,
    ) -> Result<Self, Error> {
        let me = view.me().ok_or(FaultCode::Forbidden)?;
        let mut id = CeremonyId([0; 32]);
        vault.platform.fill(&mut id.0);
        let own = parties.iter().find(|(_, member)| member.id == me.id).map(|(party, _)| *party);
        Ok(Self {
            id,
            vault,
            view,
            coordinator: Coordinator { node: me.id, session: 0, name: me.name.clone() },
            parties,
            own,
            lead,
            mandate: None,
            until,
            patience,
            begun: BTreeSet::new(),
            more: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            said: BTreeMap::new(),
            senders: BTreeMap::new(),
            ends: BTreeMap::new(),
            collected: Vec::new(),
        })
    }

    /// A ceremony that this mandate is for, which this node has checked: its own part need not check it again.
    pub const fn of(mut self, mandate: &'a CheckedMandate) -> Self {
        self.mandate = Some(mandate);
        self
    }

    /// How it ended at each party.
    pub const fn ends(&self) -> &BTreeMap<Party, End> {
        &self.ends
    }

    /// What the parties said to the coordinator.
    pub fn collected(&mut self) -> Vec<Incoming> {
        std::mem::take(&mut self.collected)
    }

    /// Runs the ceremony to its end.
    pub fn run(&mut self, context: &mut Context<'_>, begin: &Begin) -> Result<(), Trouble> {
        context.tried.push(digits(self.id));
        let result = self.rounds(context, begin);
        if result.is_err() {
            self.cancel();
        }
        result
    }

    fn rounds(&mut self, context: &mut Context<'_>, begin: &Begin) -> Result<(), Trouble> {
        loop {
            let due = self.due();
            if due.is_empty() {
                return self.check_ended();
            }
            let mut setback = self.setback();
            if self.vault.platform.uptime() >= self.until {
                for (party, member) in due.iter().filter_map(|party| Some((party, self.parties.get(party)?)))
                {
                    setback.add(member, "the time is over", Incident::Failed(*party));
                }
                return Err(setback.into());
            }
            let questions: Vec<_> =
                due.into_iter().map(|party| (party, self.question(party, begin))).collect();
            for (party, answer) in self.ask(context, questions)? {
                self.absorb(party, answer, &mut setback);
            }
            if !setback.incidents.is_empty() {
                return Err(setback.into());
            }
        }
    }

    fn setback(&self) -> Setback {
        Setback::new(self.parties.keys().copied(), self.own)
    }

    /// Who can do something now.
    fn due(&self) -> Vec<Party> {
        if let (Lead::First, Some(own)) = (self.lead, self.own)
            && !self.begun.contains(&own)
        {
            return vec![own];
        }
        let waits = |party: &Party| {
            let asked = self.begun.contains(party) && !self.more.contains(party);
            asked && self.inboxes.get(party).is_none_or(VecDeque::is_empty)
        };
        let going = self.parties.keys().filter(|party| !self.ends.contains_key(party));
        going.filter(|party| !waits(party)).copied().collect()
    }

    /// Nobody has anything more to say: whether that is so because everybody has ended.
    fn check_ended(&self) -> Result<(), Trouble> {
        let mut setback = self.setback();
        for (_, member) in self.parties.iter().filter(|(party, _)| !self.ends.contains_key(party)) {
            let reason = "it waits for what others do not say, or does not say what they wait for";
            // It may be honest, and wait for one that has ended without a word.
            setback.add(member, reason, Incident::Stuck);
        }
        if setback.incidents.is_empty() { Ok(()) } else { Err(setback.into()) }
    }

    /// What a party is asked next.
    fn question(&mut self, party: Party, begin: &Begin) -> Question {
        let mut room = self.vault.portion();
        let mut parcels = Vec::new();
        let inbox = self.inboxes.entry(party).or_default();
        while let Some(next) = inbox.front()
            && (parcels.is_empty() || next.length() <= room)
        {
            room = room.saturating_sub(next.length());
            parcels.extend(inbox.pop_front());
        }
        self.senders.insert(party, parcels.iter().map(|parcel| parcel.from).collect());
        if self.begun.insert(party) {
            Question::Begin(Begin { parcels, ..begin.clone() })
        } else {
            Question::Step { id: self.id, parcels }
        }
    }

    /// Asks the others side by side, and does the own part meanwhile.
    fn ask(&self, context: &mut Context<'_>, questions: Vec<(Party, Question)>) -> Result<Answers, Trouble> {
        let (own, others): (Vec<_>, Vec<_>) =
            questions.into_iter().partition(|(party, _)| Some(*party) == self.own);
        let rest = self.until.saturating_sub(self.vault.platform.uptime());
        let patience = self.patience.min(Duration::from_micros(rest));
        let ask = |party: Party, question: &Question| {
            let unknown = || NodeError::Malformed("no such party".into());
            let member = self.parties.get(&party).ok_or_else(unknown)?;
            match self.vault.consult(self.view, member, question, patience)? {
                Answer::Progress(progress) => Ok(progress),
                other => Err(other.strange()),
            }
        };
        let alone = own.is_empty() && others.len() == 1;
        thread::scope(|scope| {
            let ask = &ask;
            let mut answers = Vec::with_capacity(others.len() + own.len());
            let mut asked = Vec::with_capacity(others.len());
            for (party, question) in &others {
                let spawned = (!alone)
                    .then(|| {
                        let thread = thread::Builder::new().name("ceremony".into());
                        thread.spawn_scoped(scope, move || ask(*party, question)).ok()
                    })
                    .flatten();
                match spawned {
                    Some(thread) => asked.push((*party, thread)),
                    None => answers.push((*party, ask(*party, question))),
                }
            }
            for (party, question) in own {
                let progress = self.own_part(context, question).or_else(Progress::hindered);
                let progress = progress.map_err(Trouble::Own)?;
                answers.push((party, Ok(progress)));
            }
            for (party, thread) in asked {
                let panicked = |_| Err(NodeError::Malformed("the thread that asked it panicked".into()));
                answers.push((party, thread.join().unwrap_or_else(panicked)));
            }
            Ok(answers)
        })
    }

    fn own_part(&self, context: &mut Context<'_>, question: Question) -> Result<Progress, Error> {
        match question {
            Question::Begin(begin) => {
                self.vault.begin_ceremony(context, self.coordinator.clone(), begin, self.mandate)
            }
            Question::Step { id, parcels } => self.own_step(context, id, parcels),
            Question::Vouch
            | Question::MayDerive(_)
            | Question::Derive(_)
            | Question::Descendant { .. }
            | Question::Inherit { .. }
            | Question::Cancel(_)
            | Question::Certificate { .. }
            | Question::Activate { .. }
            | Question::Proven { .. }
            | Question::MayDestroy(_)
            | Question::Destroy { .. }
            | Question::MayAbandon(_)
            | Question::Abandon { .. }
            | Question::Ended(_)
            | Question::Bans(_) => Err(FaultCode::Internal.into()),
        }
    }

    /// One letter after the other, so that it is known whose is wrong.
    fn own_step(
        &self,
        context: &mut Context<'_>,
        id: CeremonyId,
        parcels: Vec<Parcel>,
    ) -> Result<Progress, Error> {
        let mut whole = Progress { parcels: Vec::new(), more: false, end: None };
        let letters: Vec<_> = parcels.into_iter().map(|parcel| (Some(parcel.from), vec![parcel])).collect();
        let letters = if letters.is_empty() { vec![(None, Vec::new())] } else { letters };
        for (from, letter) in letters {
            match (self.vault.step_ceremony(context, &self.coordinator, id, letter), from) {
                (Ok(Progress { parcels, more, end }), _) => {
                    whole.parcels.extend(parcels);
                    (whole.more, whole.end) = (more, end);
                }
                (Err(Error::Caller(FaultCode::Malformed, text)), Some(from)) => {
                    let suspects = BTreeSet::from([from]);
                    whole.end = Some(End::Aborted(Verdict { suspects, ..Verdict::of(text) }));
                }
                (Err(error), _) => return Err(error),
            }
            if whole.end.is_some() {
                break;
            }
        }
        Ok(whole)
    }

    /// Sorts what a party answered.
    fn absorb(&mut self, party: Party, answer: Result<Progress, NodeError>, setback: &mut Setback) {
        let Some(member) = self.parties.get(&party).cloned() else { return };
        let progress = match answer {
            Ok(progress) => progress,
            Err(error) => {
                if let NodeError::Unreachable(_) = &error {
                    self.vault.cluster.links.ill(&member, &error, self.vault.platform.uptime());
                }
                let senders = self.senders.get(&party).filter(|senders| !senders.is_empty());
                let refusal = if let NodeError::Refused(fault) = &error { Some(fault.code) } else { None };
                let incident = match (refusal, senders.cloned()) {
                    (Some(FaultCode::Malformed), Some(senders)) => Incident::Letters(party, senders),
                    (Some(FaultCode::Unavailable), Some(senders)) => Incident::Unheard(party, senders),
                    _ => Incident::Failed(party),
                };
                setback.add(&member, &error, incident);
                if let NodeError::Refused(fault) = error
                    && matches!(
                        fault.code,
                        FaultCode::PolicyRefused | FaultCode::Frozen | FaultCode::Forbidden
                    )
                {
                    setback
                        .refusals
                        .push(Fault::new(fault.code, format!("node {}: {}", member.name, fault.detail)));
                }
                return;
            }
        };
        let Progress { parcels, more, end } = progress;
        let said = self.said.entry(party).or_default();
        *said += parcels.iter().map(Parcel::length).sum::<usize>();
        let endless = *said > MOST_SAID || (more && parcels.is_empty());
        let mut strange = endless;
        for parcel in parcels {
            match (parcel.to, parcel.content) {
                _ if parcel.from != party => strange = true,
                (None, Content::Plain(text)) => {
                    self.collected.push(Incoming { from: party, bytes: text.0.to_vec() });
                }
                (Some(to), content) if to != party && self.parties.contains_key(&to) => {
                    let inbox = self.inboxes.entry(to).or_default();
                    inbox.push_back(Parcel { from: party, to: Some(to), content });
                }
                (None | Some(_), Content::Plain(_) | Content::Sealed(_)) => strange = true,
            }
        }
        if strange {
            setback.add(&member, "it says what nobody asked for", Incident::Failed(party));
        }
        if more {
            self.more.insert(party);
        } else {
            self.more.remove(&party);
        }
        if let Some(end) = end {
            note(party, &member, &end, setback);
            self.ends.insert(party, end);
        }
    }

    /// Tells those that still wait that it is over.
    fn cancel(&self) {
        self.vault.cluster.ceremonies.end(self.id, self.coordinator.node);
        let waits = |(party, _): &(&Party, &Member)| {
            self.begun.contains(party) && !self.ends.contains_key(party) && Some(**party) != self.own
        };
        let members = self.parties.iter().filter(waits).map(|(_, member)| member);
        // Those that do not hear it find out by themselves.
        self.vault.ask_all(self.view, members, &Question::Cancel(self.id), CANCEL);
    }
}

/// What goes wrong if the ceremony ended so at a party.
fn note(party: Party, member: &Member, end: &End, setback: &mut Setback) {
    match end {
        End::Signed | End::Proved(_) | End::Ready(_) | End::Dealt => {}
        End::Elsewhen { epoch, warrant } => {
            let reason = format!("its share is of epoch {}", epoch.0);
            setback.add(member, reason, Incident::Elsewhen(party, *epoch, warrant.clone()));
        }
        End::Behind(bans) => {
            let reason = "it knows of bans that this node did not";
            setback.add(member, reason, Incident::Behind(party, bans.clone()));
        }
        End::Aborted(verdict) => {
            setback.add(member, plain(&verdict.reason), Incident::GaveUp(party, verdict.clone()));
        }
    }
}
