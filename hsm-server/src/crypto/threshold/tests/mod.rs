//! Whole ceremonies in one process: every party is a state machine, and the test is the network between them.

mod hostile;
mod lifecycle;
mod nonces;
mod refusals;
mod schemes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dkls23::{protocols::re_key::re_key, utilities::hashes::tagged_hash};
use k256::Secp256k1;
use p256::NistP256;

use super::{
    dkls::{Curve, Ecdsa},
    envelope::Envelope,
    group::{Group, Weierstrass},
    scheme::keep,
    *,
};

const KEY: KeyId = KeyId([7; 16]);

/// A ceremony whose deadline passed.
fn gave_up<T: 'static>(ceremony: &Ceremony<T>) -> Abort {
    Abort::new(Blame::Suspect(ceremony.missing()), "the round was not complete in time")
}

fn party(number: u8) -> Party {
    Party::new(number).unwrap()
}

fn parties(numbers: &[u8]) -> BTreeSet<Party> {
    numbers.iter().map(|number| party(*number)).collect()
}

fn setup(epoch: u64, attempt: u8, me: Party) -> Setup {
    Setup { key: KEY, id: CeremonyId([attempt; 32]), epoch: Epoch(epoch), me }
}

/// A message on its way.
#[derive(Clone)]
struct Flight {
    from: Party,
    to: Party,
    address: To,
    round: u8,
    bytes: Vec<u8>,
}

impl Flight {
    /// The same envelope around another body: what a party that breaks the protocol would send.
    fn with_body(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let envelope = Envelope::open(&self.bytes).unwrap();
        let terms = envelope::Terms { id: envelope.id, epoch: envelope.epoch, digest: envelope.terms };
        let mut body = envelope.into_body();
        change(&mut body);
        let letter = envelope::Letter { to: self.address, body };
        let bytes = Envelope::seal(&terms, self.round, self.from, letter).bytes.to_vec();
        Self { bytes, ..self.clone() }
    }

    fn incoming(&self) -> Incoming {
        Incoming { from: self.from, bytes: self.bytes.clone() }
    }
}

/// How a ceremony ended at one party.
#[derive(Debug)]
enum End<T> {
    Done(T),
    Abort(Abort),
}

impl<T: std::fmt::Debug> End<T> {
    fn done(self) -> T {
        match self {
            Self::Done(result) => result,
            Self::Abort(abort) => panic!("{abort}"),
        }
    }

    fn blame(self) -> Blame {
        match self {
            Self::Done(result) => panic!("done: {result:?}"),
            Self::Abort(abort) => abort.blame,
        }
    }
}

/// What a run of a ceremony left behind.
struct Run<T> {
    ends: BTreeMap<Party, End<T>>,
    rejected: Vec<Rejected>,
}

impl<T: std::fmt::Debug> Run<T> {
    fn done(self) -> BTreeMap<Party, T> {
        assert_eq!(self.rejected, []);
        self.ends.into_iter().map(|(party, end)| (party, end.done())).collect()
    }
}

