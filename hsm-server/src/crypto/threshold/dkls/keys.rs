//! Making and renewing shares: DKLs23's key generation (Protocol 9.1 of ePrint 2023/602), and its complete refresh, which is
//! the same with polynomials that are zero at zero.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | | a point of the sender's polynomial |
//! | 2 | commitments to the share's proof and to the chain code | commitment to a seed |
//! | 3 | the proof, the chain code | the seed; oblivious transfers |

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use dkls23::{
    protocols::{
        self as library, PartiesMessage, PartyIndex,
        dkg::{
            self, BroadcastDerivationPhase2to4, BroadcastDerivationPhase3to4, KeepInitMulPhase3to4,
            KeepInitZeroSharePhase2to3, KeepInitZeroSharePhase3to4, ProofCommitment, SessionData,
            TransmitInitMulPhase3to4, TransmitInitZeroSharePhase2to4, TransmitInitZeroSharePhase3to4,
            UniqueKeepDerivationPhase2to3,
        },
    },
    utilities::proofs::DLogProof,
};
use elliptic_curve::{Field, group::Curve as _};
use zeroize::{Zeroize, Zeroizing};

use super::{Curve, Ecdsa, abort, hollow, index, parameters, read, write, write_secret};
use crate::crypto::threshold::{
    blame::{Abort, Refusal},
    deal::Dealt,
    exchange::{Context, Heard, Made, Move, Rounds, Said},
    group::{Group, Weierstrass},
    party::Party,
    scheme::keep,
};

/// A party between two rounds.
pub struct Keys<C: Curve> {
    context: Context,
    purpose: Purpose<C>,
    progress: Progress<C>,
}

/// What the rounds are for.
enum Purpose<C: Curve> {
    Generate(SessionData),
    Renew {
        hollow: Box<library::Party<C>>,
        /// What the refresh adds to.
        verifying: Vec<C::AffinePoint>,
        chain_code: Option<[u8; 32]>,
    },
}

/// The round whose messages are waited for, and what is kept meanwhile.
enum Progress<C: Curve> {
    Fragments { own: Zeroizing<C::Scalar> },
    Commitments(Box<Committed<C>>),
    Proofs(Box<Opened<C>>),
}

/// What round 2 says to all: commitments.
type PublicTwo = ([u8; 32], [u8; 32]);
/// What round 3 says to all: what they were commitments to.
type PublicThree<C> = (DLogProof<C>, [u8; 32], Vec<u8>);
/// What round 3 says to each: seed, salt, transfers.
type PrivateThree<C> = ([u8; 32], Vec<u8>, TransmitInitMulPhase3to4<C>);

struct Committed<C: Curve> {
    point: Zeroizing<C::Scalar>,
    proof: ProofCommitment<C>,
    zero: BTreeMap<PartyIndex, KeepInitZeroSharePhase2to3>,
    chain: Option<(UniqueKeepDerivationPhase2to3, BroadcastDerivationPhase2to4)>,
}

impl<C: Curve> Drop for Committed<C> {
    fn drop(&mut self) {
        for kept in self.zero.values_mut() {
            kept.seed.zeroize();
            kept.salt.zeroize();
        }
    }
}

struct Opened<C: Curve> {
    point: Zeroizing<C::Scalar>,
    proof: ProofCommitment<C>,
    zero: BTreeMap<PartyIndex, KeepInitZeroSharePhase3to4>,
    multiplication: BTreeMap<PartyIndex, KeepInitMulPhase3to4<C>>,
    chain: Option<(BroadcastDerivationPhase2to4, BroadcastDerivationPhase3to4)>,
    commitments: BTreeMap<Party, Commitments>,
}

/// What another party committed to in round 2.
struct Commitments {
    proof: [u8; 32],
    chain: [u8; 32],
    seed: [u8; 32],
}

impl<C: Curve> Drop for Opened<C> {
    fn drop(&mut self) {
        for kept in self.zero.values_mut() {
            kept.seed.zeroize();
        }
        for kept in self.multiplication.values_mut() {
            kept.ot_sender.s.zeroize();
            kept.nonce.zeroize();
            kept.ot_receiver.seed.zeroize();
            kept.correlation.zeroize();
            kept.vec_r.zeroize();
        }
    }
}

