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

impl Trouble {
    /// What whoever asked for the ceremony is told: this node's own error, or what `tell` makes of the others' reasons.
    pub fn told(self, tell: impl FnOnce(String) -> String) -> Error {
        match self {
            Self::Own(error) => error,
            Self::Others(setback) => Error::quorum_missing(tell(setback.reasons.join("; "))),
        }
    }
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
    /// Letters of these came to it in sessions that have ended there, as they do when it is started anew. It says that it
    /// has told them.
    Unheard(Party, BTreeSet<Party>),
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
            | Incident::Unheard(..)
            | Incident::Elsewhen(..)
            | Incident::Stuck
            | Incident::Unfit(_) => None,
        })
    }

    /// Who is not to be asked again, or not with whom. `believed` are those whose bans, or shares of another epoch, were
    /// news that this node took up, and those of whom it is believed this once that sessions had ended.
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
                Incident::Unheard(reader, writers) if believed.contains(reader) => {
                    involved.insert(*reader);
                    involved.extend(writers);
                }
                Incident::Letters(reader, writers) | Incident::Unheard(reader, writers) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::threshold::KeyId, vault::shared::bans::Ban};

    fn party(number: u8) -> Party {
        Party::new(number).unwrap()
    }

    fn parties<const N: usize>(numbers: [u8; N]) -> BTreeSet<Party> {
        numbers.map(party).into()
    }

    fn gave_up(culprits: BTreeSet<Party>, suspects: BTreeSet<Party>, against: Option<u8>) -> Verdict {
        let (key, epoch, reporter) = (KeyId([1; 16]), Epoch(0), party(2));
        let ban = |against| Ban { key, epoch, reporter, against: party(against) };
        let ban = against.map(|against| SignedBan { ban: ban(against), signature: [0; 64] });
        Verdict { culprits, suspects, ban, ..Verdict::of("enough".into()) }
    }

    /// All that can happen to party 1, who signs with 2 and 3: 2 is at fault.
    fn incidents() -> Vec<Incident> {
        let none = BTreeSet::new;
        let warrant = Warrant { certificate: Vec::new(), order: None };
        let mut incidents = vec![
            Incident::Failed(party(2)),
            Incident::Behind(party(2), Vec::new()),
            Incident::Elsewhen(party(2), Epoch(1), warrant),
            Incident::Stuck,
            Incident::Unfit(Blame::Culprits(parties([2]))),
            Incident::Unfit(Blame::Suspect(parties([2, 3]))),
            Incident::Unfit(Blame::Recoverable),
            Incident::Letters(party(2), parties([1])),
            Incident::Letters(party(2), parties([3])),
            Incident::Letters(party(3), parties([2])),
            Incident::Unheard(party(2), parties([3])),
            Incident::Unheard(party(2), parties([1, 3])),
            Incident::GaveUp(party(3), gave_up(none(), parties([2]), None)),
            Incident::GaveUp(party(1), gave_up(none(), none(), None)),
            Incident::GaveUp(party(1), gave_up(none(), none(), Some(2))),
        ];
        for named in [none(), parties([1]), parties([2]), parties([3]), parties([1, 3]), parties([4])] {
            incidents.push(Incident::GaveUp(party(2), gave_up(named.clone(), none(), None)));
            incidents.push(Incident::GaveUp(party(2), gave_up(none(), named, None)));
        }
        for against in 1..=4 {
            incidents.push(Incident::GaveUp(party(2), gave_up(none(), none(), Some(against))));
        }
        incidents
    }

    #[test]
    fn the_same_parties_are_not_asked_twice_in_vain_and_whoever_is_at_fault_is_doubted() {
        for (signers, believed) in [
            (parties([1, 2]), parties([])),
            (parties([1, 2, 3]), parties([])),
            (parties([1, 2, 3]), parties([3])),
        ] {
            for incident in incidents() {
                let text = format!("{incident:?} {signers:?}");
                let setback = Setback::new(signers.clone(), Some(party(1))).with("".into(), incident);
                let judgement = setback.judge(&believed);
                let again = judgement.out.is_disjoint(&signers)
                    && !judgement.apart.iter().any(|apart| apart.is_subset(&signers));
                assert!(!again, "{text}");
                assert!(judgement.doubted().contains(&party(2)), "{text}");
                assert!(!judgement.out.contains(&party(3)), "{text}");
                assert!(!judgement.culprits.contains(&party(3)), "{text}");
                assert!(judgement.apart.iter().all(|apart| apart.len() > 1 && !apart.contains(&party(1))));
            }
        }
    }

    #[test]
    fn what_was_news_is_mended_and_the_same_may_be_asked_again() {
        let warrant = Warrant { certificate: Vec::new(), order: None };
        let incidents = [
            Incident::Behind(party(2), Vec::new()),
            Incident::Elsewhen(party(2), Epoch(1), warrant),
            Incident::Unheard(party(2), parties([2])),
        ];
        for incident in incidents {
            let setback = Setback::new(parties([1, 2, 3]), Some(party(1))).with("".into(), incident);
            let judgement = setback.judge(&parties([2]));
            assert_eq!((judgement.out.len(), judgement.apart.len()), (0, 0));
            assert_eq!(judgement.doubted(), parties([2]));
        }
    }
}
