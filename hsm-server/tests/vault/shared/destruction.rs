//! Shares that are not used, those that wait and those that were replaced: a bad node that has them destroyed without
//! right, nodes that are away when their key is destroyed, and marks of what was never there.

use strongroom_server::{
    cluster::order::{OrderedAct, Seat},
    crypto::threshold::SchemeId,
    store::Store,
};
use strongroom_shared::{fault::FaultCode, shares::Claim};

use super::{
    double::{Agreement, Question},
    hostile::Scene,
    *,
};

const ED: Kind = Kind::Ed25519;

fn wish(threshold: u8, parties: u8, destroyable: bool) -> GenerateKeyPair {
    let mut wish = ED.wish(threshold, parties);
    wish.private.set(CKA_DESTROYABLE, Value::Bool(destroyable));
    wish
}

/// Whether a node keeps a share of this key that is not used: one that waits, or a former one.
fn keeps(house: &House, at: usize, key: ObjectId) -> bool {
    let rows = house.nodes[at].world.store.load().unwrap();
    let kinds = [format!("/pending/{key}/"), format!("/former/{key}")];
    rows.iter().any(|row| kinds.iter().any(|kind| row.path.contains(kind)))
}

/// Has the bad node ask a node to destroy what it has of a key, with the word of everybody who gives it.
fn destroy(scene: &Scene, at: usize, mandate: &Mandate) -> Result<(), Fault> {
    scene.double.destroy(&scene.talks(), at, &signed(mandate, &desk_key()))
}

/// That a node destroys what it keeps of a key, and does not use, by right only.
fn is_destroyed_by_right(scene: &Scene, (at, key): (usize, ObjectId), mandate: &Mandate, destroyable: bool) {
    let house = &scene.house;
    assert!(keeps(house, at, key));
    let mut other = mandate.clone();
    other.seen.as_mut().unwrap().label = b"cold".to_vec();
    let fault = destroy(scene, at, &other).unwrap_err();
    assert!(fault.detail.contains("CKA_LABEL differs"), "{fault}");
    let node = &house.nodes[at];
    let (admin, partition) = (node.admin(), String::from("trading"));
    node.world.ask(&node.vault, &admin, &Freeze { partition: partition.clone(), key: None }).unwrap();
    assert_eq!(code(destroy(scene, at, mandate)), FaultCode::Frozen);
    node.world.ask(&node.vault, &admin, &Thaw { partition, key: None }).unwrap();
    assert!(keeps(house, at, key));
    let destroyed = destroy(scene, at, mandate);
    if destroyable {
        destroyed.unwrap();
    } else {
        assert_eq!(code(destroyed), FaultCode::ActionProhibited);
    }
    assert_eq!(keeps(house, at, key), !destroyable);
}

#[test]
fn a_share_that_waits_is_destroyed_by_the_same_right_as_one_that_is_used() {
    for destroyable in [true, false] {
        let (scene, key) = (Scene::new(), [9; 16]);
        let made =
            scene.house.mandated(CallId::GenerateKeyPair, minicbor::to_vec(wish(2, 3, destroyable)).unwrap());
        // The bad node keeps the certificate.
        let (_, statements) = scene.double.begin_key(&scene.talks(), (SchemeId::Ed25519, 2), key, &made);
        let claim: Claim = minicbor::decode(&statements[0].claim).unwrap();
        let body = minicbor::to_vec(DestroyObject { object: ObjectId(key) }).unwrap();
        let mut mandate = scene.house.mandate_unseen(CallId::DestroyObject, body);
        let public = openssl::sha::sha256(&claim.key);
        mandate.seen = Some(Seen { public, label: b"desk-1".to_vec(), id: Vec::new() });
        is_destroyed_by_right(&scene, (1, ObjectId(key)), &mandate, destroyable);
    }
}

#[test]
fn a_share_that_was_replaced_is_destroyed_by_the_same_right_as_one_that_is_used() {
    let reshare = |scene: &Scene, key| {
        let seats = (0..2).map(|at| scene.house.seat(at)).collect();
        scene.house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats })
    };
    let begin = |destroyable| {
        let scene = Scene::of(3);
        let (key, _) = scene.key_of(&wish(2, 4, destroyable), (SchemeId::Ed25519, 2));
        (scene, key)
    };
    let (scene, key) = begin(true);
    let calls = scene.house.strike("a", usize::MAX, Mishap::None);
    reshare(&scene, key).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    for destroyable in [true, false] {
        let (scene, key) = begin(destroyable);
        let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
        let mandate = scene.house.mandate(CallId::DestroyObject, body);
        // Everybody has the certificate, and the last words are lost: that the new shares sign.
        let count = AtomicUsize::new(0);
        scene.house.net.weather(move |from, _, call| {
            let sent = from == "a" && call == CallId::SealedCall;
            let lost = sent && count.fetch_add(1, Ordering::Relaxed) + 3 >= calls;
            if lost { Mishap::Lost } else { Mishap::None }
        });
        reshare(&scene, key).unwrap();
        scene.house.clear_up();
        assert!(keys(&scene.house, 2).is_empty(), "the third has left");
        is_destroyed_by_right(&scene, (2, key), &mandate, destroyable);
    }
}

