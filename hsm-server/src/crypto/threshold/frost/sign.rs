//! Signing (RFC 9591, section 5): every signer tells all its nonce commitments, then sends its signature share to the
//! coordinator. Each signer makes the signing package itself, so nobody can give two signers different ones unseen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frost_core::{
    CheaterDetection, SigningPackage, aggregate_custom,
    keys::{KeyPackage, PublicKeyPackage},
    round1::{SigningCommitments, SigningNonces},
    round2::{self, SignatureShare},
};
use minicbor::{Decode, Encode, bytes::ByteVec};
use rand_core::OsRng;
use zeroize::Zeroizing;

use super::{Secret, Suite, abort, garbage, identifier, key_package, public_package};
use crate::crypto::threshold::{
    blame::{Abort, Blame, Refusal},
    ceremony::{First, Machine, Mailbox, Turn},
    envelope::{Letter, Terms, To, decode, encode},
    party::Party,
    share::{PublicShares, Share},
    sign::{Held, Signing},
};

/// The round of the message that is held back.
const LAST: u8 = 2;

pub fn begin<S: Suite>(
    share: &Share,
    secret: &Arc<Secret>,
    signing: &Signing,
    terms: Terms,
) -> Result<First<Held>, Refusal> {
    let package = key_package::<S>(share, secret).map_err(|_| Refusal::Share)?;
    let nonces = SigningNonces::new(package.signing_share(), &mut OsRng);
    begin_with(share.party(), package, nonces, signing, terms)
}

/// Begins with these nonces, which are used nowhere else.
pub fn begin_with<S: Suite>(
    me: Party,
    package: Zeroizing<KeyPackage<S>>,
    nonces: SigningNonces<S>,
    signing: &Signing,
    terms: Terms,
) -> Result<First<Held>, Refusal> {
    let own = nonces.commitments().serialize().map_err(|_| Refusal::Internal)?;
    let letter = Letter { to: To::All, body: Zeroizing::new(own.clone()) };
    let protocol = Committed {
        terms,
        me,
        signers: signing.signers.clone(),
        message: signing.input.clone(),
        package,
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
    package: Zeroizing<KeyPackage<S>>,
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
        commitments.insert(self.me, self.own.clone().into());
        let package = signing_package::<S>(&commitments, &self.message)?;
        let share = round2::sign(&package, &self.nonces, &self.package)
            .map_err(|error| abort(&error, self.signers.iter().copied(), self.me))?;
        let partial = Partial { commitments, share: share.serialize().into() };
        let letter = Letter { to: To::Coordinator, body: Zeroizing::new(encode(&partial)) };
        Ok(Turn::Done(Held::new(&self.terms, LAST, self.me, letter)))
    }
}

/// What the signers' commitments and the message make.
fn signing_package<S: Suite>(
    commitments: &BTreeMap<Party, ByteVec>,
    message: &[u8],
) -> Result<SigningPackage<S>, Abort> {
    let mut read = BTreeMap::new();
    for (party, bytes) in commitments {
        let commitment = SigningCommitments::<S>::deserialize(bytes).map_err(|_| garbage(*party))?;
        // One encoding only, or two parties could read the same from different bytes.
        if commitment.serialize().ok().as_ref() != Some(&**bytes) {
            return Err(garbage(*party));
        }
        read.insert(identifier::<S>(*party).map_err(|_| garbage(*party))?, commitment);
    }
    Ok(SigningPackage::new(read, message))
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

pub fn combine<S: Suite>(
    public: &PublicShares,
    signing: &Signing,
    me: Party,
) -> Result<First<Vec<u8>>, Refusal> {
    let combining = Combining::<S> {
        me,
        signers: signing.signers.clone(),
        message: signing.input.clone(),
        public: public_package(public).map_err(|_| Refusal::Point)?,
    };
    Ok(First { round: LAST, protocol: Box::new(combining), letters: Vec::new() })
}

/// The coordinator, waiting for every signer's share.
struct Combining<S: Suite> {
    me: Party,
    signers: BTreeSet<Party>,
    message: Vec<u8>,
    public: PublicKeyPackage<S>,
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
        let package = signing_package::<S>(&commitments, &self.message)?;
        let mut shares = BTreeMap::new();
        for (party, partial) in &partials {
            let share = SignatureShare::<S>::deserialize(&partial.share).map_err(|_| garbage(*party))?;
            shares.insert(identifier::<S>(*party).map_err(|_| garbage(*party))?, share);
        }
        let blame = |error| abort(&error, self.signers.iter().copied(), self.me);
        let signature = aggregate_custom(&package, &shares, &self.public, CheaterDetection::AllCheaters)
            .map_err(blame)?;
        self.public.verifying_key().verify(&self.message, &signature).map_err(blame)?;
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
