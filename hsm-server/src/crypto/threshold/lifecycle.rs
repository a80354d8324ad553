//! The life of a key's shares: made together, renewed, moved to another committee, repaired, imported.
//!
//! Everything but generation is the same two acts. *Dealing* gives every new member a share of the old key
//! (`deal.rs`); *renewing* makes new shares out of those by the scheme's own protocol, to which every member adds
//! randomness, so that no dealer knows them (for DKLs23 it is the complete refresh, with new oblivious transfers).
//!
//! | ceremony | who deals | then |
//! |---|---|---|
//! | refresh | nobody | renew |
//! | reshare | at least t old members, each its weighted share | renew |
//! | repair | the same, to the same committee with a new share for the one who lost it | renew |
//! | import | the one who brings the private key | renew |
//!
//! A repair so needs all n parties. DKLs23 needs them anyway, for the new pairs' transfers; and the lost
//! share, should somebody find it, is worth nothing in the new epoch.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::Encode;
use zeroize::Zeroizing;

use super::{
    blame::{Abort, Refusal},
    ceremony::{Ceremony, Started},
    deal::{self, Deal, Dealt},
    envelope::{Purpose, Terms, To},
    exchange::{self, Context, Heard, Move, Rounds},
    group::{Group, lagrange},
    party::{Committee, Party, Setup},
    scheme::{Points, Scheme, SchemeId},
    share::{Outcome, PublicShares, Share},
};

/// A move of a key's shares to a new committee (or to the same).
///
/// The new members sit at 1 to n of the new committee; one who deals and leaves sits above. A new member learns `old`
/// from the certificate of the old epoch.
#[derive(Debug)]
pub struct Resharing<'a> {
    /// The shares that are left behind.
    pub old: &'a PublicShares,
    /// The caller's own old share, if it deals.
    pub share: Option<&'a Share>,
    /// Who deals: the seat in this ceremony, and the party that it was among the old members. All of them
    /// together are at least the old threshold.
    pub dealers: BTreeMap<Party, Party>,
    /// The new committee.
    pub committee: Committee,
}

/// A private key that comes from outside, and is then nowhere any more.
#[derive(Debug)]
pub struct Importing<'a> {
    /// The scheme.
    pub scheme: SchemeId,
    /// The new committee.
    pub committee: Committee,
    /// Who deals: a member, or a seat above.
    pub dealer: Party,
    /// Everybody knows the public key beforehand: see [`public_key_of`].
    pub public_key: &'a [u8],
    /// The private scalar, 32 bytes as the scheme's group writes them; at the dealer only.
    pub private_key: Option<&'a Zeroizing<Vec<u8>>>,
    /// BIP-32, for ECDSA only. Without one the key has no children.
    pub chain_code: Option<[u8; 32]>,
}

/// Begins to make a key that nobody has: all members together.
///
/// # Errors
/// The seat is none of the committee.
pub fn generate_key(
    scheme: SchemeId,
    committee: Committee,
    setup: &Setup,
) -> Result<Started<Outcome>, Refusal> {
    scheme.row().generate(setup, committee)
}

/// Begins to renew all shares of a key: all members together.
///
/// # Errors
/// The share is of another key or seat, or the epoch is not a later one.
pub fn refresh(share: &Share, setup: &Setup) -> Result<Started<Outcome>, Refusal> {
    share.public().scheme().row().renew(setup, Basis::Refresh(share))
}

/// Begins to move the shares of a key to another committee; or to the same one, to give a share again to one who is no
/// dealer because it has lost its own.
///
/// # Errors
/// The dealers are too few or not of the old committee, the share is not the dealer's own, or the epoch is not
/// a later one.
pub fn reshare(resharing: &Resharing<'_>, setup: &Setup) -> Result<Started<Outcome>, Refusal> {
    resharing.old.scheme().row().renew(setup, Basis::Reshare(resharing))
}

/// Begins to turn a private key into shares. The dealer knows the key, and is to forget it.
///
/// # Errors
/// The private key is not that of the public key, or the seat is none of the ceremony.
pub fn import(importing: &Importing<'_>, setup: &Setup) -> Result<Started<Outcome>, Refusal> {
    importing.scheme.row().renew(setup, Basis::Import(importing))
}

/// The public key of a private scalar, as [`Importing`] wants it: compressed.
///
/// # Errors
/// [`Refusal::Secret`]: it is no scalar of the scheme, or zero.
pub fn public_key_of(scheme: SchemeId, private_key: &[u8]) -> Result<Vec<u8>, Refusal> {
    scheme.row().public_of(private_key)
}

/// The same public key as it is shown to people and programs: as `CKA_EC_POINT` has it inside its OCTET STRING;
/// of BIP340 x alone.
///
/// # Errors
/// It is none of the scheme's group.
pub fn shown_public_key(scheme: SchemeId, compressed: &[u8]) -> Result<Vec<u8>, Refusal> {
    scheme.row().public_key(compressed)
}

