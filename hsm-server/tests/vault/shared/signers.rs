//! Every signer decides for itself, whatever the coordinator thinks.

use super::*;
use strongroom_shared::fault::FaultCode;

const ED: Kind = Kind::Ed25519;

fn made(house: &House) -> ObjectId {
    house.generate(0, &ED.wish(2, 3)).unwrap().private.id
}

fn set_policy(house: &House, at: usize, rule: &str) {
    let text = format!("[[rule]]\nname = \"desk\"\nkeys = [\"desk-*\"]\n{rule}\n");
    let call = SetPolicy { partition: "trading".into(), text };
    let node = &house.nodes[at];
    node.world.ask(&node.vault, &node.admin(), &call).unwrap();
}

/// Node a finds somebody else to sign with than b; b itself has nobody sign; with c of one mind with b, nobody does.
fn refusing(house: &House, key: ObjectId, refuse: impl Fn(usize), expected: FaultCode, hint: &str) {
    refuse(1);
    for _ in 0..4 {
        house.sign(0, ED, key, MESSAGE).unwrap();
    }
    let records = house.nodes[1].records("SignShared");
    let refused: Vec<_> = records.iter().filter(|record| record.outcome == Outcome::Refused).collect();
    assert!(!refused.is_empty(), "b was asked, and has it on record: {records:?}");
    assert!(refused.iter().all(|record| record.client == "node a"), "{refused:?}");
    refuse(2);
    let fault = house.sign(0, ED, key, MESSAGE).unwrap_err();
    assert_eq!(fault.code, expected, "{fault}");
    assert!(fault.detail.contains("node ") && fault.detail.contains(hint), "{fault}");
}

#[test]
fn a_policy_counts_at_the_node_that_has_it() {
    let house = House::new(3);
    let key = made(&house);
    let rule = "mechanisms = [\"CKM_ECDSA\"]";
    refusing(&house, key, |at| set_policy(&house, at, rule), FaultCode::PolicyRefused, "mechanisms");
    assert_eq!(code(house.sign(1, ED, key, MESSAGE)), FaultCode::PolicyRefused);
}

#[test]
fn a_freeze_counts_at_the_node_that_has_it() {
    let house = House::new(3);
    let key = made(&house);
    let freeze = |at: usize| {
        let node = &house.nodes[at];
        let call = Freeze { partition: "trading".into(), key: Some(key) };
        node.world.ask(&node.vault, &node.admin(), &call).unwrap();
    };
    refusing(&house, key, freeze, FaultCode::Frozen, "frozen");
}

#[test]
fn a_client_counts_where_it_is_admitted() {
    let house = House::new(3);
    let key = made(&house);
    let revoke = |at: usize| {
        let node = &house.nodes[at];
        let admin = node.admin();
        node.world.ask(&node.vault, &admin, &RevokeClient { name: "desk".into() }).unwrap();
    };
    refusing(&house, key, revoke, FaultCode::Forbidden, "hsmctl client admit");
}

#[test]
fn a_mandate_ends_by_every_nodes_own_clock() {
    let house = House::new(3);
    let key = made(&house);
    let pass = |at: usize| house.nodes[at].world.platform.pass(300_000_000);
    refusing(&house, key, pass, FaultCode::Forbidden, "clocks");
}

#[test]
fn an_attempt_that_fails_costs_nothing_more_of_a_limit() {
    let house = House::new(3);
    let key = made(&house);
    set_policy(&house, 0, "signatures_per_minute = 4");
    for _ in 0..4 {
        // The first node that is asked does not answer; the second one signs.
        house.strike("a", 0, Mishap::Lost);
        house.sign(0, ED, key, MESSAGE).unwrap();
        house.clear_up();
        // Greeted anew, without letting the minute pass.
        let document =
            document(house.net.said.lock().unwrap().len() as u64, &house.nodes.iter().collect::<Vec<_>>());
        house.nodes.iter().for_each(|node| assert!(node.install(&document).is_ok()));
        use strongroom_server::door::Door;
        house.nodes.iter().for_each(|node| node.vault.beat());
    }
    let fault = house.sign(0, ED, key, MESSAGE).unwrap_err();
    assert_eq!(fault.code, FaultCode::PolicyRefused);
    assert!(fault.detail.contains("4 signatures within a minute"), "{fault}");
    // A mandate that was refused is charged when it is shown again: it was not charged before.
    let mandated = house.mandated(CallId::Sign, to_sign(ED, key, MESSAGE));
    for _ in 0..2 {
        assert_eq!(code(house.ask(0, &SignShared { mandated: mandated.clone() })), FaultCode::PolicyRefused);
    }
}

#[test]
fn each_signer_has_the_signature_on_record_with_its_coordinator_and_its_client() {
    let house = House::new(3);
    let key = made(&house);
    house.cut_off(&["c"]);
    house.sign(0, ED, key, MESSAGE).unwrap();
    for (at, client) in [(0, "desk"), (1, "node a")] {
        let records = house.nodes[at].records("SignShared");
        let record = records.iter().rfind(|record| record.outcome == Outcome::Done).unwrap();
        assert_eq!((record.client.as_str(), record.partition.as_str()), (client, "trading"));
        assert_eq!((record.object, record.mechanism), (Some(key), Some(CKM_EDDSA)));
        assert_eq!(record.message_hash, openssl::sha::sha256(MESSAGE));
        assert!(record.detail.contains("of node a for client desk: a, b"), "{}", record.detail);
    }
    assert!(house.nodes[2].records("SignShared").is_empty());
}

#[test]
fn a_key_is_used_and_destroyed_by_an_application_that_was_shown_the_same_key() {
    let house = House::new(3);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let key = made.private.id;
    let good = house.mandate(CallId::Sign, to_sign(ED, key, MESSAGE));
    let seen = good.seen.clone().unwrap();
    assert_eq!((seen.label.as_slice(), seen.id.as_slice()), (&b"desk-1"[..], &[][..]));
    let sign = |seen: Option<Seen>| {
        let mandated = signed(&Mandate { seen, ..good.clone() }, &desk_key());
        house.ask(0, &SignShared { mandated }).map(drop)
    };
    for (other, hint) in [
        (Some(Seen { public: [1; 32], ..seen.clone() }), "CKA_PUBLIC_KEY_INFO differs"),
        (Some(Seen { label: b"desk-2".to_vec(), ..seen.clone() }), "CKA_LABEL differs"),
        (Some(Seen { id: vec![1], ..seen.clone() }), "CKA_ID differs"),
        (None, "does not say which key"),
    ] {
        let fault = sign(other.clone()).unwrap_err();
        assert_eq!(fault.code, FaultCode::Forbidden, "{fault}");
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
        let destroy =
            house.mandate(CallId::DestroyObject, minicbor::to_vec(DestroyObject { object: key }).unwrap());
        let mandated = signed(&Mandate { seen: other, ..destroy }, &desk_key());
        let fault = house.ask(0, &DestroyShared { mandated }).unwrap_err();
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    sign(Some(seen)).unwrap();
}
