//! A bad signer: whoever coordinates gets its signature from the others, and asks it last from then on.

use std::sync::Mutex;

use strongroom_server::crypto::threshold::{SchemeId, Share};

use super::{
    double::{Ear, Signer, Spoils},
    hostile::Scene,
    *,
};

/// The bad node signs with honest coordinators, and spoils it.
pub fn bad_signer(scene: Scene, share: Share, spoils: Spoils) -> (House, Arc<Signer>) {
    let Scene { house, double, .. } = scene;
    // Under a new document nobody has proved to be well yet: whoever coordinates asks the two in turn.
    let mut membership = membership(3, &house.nodes.iter().collect::<Vec<_>>());
    membership.members.push(double.member(&house.nodes[0].said.authority));
    let z = membership.members[house.nodes.len()].id;
    let document = membership.sign(&[&administrator(1)]).unwrap();
    for node in &house.nodes {
        node.install(&document).unwrap();
    }
    let ear = Ear::new(double, document, &house);
    let signer = Arc::new(Signer { ear, share, spoils, asked: AtomicUsize::new(0), stand: Mutex::default() });
    let answering = Arc::clone(&signer);
    let answer: Answering = Arc::new(move |caller, frame| answering.answer(caller, frame));
    house.net.doubles.lock().unwrap().insert(z, answer);
    (house, signer)
}

#[test]
fn whoever_gives_a_wrong_part_of_a_signature_is_named_and_left_out() {
    let (scene, kind) = (Scene::new(), Kind::Ed25519);
    let (key, share) = scene.key(kind, SchemeId::Ed25519);
    let (mut house, signer) = bad_signer(scene, share, Spoils::Part);
    let signatures: Vec<_> = (0..6).map(|_| house.sign(0, kind, key, MESSAGE).unwrap()).collect();
    assert_eq!(signer.asked.load(Ordering::Relaxed), 1, "asked once, and left out from then on");
    for signature in signatures {
        house.check(1, kind, ObjectId([9 ^ 0xff; 16]), &signature);
    }
    let records = house.nodes[0].records("SignShared");
    let named = records.iter().filter(|record| record.detail.contains("node z broke the protocol")).count();
    assert_eq!(named, 1, "{records:?}");
    // An hour later it may be asked again.
    house.nodes[0].world.platform.pass(3_600_000_000);
    house.desks[0] = house.log_in(0);
    house.nodes[1].world.platform.pass(3_600_000_000);
    (0..4).for_each(|_| drop(house.sign(0, kind, key, MESSAGE).unwrap()));
    assert!(signer.asked.load(Ordering::Relaxed) > 1);
}

#[test]
fn garbage_is_blamed_on_whoever_sent_it_and_another_signs() {
    let (scene, kind) = (Scene::new(), Kind::Ed25519);
    let (key, share) = scene.key(kind, SchemeId::Ed25519);
    let (house, signer) = bad_signer(scene, share, Spoils::Letters);
    for _ in 0..4 {
        let signature = house.sign(0, kind, key, MESSAGE).unwrap();
        house.check(1, kind, ObjectId([9 ^ 0xff; 16]), &signature);
    }
    assert!(signer.asked.load(Ordering::Relaxed) > 0, "it had its turn");
    // Alone with it nothing is signed, and it is known whose letter it was.
    house.cut_off(&["b"]);
    let fault = house.sign(0, kind, key, MESSAGE).unwrap_err();
    assert!(fault.detail.contains("no message of this version"), "{fault}");
    let records = house.nodes[0].records("SignShared");
    assert!(records.iter().all(|record| !record.detail.contains("broke the protocol")), "{records:?}");
}

