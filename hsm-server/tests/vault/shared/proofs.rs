//! The proof that new shares sign: what passes for one, and what an application and a bad node cannot make of it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_server::{
    cluster::order::OrderedAct,
    crypto::threshold::{Party, SchemeId},
    store::{Batch, Path, SealedStore},
};
use strongroom_shared::{
    secret::Secret,
    shares::{Certificate, Claim},
};

use super::{
    double::{Account, Liar, Proof, Question, Reply, Talk, party},
    hostile::Scene,
    *,
};

/// Any hash value can be signed with a key of this kind, so also that of the text of a proof.
const RAW: Kind = Kind::K1;

/// The shares of a certificate.
struct Shares {
    key: ObjectId,
    claim: Vec<u8>,
    epoch: u64,
}

impl Shares {
    fn of(key: ObjectId, certificate: &[u8], epoch: u64) -> Self {
        let whole: Certificate = minicbor::decode(certificate).unwrap();
        Self { key, claim: whole.claim, epoch }
    }

    /// What their signers sign to prove them.
    fn text(&self, signers: &[u8]) -> Vec<u8> {
        let (label, hash) = (b"strongroom proof of shares 1\0", openssl::sha::sha256(&self.claim));
        [&label[..], &hash, &self.key.0, &self.epoch.to_be_bytes(), signers].concat()
    }

    /// A proof by signatures that an application has made, with the words of nodes of these seeds.
    fn proofs_of_an_application(&self, house: &House, quorums: &[&[u8]], seeds: &[u8]) -> Vec<Proof> {
        let proof = |signers: &&[u8]| {
            let text = self.text(signers);
            let said = signers.iter().map(|at| (party(*at), usize::from(*at) - 1));
            let words = said.filter_map(|(party, at)| Some((party, word(*seeds.get(at)?, &text))));
            Proof {
                signers: signers.iter().copied().map(party).collect(),
                signature: sign_hash(house, self.key, &text),
                words: words.collect(),
            }
        };
        quorums.iter().map(proof).collect()
    }
}

/// What a node with this seed says of its part of a proof.
fn word(seed: u8, text: &[u8]) -> ByteVec {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    pair.sign(&[b"strongroom part of a proof of shares 1\0", text].concat()).as_ref().to_vec().into()
}

/// An application has a hash value signed, of which nobody sees what it is of.
fn sign_hash(house: &House, key: ObjectId, text: &[u8]) -> Vec<u8> {
    let input = openssl::sha::sha256(text).to_vec();
    let call = Sign { key, mechanism: CKM_ECDSA, params: Params::None, input };
    let mandated = house.mandated(CallId::Sign, minicbor::to_vec(call).unwrap());
    house.ask(0, &SignShared { mandated }).unwrap().bytes
}

fn account(talk: &Talk<'_>, key: ObjectId) -> Account {
    match talk.ask(&Question::Certificate { partition: "trading".into(), key }) {
        Ok(Reply::Certificate(account)) => account,
        other => panic!("{other:?}"),
    }
}

/// The genuine public shares of a certificate under a later epoch, at seats that the bad node makes up.
fn pretended(scene: &Scene, certificate: &[u8], epoch: u8, seeds: &[u8]) -> Vec<u8> {
    let whole: Certificate = minicbor::decode(certificate).unwrap();
    let mut claim: Claim = minicbor::decode(&whole.claim).unwrap();
    // The epoch stands after the key.
    let mark = [&[0x50][..], &claim.private.0].concat();
    let place = claim.ready.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len();
    assert!(claim.ready[place] < epoch && epoch < 24);
    claim.ready[place] = epoch;
    scene.double.certify(&claim, seeds)
}

fn says(certificate: Vec<u8>, epoch: u64, proofs: Vec<Proof>) -> Account {
    let (certificate, highest) = (Some(certificate.into()), Some(epoch));
    Account { certificate, proofs, highest, ..Account::default() }
}

/// So much later, when everybody has asked everybody and the application has logged in again.
fn later(house: &mut House, seconds: u64) {
    house.nodes.iter().for_each(|node| node.world.platform.pass(seconds * 1_000_000));
    (0..3).for_each(|_| house.beat());
    house.desks = (0..house.nodes.len()).map(|at| house.log_in(at)).collect();
}

fn told(house: &House, at: usize, hint: &str) -> bool {
    house.nodes[at].records("RenewShares").iter().any(|record| record.detail.contains(hint))
}

