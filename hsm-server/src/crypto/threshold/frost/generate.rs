//! Key generation (RFC 9591 leaves it open; the library's is that of the FROST paper, ePrint 2020/852): commitments and
//! a proof to all, then a point of the polynomial to each. The echo of the first round comes with the second.

use std::collections::{BTreeMap, BTreeSet};

use frost_core::keys::dkg::{part1, part2, part3, round1, round2};
use rand_core::OsRng;
use zeroize::{Zeroize, Zeroizing};

use super::{Frost, Secret, Suite, abort, garbage, identifier};
use crate::crypto::threshold::{
    blame::{Abort, Refusal},
    exchange::{Context, Heard, Made, Move, Rounds, Said},
    group::Group,
    scheme::keep,
};

/// A party between two rounds.
pub struct Generating<S: Suite> {
    context: Context,
    progress: Progress<S>,
}

enum Progress<S: Suite> {
    Commitments(round1::SecretPackage<S>),
    Shares { secret: round2::SecretPackage<S>, first: Packages<S, round1::Package<S>> },
}

type Packages<S, P> = BTreeMap<frost_core::Identifier<S>, P>;

impl<S: Suite> Generating<S> {
    pub fn begin(context: Context) -> Result<(Self, Said), Refusal> {
        let (parties, threshold) = (context.committee.parties(), context.committee.threshold());
        let me = identifier::<S>(context.me)?;
        let (secret, package) =
            part1::<S, _>(me, parties.into(), threshold.into(), OsRng).map_err(|_| Refusal::Internal)?;
        let public = package.serialize().map_err(|_| Refusal::Internal)?;
        let said = Said { public, private: BTreeMap::new() };
        Ok((Self { context, progress: Progress::Commitments(secret) }, said))
    }
}

impl<S: Suite> Rounds for Generating<S> {
    fn speakers(&self) -> BTreeSet<crate::crypto::threshold::party::Party> {
        self.context.others()
    }

    fn hear(self, heard: Heard) -> Result<Move<Self>, Abort> {
        let Self { context, progress } = self;
        match progress {
            Progress::Commitments(secret) => share(context, secret, &heard),
            Progress::Shares { secret, first } => finish(&context, &secret, &first, &heard),
        }
    }
}

/// Round 2: check the proofs, and give each its point.
fn share<S: Suite>(
    context: Context,
    secret: round1::SecretPackage<S>,
    heard: &Heard,
) -> Result<Move<Generating<S>>, Abort> {
    let threshold = usize::from(context.committee.threshold());
    let mut first = Packages::<S, _>::new();
    for (party, bytes) in &heard.public {
        let package = round1::Package::<S>::deserialize(bytes).map_err(|_| garbage(*party))?;
        if package.commitment().coefficients().len() != threshold {
            return Err(Abort::culprit(*party, format!("{party} committed to another threshold")));
        }
        first.insert(identifier(*party).map_err(|_| garbage(*party))?, package);
    }
    let blame = |error| abort::<S>(&error, context.committee.members(), context.me);
    let (secret, packages) = part2(secret, &first).map_err(blame)?;
    let mut said = Said::default();
    for party in context.others() {
        let package = identifier::<S>(party).ok().and_then(|identifier| packages.get(&identifier));
        let bytes = package.and_then(|package| package.serialize().ok());
        let bytes = bytes.ok_or_else(|| context.suspect_all("a share could not be written"))?;
        said.private.insert(party, Zeroizing::new(bytes));
    }
    Ok(Move::Say(Generating { context, progress: Progress::Shares { secret, first } }, said))
}

/// The end: check the points, and add them up.
fn finish<S: Suite>(
    context: &Context,
    secret: &round2::SecretPackage<S>,
    first: &Packages<S, round1::Package<S>>,
    heard: &Heard,
) -> Result<Move<Generating<S>>, Abort> {
    let mut second = Packages::<S, _>::new();
    for (party, bytes) in &heard.private {
        let package = round2::Package::<S>::deserialize(bytes).map_err(|_| garbage(*party))?;
        second.insert(identifier(*party).map_err(|_| garbage(*party))?, package);
    }
    let blame = |error| abort::<S>(&error, context.committee.members(), context.me);
    let (mut package, public) = part3(secret, first, &second).map_err(blame)?;
    let scalar = Zeroizing::new(package.signing_share().serialize());
    package.zeroize();
    let scalar =
        S::Arithmetic::scalar(&scalar).ok_or_else(|| context.suspect_all("the own share is zero"))?;
    let wrong = || context.suspect_all("the shares are not those of one key");
    let verifying = context
        .committee
        .members()
        .map(|party| {
            let share = public.verifying_shares().get(&identifier::<S>(party).ok()?)?;
            share.serialize().ok()
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(wrong)?;
    let public_key = public.verifying_key().serialize().map_err(|_| wrong())?;
    let public = context.public(public_key, verifying, None);
    public.check().map_err(|_| wrong())?;
    let scalar = S::Arithmetic::scalar_bytes(&scalar);
    let secret = Secret::<S>::new(&public, context.me, &*scalar).map_err(|_| wrong())?;
    Ok(Move::Finished(Made { public, secret: keep::<Frost<S>>(secret) }))
}