#[test]
fn whoever_spoils_signatures_in_silence_is_asked_after_the_others() {
    let (scene, kind) = (Scene::of(4), Kind::Ed25519);
    let (key, share) = scene.key_of(&kind.wish(3, 5), (SchemeId::Ed25519, 3));
    let (mut house, signer) = bad_signer(scene, share, Spoils::Everything);
    let sign = |house: &House| {
        for _ in 0..8 {
            let signature = house.sign(0, kind, key, MESSAGE).unwrap();
            house.check(1, kind, ObjectId([9 ^ 0xff; 16]), &signature);
        }
        signer.asked.load(Ordering::Relaxed)
    };
    // Whoever waited for its letter looks the same: nobody can say whose fault it was.
    let asked = sign(&house);
    assert!((1..=3).contains(&asked), "{asked}");
    assert!(house.nodes[0].records("SignShared").iter().all(|record| !record.detail.contains("broke")));
    assert_eq!(sign(&house), asked, "and not again");
    // Ten minutes later it has another chance.
    house.nodes.iter().for_each(|node| node.world.platform.pass(600_000_000));
    house.desks[0] = house.log_in(0);
    house.desks[1] = house.log_in(1);
    let again = sign(&house) - asked;
    assert!((1..=3).contains(&again), "{again}");
}

/// A bad node spoils signatures so: honest nodes give the application every one that it wants, and soon do without it.
fn they_sign_without_it(kind: Kind, scheme: SchemeId, (t, n): (u8, u8), spoils: Spoils) {
    let scene = Scene::of(usize::from(n) - 1);
    let (key, share) = scene.key_of(&kind.wish(t, n), (scheme, t));
    let (house, signer) = bad_signer(scene, share, spoils);
    let sign = || {
        for at in [0, 0, 0, 0, 1, 1, 1, 1] {
            let signature = house.sign(at, kind, key, MESSAGE);
            let signature = signature.unwrap_or_else(|fault| panic!("{spoils:?} at node {at}: {fault}"));
            house.check(1, kind, ObjectId([9 ^ 0xff; 16]), &signature);
        }
        signer.asked.load(Ordering::Relaxed)
    };
    let asked = sign();
    assert!((1..=6).contains(&asked), "{spoils:?}: it had its turn: {asked}");
    assert_eq!(sign(), asked, "{spoils:?}: and not again");
    for node in &house.nodes {
        let records = node.records("SignShared");
        assert!(records.iter().all(|record| !record.detail.contains("broke the protocol")), "{records:?}");
    }
}

#[test]
fn one_that_is_done_without_a_word_stops_no_signature() {
    they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (2, 3), Spoils::Everything);
    they_sign_without_it(Kind::K1, SchemeId::EcdsaSecp256k1, (2, 3), Spoils::Everything);
    they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (3, 5), Spoils::Everything);
}

#[test]
fn one_that_is_done_without_a_word_in_the_second_round_stops_no_signature() {
    they_sign_without_it(Kind::K1, SchemeId::EcdsaSecp256k1, (2, 3), Spoils::Rest);
}

#[test]
fn one_that_does_not_begin_and_names_nobody_stops_no_signature() {
    for spoils in [Spoils::Behind, Spoils::Elsewhen, Spoils::GivesUp, Spoils::Slanders] {
        they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (2, 3), spoils);
        they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (3, 5), spoils);
    }
}

#[test]
fn one_that_seals_what_is_for_the_coordinator_is_suspected() {
    they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (2, 3), Spoils::Seals);
}

#[test]
fn one_whose_letters_are_bound_to_another_signature_is_suspected() {
    let (kind, scheme) = (Kind::K1, SchemeId::EcdsaSecp256k1);
    they_sign_without_it(kind, scheme, (2, 3), Spoils::Binding);
    let scene = Scene::new();
    let (key, share) = scene.key(kind, scheme);
    let (house, _signer) = bad_signer(scene, share, Spoils::Binding);
    house.beat();
    house.cut_off(&["b"]);
    let fault = house.sign(0, kind, key, MESSAGE).unwrap_err();
    assert!(fault.detail.contains("(suspects: 3)"), "{fault}");
}

#[test]
fn one_that_behaves_towards_the_coordinator_only_is_suspected_and_not_those_that_it_hinders() {
    for spoils in [Spoils::Sessions, Spoils::Bans] {
        they_sign_without_it(Kind::Ed25519, SchemeId::Ed25519, (3, 5), spoils);
        they_sign_without_it(Kind::K1, SchemeId::EcdsaSecp256k1, (2, 3), spoils);
    }
}