/// Runs a ceremony to its end. `network` gets every message and says what arrives instead.
fn run<T: std::fmt::Debug + 'static>(
    started: BTreeMap<Party, Started<T>>,
    mut network: impl FnMut(Flight) -> Vec<Flight>,
) -> Run<T> {
    let all: Vec<Party> = started.keys().copied().collect();
    let mut live = BTreeMap::new();
    let mut queue = VecDeque::new();
    let mut post = |from: Party, outgoing: Vec<Outgoing>, queue: &mut VecDeque<Flight>| {
        for message in outgoing {
            let round = Envelope::open(&message.bytes).unwrap().round;
            let receivers: Vec<Party> = match message.to {
                To::Party(to) => vec![to],
                To::All => all.iter().copied().filter(|to| *to != from).collect(),
                To::Coordinator => panic!("only a held message is for the coordinator"),
            };
            for to in receivers {
                let bytes = message.bytes.to_vec();
                queue.extend(network(Flight { from, to, address: message.to, round, bytes }));
            }
        }
    };
    for (party, (ceremony, outgoing)) in started {
        live.insert(party, ceremony);
        post(party, outgoing, &mut queue);
    }
    let mut result = Run { ends: BTreeMap::new(), rejected: Vec::new() };
    while let Some(flight) = queue.pop_front() {
        let Some(ceremony) = live.remove(&flight.to) else { continue };
        match ceremony.step(vec![flight.incoming()]) {
            Step::Continue(ceremony, outgoing) => {
                live.insert(flight.to, ceremony);
                post(flight.to, outgoing, &mut queue);
            }
            Step::Done(done, outgoing) => {
                result.ends.insert(flight.to, End::Done(done));
                post(flight.to, outgoing, &mut queue);
            }
            Step::Abort(abort) => drop(result.ends.insert(flight.to, End::Abort(abort))),
            Step::Refused(ceremony, rejected) => {
                live.insert(flight.to, ceremony);
                result.rejected.push(rejected);
            }
        }
    }
    for (party, ceremony) in live {
        result.ends.insert(party, End::Abort(gave_up(&ceremony)));
    }
    result
}

fn honest(flight: Flight) -> Vec<Flight> {
    vec![flight]
}

/// Makes a key without a dealer.
fn generate(scheme: SchemeId, t: u8, n: u8) -> BTreeMap<Party, Share> {
    let committee = Committee::new(t, n).unwrap();
    let start = |me: Party| (me, generate_key(scheme, committee, &setup(1, 1, me)).unwrap());
    shares(run(committee.members().map(start).collect(), honest).done())
}

/// The shares, after a look at what the parties agreed on.
fn shares(outcomes: BTreeMap<Party, Outcome>) -> BTreeMap<Party, Share> {
    let ready: Vec<&Ready> = outcomes.values().map(|outcome| &outcome.ready).collect();
    assert!(ready.windows(2).all(|pair| pair[0] == pair[1]));
    outcomes.into_iter().filter_map(|(party, outcome)| Some((party, outcome.share?))).collect()
}

/// A key's shares without the cost of a generation: FROST's is cheap, and for ECDSA a dealer makes them.
fn quick(scheme: SchemeId, t: u8, n: u8) -> BTreeMap<Party, Share> {
    match scheme {
        SchemeId::EcdsaSecp256k1 => dealt::<Secp256k1>(t, n),
        SchemeId::EcdsaP256 => dealt::<NistP256>(t, n),
        SchemeId::Ed25519 | SchemeId::Bip340 => generate(scheme, t, n),
    }
}

fn dealt<C: Curve>(t: u8, n: u8) -> BTreeMap<Party, Share> {
    let committee = Committee::new(t, n).unwrap();
    let parameters = dkls23::protocols::Parameters::new(t, n).unwrap();
    let secret = Weierstrass::<C>::random();
    let session = tagged_hash(b"test", &[]);
    let (made, package) = re_key::<C>(&parameters, &session, &secret, Some([5; 32]), |_| String::new());
    let point = |point: &C::AffinePoint| Weierstrass::<C>::point_bytes(point).into();
    let public = PublicShares {
        scheme: C::ID,
        key: KEY,
        epoch: Epoch(1),
        committee,
        public_key: point(package.verifying_key()),
        verifying: made
            .iter()
            .map(|made| point(package.verifying_share(made.party_index).unwrap()))
            .collect(),
        chain_code: Some([5; 32]),
    };
    committee
        .members()
        .zip(made)
        .map(|(me, made)| (me, Share { public: public.clone(), me, secret: keep::<Ecdsa<C>>(made) }))
        .collect()
}

/// What a signature came to: at the signers that did not finish, and at the coordinator if all did.
struct Signed {
    signers: Run<Held>,
    signature: Option<End<Vec<u8>>>,
}

