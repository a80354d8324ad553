//! Signing: whoever may, with whoever is there.

use super::*;
use strongroom_shared::fault::FaultCode;

fn every_subset_signs(kind: Kind, t: usize, n: usize) {
    let house = House::new(n);
    let made = house.generate(0, &kind.wish(t as u8, n as u8)).unwrap();
    let names: Vec<String> = house.nodes.iter().map(|node| node.name.clone()).collect();
    for subset in subsets(t, n) {
        let there: Vec<String> = subset.iter().map(|at| names[*at].clone()).collect();
        house.net.weather(
            move |_, to, _| {
                if there.iter().any(|name| name == to) { Mishap::None } else { Mishap::Lost }
            },
        );
        let recorded = || -> Vec<usize> {
            let done = |node: &Node| {
                node.records("SignShared").into_iter().filter(|r| r.outcome == Outcome::Done).count()
            };
            house.nodes.iter().map(done).collect()
        };
        let before = recorded();
        let signature = house.sign(subset[0], kind, made.private.id, MESSAGE);
        let signature = signature.unwrap_or_else(|fault| panic!("{kind:?} {subset:?}: {fault}"));
        house.check(subset[0], kind, made.public.id, &signature);
        for (at, (before, after)) in before.into_iter().zip(recorded()).enumerate() {
            assert_eq!(after > before, subset.contains(&at), "{subset:?}: the records of node {at}");
        }
    }
}

#[test]
fn every_two_of_three_sign_ed25519() {
    every_subset_signs(Kind::Ed25519, 2, 3);
}

#[test]
fn every_three_of_five_sign_ed25519() {
    every_subset_signs(Kind::Ed25519, 3, 5);
}

#[test]
fn every_two_of_three_sign_bip340() {
    every_subset_signs(Kind::Bip340, 2, 3);
}

#[test]
fn every_three_of_five_sign_bip340() {
    every_subset_signs(Kind::Bip340, 3, 5);
}

#[test]
fn every_two_of_three_sign_ecdsa_on_secp256k1() {
    every_subset_signs(Kind::K1, 2, 3);
}

#[test]
fn every_three_of_five_sign_ecdsa_on_secp256k1() {
    every_subset_signs(Kind::K1, 3, 5);
}

#[test]
fn every_two_of_three_sign_ecdsa_on_p256() {
    every_subset_signs(Kind::P256, 2, 3);
}

#[test]
fn every_three_of_five_sign_ecdsa_on_p256() {
    every_subset_signs(Kind::P256, 3, 5);
}

#[test]
fn too_few_nodes_do_not_sign_and_say_so() {
    let house = House::new(3);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    house.cut_off(&["b", "c"]);
    let fault = house.sign(0, Kind::Ed25519, made.private.id, MESSAGE).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing);
    assert!(fault.detail.contains("node b") && fault.detail.contains("node c"), "{fault}");
    let records = house.nodes[0].records("SignShared");
    assert_eq!(records.last().unwrap().outcome, Outcome::Failed, "{records:?}");
    house.clear_up();
    house.sign(0, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
}

#[test]
fn threads_sign_at_once_with_one_key_at_all_nodes() {
    let house = House::new(3);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..5 {
                    let at = thread % 3;
                    let signature = house.sign(at, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
                    house.check(at, Kind::Ed25519, made.public.id, &signature);
                }
            });
        }
    });
}

/// The ceremonies that records of an act speak of.
fn ceremonies(node: &Node, outcome: Outcome) -> Vec<String> {
    let records = node.records("SignShared").into_iter().filter(|record| record.outcome == outcome);
    let named = |record: AuditRecord| {
        let (_, rest) = record.detail.split_once("ceremony ").unwrap_or_else(|| panic!("{record:?}"));
        rest.split_whitespace().next().unwrap().to_owned()
    };
    records.map(named).collect()
}

#[test]
fn of_attempts_that_gave_no_signature_the_coordinator_says_so_in_one_record() {
    for kind in [Kind::Ed25519, Kind::K1] {
        let house = House::new(3);
        let key = house.generate(0, &kind.wish(2, 3)).unwrap().private.id;
        // The others give their parts, and nobody hears them.
        house.net.weather(|from, _, call| {
            let lost = from == "a" && call == CallId::SealedCall;
            if lost { Mishap::ReplyLost } else { Mishap::None }
        });
        let fault = house.sign(0, kind, key, MESSAGE).unwrap_err();
        assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
        let records = house.nodes[0].records("SignShared");
        let failed: Vec<_> = records.iter().filter(|record| record.outcome == Outcome::Failed).collect();
        assert_eq!((failed.len(), records.last().unwrap().outcome), (1, Outcome::Failed), "{records:?}");
        assert!(failed[0].detail.contains("node b") && failed[0].detail.contains("node c"), "{failed:?}");
        assert_eq!(failed[0].message_hash, openssl::sha::sha256(MESSAGE));
        let (_, tried) = failed[0].detail.rsplit_once("ceremonies tried: ").unwrap();
        let tried: Vec<&str> = tried.split(", ").collect();
        let given = house.nodes.iter().flat_map(|node| ceremonies(node, Outcome::Done)).collect::<Vec<_>>();
        assert!(tried.len() == 2 && given.len() == 4, "{tried:?} {given:?}");
        assert!(given.iter().all(|ceremony| tried.contains(&ceremony.as_str())), "{tried:?} {given:?}");
    }
}

#[test]
fn every_node_that_refuses_is_named() {
    let house = House::new(3);
    let key = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap().private.id;
    for at in 1..3 {
        let node = &house.nodes[at];
        let freeze = Freeze { partition: "trading".into(), key: Some(key) };
        node.world.ask(&node.vault, &node.admin(), &freeze).unwrap();
    }
    let fault = house.sign(0, Kind::Ed25519, key, MESSAGE).unwrap_err();
    assert_eq!(fault.code, FaultCode::Frozen, "{fault}");
    assert!(fault.detail.contains("node b") && fault.detail.contains("node c"), "{fault}");
}
