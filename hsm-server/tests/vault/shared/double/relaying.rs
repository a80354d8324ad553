//! What a bad coordinator does with the letters of others: it cannot read them, and hands them on as it likes.

use std::collections::VecDeque;

use super::*;

/// In which order letters are handed on to a party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// As they were written.
    #[default]
    AsWritten,
    /// The newest of those that wait comes first: one of a later round before those of the round under way.
    NewestFirst,
}

impl Double {
    /// The letter that a party gets next.
    fn next(&self, inbox: &mut VecDeque<Parcel>) -> Option<Parcel> {
        match self.delivery {
            Delivery::AsWritten => inbox.pop_front(),
            Delivery::NewestFirst => {
                let newest = inbox.pop_back();
                self.overtaken.fetch_add(inbox.len(), Ordering::Relaxed);
                newest
            }
        }
    }

    /// Has honest nodes sign, and hands every letter on twice. What they say to the coordinator.
    pub fn have_signed(&self, talks: &[Talk<'_>], begin: &Begin) -> Vec<Incoming> {
        let Task::Sign { signers, .. } = &begin.task else { panic!() };
        let mut inboxes: BTreeMap<Party, VecDeque<Parcel>> = BTreeMap::new();
        let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let mut said = Vec::new();
        for turn in 0.. {
            let going: Vec<_> = signers.iter().filter(|party| !ended.contains(*party)).copied().collect();
            if going.is_empty() {
                break;
            }
            assert!(turn < 100, "{going:?} do not end");
            for seat in going {
                let talk = &talks[usize::from(seat.number()) - 1];
                let parcels: Vec<_> = self.next(inboxes.entry(seat).or_default()).into_iter().collect();
                let again = Question::Step { id: begin.id, parcels: parcels.clone() };
                let question = match begun.insert(seat) {
                    true => Question::Begin(Begin { parcels: parcels.clone(), ..begin.clone() }),
                    false => Question::Step { id: begin.id, parcels: parcels.clone() },
                };
                let Reply::Progress(progress) = talk.ask(&question).unwrap() else { panic!() };
                if !parcels.is_empty() {
                    assert!(talk.ask(&again).is_err(), "a letter is taken once");
                }
                for parcel in progress.parcels {
                    match (parcel.to, parcel.content) {
                        (Some(to), content) => {
                            let parcel = Parcel { content, ..parcel };
                            inboxes.entry(to).or_default().push_back(parcel);
                        }
                        (None, Content::Plain(bytes)) => said.push(Incoming { from: seat, bytes }),
                        (None, Content::Sealed(_)) => panic!("sealed for the coordinator itself"),
                    }
                }
                match progress.end {
                    None => {}
                    Some(End::Signed) => drop(ended.insert(seat)),
                    Some(other) => panic!("{seat}: {other:?}"),
                }
            }
        }
        said
    }
}

/// What one says, as parcels to those it is for among `others`.
pub(super) fn parcels(from: Party, outgoing: &[Outgoing], others: &[Party]) -> Vec<Parcel> {
    let parcel = |message: &Outgoing| {
        let to = match message.to {
            To::Party(party) => vec![party],
            To::All => others.to_vec(),
            To::Coordinator => Vec::new(),
        };
        let content = Content::Plain(message.bytes.to_vec());
        to.into_iter()
            .map(move |to| Parcel { from, to: Some(to), content: content.clone() })
            .collect::<Vec<_>>()
    };
    outgoing.iter().flat_map(parcel).collect()
}

/// The seat of the bad node: after those of the honest ones.
pub(super) fn last(talks: &[Talk<'_>]) -> Party {
    party(talks.len() as u8 + 1)
}

/// Runs a ceremony of the honest nodes at the first seats and one's own at the last. What they say to each other it
/// cannot read.
pub(super) fn run<T: 'static>(
    talks: &[Talk<'_>],
    (ceremony, outgoing): (Ceremony<T>, Vec<Outgoing>),
    me: Party,
    begin: &Begin,
    mut look: impl FnMut(&Parcel),
) -> Result<(Option<T>, Vec<Statement>), Fault> {
    let seats: Vec<Party> = (1..me.number()).map(party).collect();
    let mut ceremony = Some(ceremony);
    let (mut done, mut said) = (None, BTreeMap::new());
    let mut inboxes: BTreeMap<Party, VecDeque<Parcel>> = BTreeMap::new();
    let post = |parcels: Vec<Parcel>, inboxes: &mut BTreeMap<Party, VecDeque<Parcel>>| {
        for parcel in parcels {
            inboxes.entry(parcel.to.unwrap()).or_default().push_back(parcel);
        }
    };
    post(parcels(me, &outgoing, &seats), &mut inboxes);
    let mut first = true;
    while said.len() < seats.len() {
        for (seat, talk) in seats.iter().zip(talks) {
            // One letter at a time: they are long.
            let parcels = talk.double.next(inboxes.entry(*seat).or_default());
            let parcels = parcels.into_iter().collect();
            let question = match first {
                true => Question::Begin(Begin { parcels, ..begin.clone() }),
                false => Question::Step { id: begin.id, parcels },
            };
            if said.contains_key(seat) {
                continue;
            }
            let Reply::Progress(progress) = talk.ask(&question)? else { panic!() };
            progress.parcels.iter().for_each(&mut look);
            post(progress.parcels, &mut inboxes);
            if let Some(End::Ready(statement)) = progress.end {
                said.insert(*seat, statement);
            }
        }
        first = false;
        let mine = inboxes.entry(me).or_default();
        let incoming = mine.drain(..).map(|parcel| match parcel.content {
            Content::Plain(bytes) => Incoming { from: parcel.from, bytes },
            Content::Sealed(_) => panic!("sealed for the coordinator itself"),
        });
        match ceremony.take().map(|ceremony| ceremony.step(incoming.collect())) {
            None => {}
            Some(Step::Continue(going, outgoing)) => {
                ceremony = Some(going);
                post(parcels(me, &outgoing, &seats), &mut inboxes);
            }
            Some(Step::Done(result, outgoing)) => {
                done = Some(result);
                post(parcels(me, &outgoing, &seats), &mut inboxes);
            }
            Some(Step::Abort(abort)) => panic!("{abort}"),
            Some(Step::Refused(_, rejected)) => panic!("{rejected}"),
        }
    }
    Ok((done, said.into_values().collect()))
}
