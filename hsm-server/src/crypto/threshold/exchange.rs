//! The rounds in which shares are made, with echo broadcast around them.
//!
//! In every round a party says something to all and something to each. Every message also carries an *echo*: a digest
//! of what its sender has heard each party say to all so far. A party that tells different things to different
//! parties is found out one round later, before anything is kept. In the last round every party says its
//! [`Ready`]; nobody has a result unless all said the same.
//!
//! A party can still lie in that very round, to some and not to others. So a result is only *pending* until the
//! caller holds the signatures of all parties over the same `Ready` (that is the certificate, which is not made here).

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use zeroize::{Zeroize, Zeroizing};

use strongroom_shared::wire::encode_body;

use super::{
    blame::{Abort, Blame},
    ceremony::{First, Machine, Mailbox, Turn},
    envelope::{Letter, To, decode, encode, hash},
    party::{Committee, Epoch, KeyId, Party},
    scheme::{Holder, SchemeId},
    share::{Outcome, PublicShares, Ready, Share},
};

/// What the rounds know of the ceremony that they belong to.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub scheme: SchemeId,
    pub key: KeyId,
    pub epoch: Epoch,
    pub me: Party,
    /// Who holds a share in the end. They all speak and hear.
    pub committee: Committee,
    /// The digest of the terms: no two ceremonies share it.
    pub session: [u8; 32],
}

impl Context {
    /// Every member but the own seat.
    pub fn others(&self) -> BTreeSet<Party> {
        self.committee.members().filter(|party| *party != self.me).collect()
    }

    pub fn public(
        &self,
        public_key: Vec<u8>,
        verifying: impl IntoIterator<Item = Vec<u8>>,
        chain_code: Option<[u8; 32]>,
    ) -> PublicShares {
        PublicShares {
            scheme: self.scheme,
            key: self.key,
            epoch: self.epoch,
            committee: self.committee,
            public_key: public_key.into(),
            verifying: verifying.into_iter().map(ByteVec::from).collect(),
            chain_code,
        }
    }

    /// An abort that nobody can be named for.
    pub fn suspect_all(&self, reason: &str) -> Abort {
        Abort::new(Blame::suspects(self.committee.members(), self.me), reason)
    }
}

/// What a party says in one round.
#[derive(Default)]
pub(super) struct Said {
    /// To all members, the same to each.
    pub public: Vec<u8>,
    /// To each member.
    pub private: BTreeMap<Party, Zeroizing<Vec<u8>>>,
}

/// What a party heard the others say in one round.
#[derive(Default)]
pub(super) struct Heard {
    pub public: BTreeMap<Party, Vec<u8>>,
    pub private: BTreeMap<Party, Zeroizing<Vec<u8>>>,
}

/// A scheme's part of a ceremony that makes shares.
pub(super) trait Rounds: Sized + Send + 'static {
    /// Who of the others speaks in the round under way.
    fn speakers(&self) -> BTreeSet<Party>;

    /// Takes a whole round.
    fn hear(self, heard: Heard) -> Result<Move<Self>, Abort>;
}

/// What the rounds do next.
pub(super) enum Move<R> {
    Say(R, Said),
    Finished(Made),
}

/// What the rounds end with.
pub(super) struct Made {
    pub public: PublicShares,
    pub secret: Arc<dyn Holder>,
}

/// How rounds begin at a member of the new committee. `said` is what it says in round 1, `None` if others speak alone;
/// `leaving` are those who deal and hold no share afterwards.
pub(super) fn begin<R: Rounds>(
    context: Context,
    leaving: BTreeSet<Party>,
    rounds: R,
    said: Option<Said>,
) -> First<Outcome> {
    let views = Views::default();
    let (own, letters) = match said {
        None => (None, Vec::new()),
        Some(said) => {
            let letters = address(&context.others(), &said, &views);
            (Some(said.public), letters)
        }
    };
    First { round: 1, protocol: Box::new(Talking { context, leaving, rounds, views, own }), letters }
}

/// How they begin, and nearly end, at one who deals and holds no share afterwards: it hears the last round, `round`.
pub(super) fn leave(context: Context, said: &Said, public_key: ByteVec, round: u8) -> First<Outcome> {
    let letters = address(&context.others(), said, &Views::default());
    First { round, protocol: Box::new(Leaving { context, public_key }), letters }
}

/// What stands in an envelope.
#[derive(Encode, Decode)]
pub(super) struct Body {
    #[n(0)]
    pub public: ByteVec,
    #[n(1)]
    pub private: ByteVec,
    #[n(2)]
    pub echo: BTreeMap<Party, ByteArray<32>>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

/// The messages of a round. Every member gets its own, also where nothing in it is for it alone.
fn address(to: &BTreeSet<Party>, said: &Said, views: &Views) -> Vec<Letter> {
    let letter = |party: &Party| {
        let private = said.private.get(party).map_or(&[][..], |private| private);
        let body = Body {
            public: said.public.clone().into(),
            private: private.to_vec().into(),
            echo: views.0.clone(),
        };
        Letter { to: To::Party(*party), body: encode_body(&body) }
    };
    to.iter().map(letter).collect()
}

/// What each party said to all so far, as a digest.
#[derive(Clone, Default)]
struct Views(BTreeMap<Party, ByteArray<32>>);

impl Views {
    fn absorb(&mut self, party: Party, public: &[u8]) {
        let before = self.0.get(&party).map_or([0; 32], |digest| **digest);
        let mut chain = before.to_vec();
        chain.extend_from_slice(public);
        self.0.insert(party, hash(&chain).into());
    }

