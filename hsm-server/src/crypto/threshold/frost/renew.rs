//! New shares of the same key: every member deals its weighted share to all, and so every member's randomness is in
//! every new share. (The library's own refresh does the same with polynomials that are zero at zero.)

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{Frost, Secret, Suite};
use crate::crypto::threshold::{
    blame::{Abort, Refusal},
    deal::{Deal, Dealt},
    exchange::{Context, Heard, Made, Move, Rounds, Said},
    group::{Group, lagrange},
    party::Party,
    scheme::keep,
};

/// A party that waits for the others' dealing.
pub struct Renewing<S: Suite> {
    context: Context,
    public_key: <S::Arithmetic as Group>::Point,
    deal: Deal<S::Arithmetic>,
}

impl<S: Suite> Renewing<S> {
    pub fn begin(context: Context, dealt: &Dealt<S::Arithmetic>) -> Result<(Self, Said), Refusal> {
        type G<S> = <S as Suite>::Arithmetic;
        let weight =
            |party| lagrange::<G<S>>(context.committee.members(), party, 0).ok_or(Refusal::Committee);
        let secret = Zeroizing::new(G::<S>::mul(&dealt.scalar, &weight(context.me)?));
        let constant = |(party, point)| Ok((party, G::<S>::times(point, &weight(party)?)));
        let dealers = context.committee.members().zip(&dealt.verifying).map(constant);
        let dealers = dealers.collect::<Result<_, Refusal>>()?;
        let (deal, said) = Deal::begin(context, dealers, Some(&*secret));
        Ok((Self { context, public_key: dealt.public_key, deal }, said.ok_or(Refusal::Internal)?))
    }
}

impl<S: Suite> Rounds for Renewing<S> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.deal.speakers()
    }

    fn hear(self, heard: Heard) -> Result<Move<Self>, Abort> {
        let Self { context, public_key, deal } = self;
        let dealt = deal.hear(&heard)?;
        if dealt.public_key != public_key {
            return Err(context.suspect_all("the new shares are those of another key"));
        }
        let bytes = dealt.verifying.iter().map(S::Arithmetic::point_bytes);
        let public = context.public(S::Arithmetic::point_bytes(&public_key), bytes, None);
        let scalar = S::Arithmetic::scalar_bytes(&dealt.scalar);
        let secret = Secret::<S>::new(&public, context.me, &*scalar)
            .map_err(|_| context.suspect_all("the own share does not fit the others"))?;
        Ok(Move::Finished(Made { public, secret: keep::<Frost<S>>(secret) }))
    }
}
