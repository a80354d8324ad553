//! Why a ceremony did not come to its end, as its coordinator sees it, and what follows for the next attempt.

use std::collections::BTreeSet;

use strongroom_shared::fault::Fault;

use crate::{
    cluster::Member,
    crypto::threshold::{Blame, Epoch, Party},
    vault::{
        Error,
        shared::{
            bans::SignedBan,
            words::{Verdict, Warrant},
        },
    },
};

/// Why a ceremony did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// This node itself would not or could not.
    Own(Error),
    /// Others.
    Others(Box<Setback>),
}

impl From<Setback> for Trouble {
    fn from(setback: Setback) -> Self {
        Self::Others(Box::new(setback))
    }
}

/// What the coordinator saw go wrong.
#[derive(Debug)]
pub enum Incident {
    /// This party was silent, refused, or said what nobody asked for.
    Failed(Party),
    /// It refused letters of these as wrong: one of them is, or it says so.
    Letters(Party, BTreeSet<Party>),
    /// It gave up.
    GaveUp(Party, Verdict),
    /// It knows of bans that the coordinator did not tell.
    Behind(Party, Vec<SignedBan>),
    /// Its share is of another epoch: of which, and what made it active.
    Elsewhen(Party, Epoch, Warrant),
    /// Somebody waits, and nobody has anything more to say.
    Stuck,
    /// The parts that they gave make no signature.
    Unfit(Blame),
}

/// What went wrong in a ceremony with other nodes.
#[derive(Debug)]
pub struct Setback {
    /// Everybody who took part but this node.
    others: BTreeSet<Party>,
    /// This node's own seat, if it took part.
    own: Option<Party>,
    /// What happened, for the log.
    pub reasons: Vec<String>,
    /// What nodes refused on purpose, if there was nothing but refusals.
    pub refusals: Vec<Fault>,
    /// The same, for [`Self::judge`].
    pub incidents: Vec<Incident>,
}

/// What follows from a setback.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Who is to be left out.
    pub out: BTreeSet<Party>,
    /// Who is not to be asked together again: one of them is wrong, and nobody knows which.
    pub apart: Vec<BTreeSet<Party>>,
    /// Who has proved to be wrong.
    pub culprits: BTreeSet<Party>,
    /// Who was not ready to begin, for a reason that is mended, and the pairs of bans that were told.
    involved: BTreeSet<Party>,
}

impl Setback {
    /// None yet, in a ceremony of these parties.
    pub fn new(parties: impl IntoIterator<Item = Party>, own: Option<Party>) -> Self {
        let others = parties.into_iter().filter(|party| Some(*party) != own).collect();
        Self { others, own, reasons: Vec::new(), refusals: Vec::new(), incidents: Vec::new() }
    }

    /// The same with this incident.
    pub fn with(mut self, reason: String, incident: Incident) -> Self {
        self.reasons.push(reason);
        self.incidents.push(incident);
        self
    }

    /// One more incident, of this node.
    pub(in crate::vault::shared) fn add(
        &mut self,
        member: &Member,
        reason: impl std::fmt::Display,
        incident: Incident,
    ) {
        self.reasons.push(format!("node {}: {reason}", member.name));
        self.incidents.push(incident);
    }

    /// Bans that were told, by whom.
    pub fn bans(&self) -> impl Iterator<Item = (Party, &[SignedBan])> {
        self.incidents.iter().filter_map(|incident| match incident {
            Incident::GaveUp(party, Verdict { ban, .. }) => Some((*party, ban.as_slice())),
            Incident::Behind(party, bans) => Some((*party, bans.as_slice())),
            Incident::Failed(_)
            | Incident::Letters(..)
            | Incident::Elsewhen(..)
            | Incident::Stuck
            | Incident::Unfit(_) => None,
        })
    }

    /// Who is not to be asked again, or not with whom. `believed` are those whose bans, or shares of another epoch, were
    /// news that this node took up.
    ///
    /// Of every incident at least one other party is held to be at fault, and if nobody is named, it is one of all
    /// others. So the same parties are never asked twice in vain, and nothing that a bad one can say is free.
    pub fn judge(&self, believed: &BTreeSet<Party>) -> Judgement {
        let mut judgement = Judgement::default();
        let mut blame = |suspects: BTreeSet<Party>| judgement.blame(&suspects, &self.others);
        let (mut culprits, mut involved) = (BTreeSet::new(), BTreeSet::new());
        for incident in &self.incidents {
            match incident {
                Incident::Failed(party) => blame([*party].into()),
                Incident::Letters(reader, writers) => {
                    writers.iter().for_each(|writer| blame([*reader, *writer].into()));
                }
                // Its own judgement is the only one that this node can rely on. Others may accuse whom they like.
                Incident::GaveUp(party, verdict) => {
                    let own = self.own == Some(*party);
                    let judge = (!own).then_some(*party);
                    let against = verdict.ban.as_ref().map(|signed| signed.ban.against);
                    let one = verdict.culprits.iter().copied().chain(against);
                    let mut named: Vec<BTreeSet<Party>> = one.map(|party| [party].into()).collect();
                    named.push(verdict.suspects.clone());
                    named.retain(|suspects| !self.others.is_disjoint(suspects));
                    if !own && against.is_some() && !believed.contains(party) {
                        named.clear();
                        named.push([*party].into());
                    }
                    if named.is_empty() {
                        blame(BTreeSet::new());
                    }
                    named.into_iter().for_each(|suspects| blame(suspects.into_iter().chain(judge).collect()));
                    culprits.extend(verdict.culprits.iter().filter(|_| own));
                }
                Incident::Behind(party, _) | Incident::Elsewhen(party, ..) if believed.contains(party) => {
                    involved.insert(*party);
                }
                Incident::Behind(party, _) | Incident::Elsewhen(party, ..) => blame([*party].into()),
                Incident::Stuck | Incident::Unfit(Blame::Ban(_) | Blame::Recoverable) => {
                    blame(BTreeSet::new());
                }
                Incident::Unfit(Blame::Culprits(parties)) => {
                    parties.iter().for_each(|party| blame([*party].into()));
                    culprits.extend(parties);
                }
                Incident::Unfit(Blame::Suspect(parties)) => {
                    blame(parties.clone());
                    // Where there is but one other, it is that one.
                    culprits.extend(parties.iter().filter(|_| parties.len() == 1));
                }
            }
        }
        let bans = self.bans().flat_map(|(_, bans)| bans).map(|signed| signed.ban);
        involved.extend(bans.flat_map(|ban| [ban.reporter, ban.against]));
        (judgement.culprits, judgement.involved) = (culprits, involved);
        judgement
    }
}

impl Judgement {
    /// At least one of these is at fault, as far as they are among the others; one of all others if none is.
    fn blame(&mut self, suspects: &BTreeSet<Party>, others: &BTreeSet<Party>) {
        let among: BTreeSet<Party> = suspects.intersection(others).copied().collect();
        match among.len() {
            0 if others.len() == 1 => self.out.extend(others),
            0 => self.apart.push(others.clone()),
            1 => self.out.extend(among),
            _ => self.apart.push(among),
        }
    }

    /// Who had to do with it, whether or not it is their fault.
    pub fn doubted(&self) -> BTreeSet<Party> {
        self.apart.iter().flatten().chain(&self.out).chain(&self.involved).copied().collect()
    }
}
