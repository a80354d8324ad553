//! A bad node that has shares destroyed which are not used: those that wait, and those that were replaced.

use strongroom_server::{cluster::order::OrderedAct, crypto::threshold::SchemeId, store::Store};
use strongroom_shared::{fault::FaultCode, shares::Claim};

use super::{
    double::{Question, Talk},
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

/// Asks a node to destroy what it has of a key.
fn destroy(talk: &Talk<'_>, mandate: &Mandate) -> Result<(), Fault> {
    talk.ask(&Question::Destroy(signed(mandate, &desk_key()))).map(drop)
}

/// That a node destroys what it keeps of a key, and does not use, by right only.
fn is_destroyed_by_right(scene: &Scene, (at, key): (usize, ObjectId), mandate: &Mandate, destroyable: bool) {
    let (house, talk) = (&scene.house, scene.double.meet(&scene.house.nodes[at], &scene.document));
    assert!(keeps(house, at, key));
    let mut other = mandate.clone();
    other.seen.as_mut().unwrap().label = b"cold".to_vec();
    let fault = destroy(&talk, &other).unwrap_err();
    assert!(fault.detail.contains("CKA_LABEL differs"), "{fault}");
    let node = &house.nodes[at];
    let (admin, partition) = (node.admin(), String::from("trading"));
    node.world.ask(&node.vault, &admin, &Freeze { partition: partition.clone(), key: None }).unwrap();
    assert_eq!(code(destroy(&talk, mandate)), FaultCode::Frozen);
    node.world.ask(&node.vault, &admin, &Thaw { partition, key: None }).unwrap();
    assert!(keeps(house, at, key));
    let destroyed = destroy(&talk, mandate);
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