impl<C: Curve> Keys<C> {
    pub fn generate(context: Context) -> Result<(Self, Said), Refusal> {
        let data = SessionData {
            parameters: parameters(context.committee)?,
            party_index: index(context.me)?,
            session_id: context.session.to_vec(),
        };
        let fragments = Zeroizing::new(dkg::phase1::<C>(&data));
        Self::begin(context, Purpose::Generate(data), &fragments)
    }

    pub fn renew(
        context: Context,
        dealt: Dealt<Weierstrass<C>>,
        chain_code: Option<[u8; 32]>,
    ) -> Result<(Self, Said), Refusal> {
        let hollow = Box::new(hollow::<C>(&context, &dealt.scalar, dealt.public_key, chain_code)?);
        let fragments = Zeroizing::new(hollow.refresh_complete_phase1());
        Self::begin(context, Purpose::Renew { hollow, verifying: dealt.verifying, chain_code }, &fragments)
    }

    fn begin(
        context: Context,
        purpose: Purpose<C>,
        fragments: &[C::Scalar],
    ) -> Result<(Self, Said), Refusal> {
        let mut own = None;
        let mut said = Said::default();
        for (party, fragment) in context.committee.members().zip(fragments) {
            if party == context.me {
                own = Some(Zeroizing::new(*fragment));
            } else {
                let bytes = Weierstrass::<C>::scalar_bytes(fragment).to_vec();
                said.private.insert(party, Zeroizing::new(bytes));
            }
        }
        let own = own.ok_or(Refusal::Seat)?;
        Ok((Self { context, purpose, progress: Progress::Fragments { own } }, said))
    }
}

impl<C: Curve> Rounds for Keys<C> {
    fn speakers(&self) -> BTreeSet<Party> {
        self.context.others()
    }

    fn hear(self, heard: Heard) -> Result<Move<Self>, Abort> {
        let Self { context, purpose, progress } = self;
        match progress {
            Progress::Fragments { own } => commit(context, purpose, &own, &heard),
            Progress::Commitments(committed) => open(context, purpose, *committed, &heard),
            Progress::Proofs(opened) => finish(&context, purpose, &opened, &heard),
        }
    }
}

/// Round 2: the fragments add up to the share; commit to everything that follows from it.
fn commit<C: Curve>(
    context: Context,
    purpose: Purpose<C>,
    own: &C::Scalar,
    heard: &Heard,
) -> Result<Move<Keys<C>>, Abort> {
    let mut fragments = Zeroizing::new(Vec::with_capacity(heard.private.len() + 1));
    fragments.push(*own);
    for (party, bytes) in &heard.private {
        let fragment = Weierstrass::<C>::scalar(bytes).ok_or_else(|| garbage(*party))?;
        fragments.push(*fragment);
    }
    let (point, proof, zero, transmit, chain) = match &purpose {
        Purpose::Generate(data) => {
            let (point, proof, zero, transmit, kept, broadcast) = dkg::phase2::<C>(data, &fragments);
            (point, proof, zero, transmit, Some((kept, broadcast)))
        }
        Purpose::Renew { hollow, .. } => {
            let (point, proof, zero, transmit) = hollow.refresh_complete_phase2(&context.session, &fragments);
            (point, proof, zero, transmit, None)
        }
    };
    let chain_commitment = chain.as_ref().map_or([0; 32], |(_, broadcast)| broadcast.cc_commitment);
    let public: PublicTwo = (proof.commitment, chain_commitment);
    let mut said = Said { public: written(&context, write(&public))?, private: BTreeMap::new() };
    for message in transmit {
        let to = super::party(message.parties.receiver, context.me);
        said.private.insert(to, Zeroizing::new(message.commitment.to_vec()));
    }
    let committed = Committed { point: Zeroizing::new(point), proof, zero, chain };
    Ok(Move::Say(Keys { context, purpose, progress: Progress::Commitments(Box::new(committed)) }, said))
}