/// Signs; the lowest signer coordinates.
fn sign_over(
    shares: &BTreeMap<Party, Share>,
    signers: &[u8],
    input: &[u8],
    mut network: impl FnMut(Flight) -> Vec<Flight>,
) -> Signed {
    let signing = Signing { signers: parties(signers), input: input.to_vec() };
    let public = shares[&party(signers[0])].public();
    let setup = |me| Setup { key: public.key(), ..setup(public.epoch().0, 2, me) };
    let start = |me: &Party| (*me, sign(&shares[me], &signing, &setup(*me)).unwrap());
    let mut ran = run(signing.signers.iter().map(start).collect(), &mut network);
    if ran.ends.values().any(|end| matches!(end, End::Abort(_))) {
        return Signed { signers: ran, signature: None };
    }
    let own = &shares[&party(signers[0])];
    let mut combiner = combine(own, &signing, &setup(party(signers[0]))).unwrap();
    let ends = std::mem::take(&mut ran.ends);
    for (from, end) in ends {
        let outgoing = end.done().release();
        assert_eq!(outgoing.to, To::Coordinator);
        let round = Envelope::open(&outgoing.bytes).unwrap().round;
        let flight = Flight {
            from,
            to: party(signers[0]),
            address: To::Coordinator,
            round,
            bytes: outgoing.bytes.to_vec(),
        };
        for flight in network(flight) {
            combiner = match combiner.step(vec![flight.incoming()]) {
                Step::Continue(combiner, outgoing) => {
                    assert!(outgoing.is_empty());
                    combiner
                }
                Step::Done(signature, _) => {
                    return Signed { signers: ran, signature: Some(End::Done(signature)) };
                }
                Step::Abort(abort) => return Signed { signers: ran, signature: Some(End::Abort(abort)) },
                Step::Refused(combiner, rejected) => {
                    ran.rejected.push(rejected);
                    combiner
                }
            };
        }
    }
    Signed { signers: ran, signature: Some(End::Abort(gave_up(&combiner))) }
}

/// Signs with these, and has somebody else's library verify it.
fn check_signature(shares: &BTreeMap<Party, Share>, signers: &[u8], input: &[u8]) {
    let signed = sign_over(shares, signers, input, honest);
    let public = shares[&party(signers[0])].public();
    let Some(signature) = signed.signature else {
        panic!("{:?}", signed.signers.ends);
    };
    let signature = signature.done();
    assert!(verifies(public, input, &signature), "{signers:?} of {public:?}");
    assert!(!verifies(public, b"something else, 32 bytes long...", &signature));
}

/// Whether a library that made no part of it takes the signature.
fn verifies(public: &PublicShares, input: &[u8], signature: &[u8]) -> bool {
    let key = public.public_key().unwrap();
    let digest = || <[u8; 32]>::try_from(input).unwrap();
    match public.scheme() {
        // It takes low s only.
        SchemeId::EcdsaSecp256k1 => {
            let key = secp256k1::PublicKey::from_slice(&key).unwrap();
            let signature = secp256k1::ecdsa::Signature::from_compact(signature).unwrap();
            signature.verify(secp256k1::Message::from_digest(digest()), &key).is_ok()
        }
        SchemeId::EcdsaP256 => {
            use aws_lc_rs::{
                digest::{Digest, SHA256},
                signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey},
            };
            let digest = Digest::import_less_safe(&digest(), &SHA256).unwrap();
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key).unwrap();
            key.verify_digest_sig(&digest, signature).is_ok()
        }
        SchemeId::Ed25519 => {
            use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
            UnparsedPublicKey::new(&ED25519, &key).verify(input, signature).is_ok()
        }
        SchemeId::Bip340 => {
            let key = secp256k1::XOnlyPublicKey::from_byte_array(key.try_into().unwrap()).unwrap();
            let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into().unwrap());
            signature.verify(input, &key).is_ok()
        }
    }
}

/// Every way to choose `t` of 1 to `n`.
fn subsets(t: u8, n: u8) -> Vec<Vec<u8>> {
    let all = 0u32..1 << n;
    let chosen = |mask: u32| (1..=n).filter(|party| mask >> (party - 1) & 1 == 1).collect::<Vec<u8>>();
    all.map(chosen).filter(|subset| subset.len() == usize::from(t)).collect()
}

const DIGEST: &[u8; 32] = b"the digest of a message to sign.";