/// The application has a key destroyed by way of this node.
fn destroy_everywhere(house: &House, at: usize, key: ObjectId) -> Result<Done, Fault> {
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    house.ask(at, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) })
}

fn reshare(house: &House, at: usize, key: ObjectId, seats: &[usize]) -> Result<OrderState, Fault> {
    let seats = seats.iter().map(|at| house.seat(*at)).collect();
    house.renew(at, key, OrderedAct::Reshare { threshold: 2, seats })
}

/// What the nodes have of a key, by the kinds of rows.
fn left(house: &House, key: ObjectId) -> Vec<Vec<String>> {
    let of_node = |node: &Node| {
        let rows = node.world.store.load().unwrap().into_iter().map(|row| row.path);
        let of_key = rows.filter(|path| path.contains(&key.to_string()));
        of_key.map(|path| path.split('/').nth(2).unwrap().to_owned()).collect()
    };
    house.nodes.iter().map(of_node).collect()
}

/// A bad node beside four, and a key of the first two that was to move to the next two, of which one has its share and
/// has said so.
fn half_moved_beside_a_bad_node() -> (Scene, ObjectId) {
    let begin = || {
        let scene = Scene::of(4);
        let (key, _) = scene.key_of(&ED.wish(2, 5), (SchemeId::Ed25519, 2));
        reshare(&scene.house, 0, key, &[0, 1]).unwrap();
        (scene, key)
    };
    let (scene, key) = begin();
    let calls = scene.house.strike("a", usize::MAX, Mishap::None);
    reshare(&scene.house, 0, key, &[2, 3]).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    // The bad node is not among those that the last questions go to.
    for back in 4..8 {
        let (scene, key) = begin();
        scene.house.strike("a", calls - back, Mishap::ReplyLost);
        let moved = reshare(&scene.house, 0, key, &[2, 3]);
        scene.house.clear_up();
        if moved.is_err() && (2..4).all(|at| keeps(&scene.house, at, key)) {
            return (scene, key);
        }
    }
    panic!("no call of {calls} is the one that leaves shares waiting");
}

#[test]
fn a_node_that_dealt_destroys_nothing_without_the_word_of_those_it_dealt_for() {
    let (scene, key) = half_moved_beside_a_bad_node();
    let house = &scene.house;
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let mandate = house.mandate(CallId::DestroyObject, body);
    let (admin, partition) = (house.nodes[2].admin(), String::from("trading"));
    let freeze = Freeze { partition: partition.clone(), key: None };
    house.nodes[2].world.ask(&house.nodes[2].vault, &admin, &freeze).unwrap();
    for at in [0, 1] {
        let fault = destroy(&scene, at, &mandate).unwrap_err();
        assert!(fault.detail.contains("node c has not said"), "{fault}");
    }
    house.sign(0, ED, key, MESSAGE).unwrap();
    house.nodes[2].world.ask(&house.nodes[2].vault, &admin, &Thaw { partition, key: None }).unwrap();
    destroy(&scene, 0, &mandate).unwrap();
}

#[test]
fn a_node_that_has_said_that_it_has_nothing_of_a_key_makes_no_share_of_it_for_a_while() {
    let scene = Scene::of(3);
    let (key, _) = scene.key_of(&ED.wish(2, 4), (SchemeId::Ed25519, 2));
    let house = &scene.house;
    reshare(house, 0, key, &[0, 1]).unwrap();
    // Even to one whom it does not believe: there is nothing that it could destroy.
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[51; 32]).unwrap();
    let mandated = signed(&house.mandate(CallId::DestroyObject, body), &stranger);
    let agreements = scene.double.agreements(&scene.talks(), &mandated);
    assert_eq!(agreements.len(), 2, "its own, and that of the one that has nothing");
    let fault = reshare(house, 0, key, &[0, 1, 2]).unwrap_err();
    assert!(fault.detail.contains("it has nothing of this key"), "{fault}");
    house.nodes.iter().for_each(|node| node.world.platform.pass(200_000_000));
    house.beat();
    reshare(house, 0, key, &[0, 1, 2]).unwrap();
}