/// Round 3: all have committed; open, and send the transfers.
fn open<C: Curve>(
    context: Context,
    purpose: Purpose<C>,
    mut committed: Committed<C>,
    heard: &Heard,
) -> Result<Move<Keys<C>>, Abort> {
    let mut commitments = BTreeMap::new();
    for (party, public, private) in both(heard) {
        let (proof, chain): PublicTwo = read(public).ok_or_else(|| garbage(party))?;
        let seed = <[u8; 32]>::try_from(private).map_err(|_| garbage(party))?;
        commitments.insert(party, Commitments { proof, chain, seed });
    }
    let (zero, zero_transmit, multiplication, transmit, chain) = match (&purpose, committed.chain.take()) {
        (Purpose::Generate(data), Some((kept, broadcast))) => {
            let (zero, zero_transmit, multiplication, transmit, opened) =
                dkg::phase3::<C>(data, &committed.zero, &kept);
            (zero, zero_transmit, multiplication, transmit, Some((broadcast, opened)))
        }
        (Purpose::Generate(_) | Purpose::Renew { .. }, None | Some(_)) => {
            let hollow = hollow_of(&purpose).ok_or_else(|| internal(&context))?;
            let (zero, zero_transmit, multiplication, transmit) =
                hollow.refresh_complete_phase3(&context.session, &committed.zero);
            (zero, zero_transmit, multiplication, transmit, None)
        }
    };
    let (chain_code, chain_salt) = chain
        .as_ref()
        .map_or_else(Default::default, |(_, opened)| (opened.aux_chain_code, opened.cc_salt.clone()));
    let public: PublicThree<C> = (committed.proof.proof.clone(), chain_code, chain_salt);
    let mut said = Said { public: written(&context, write(&public))?, private: BTreeMap::new() };
    for (mut seed, message) in zero_transmit.into_iter().zip(transmit) {
        let to = super::party(message.parties.receiver, context.me);
        let private: PrivateThree<C> = (seed.seed, mem::take(&mut seed.salt), message);
        said.private.insert(to, written(&context, write_secret(&private, MESSAGE_LENGTH))?);
        seed.seed.zeroize();
    }
    let opened = Opened {
        point: mem::take(&mut committed.point),
        proof: committed.proof.clone(),
        zero,
        multiplication,
        chain,
        commitments,
    };
    Ok(Move::Say(Keys { context, purpose, progress: Progress::Proofs(Box::new(opened)) }, said))
}

/// Room for what round 3 says to one party, in bytes.
const MESSAGE_LENGTH: usize = 200 * 1024;

fn hollow_of<C: Curve>(purpose: &Purpose<C>) -> Option<&library::Party<C>> {
    match purpose {
        Purpose::Generate(_) => None,
        Purpose::Renew { hollow, .. } => Some(hollow),
    }
}

/// What was heard in rounds 2 and 3, as the library wants it. Who sent what is what the channels say, not the messages.
struct Gathered<C: Curve> {
    proofs: Vec<ProofCommitment<C>>,
    zero_two: Vec<TransmitInitZeroSharePhase2to4>,
    zero_three: Vec<TransmitInitZeroSharePhase3to4>,
    multiplication: Vec<TransmitInitMulPhase3to4<C>>,
    chain_two: BTreeMap<PartyIndex, BroadcastDerivationPhase2to4>,
    chain_three: BTreeMap<PartyIndex, BroadcastDerivationPhase3to4>,
}

impl<C: Curve> Gathered<C> {
    fn of(context: &Context, opened: &Opened<C>, heard: &Heard) -> Result<Self, Abort> {
        let receiver = index(context.me).map_err(|_| internal(context))?;
        let mut gathered = Self {
            proofs: vec![opened.proof.clone()],
            zero_two: Vec::new(),
            zero_three: Vec::new(),
            multiplication: Vec::new(),
            chain_two: BTreeMap::new(),
            chain_three: BTreeMap::new(),
        };
        if let Some((two, three)) = &opened.chain {
            gathered.chain_two.insert(receiver, two.clone());
            gathered.chain_three.insert(receiver, three.clone());
        }
        for (party, public, private) in both(heard) {
            let (proof, aux_chain_code, cc_salt): PublicThree<C> =
                read(public).ok_or_else(|| garbage(party))?;
            let (seed, salt, mut message): PrivateThree<C> = read(private).ok_or_else(|| garbage(party))?;
            let committed = opened.commitments.get(&party).ok_or_else(|| garbage(party))?;
            let sender = index(party).map_err(|_| garbage(party))?;
            let parties = PartiesMessage { sender, receiver };
            message.parties = parties.clone();
            gathered.proofs.push(ProofCommitment { index: sender, proof, commitment: committed.proof });
            let (commitment, cc_commitment) = (committed.seed, committed.chain);
            gathered.zero_two.push(TransmitInitZeroSharePhase2to4 { parties: parties.clone(), commitment });
            gathered.zero_three.push(TransmitInitZeroSharePhase3to4 { parties, seed, salt });
            gathered.multiplication.push(message);
            let sender_index = sender;
            gathered.chain_two.insert(sender, BroadcastDerivationPhase2to4 { sender_index, cc_commitment });
            gathered
                .chain_three
                .insert(sender, BroadcastDerivationPhase3to4 { sender_index, aux_chain_code, cc_salt });
        }
        Ok(gathered)
    }

