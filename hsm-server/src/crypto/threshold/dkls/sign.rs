//! Signing (Protocol 3.6 of ePrint 2023/765): two rounds between each pair, both bound to the digest and the signers,
//! then (u, w) for the coordinator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dkls23::protocols::{
    self as library, PartiesMessage, PartyIndex,
    signing::{
        Broadcast3to4, KeepPhase1to2, KeepPhase2to3, SignData, TransmitPhase1to2, TransmitPhase2to3,
        UniqueKeep1to2, UniqueKeep2to3,
    },
};
use elliptic_curve::{FieldBytes, ops::Reduce, scalar::IsHigh};
use minicbor::{Decode, Encode};

use super::{Curve, SForm, abort, index, party, read, write};
use crate::crypto::threshold::{
    blame::{Abort, Blame, Refusal},
    ceremony::{First, Machine, Mailbox, Turn},
    envelope::{Letter, Terms, To, decode, encode},
    group::{Group, Weierstrass},
    party::Party,
    share::Share,
    sign::{Held, Signing},
};

/// The round of the message that is held back.
const LAST: u8 = 3;

/// The digest as 32 bytes (FIPS 186-5, 6.4.1, step 2): the leftmost ones, or zeros before a shorter one.
fn prehash(input: &[u8]) -> Result<[u8; 32], Refusal> {
    let mut digest = [0; 32];
    let length = input.len().min(digest.len());
    let (Some(to), Some(from)) = (digest.get_mut(32 - length..), input.get(..length)) else {
        return Err(Refusal::Internal);
    };
    if from.is_empty() {
        return Err(Refusal::Message);
    }
    to.copy_from_slice(from);
    Ok(digest)
}

struct Common<C: Curve> {
    terms: Terms,
    me: Party,
    signers: BTreeSet<Party>,
    secret: Arc<library::Party<C>>,
    data: SignData,
}

impl<C: Curve> Common<C> {
    fn others(&self) -> BTreeSet<Party> {
        self.signers.iter().copied().filter(|party| *party != self.me).collect()
    }

    fn blame(&self, error: &library::Abort) -> Abort {
        abort(error, self.signers.iter().copied(), self.me)
    }

    /// Who sends and who receives, as the channel says and not the message.
    fn parties(&self, sender: Party) -> Result<PartiesMessage, Abort> {
        let sender = index(sender).map_err(|_| garbage(sender))?;
        Ok(PartiesMessage { sender, receiver: self.secret.party_index })
    }

    fn letter(&self, to: PartyIndex, body: Option<Vec<u8>>) -> Result<Letter, Abort> {
        let body = body.ok_or_else(|| Abort::new(Blame::Recoverable, "a message could not be written"))?;
        Ok(Letter { to: To::Party(party(to, self.me)), body: body.into() })
    }
}

fn garbage(party: Party) -> Abort {
    Abort::culprit(party, format!("{party} sent something that is no message of the protocol"))
}

pub fn begin<C: Curve>(
    share: &Share,
    secret: &Arc<library::Party<C>>,
    signing: &Signing,
    terms: Terms,
) -> Result<First<Held>, Refusal> {
    let me = share.party();
    let counterparties = signing.signers.iter().filter(|party| **party != me).map(|party| index(*party));
    let data = SignData {
        sign_id: terms.digest.to_vec(),
        counterparties: counterparties.collect::<Result<_, _>>()?,
        message_hash: prehash(&signing.input)?,
    };
    let common = Common { terms, me, signers: signing.signers.clone(), secret: secret.clone(), data };
    let (unique, kept, transmit) = common.secret.sign_phase1(&common.data).map_err(|_| Refusal::Internal)?;
    let letters = transmit
        .iter()
        .map(|message| common.letter(message.parties.receiver, write(message)))
        .collect::<Result<_, _>>()
        .map_err(|_| Refusal::Internal)?;
    Ok(First { round: 1, protocol: Box::new(RoundOne { common, unique, kept }), letters })
}

/// Waits for the first messages of the multiplications.
struct RoundOne<C: Curve> {
    common: Common<C>,
    unique: UniqueKeep1to2<C>,
    kept: BTreeMap<PartyIndex, KeepPhase1to2<C>>,
}

impl<C: Curve> Machine<Held> for RoundOne<C> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.common.others()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Held>, Abort> {
        let Self { common, unique, kept } = *self;
        let mut received = Vec::with_capacity(mailbox.len());
        for (sender, bytes) in mailbox {
            let mut message: TransmitPhase1to2 = read(&bytes).ok_or_else(|| garbage(sender))?;
            message.parties = common.parties(sender)?;
            received.push(message);
        }
        let (unique, kept, transmit) = common
            .secret
            .sign_phase2(&common.data, unique, kept, &received)
            .map_err(|error| common.blame(&error))?;
        let letters = transmit
            .iter()
            .map(|message| common.letter(message.parties.receiver, write(message)))
            .collect::<Result<_, _>>()?;
        Ok(Turn::Next(Box::new(RoundTwo { common, unique, kept }), letters))
    }
}