/// A key of the first two nodes, which was to move to the next two: one of those has its share and has said so, and
/// whether somebody has the certificate nobody knows.
fn half_moved(count: usize) -> (House, ObjectId, &'static str) {
    let begin = || {
        let house = House::ruled(count, 1);
        let key = house.generate(0, &ED.wish(2, count.try_into().unwrap())).unwrap().private.id;
        reshare(&house, 0, key, &[0, 1]).unwrap();
        (house, key)
    };
    let (house, key) = begin();
    let calls = house.strike("a", usize::MAX, Mishap::None);
    reshare(&house, 0, key, &[2, 3]).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let (house, key) = begin();
    house.strike("a", calls - count, Mishap::ReplyLost);
    assert_eq!(code(reshare(&house, 0, key, &[2, 3])), FaultCode::QuorumMissing);
    house.clear_up();
    let waits = if keeps(&house, 2, key) { "c" } else { "d" };
    assert!(keeps(&house, if waits == "c" { 2 } else { 3 }, key));
    (house, key, waits)
}

#[test]
fn a_key_is_not_destroyed_while_a_newcomer_is_away_whose_share_of_it_waits() {
    let (mut house, key, waits) = half_moved(4);
    // Whoever dealt for it remembers.
    (0..2).for_each(|at| house.restart(at));
    house.beat();
    for at in [0, 1] {
        house.cut_off(if waits == "c" { &["c"] } else { &["d"] });
        let fault = destroy_everywhere(&house, at, key).unwrap_err();
        assert_eq!(fault.code, FaultCode::QuorumMissing);
        assert!(fault.detail.contains("nothing was destroyed"), "{fault}");
        assert!(fault.detail.contains(&format!("node {waits}")), "{fault}");
        house.clear_up();
        house.beat();
        house.sign(at, ED, key, MESSAGE).unwrap();
    }
    destroy_everywhere(&house, 0, key).unwrap();
    assert_eq!(left(&house, key), vec![["destroyed"]; 4]);
}

#[test]
fn those_who_hold_a_key_later_ask_its_dealers_for_whom_they_have_dealt() {
    let (house, key, waits) = half_moved(5);
    reshare(&house, 0, key, &[0, 4]).unwrap();
    house.cut_off(if waits == "c" { &["c"] } else { &["d"] });
    let fault = destroy_everywhere(&house, 4, key).unwrap_err();
    assert!(fault.detail.contains(&format!("node {waits}")), "{fault}");
    // Who is no member any more is waited for no longer.
    house.clear_up();
    let stays = |node: &&Node| node.name != waits;
    let document = life::two_administrators(3, &house.nodes.iter().filter(stays).collect::<Vec<_>>(), 1);
    house.nodes.iter().filter(stays).for_each(|node| assert!(node.install(&document).is_ok()));
    house.beat();
    destroy_everywhere(&house, 4, key).unwrap();
    for (node, left) in house.nodes.iter().zip(left(&house, key)) {
        // One that has left keeps what it knows of others: it cannot tell whose key was destroyed.
        let kept: &[&str] = if node.name == "b" { &["destroyed", "traces"] } else { &["destroyed"] };
        let gone = if node.name == waits { left.contains(&"pending".into()) } else { left == kept };
        assert!(gone, "node {}: {left:?}", node.name);
    }
}

#[test]
fn a_key_is_not_destroyed_while_a_node_is_away_that_has_not_heard_that_it_was_left_out() {
    let mut house = House::ruled(4, 1);
    let keys = [0, 1].map(|_| house.generate(0, &ED.wish(2, 4)).unwrap().private.id);
    house.cut_off(&["d"]);
    keys.iter().for_each(|key| drop(reshare(&house, 0, *key, &[0, 1, 2]).unwrap()));
    let fault = destroy_everywhere(&house, 1, keys[0]).unwrap_err();
    assert!(fault.detail.contains("node d"), "{fault}");
    house.clear_up();
    house.beat();
    destroy_everywhere(&house, 1, keys[0]).unwrap();
    assert_eq!(left(&house, keys[0]), vec![["destroyed"]; 4]);
    // One that says that it has nothing left is waited for no longer, though not at once: a ceremony may be under way.
    for hours in [0, 2] {
        house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000 + hours * 3_600_000_000));
        (0..3).for_each(|_| house.beat());
        house.desks = (0..4).map(|at| house.log_in(at)).collect();
        assert!(!left(&house, keys[1])[3].contains(&"share".into()));
        house.cut_off(&["d"]);
        if hours == 0 {
            let fault = destroy_everywhere(&house, 1, keys[1]).unwrap_err();
            assert!(fault.detail.contains("node d"), "{fault}");
        }
        if hours == 0 {
            house.clear_up();
            house.beat();
        }
    }
    destroy_everywhere(&house, 1, keys[1]).unwrap();
}

