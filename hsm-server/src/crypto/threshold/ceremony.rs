//! The machine that runs every ceremony: it opens envelopes, keeps the mailbox of the round, and lets no panic of
//! a library out.
//!
//! A [`Ceremony`] is used up by every step and is not `Clone`: a state that was advanced, aborted or dropped is
//! gone, and no nonce is used twice. It lives in memory only; there is no way to write it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use strongroom_shared::secret::Wiped;

use super::{
    blame::{Abort, Blame, Refusal, Reject, Rejected},
    envelope::{Envelope, Incoming, Letter, Outgoing, Terms, To},
    party::Party,
};

/// A ceremony under way, seen from one seat.
pub struct Ceremony<T> {
    terms: Terms,
    /// What this end is addressed as.
    address: To,
    round: u8,
    mailbox: BTreeMap<Party, Wiped>,
    /// What faster parties have said of the next round already.
    early: BTreeMap<Party, Wiped>,
    parties: BTreeSet<Party>,
    protocol: Box<dyn Machine<T>>,
}

/// What a step led to.
#[derive(Debug)]
pub enum Step<T> {
    /// The ceremony goes on: these are to be sent, if any.
    Continue(Ceremony<T>, Vec<Outgoing>),
    /// It is over, with a result. These are to be sent, if any: others may still wait for them.
    Done(T, Vec<Outgoing>),
    /// It is over without a result. Its secrets are wiped.
    Abort(Abort),
    /// One of the messages was not for it. None of the batch was taken, and the ceremony is as it was before.
    Refused(Ceremony<T>, Rejected),
}

/// A ceremony that has begun, and what it says first.
pub type Started<T> = (Ceremony<T>, Vec<Outgoing>);