/// Waits for the second messages of the multiplications.
struct RoundTwo<C: Curve> {
    common: Common<C>,
    unique: UniqueKeep2to3<C>,
    kept: BTreeMap<PartyIndex, KeepPhase2to3<C>>,
}

impl<C: Curve> Machine<Held> for RoundTwo<C> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.common.others()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Held>, Abort> {
        let Self { common, unique, kept } = *self;
        let mut received = Vec::with_capacity(mailbox.len());
        let mut nonce = unique.instance_point;
        for (sender, bytes) in mailbox {
            let mut message: TransmitPhase2to3<C> = read(&bytes).ok_or_else(|| garbage(sender))?;
            message.parties = common.parties(sender)?;
            nonce = Weierstrass::<C>::plus(&nonce, &message.instance_point);
            received.push(message);
        }
        let (_, broadcast) = common
            .secret
            .sign_phase3(&common.data, unique, kept, &received)
            .map_err(|error| common.blame(&error))?;
        let partial = Partial {
            nonce: Weierstrass::<C>::point_bytes(&nonce),
            u: *Weierstrass::<C>::scalar_bytes(&broadcast.u),
            w: *Weierstrass::<C>::scalar_bytes(&broadcast.w),
        };
        let letter = Letter { to: To::Coordinator, body: encode(&partial).into() };
        Ok(Turn::Done(Held::new(&common.terms, LAST, common.me, letter)))
    }
}

/// A signer's part of the signature.
#[derive(Encode, Decode)]
struct Partial {
    /// The sum of all signers' nonces, compressed: the same at each.
    #[cbor(n(0), with = "minicbor::bytes")]
    nonce: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    u: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    w: [u8; 32],
}

pub fn combine<C: Curve>(
    public_key: &<Weierstrass<C> as Group>::Point,
    signing: &Signing,
    me: Party,
) -> Result<First<Vec<u8>>, Refusal> {
    let combining = Combining::<C> {
        me,
        signers: signing.signers.clone(),
        public_key: C::uncompressed(public_key),
        digest: prehash(&signing.input)?,
        curve: std::marker::PhantomData,
    };
    Ok(First { round: LAST, protocol: Box::new(combining), letters: Vec::new() })
}

/// The coordinator, waiting for (u, w) of every signer.
struct Combining<C> {
    me: Party,
    signers: BTreeSet<Party>,
    public_key: Vec<u8>,
    digest: [u8; 32],
    curve: std::marker::PhantomData<C>,
}

impl<C: Curve> Machine<Vec<u8>> for Combining<C> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.signers.clone()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Vec<u8>>, Abort> {
        let suspects =
            |reason: &str| Abort::new(Blame::suspects(self.signers.iter().copied(), self.me), reason);
        let mut agreed: Option<Vec<u8>> = None;
        let mut sum = Broadcast3to4::<C> { u: C::Scalar::default(), w: C::Scalar::default() };
        for (sender, bytes) in mailbox {
            let partial: Partial = decode(&bytes).ok_or_else(|| garbage(sender))?;
            let scalar = |bytes: &[u8]| Weierstrass::<C>::scalar(bytes).ok_or_else(|| garbage(sender));
            sum.u += &*scalar(&partial.u)?;
            sum.w += &*scalar(&partial.w)?;
            if agreed.as_ref().is_some_and(|nonce| *nonce != partial.nonce) {
                return Err(suspects("the signers used different nonces"));
            }
            agreed = Some(partial.nonce);
        }
        let nonce = agreed.unwrap_or_default();
        let signature = assemble::<C>(&nonce, &sum)
            .filter(|signature| C::verify(&self.public_key, &self.digest, signature));
        signature.map(Turn::Done).ok_or_else(|| suspects("the signature does not verify"))
    }
}

/// r ‖ s: the nonce's x reduced by the order, and the quotient of the sums. (The library refuses an x above the
/// order, which P-256 has once in 2³² signatures; so this is done here.)
fn assemble<C: Curve>(nonce: &[u8], sum: &Broadcast3to4<C>) -> Option<Vec<u8>> {
    // The point is compressed: one byte for the sign of y, then x.
    let x: &FieldBytes<C> = Weierstrass::<C>::point(nonce).and_then(|_| nonce.get(1..)?.try_into().ok())?;
    let r = <C::Scalar as Reduce<FieldBytes<C>>>::reduce(x);
    let mut s = Weierstrass::<C>::mul(&sum.w, &Weierstrass::<C>::invert(&sum.u)?);
    if C::S == SForm::Low && bool::from(s.is_high()) {
        s = -s;
    }
    let mut signature = Weierstrass::<C>::scalar_bytes(&r).to_vec();
    signature.extend_from_slice(&*Weierstrass::<C>::scalar_bytes(&s));
    Some(signature)
}