    /// Whether `from` heard the same as this party.
    fn compare(&self, echo: &BTreeMap<Party, ByteArray<32>>, from: Party, me: Party) -> Result<(), Abort> {
        if echo.len() != self.0.len() {
            return Err(Abort::culprit(from, format!("{from} echoed other parties than those that spoke")));
        }
        for (party, digest) in &self.0 {
            if echo.get(party) != Some(digest) {
                let reason = format!("{from} heard {party} say something else");
                // It is either the speaker or the one who echoes; this party knows of itself.
                return Err(Abort::new(blame([*party, from], me), reason));
            }
        }
        Ok(())
    }

    fn transcript(&self) -> [u8; 32] {
        hash(&encode(&self.0))
    }
}

/// Those of a pair that are not the judge: one is a culprit, two are suspects.
fn blame(pair: [Party; 2], me: Party) -> Blame {
    let others: BTreeSet<Party> = pair.into_iter().filter(|party| *party != me).collect();
    if others.len() == 1 { Blame::Culprits(others) } else { Blame::Suspect(others) }
}

/// A member while the rounds go on.
struct Talking<R> {
    context: Context,
    leaving: BTreeSet<Party>,
    rounds: R,
    views: Views,
    /// What it said itself to all in this round.
    own: Option<Vec<u8>>,
}

impl<R: Rounds> Machine<Outcome> for Talking<R> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.rounds.speakers()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Outcome>, Abort> {
        let Self { context, leaving, rounds, mut views, own } = *self;
        let mut heard = Heard::default();
        for (party, bytes) in mailbox {
            let mut body = read(&bytes, party)?;
            // One who deals and leaves hears nobody, and so has nothing to echo.
            if context.committee.has(party) {
                views.compare(&body.echo, party, context.me)?;
            }
            heard.public.insert(party, std::mem::take(&mut *body.public));
            heard.private.insert(party, Zeroizing::new(std::mem::take(&mut *body.private)));
        }
        for (party, public) in &heard.public {
            views.absorb(*party, public);
        }
        if let Some(own) = own {
            views.absorb(context.me, &own);
        }
        Ok(match rounds.hear(heard)? {
            Move::Say(rounds, said) => {
                let letters = address(&context.others(), &said, &views);
                Turn::Next(
                    Box::new(Self { context, leaving, rounds, views, own: Some(said.public) }),
                    letters,
                )
            }
            Move::Finished(made) => {
                let ready = Ready::new(made.public, views.transcript());
                let said = Said { public: ready.to_bytes(), private: BTreeMap::new() };
                let listeners = context.others().union(&leaving).copied().collect();
                let letters = address(&listeners, &said, &views);
                Turn::Next(Box::new(Confirming { context, views, ready, secret: made.secret }), letters)
            }
        })
    }
}

fn read(bytes: &[u8], party: Party) -> Result<Body, Abort> {
    decode(bytes).ok_or_else(|| Abort::culprit(party, format!("{party} sent no body of a message")))
}

/// A member that has its share, and waits for all to say that they have the same.
struct Confirming {
    context: Context,
    views: Views,
    ready: Ready,
    secret: Arc<dyn Holder>,
}

impl Machine<Outcome> for Confirming {
    fn speakers(&self) -> BTreeSet<Party> {
        self.context.others()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Outcome>, Abort> {
        let Self { context, views, ready, secret } = *self;
        let own = ready.to_bytes();
        for (party, bytes) in mailbox {
            let body = read(&bytes, party)?;
            views.compare(&body.echo, party, context.me)?;
            if *body.public != own {
                return Err(Abort::culprit(
                    party,
                    format!("{party} heard the same and is ready for another key"),
                ));
            }
        }
        let share = Share { public: ready.shares.clone(), me: context.me, secret };
        Ok(Turn::Done(Outcome { ready, share: Some(share) }))
    }
}

/// One who dealt and holds no share afterwards.
struct Leaving {
    context: Context,
    public_key: ByteVec,
}

impl Machine<Outcome> for Leaving {
    fn speakers(&self) -> BTreeSet<Party> {
        self.context.others()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Outcome>, Abort> {
        let Self { context, public_key } = *self;
        let mut agreed: Option<Ready> = None;
        for (party, bytes) in mailbox {
            let body = read(&bytes, party)?;
            let ready = Ready::from_bytes(&body.public)
                .map_err(|_| Abort::culprit(party, format!("{party} is ready for no key at all")))?;
            let shares = &ready.shares;
            let expected = shares.scheme == context.scheme
                && shares.key == context.key
                && shares.epoch == context.epoch
                && shares.committee == context.committee
                && shares.public_key == public_key;
            if !expected {
                return Err(Abort::culprit(party, format!("{party} is ready for another key")));
            }
            if agreed.as_ref().is_some_and(|agreed| *agreed != ready) {
                return Err(context.suspect_all("the members are ready for different shares"));
            }
            agreed = Some(ready);
        }
        let ready = agreed.ok_or_else(|| context.suspect_all("nobody is ready"))?;
        Ok(Turn::Done(Outcome { ready, share: None }))
    }
}
