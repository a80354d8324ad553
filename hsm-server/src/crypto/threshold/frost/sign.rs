//! Signing (RFC 9591, section 5): every signer tells all its nonce commitments, then sends its signature share to the
//! coordinator. Each signer makes the signing package itself, so nobody can give two signers different ones unseen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frost_core::{
    CheaterDetection, Identifier, SigningPackage, aggregate_custom,
    round1::{SigningCommitments, SigningNonces},
    round2::{self, SignatureShare},
};
use minicbor::{Decode, Encode, bytes::ByteVec};
use rand_core::OsRng;

use super::{ReadCommitments, Secret, Suite, abort, garbage, identifier};
use crate::crypto::threshold::{
    blame::{Abort, Blame, Refusal},
    ceremony::{First, Machine, Mailbox, Turn},
    envelope::{Letter, Terms, To, decode, encode},
    party::Party,
    sign::{Held, Signing},
};

/// The round of the message that is held back.
const LAST: u8 = 2;

pub fn begin<S: Suite>(
    me: Party,
    secret: &Arc<Secret<S>>,
    signing: &Signing,
    terms: Terms,
) -> Result<First<Held>, Refusal> {
    let nonces = SigningNonces::new(secret.package.signing_share(), &mut OsRng);
    begin_with(me, secret, nonces, signing, terms)
}

/// Begins with these nonces, which are used nowhere else.
pub fn begin_with<S: Suite>(
    me: Party,
    secret: &Arc<Secret<S>>,
    nonces: SigningNonces<S>,
    signing: &Signing,
    terms: Terms,
) -> Result<First<Held>, Refusal> {
    let own = nonces.commitments().serialize().map_err(|_| Refusal::Internal)?;
    let letter = Letter { to: To::All, body: own.clone().into() };
    let protocol = Committed {
        terms,
        me,
        signers: signing.signers.clone(),
        message: signing.input.clone(),
        secret: Arc::clone(secret),
        nonces,
        own,
    };
    Ok(First { round: 1, protocol: Box::new(protocol), letters: vec![letter] })
}

/// A signer that waits for the others' commitments. Its nonces are used once or wiped.
struct Committed<S: Suite> {
    terms: Terms,
    me: Party,
    signers: BTreeSet<Party>,
    message: Vec<u8>,
    secret: Arc<Secret<S>>,
    nonces: SigningNonces<S>,
    own: Vec<u8>,
}

impl<S: Suite> Machine<Held> for Committed<S> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.signers.iter().copied().filter(|party| *party != self.me).collect()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Held>, Abort> {
        let mut commitments: BTreeMap<Party, ByteVec> =
            mailbox.iter().map(|(party, bytes)| (*party, bytes.to_vec().into())).collect();
        // The own ones need not be read to be known.
        self.secret.lately.keep(&self.own, *self.nonces.commitments());
        commitments.insert(self.me, self.own.clone().into());
        let read = read(&commitments, &self.secret.lately)?;
        // In case that it is this party that combines.
        for (party, bytes) in &commitments {
            let identifier = identifier::<S>(*party).map_err(|_| garbage(*party))?;
            read.get(&identifier).into_iter().for_each(|known| self.secret.lately.keep(bytes, *known));
        }
        let package = SigningPackage::new(read, &self.message);
        let share = round2::sign(&package, &self.nonces, &self.secret.package)
            .map_err(|error| abort(&error, self.signers.iter().copied(), self.me))?;
        let partial = Partial { commitments, share: share.serialize().into() };
        let letter = Letter { to: To::Coordinator, body: encode(&partial).into() };
        Ok(Turn::Done(Held::new(&self.terms, LAST, self.me, letter)))
    }
}

/// The signers' commitments, as the library has them: those of `lately` are known, and known to be encoded so.
fn read<S: Suite>(
    commitments: &BTreeMap<Party, ByteVec>,
    lately: &ReadCommitments<S>,
) -> Result<BTreeMap<Identifier<S>, SigningCommitments<S>>, Abort> {
    let mut read = BTreeMap::new();
    for (party, bytes) in commitments {
        let commitment = match lately.take(bytes) {
            Some(known) => known,
            None => {
                let new = SigningCommitments::<S>::deserialize(bytes).map_err(|_| garbage(*party))?;
                // One encoding only, or two parties could read the same from different bytes.
                if new.serialize().ok().as_ref() != Some(&**bytes) {
                    return Err(garbage(*party));
                }
                new
            }
        };
        read.insert(identifier::<S>(*party).map_err(|_| garbage(*party))?, commitment);
    }
    Ok(read)
}

/// A signer's part of the signature.
#[derive(Encode, Decode)]
struct Partial {
    /// What it heard every signer commit to, itself included.
    #[n(0)]
    commitments: BTreeMap<Party, ByteVec>,
    #[n(1)]
    share: ByteVec,
}

pub fn combine<S: Suite>(me: Party, secret: &Arc<Secret<S>>, signing: &Signing) -> First<Vec<u8>> {
    let combining = Combining {
        me,
        signers: signing.signers.clone(),
        message: signing.input.clone(),
        secret: Arc::clone(secret),
    };
    First { round: LAST, protocol: Box::new(combining), letters: Vec::new() }
}

/// The coordinator, waiting for every signer's share.
struct Combining<S: Suite> {
    me: Party,
    signers: BTreeSet<Party>,
    message: Vec<u8>,
    secret: Arc<Secret<S>>,
}

impl<S: Suite> Machine<Vec<u8>> for Combining<S> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.signers.clone()
    }

    fn advance(self: Box<Self>, mailbox: Mailbox) -> Result<Turn<Vec<u8>>, Abort> {
        let mut partials: BTreeMap<Party, Partial> = BTreeMap::new();
        for (party, bytes) in &mailbox {
            partials.insert(*party, decode(bytes).ok_or_else(|| garbage(*party))?);
        }
        let commitments = self.agreed(&partials)?;
        let package = SigningPackage::new(read(&commitments, &self.secret.lately)?, &self.message);
        let mut shares = BTreeMap::new();
        for (party, partial) in &partials {
            let share = SignatureShare::<S>::deserialize(&partial.share).map_err(|_| garbage(*party))?;
            shares.insert(identifier::<S>(*party).map_err(|_| garbage(*party))?, share);
        }
        let blame = |error| abort(&error, self.signers.iter().copied(), self.me);
        // It verifies what it made, and looks for culprits only if that is wrong.
        let detection = CheaterDetection::AllCheaters;
        let signature = aggregate_custom(&package, &shares, &self.secret.public, detection).map_err(blame)?;
        signature.serialize().map(Turn::Done).map_err(blame)
    }
}

impl<S: Suite> Combining<S> {
    /// Each signer's own commitments, if all heard the same. Otherwise either the speaker or the one that heard
    /// something else lies.
    fn agreed(&self, partials: &BTreeMap<Party, Partial>) -> Result<BTreeMap<Party, ByteVec>, Abort> {
        let mut commitments = BTreeMap::new();
        for (party, partial) in partials {
            if !partial.commitments.keys().eq(&self.signers) {
                return Err(garbage(*party));
            }
            let own = partial.commitments.get(party).ok_or_else(|| garbage(*party))?;
            commitments.insert(*party, own.clone());
        }
        for (party, partial) in partials {
            let other =
                partial.commitments.iter().find(|(speaker, heard)| commitments.get(speaker) != Some(heard));
            if let Some((speaker, _)) = other {
                let reason = format!("{party} heard {speaker} commit to other nonces");
                return Err(Abort::new(Blame::suspects([*party, *speaker], self.me), reason));
            }
        }
        Ok(commitments)
    }
}
