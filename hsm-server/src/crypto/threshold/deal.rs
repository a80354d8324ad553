//! Dealing shares (Feldman's verifiable secret sharing): each dealer shares a secret of its own among the members of
//! the new committee, and each member adds up what it got.
//!
//! With the dealers' old shares, weighted by Lagrange, the sum is the same key in new shares of any new
//! committee; with the private key itself and one dealer it is an import. Every dealer's first commitment is known
//! beforehand, so that no dealer can shift the key; the vector has exactly as many commitments as the new
//! threshold, so that none can raise it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::bytes::ByteVec;
use zeroize::Zeroizing;

use super::{
    blame::Abort,
    envelope::{decode, encode},
    exchange::{Context, Heard, Said},
    group::{Group, evaluate, evaluate_points},
    party::Party,
};

/// A member that waits for the dealers.
pub(super) struct Deal<G: Group> {
    context: Context,
    /// What each dealer's secret has for a public key.
    dealers: BTreeMap<Party, G::Point>,
    own: Option<Own<G>>,
}

/// What a dealer gives to itself.
struct Own<G: Group> {
    commitments: Vec<G::Point>,
    value: Zeroizing<G::Scalar>,
}

/// What a member has in the end.
pub(super) struct Dealt<G: Group> {
    pub scalar: Zeroizing<G::Scalar>,
    pub public_key: G::Point,
    pub verifying: Vec<G::Point>,
}

/// What one dealer says: a polynomial of the new committee's degree with `secret` at 0.
pub(super) fn deal<G: Group>(context: &Context, secret: &G::Scalar) -> Said {
    dealing::<G>(context, secret).0
}

fn dealing<G: Group>(context: &Context, secret: &G::Scalar) -> (Said, Own<G>) {
    let degree = usize::from(context.committee.threshold()).saturating_sub(1);
    let mut coefficients = Zeroizing::new(Vec::with_capacity(degree + 1));
    coefficients.push(*secret);
    coefficients.extend((0..degree).map(|_| *G::random()));
    let commitments: Vec<G::Point> = coefficients.iter().map(G::base).collect();
    let encoded: Vec<ByteVec> = commitments.iter().map(|point| G::point_bytes(point).into()).collect();
    let value = |party: Party| evaluate::<G>(&coefficients, party);
    let private = context
        .others()
        .into_iter()
        .map(|party| (party, Zeroizing::new(G::scalar_bytes(&value(party)).to_vec())))
        .collect();
    let own = Own { commitments, value: value(context.me) };
    (Said { public: encode(&encoded), private }, own)
}

impl<G: Group> Deal<G> {
    /// Begins at a member. `secret` is what it deals itself, if it is one of the dealers.
    pub fn begin(
        context: Context,
        dealers: BTreeMap<Party, G::Point>,
        secret: Option<&G::Scalar>,
    ) -> (Self, Option<Said>) {
        let (said, own) = secret.map(|secret| dealing::<G>(&context, secret)).unzip();
        (Self { context, dealers, own }, said)
    }

    pub fn speakers(&self) -> BTreeSet<Party> {
        self.dealers.keys().copied().filter(|party| *party != self.context.me).collect()
    }

    /// Checks every dealer and adds up what they dealt.
    pub fn hear(self, heard: &Heard) -> Result<Dealt<G>, Abort> {
        let Self { context, dealers, own } = self;
        let mut scalar = Zeroizing::new(G::small(0));
        let mut vectors: Vec<Vec<G::Point>> = Vec::with_capacity(dealers.len());
        if let Some(Own { commitments, value }) = own {
            *scalar = G::add(&scalar, &value);
            vectors.push(commitments);
        }
        for (dealer, constant) in dealers.iter().filter(|(dealer, _)| **dealer != context.me) {
            let wrong = |what: &str| Abort::culprit(*dealer, format!("{dealer} dealt {what}"));
            let public = heard.public.get(dealer).ok_or_else(|| wrong("nothing"))?;
            let private = heard.private.get(dealer).ok_or_else(|| wrong("nothing"))?;
            let encoded: Vec<ByteVec> = decode(public).ok_or_else(|| wrong("no commitments"))?;
            if encoded.len() != usize::from(context.committee.threshold()) {
                return Err(wrong("for another threshold"));
            }
            let commitments: Option<Vec<G::Point>> = encoded.iter().map(|point| G::point(point)).collect();
            let commitments = commitments.ok_or_else(|| wrong("something that is no point of the group"))?;
            if commitments.first() != Some(constant) {
                return Err(wrong("another secret than its own"));
            }
            let value = G::scalar(private).ok_or_else(|| wrong("no share"))?;
            if evaluate_points::<G>(&commitments, context.me) != Some(G::base(&value)) {
                return Err(wrong("a wrong share"));
            }
            *scalar = G::add(&scalar, &value);
            vectors.push(commitments);
        }
        Self::sum(&context, scalar, &vectors)
    }

    fn sum(
        context: &Context,
        scalar: Zeroizing<G::Scalar>,
        vectors: &[Vec<G::Point>],
    ) -> Result<Dealt<G>, Abort> {
        let total = |points: &mut dyn Iterator<Item = G::Point>| points.reduce(|a, b| G::plus(&a, &b));
        let nothing = || context.suspect_all("the dealt shares add up to nothing");
        let public_key =
            total(&mut vectors.iter().filter_map(|vector| vector.first().copied())).ok_or_else(nothing)?;
        let share =
            |party| total(&mut vectors.iter().filter_map(|vector| evaluate_points::<G>(vector, party)));
        let verifying: Option<Vec<G::Point>> = context.committee.members().map(share).collect();
        let dealt = Dealt { scalar, public_key, verifying: verifying.ok_or_else(nothing)? };
        // A sum can be the identity by chance, or by a dealer that spoke last; it could not be written down.
        let points = dealt.verifying.iter().chain([&dealt.public_key]);
        for point in points {
            G::point(&G::point_bytes(point)).ok_or_else(nothing)?;
        }
        Ok(dealt)
    }
}