#[test]
fn a_bad_node_and_an_application_have_nobody_give_up_a_key() {
    let scene = Scene::new();
    let (key, _) = scene.key(RAW, SchemeId::EcdsaSecp256k1);
    let own = account(&scene.talks()[0], key).certificate.unwrap();
    let quorums: [&[u8]; 2] = [&[1, 2], &[1, 3]];
    // All its own, and itself with two of its own.
    let attacks: Vec<_> = [([201, 202, 203], false), ([201, 202, 203], true), ([77, 201, 202], true)]
        .into_iter()
        .map(|(seeds, words)| {
            let certificate = pretended(&scene, &own, 5, &seeds);
            let shares = Shares::of(key, &certificate, 5);
            let seeds = if words { &seeds[..] } else { &[] };
            let proofs = shares.proofs_of_an_application(&scene.house, &quorums, seeds);
            says(certificate, 5, proofs)
        })
        .collect();
    let Scene { mut house, double, document } = scene;
    let liar = Liar::sit(double, document, &house, attacks[0].clone());
    let hints = [
        "nobody ordered these shares",
        "0 of the nodes that say that they hold the shares of epoch 5 are members",
        "1 of the nodes that say that they hold the shares of epoch 5 are members",
    ];
    for (attack, hint) in attacks.into_iter().zip(hints) {
        let proofs = attack.proofs.clone();
        *liar.account.lock().unwrap() = attack;
        later(&mut house, 3_700);
        for at in 0..2 {
            assert!(told(&house, at, hint), "{hint}: {:?}", house.nodes[at].records("RenewShares"));
            let talk = liar.ear.double.meet(&house.nodes[at], &liar.ear.document());
            // Nothing was replaced, so there is nothing to be erased either.
            let proven = Question::Proven { partition: "trading".into(), key, proofs: proofs.clone() };
            let _ = talk.ask(&proven);
            assert_eq!(keys(&house, at), [key], "node {at}");
        }
        let signature = house.sign(0, RAW, key, MESSAGE).unwrap();
        house.check(1, RAW, ObjectId([9 ^ 0xff; 16]), &signature);
    }
}

#[test]
fn a_node_that_holds_no_share_any_more_erases_its_last_one_for_no_bad_node() {
    let scene = Scene::of(3);
    let (key, _) = scene.key_of(&RAW.wish(2, 4), (SchemeId::EcdsaSecp256k1, 2));
    scene.house.cut_off(&["c"]);
    let seats = [0, 1].map(|at| scene.house.seat(at)).into();
    scene.house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    let moved = account(&scene.talks()[0], key);
    assert!(!moved.proofs.is_empty());
    let certificate = moved.certificate.clone().unwrap();
    let forged = pretended(&scene, &certificate, 9, &[77, 201]);
    let proofs = Shares::of(key, &forged, 9).proofs_of_an_application(&scene.house, &[&[1, 2]], &[77, 201]);
    // It hears from nobody but the bad node, first the truth.
    scene.house.cut_off(&["a", "b"]);
    let Scene { mut house, double, document } = scene;
    let liar = Liar::sit(double, document, &house, Account { proofs: Vec::new(), ..moved.clone() });
    later(&mut house, 3_700);
    assert!(keys(&house, 2).is_empty() && house.keeps_former(2, key));
    *liar.account.lock().unwrap() = says(forged, 9, proofs);
    later(&mut house, 3_700);
    assert!(house.keeps_former(2, key));
    assert!(told(&house, 2, "0 of the nodes that say that they hold the shares of epoch 9 are members"));
    // That those who have the shares now sign with them, they say themselves.
    house.clear_up();
    later(&mut house, 60);
    assert!(!house.keeps_former(2, key));
}

#[test]
fn every_signer_says_itself_that_it_gave_its_part_of_a_proof() {
    let scene = Scene::of(3);
    let house = &scene.house;
    let (key, _) = scene.key_of(&RAW.wish(2, 4), (SchemeId::EcdsaSecp256k1, 2));
    let seats = (0..3).map(|at| house.seat(at)).collect();
    house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let earlier = account(&scene.talks()[0], key).proofs;
    assert!((0..3).all(|at| !house.keeps_former(at, key)), "true proofs have them erased");
    // The next time the others do not hear of the proof.
    let seen = AtomicUsize::new(0);
    house.net.weather(move |from, _, call| {
        let counts = from == "a" && call == CallId::SealedCall;
        if counts && seen.fetch_add(1, Ordering::Relaxed) + 2 >= calls { Mishap::Lost } else { Mishap::None }
    });
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    house.clear_up();
    assert_eq!([0, 1, 2].map(|at| house.keeps_former(at, key)), [false, true, true]);
    let talks = scene.talks();
    let now = account(&talks[0], key);
    let (certificate, proofs) = (now.certificate.unwrap(), now.proofs);
    let shares = Shares::of(key, &certificate, house.epoch(0, key));
    let quorums: Vec<Vec<u8>> =
        proofs.iter().map(|proof| proof.signers.iter().map(|party| party.number()).collect()).collect();
    assert_eq!(quorums, [[1, 2], [1, 3]]);
    let with = |change: &dyn Fn(&mut BTreeMap<_, ByteVec>)| {
        let mut proofs = proofs.clone();
        change(&mut proofs[1].words);
        proofs
    };
    let first = |words: &BTreeMap<_, ByteVec>| words[&party(1)].clone();
    let of_application = |seeds| shares.proofs_of_an_application(house, &[&[1, 2], &[1, 3]], seeds);
    for (what, forged) in [
        ("no word at all", of_application(&[])),
        ("the words of others", of_application(&[77, 77, 77])),
        ("one word missing", with(&|words| drop(words.remove(&party(3))))),
        ("one word of another seat", with(&|words| drop(words.insert(party(3), first(words))))),
        ("one word too many", with(&|words| drop(words.insert(party(2), first(words))))),
        ("one word for other signers", with(&|words| drop(words.insert(party(1), first(&proofs[0].words))))),
        ("one word of another claim", with(&|words| drop(words.insert(party(1), first(&earlier[1].words))))),
        ("a proof of another claim", earlier.clone()),
        ("one share that shows nothing", proofs[..1].to_vec()),
    ] {
        let question = Question::Proven { partition: "trading".into(), key, proofs: forged };
        let fault = talks[2].ask(&question).expect_err(what);
        assert!(fault.detail.contains("do not show that every share signs"), "{what}: {fault}");
        assert!(house.keeps_former(2, key), "{what}");
    }
    talks[2].ask(&Question::Proven { partition: "trading".into(), key, proofs }).unwrap();
    assert!(!house.keeps_former(2, key));
}