/// What a renewal starts from.
pub(super) enum Basis<'a> {
    Refresh(&'a Share),
    Reshare(&'a Resharing<'a>),
    Import(&'a Importing<'a>),
}

pub(super) fn generate<S: Scheme>(setup: &Setup, committee: Committee) -> Result<Started<Outcome>, Refusal> {
    if !committee.has(setup.me) {
        return Err(Refusal::Seat);
    }
    let terms = Terms::new(setup, &Purpose::Generate, (S::ID, committee));
    let context = context::<S>(setup, committee, &terms);
    Ceremony::begin(terms, To::Party(setup.me), context.committee.everybody(), || {
        let (rounds, said) = S::generate(context)?;
        Ok(exchange::begin(context, BTreeSet::new(), rounds, Some(said)))
    })
}

pub(super) fn renew<S: Scheme>(setup: &Setup, basis: Basis<'_>) -> Result<Started<Outcome>, Refusal> {
    match basis {
        Basis::Refresh(share) => renew_share::<S>(setup, share),
        Basis::Reshare(resharing) => {
            dealers_of::<S>(setup, resharing).and_then(|dealing| dealing.begin(setup))
        }
        Basis::Import(importing) => dealer_of::<S>(setup, importing).and_then(|dealing| dealing.begin(setup)),
    }
}

fn context<S: Scheme>(setup: &Setup, committee: Committee, terms: &Terms) -> Context {
    Context {
        scheme: S::ID,
        key: setup.key,
        epoch: setup.epoch,
        me: setup.me,
        committee,
        session: terms.digest,
    }
}

fn renew_share<S: Scheme>(setup: &Setup, share: &Share) -> Result<Started<Outcome>, Refusal> {
    let public = share.public();
    check_old(public, setup)?;
    if setup.me != share.me {
        return Err(Refusal::Seat);
    }
    let terms = Terms::new(setup, &Purpose::Refresh, digest(public));
    let context = context::<S>(setup, public.committee, &terms);
    Ceremony::begin(terms, To::Party(setup.me), context.committee.everybody(), || {
        let Points { public_key, verifying } = Points::<S::Group>::of(public)?;
        let scalar = own_scalar::<S>(share)?;
        let (rounds, said) = S::renew(context, Dealt { scalar, public_key, verifying }, public.chain_code)?;
        Ok(exchange::begin(context, BTreeSet::new(), DealtRenewal::<S>::Renewing(rounds), Some(said)))
    })
}

fn check_old(old: &PublicShares, setup: &Setup) -> Result<(), Refusal> {
    if setup.key != old.key {
        return Err(Refusal::Key);
    }
    if setup.epoch <= old.epoch {
        return Err(Refusal::Epoch);
    }
    old.check()
}

fn digest(public: &PublicShares) -> minicbor::bytes::ByteArray<32> {
    public.digest().into()
}

fn own_scalar<S: Scheme>(share: &Share) -> Result<Zeroizing<<S::Group as Group>::Scalar>, Refusal> {
    S::Group::scalar(&*share.secret.scalar_bytes()).ok_or(Refusal::Share)
}

/// Everything that dealing needs, checked.
struct Dealing<S: Scheme> {
    terms: Terms,
    committee: Committee,
    public_key: <S::Group as Group>::Point,
    chain_code: Option<[u8; 32]>,
    dealers: BTreeMap<Party, <S::Group as Group>::Point>,
    secret: Option<Zeroizing<<S::Group as Group>::Scalar>>,
}

/// The dealers of a reshare: each deals its share times its Lagrange coefficient.
fn dealers_of<S: Scheme>(setup: &Setup, resharing: &Resharing<'_>) -> Result<Dealing<S>, Refusal> {
    let Resharing { old, share, dealers, committee } = resharing;
    check_old(old, setup)?;
    let parties: BTreeSet<Party> = dealers.values().copied().collect();
    let enough = parties.len() == dealers.len() && parties.len() >= usize::from(old.committee.threshold());
    if !enough || parties.iter().any(|party| !old.committee.has(*party)) {
        return Err(Refusal::Dealers);
    }
    let points = Points::<S::Group>::of(old)?;
    let weight = |party| lagrange::<S::Group>(parties.iter().copied(), party, 0).ok_or(Refusal::Dealers);
    let constant = |(seat, party): (&Party, &Party)| {
        Ok((*seat, S::Group::times(&points.of_party(*party)?, &weight(*party)?)))
    };
    let secret = match (dealers.get(&setup.me), share) {
        (None, None) => None,
        (Some(party), Some(share)) if share.me == *party && share.public == **old => {
            Some(Zeroizing::new(S::Group::mul(&*own_scalar::<S>(share)?, &weight(*party)?)))
        }
        (Some(_), Some(_) | None) | (None, Some(_)) => return Err(Refusal::Seat),
    };
    #[derive(Encode)]
    struct Rest<'a>(
        #[n(0)] minicbor::bytes::ByteArray<32>,
        #[n(1)] &'a BTreeMap<Party, Party>,
        #[n(2)] Committee,
    );
    Ok(Dealing {
        terms: Terms::new(setup, &Purpose::Reshare, Rest(digest(old), dealers, *committee)),
        committee: *committee,
        public_key: points.public_key,
        chain_code: old.chain_code,
        dealers: dealers.iter().map(constant).collect::<Result<_, Refusal>>()?,
        secret,
    })
}