    /// The public key of each party's new point.
    fn points(&self, context: &Context) -> Result<Vec<C::AffinePoint>, Abort> {
        let point = |party: Party| {
            let proof = self.proofs.iter().find(|proof| proof.index.as_u8() == party.number())?;
            Some(proof.proof.point)
        };
        context.committee.members().map(point).collect::<Option<_>>().ok_or_else(|| internal(context))
    }
}

impl<C: Curve> Drop for Gathered<C> {
    fn drop(&mut self) {
        for message in &mut self.zero_three {
            message.seed.zeroize();
            message.salt.zeroize();
        }
    }
}

/// The end: everything is checked, and the share is made.
fn finish<C: Curve>(
    context: &Context,
    purpose: Purpose<C>,
    opened: &Opened<C>,
    heard: &Heard,
) -> Result<Move<Keys<C>>, Abort> {
    let gathered = Gathered::of(context, opened, heard)?;
    let corrections = gathered.points(context)?;
    let blame = |error: library::Abort| abort(&error, context.committee.members(), context.me);
    let (party, verifying, chain_code) = match purpose {
        Purpose::Generate(data) => {
            let (party, _) = dkg::phase4::<C>(
                &data,
                &opened.point,
                &gathered.proofs,
                &opened.zero,
                &gathered.zero_two,
                &gathered.zero_three,
                &opened.multiplication,
                &gathered.multiplication,
                &gathered.chain_two,
                &gathered.chain_three,
                |_| String::new(),
            )
            .map_err(blame)?;
            let chain_code = *party.chain_code();
            (party, corrections, Some(chain_code))
        }
        Purpose::Renew { hollow, verifying, chain_code } => {
            let party = hollow
                .refresh_complete_phase4(
                    &context.session,
                    &opened.point,
                    &gathered.proofs,
                    &opened.zero,
                    &gathered.zero_two,
                    &gathered.zero_three,
                    &opened.multiplication,
                    &gathered.multiplication,
                )
                .map_err(blame)?;
            let sum = |(old, correction): (&C::AffinePoint, &C::AffinePoint)| {
                (C::ProjectivePoint::from(*old) + *correction).to_affine()
            };
            let verifying = verifying.iter().zip(&corrections).map(sum).collect();
            (party, verifying, chain_code)
        }
    };
    if bool::from(party.poly_point.is_zero()) {
        return Err(context.suspect_all("the own share is zero"));
    }
    let bytes = verifying.iter().map(Weierstrass::<C>::point_bytes);
    let public = context.public(Weierstrass::<C>::point_bytes(&party.pk), bytes, chain_code);
    public.check().map_err(|_| context.suspect_all("the shares are not those of one key"))?;
    Ok(Move::Finished(Made { public, secret: keep::<Ecdsa<C>>(party) }))
}

/// What each party said to all and to this party.
fn both(heard: &Heard) -> impl Iterator<Item = (Party, &[u8], &[u8])> {
    heard.public.iter().filter_map(|(party, public)| {
        heard.private.get(party).map(|private| (*party, public.as_slice(), private.as_slice()))
    })
}

fn garbage(party: Party) -> Abort {
    Abort::culprit(party, format!("{party} sent something that is no message of the protocol"))
}

fn written<T>(context: &Context, bytes: Option<T>) -> Result<T, Abort> {
    bytes.ok_or_else(|| internal(context))
}

/// What cannot happen, whoever lies.
fn internal(_: &Context) -> Abort {
    Abort::new(crate::crypto::threshold::blame::Blame::Recoverable, "DKLs23: the own state does not fit")
}