#[test]
fn no_application_has_a_message_signed_that_begins_like_a_proof() {
    for kind in [Kind::Ed25519, Kind::Bip340, Kind::K1] {
        let house = House::new(2);
        let key = house.generate(0, &kind.wish(2, 2)).unwrap().private.id;
        let text = [b"strongroom proof of shares 1\0", MESSAGE].concat();
        let fault = house.sign(0, kind, key, &text).unwrap_err();
        assert!(fault.detail.contains("begins like a proof of shares"), "{fault}");
        house.sign(0, kind, key, &text[1..]).unwrap();
    }
}

#[test]
fn a_node_that_cannot_tell_whether_the_shares_have_moved_keeps_its_own_until_it_sees_an_order() {
    let kind = Kind::Ed25519;
    let mut house = House::ruled(4, 1);
    let key = house.generate(0, &kind.wish(3, 4)).unwrap().private.id;
    let reshare = |house: &House| {
        let seats = [0, 1].map(|at| house.seat(at)).into();
        house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap()
    };
    house.cut_off(&["d"]);
    reshare(&house);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    house.clear_up();
    // Two could be bad where three sign.
    later(&mut house, 700);
    assert_eq!(keys(&house, 3), [key]);
    assert!(told(&house, 3, "2 of the nodes that say that they hold the shares of epoch 2 are members"));
    assert!(told(&house, 3, "without the order that moved the shares it takes 3"));
    assert!(told(&house, 3, "`hsmctl key reshare` to the nodes that hold them now"));
    reshare(&house);
    later(&mut house, 700);
    assert!(keys(&house, 3).is_empty() && !house.keeps_former(3, key));
    house.sign(0, kind, key, MESSAGE).unwrap();
}

/// What a node keeps of the shares of a key, as far as it is about their proofs.
#[derive(Encode, Decode)]
struct Standing {
    #[n(0)]
    proofs: Vec<Kept>,
}

/// A proof as a node keeps it. Once there were no words of its signers.
#[derive(Encode, Decode)]
struct Kept {
    #[n(0)]
    signers: BTreeSet<Party>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: Vec<u8>,
    #[n(2)]
    words: Option<BTreeMap<Party, ByteVec>>,
}

/// Of the proofs that a node keeps, whether each has its signers' words. With `old` it dies, and starts anew with what
/// nodes kept once.
fn kept_proofs(house: &mut House, at: usize, key: ObjectId, old: bool) -> Vec<bool> {
    let fill = Box::new(|bytes: &mut [u8]| bytes.fill(7));
    let memory = house.nodes[at].world.store.clone();
    let (store, rows) = SealedStore::open(memory, Secret::new(ROOT), fill).unwrap();
    let is_standing = |path: &Path| matches!(path, Path::Standing(_, of) if *of == key);
    let (path, row) = rows.into_iter().find(|(path, _)| is_standing(path)).unwrap();
    let mut standing: Standing = minicbor::decode(&row).unwrap();
    if old {
        standing.proofs.iter_mut().for_each(|proof| proof.words = None);
        let mut batch = Batch::new();
        batch.put(path, minicbor::to_vec(&standing).unwrap().into());
        store.commit(batch, &minicbor::to_vec(AuditRecord::default()).unwrap()).unwrap();
        house.restart(at);
    }
    standing.proofs.iter().map(|proof| proof.words.is_some()).collect()
}

#[test]
fn shares_whose_proof_is_of_a_kind_that_is_none_any_more_give_a_new_one() {
    let mut house = House::ruled(3, 1);
    let key = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap().private.id;
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    for at in 0..3 {
        kept_proofs(&mut house, at, key, true);
        assert_eq!(kept_proofs(&mut house, at, key, false), [false; 2]);
    }
    house.beat();
    later(&mut house, 300);
    for at in 0..3 {
        assert_eq!(kept_proofs(&mut house, at, key, false), [true; 2], "node {at}");
    }
    house.sign(0, Kind::Ed25519, key, MESSAGE).unwrap();
}