/// The dealer of an import: it deals the key itself.
fn dealer_of<S: Scheme>(setup: &Setup, importing: &Importing<'_>) -> Result<Dealing<S>, Refusal> {
    let Importing { committee, dealer, public_key, private_key, chain_code, .. } = importing;
    let point = S::Group::point(public_key).ok_or(Refusal::Point)?;
    let secret = match (*dealer == setup.me, private_key) {
        (false, None) => None,
        (true, Some(private_key)) => {
            let secret = S::Group::scalar(private_key).ok_or(Refusal::Secret)?;
            if S::Group::base(&secret) != point {
                return Err(Refusal::Secret);
            }
            Some(secret)
        }
        (true, None) | (false, Some(_)) => return Err(Refusal::Seat),
    };
    #[derive(Encode)]
    struct Rest<'a>(
        #[n(0)] SchemeId,
        #[n(1)] Committee,
        #[n(2)] Party,
        #[cbor(n(3), with = "minicbor::bytes")] &'a [u8],
        #[cbor(n(4), with = "minicbor::bytes")] Option<[u8; 32]>,
    );
    let rest = Rest(S::ID, *committee, *dealer, public_key, *chain_code);
    Ok(Dealing {
        terms: Terms::new(setup, &Purpose::Import, rest),
        committee: *committee,
        public_key: point,
        chain_code: *chain_code,
        dealers: BTreeMap::from([(*dealer, point)]),
        secret,
    })
}

impl<S: Scheme> Dealing<S> {
    fn begin(self, setup: &Setup) -> Result<Started<Outcome>, Refusal> {
        let Self { terms, committee, public_key, chain_code, dealers, secret } = self;
        let context = context::<S>(setup, committee, &terms);
        let parties = dealers.keys().copied().chain(committee.members()).collect();
        Ceremony::begin(terms, To::Party(setup.me), parties, || {
            if committee.has(setup.me) {
                let leaving = dealers.keys().copied().filter(|dealer| !committee.has(*dealer)).collect();
                let (deal, said) = Deal::<S::Group>::begin(context, dealers, secret.as_deref());
                let dealings = Box::new(Dealings { context, public_key, chain_code, deal });
                let rounds = DealtRenewal::<S>::Dealing(dealings);
                return Ok(exchange::begin(context, leaving, rounds, said));
            }
            let secret = secret.ok_or(Refusal::Seat)?;
            let said = deal::deal::<S::Group>(&context, &secret);
            // Round 1 is the dealing, and the last is the one after the renewal.
            let last = S::RENEW_ROUNDS.saturating_add(2);
            Ok(exchange::leave(context, &said, S::Group::point_bytes(&public_key).into(), last))
        })
    }
}

/// Dealing, and then renewing.
enum DealtRenewal<S: Scheme> {
    Dealing(Box<Dealings<S>>),
    Renewing(S::Renew),
}

struct Dealings<S: Scheme> {
    context: Context,
    public_key: <S::Group as Group>::Point,
    chain_code: Option<[u8; 32]>,
    deal: Deal<S::Group>,
}

impl<S: Scheme> Rounds for DealtRenewal<S> {
    fn speakers(&self) -> BTreeSet<Party> {
        match self {
            Self::Dealing(dealings) => dealings.deal.speakers(),
            Self::Renewing(rounds) => rounds.speakers(),
        }
    }

    fn hear(self, heard: Heard) -> Result<Move<Self>, Abort> {
        match self {
            Self::Dealing(dealings) => {
                let Dealings { context, public_key, chain_code, deal } = *dealings;
                let dealt = deal.hear(&heard)?;
                if dealt.public_key != public_key {
                    return Err(context.suspect_all("the dealt shares are those of another key"));
                }
                let (rounds, said) = S::renew(context, dealt, chain_code)
                    .map_err(|refusal| context.suspect_all(&refusal.to_string()))?;
                Ok(Move::Say(Self::Renewing(rounds), said))
            }
            Self::Renewing(rounds) => Ok(match rounds.hear(heard)? {
                Move::Say(rounds, said) => Move::Say(Self::Renewing(rounds), said),
                Move::Finished(made) => Move::Finished(made),
            }),
        }
    }
}