impl<T: 'static> Ceremony<T> {
    /// Takes messages, in any order. The ceremony advances when the last party of a round has spoken.
    pub fn step(mut self, messages: Vec<Incoming>) -> Step<T> {
        let mut opened: Vec<Envelope> = Vec::with_capacity(messages.len());
        for message in &messages {
            match self.open(message, &opened) {
                Ok(envelope) => opened.push(envelope),
                Err(why) => return Step::Refused(self, Rejected { from: message.from, why }),
            }
        }
        for envelope in opened {
            let mailbox = if envelope.round == self.round { &mut self.mailbox } else { &mut self.early };
            mailbox.insert(envelope.sender, envelope.into_body());
        }
        self.advance()
    }

    /// Who has not spoken in the round under way: whom to blame when its deadline passes.
    pub fn missing(&self) -> BTreeSet<Party> {
        self.protocol.speakers().into_iter().filter(|party| !self.mailbox.contains_key(party)).collect()
    }

    pub(super) fn begin(
        terms: Terms,
        address: To,
        parties: BTreeSet<Party>,
        start: impl FnOnce() -> Result<First<T>, Refusal>,
    ) -> Result<Started<T>, Refusal> {
        let First { round, protocol, letters } = guarded(start).unwrap_or(Err(Refusal::Internal))?;
        let ceremony = Self {
            terms,
            address,
            round,
            mailbox: BTreeMap::new(),
            early: BTreeMap::new(),
            parties,
            protocol,
        };
        // What is said first is of round 1, whatever round is waited for.
        let mut outgoing = ceremony.seal(1, letters);
        if !ceremony.protocol.speakers().is_empty() {
            return Ok((ceremony, outgoing));
        }
        // Nobody else speaks in this round: the next one begins at once.
        match ceremony.advance() {
            Step::Continue(ceremony, more) => {
                outgoing.extend(more);
                Ok((ceremony, outgoing))
            }
            Step::Done(..) | Step::Abort(_) | Step::Refused(..) => Err(Refusal::Internal),
        }
    }

    /// Checks an envelope against everything but its content.
    fn open(&self, message: &Incoming, batch: &[Envelope]) -> Result<Envelope, Reject> {
        let envelope = Envelope::open(&message.bytes).ok_or(Reject::Garbage)?;
        if envelope.id != self.terms.id {
            return Err(Reject::Ceremony);
        }
        if envelope.epoch != self.terms.epoch {
            return Err(Reject::Epoch);
        }
        if envelope.terms != self.terms.digest {
            return Err(Reject::Terms);
        }
        if envelope.sender != message.from || !self.parties.contains(&envelope.sender) {
            return Err(Reject::Sender);
        }
        if !envelope.is_for(self.address) {
            return Err(Reject::Receiver);
        }
        let spoken = |mailbox: &BTreeMap<Party, _>| {
            let twice = |other: &Envelope| (other.round, other.sender) == (envelope.round, envelope.sender);
            mailbox.contains_key(&envelope.sender) || batch.iter().any(twice)
        };
        if envelope.round == self.round {
            if spoken(&self.mailbox) {
                return Err(Reject::Duplicate);
            }
            if !self.protocol.speakers().contains(&envelope.sender) {
                return Err(Reject::Sender);
            }
        } else if envelope.round == self.round.saturating_add(1) {
            if spoken(&self.early) {
                return Err(Reject::Duplicate);
            }
        } else {
            return Err(Reject::Round);
        }
        Ok(envelope)
    }

    /// Runs every round that is complete.
    fn advance(mut self) -> Step<T> {
        let mut outgoing = Vec::new();
        loop {
            let speakers = self.protocol.speakers();
            if let Some(party) = self.mailbox.keys().find(|party| !speakers.contains(party)) {
                return Step::Abort(Abort::culprit(*party, format!("{party} spoke out of turn")));
            }
            if self.mailbox.len() < speakers.len() {
                return Step::Continue(self, outgoing);
            }
            let mailbox = std::mem::replace(&mut self.mailbox, std::mem::take(&mut self.early));
            let round = self.round;
            self.round = round.saturating_add(1);
            let protocol = self.protocol;
            match guarded(|| protocol.advance(mailbox)) {
                Ok(Ok(Turn::Next(protocol, letters))) => {
                    self.protocol = protocol;
                    outgoing.extend(self.seal(self.round, letters));
                }
                Ok(Ok(Turn::Done(result))) => return Step::Done(result, outgoing),
                Ok(Err(abort)) => return Step::Abort(abort),
                Err(Panicked) => {
                    let reason = format!("the threshold library panicked over the messages of round {round}");
                    return Step::Abort(Abort::new(Blame::Suspect(speakers), reason));
                }
            }
        }
    }

    fn seal(&self, round: u8, letters: Vec<Letter>) -> Vec<Outgoing> {
        let To::Party(me) = self.address else { return Vec::new() };
        letters.into_iter().map(|letter| Envelope::seal(&self.terms, round, me, letter)).collect()
    }
}

impl<T> fmt::Debug for Ceremony<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[ceremony, round {}]", self.round)
    }
}

/// How a ceremony begins.
pub(super) struct First<T> {
    /// The round whose messages it waits for.
    pub round: u8,
    pub protocol: Box<dyn Machine<T>>,
    pub letters: Vec<Letter>,
}

/// The bodies of a round, by sender.
pub(super) type Mailbox = BTreeMap<Party, Wiped>;

/// One protocol between two rounds, behind the machine.
pub(super) trait Machine<T>: Send {
    /// Who has to speak before it can go on.
    fn speakers(&self) -> BTreeSet<Party>;

    /// Takes what every speaker said.
    ///
    /// # Errors
    /// The protocol ends here.
    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<T>, Abort>;
}

/// What a protocol does at the end of a round.
pub(super) enum Turn<T> {
    Next(Box<dyn Machine<T>>, Vec<Letter>),
    Done(T),
}

struct Panicked;

/// The one place where panics of the libraries end. Whatever was in their hands is dropped, and so wiped.
///
/// Before that it gives their generator fresh entropy of the operating system: a machine that was
/// restored from a snapshot must not draw the same nonces twice.
fn guarded<R>(act: impl FnOnce() -> R) -> Result<R, Panicked> {
    rand::rng().reseed().map_err(|_| Panicked)?;
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| Panicked)
}

/// [`guarded`], for what is no step of a ceremony.
pub(super) fn fenced<R>(act: impl FnOnce() -> Result<R, Refusal>) -> Result<R, Refusal> {
    guarded(act).unwrap_or(Err(Refusal::Internal))
}