#[test]
fn administrators_lift_the_mark_of_a_key_that_was_never_there_and_no_other() {
    let scene = Scene::of(3);
    let (key, _) = scene.key_of(&ED.wish(2, 4), (SchemeId::Ed25519, 2));
    let house = &scene.house;
    reshare(house, 0, key, &[0, 1]).unwrap();
    assert_eq!(left(house, key)[2], Vec::<String>::new(), "the third has left");
    // A bad node shows it the word of the application, which no other has carried out.
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let mandate = || house.mandate(CallId::DestroyObject, body.clone());
    destroy(&scene, 2, &mandate()).unwrap();
    assert_eq!(left(house, key)[2], ["destroyed"]);
    house.nodes.iter().for_each(|node| node.world.platform.pass(200_000_000));
    house.beat();
    reshare(house, 0, key, &[0, 1, 2]).unwrap();
    let records = house.nodes[2].records("RenewShares");
    let lifted = |record: &AuditRecord| {
        record.detail.contains("of which nothing was here") && record.detail.contains("ann")
    };
    assert_eq!(records.iter().filter(|record| lifted(record)).count(), 1, "{records:?}");
    house.sign(2, ED, key, MESSAGE).unwrap();
    // What was there and was destroyed stays so.
    destroy(&scene, 2, &mandate()).unwrap();
    let Seat(node) = house.seat(2);
    let fault = house.renew(0, key, OrderedAct::Repair { node }).unwrap_err();
    assert!(fault.detail.contains("was destroyed at this node"), "{fault}");
    house.sign(0, ED, key, MESSAGE).unwrap();
}

#[test]
fn a_node_destroys_its_share_when_all_have_agreed_who_hold_one_and_not_before() {
    let scene = Scene::new();
    let (key, _) = scene.key(ED, SchemeId::Ed25519);
    let (house, talks) = (&scene.house, scene.talks());
    let mandated = |key| {
        let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
        house.mandated(CallId::DestroyObject, body)
    };
    let (one, other) = (mandated(key), mandated(key));
    let ask = |agreements: Vec<Agreement>| {
        talks[0].ask(&Question::Destroy { mandated: one.clone(), agreements }).map(drop)
    };
    // What the application asked for before counts for that alone.
    let before = scene.double.agreements(&talks, &other);
    assert_eq!(before.len(), 3);
    // The second honest node says no: the bad one is left with its own word and the first one's.
    let (admin, partition) = (house.nodes[1].admin(), String::from("trading"));
    let freeze = Freeze { partition: partition.clone(), key: None };
    house.nodes[1].world.ask(&house.nodes[1].vault, &admin, &freeze).unwrap();
    let two = scene.double.agreements(&talks, &one);
    assert_eq!(two.len(), 2);
    let forged = Agreement { node: before[2].node, ..two[0].clone() };
    let many = vec![two[0].clone(); 9];
    for (agreements, hint) in [
        (Vec::new(), "has not said"),
        (two.clone(), "node b has not said"),
        ([two.clone(), vec![before[2].clone()]].concat(), "node b has not said"),
        ([two.clone(), vec![forged]].concat(), "node b has not said"),
        (many, "more nodes agree than there are"),
    ] {
        let fault = ask(agreements).unwrap_err();
        assert!(fault.code == FaultCode::Forbidden && fault.detail.contains(hint), "{hint}: {fault}");
    }
    assert!(destroy_everywhere(house, 0, key).unwrap_err().detail.contains("nothing was destroyed"));
    assert_eq!(left(house, key)[0].iter().filter(|kind| *kind == "destroyed").count(), 0);
    house.nodes[1].world.ask(&house.nodes[1].vault, &admin, &Thaw { partition, key: None }).unwrap();
    house.sign(0, ED, key, MESSAGE).unwrap();
    ask(scene.double.agreements(&talks, &one)).unwrap();
    assert_eq!(left(house, key)[0], ["destroyed"]);
}

#[test]
fn administrators_lift_the_mark_of_a_key_of_which_they_have_shares_made() {
    let scene = Scene::new();
    let house = &scene.house;
    let mut wish = ED.wish(2, 3);
    wish.private
        .0
        .retain(|attribute| ![CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES].contains(&attribute.kind));
    let key = house.ask(0, &wish).unwrap().private.id;
    // The client's word, which nobody has carried out, is shown to a node that has nothing of the key.
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let mandated = house.mandated(CallId::DestroyObject, body);
    scene.talks()[1].ask(&Question::Destroy { mandated, agreements: Vec::new() }).unwrap();
    assert_eq!(left(house, key)[1], ["destroyed"]);
    let seats = (0..2).map(|at| house.seat(at)).collect();
    let order = house.order_of(key, 0, OrderedAct::Share { threshold: 2, seats });
    house.approve(0, &house.admin(0, life::ANN), &order, life::ANN).unwrap();
    let lifted = |record: &AuditRecord| record.detail.contains("of which nothing was here");
    assert_eq!(house.nodes[1].records("RenewShares").iter().filter(|record| lifted(record)).count(), 1);
    house.sign(1, ED, key, MESSAGE).unwrap();
}
