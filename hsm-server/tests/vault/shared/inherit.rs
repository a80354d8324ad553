//! A bad node that brings descendants to one that has a share of their master since now.

use minicbor::Decode;
use strongroom_server::{
    cluster::document::ClusterId,
    crypto::threshold::SchemeId,
    store::{Path, SealedStore},
};
use strongroom_shared::{
    object::{CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_EPOCH, CKA_STRONGROOM_PATH, Descent},
    secret::Secret,
};

use super::{
    children::{check, id_of, point, template, wish},
    double::{ChildClaim, Double, Question},
    hostile::Scene,
    *,
};

/// An object as a node keeps it.
#[derive(Decode)]
struct ObjectRecord {
    #[n(0)]
    attributes: Template,
}

/// The attributes of an object, out of a node's store.
fn kept(node: &Node, id: ObjectId) -> Template {
    let fill = Box::new(|bytes: &mut [u8]| bytes.fill(7));
    let store = SealedStore::open(node.world.store.copy(), Secret::new(ROOT), fill).unwrap();
    let is_it = |path: &Path| matches!(path, Path::Object(_, object) if *object == id);
    let record = store.1.into_iter().find(|(path, _)| is_it(path)).unwrap().1;
    minicbor::decode::<ObjectRecord>(&record).unwrap().attributes
}

#[test]
fn a_bad_node_brings_no_other_descendant_than_the_nodes_have_signed() {
    let mut scene = Scene::new();
    let mut wished = Kind::K1.wish(2, 3);
    wished.private.set(CKA_DERIVE, Value::Bool(true));
    let (master, _) = scene.key_of(&wished, (SchemeId::EcdsaSecp256k1, 2));
    // The second honest node will know nothing of what comes now.
    let before = scene.house.copy(1);
    let [(one, certificate), (other, of_other)] = [5, 6].map(|index| {
        let body = minicbor::to_vec(wish(master, &[index], template())).unwrap();
        let mandated = scene.house.mandated(CallId::DeriveKey, body);
        let certificate = scene.double.derive(&scene.talks(), &mandated);
        (id_of(&mandated), certificate)
    });
    let [genuine, sibling] = [one, other].map(|id| kept(&scene.house.nodes[0], id));
    let expected = point(&scene.house, 0, one);
    scene.house.put_back(1, &before);
    scene.house.beat();
    assert_eq!(keys(&scene.house, 1), [master]);

    let talks = scene.talks();
    let bring = |attributes: &Template, certificate: &[u8]| {
        let (attributes, certificate) = (attributes.clone(), certificate.to_vec());
        talks[1].ask(&Question::Inherit { attributes, certificate }).map(drop)
    };
    let refused = |attributes: &Template, certificate: &[u8], hint: &str| {
        let fault = bring(attributes, certificate).expect_err(hint);
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    };
    // The object is another than was signed.
    let unlike = "not what the nodes have signed";
    refused(&sibling, &certificate, unlike);
    refused(&genuine, &of_other, unlike);
    for (kind, value) in [
        (CKA_LABEL, Value::bytes(b"desk-2")),
        (CKA_DERIVE, Value::Bool(true)),
        (CKA_EXTRACTABLE, Value::Bool(true)),
        (CKA_SENSITIVE, Value::Bool(false)),
        (CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_ECDSA])),
        (CKA_PUBLIC_KEY_INFO, sibling.value(CKA_PUBLIC_KEY_INFO).unwrap().clone()),
        (CKA_STRONGROOM_CHAIN_CODE, Value::bytes([1; 32])),
        (CKA_STRONGROOM_PATH, Value::bytes([0, 0, 0, 6])),
        (CKA_STRONGROOM_EPOCH, Value::Ulong(0)),
        (CKA_VALUE, Value::bytes([1; 32])),
    ] {
        let mut changed = genuine.clone();
        changed.set(kind, value);
        refused(&changed, &certificate, unlike);
    }
    // Not everybody has signed it, or not this.
    refused(&genuine, &Double::respell(&certificate, |_| (), |signed| signed.swap(0, 1)), "not all nodes");
    refused(&genuine, &Double::respell(&certificate, |_| (), |signed| drop(signed.pop())), "not all nodes");
    let length = Double::respell(&certificate, |claim| assert!(claim.len() > 200), |_| ()).len();
    for place in (0..length).step_by(3) {
        let mut bad = certificate.clone();
        bad[place] ^= 1;
        assert!(bring(&genuine, &bad).is_err(), "byte {place}");
    }
    // Nobody but itself has signed it, at several seats, under other names, or for another key, cluster or partition.
    let claim = Double::child_claim(&certificate);
    let forged = |change: &dyn Fn(&mut ChildClaim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        scene.double.certify_child(&claim, &[91, 92])
    };
    refused(&genuine, &forged(&|_| ()), "too few of the nodes");
    refused(&genuine, &forged(&|claim| claim.cluster = ClusterId([8; 16])), "too few of the nodes");
    let stranger = |claim: &mut double::ChildClaim| {
        claim.descent = Descent { master: ObjectId([4; 16]), path: vec![5] };
    };
    refused(&genuine, &forged(&stranger), "no share of key");
    assert!(bring(&genuine, &forged(&|claim| claim.partition = "attic".into())).is_err());
    assert_eq!(keys(&scene.house, 1), [master], "nothing has come");
    let records = scene.house.nodes[1].records("DeriveShared");
    assert!(records.iter().all(|record| record.outcome != Outcome::Done), "{records:?}");

    // The true one is taken, whoever brings it, and signs.
    bring(&genuine, &certificate).unwrap();
    bring(&genuine, &certificate).unwrap();
    assert_eq!(keys(&scene.house, 1).len(), 2);
    assert_eq!(point(&scene.house, 1, one), expected);
    drop(talks);
    scene.house.beat();
    check(&expected, &scene.house.sign(1, Kind::K1, one, MESSAGE).unwrap());

    // Later on it brings nothing any more.
    scene.house.nodes.iter().for_each(|node| node.world.platform.pass(601_000_000));
    let late = scene.talks()[1].ask(&Question::Inherit { attributes: sibling, certificate: of_other });
    assert!(late.unwrap_err().detail.contains("a repair of it brings them"));
    assert_eq!(keys(&scene.house, 1).len(), 2);
}

/// What another node shows the application of a key: what it goes by there, and what stands there.
fn shown(scene: &Scene, object: ObjectId, public: Option<[u8; 32]>) -> Mandated {
    let body = minicbor::to_vec(DestroyObject { object }).unwrap();
    let mut mandate = scene.house.mandate(CallId::DestroyObject, body);
    if let (Some(seen), Some(public)) = (&mut mandate.seen, public) {
        seen.public = public;
    }
    signed(&mandate, &desk_key())
}

#[test]
fn a_bad_node_brings_nothing_back_that_was_destroyed_however_new_the_share_of_its_master_is() {
    let mut scene = Scene::new();
    let mut wished = Kind::K1.wish(2, 3);
    wished.private.set(CKA_DERIVE, Value::Bool(true));
    let (master, _) = scene.key_of(&wished, (SchemeId::EcdsaSecp256k1, 2));
    let before = scene.house.copy(1);
    let body = minicbor::to_vec(wish(master, &[5], template())).unwrap();
    let mut mandate = scene.house.mandate(CallId::DeriveKey, body);
    mandate.expires += 60;
    let mandated = signed(&mandate, &desk_key());
    let certificate = scene.double.derive(&scene.talks(), &mandated);
    let (child, genuine) = (id_of(&mandated), kept(&scene.house.nodes[0], id_of(&mandated)));
    // The second honest node has never heard of it.
    scene.house.put_back(1, &before);
    scene.house.beat();
    assert_eq!((keys(&scene.house, 0).len(), keys(&scene.house, 1).len()), (2, 1));

    // An application that was shown another key by its name has not destroyed this one.
    let other = shown(&scene, child, Some([1; 32]));
    let bring = |scene: &Scene, at: usize| {
        let (attributes, certificate) = (genuine.clone(), certificate.clone());
        scene.talks()[at].ask(&Question::Inherit { attributes, certificate }).map(drop)
    };
    let talks = scene.talks();
    let destroy = Question::Destroy { mandated: other, agreements: Vec::new() };
    assert!(talks[0].ask(&destroy).unwrap_err().detail.contains("another key"));
    talks[1].ask(&destroy).unwrap();
    drop(talks);
    bring(&scene, 1).unwrap();
    assert_eq!((keys(&scene.house, 0).len(), keys(&scene.house, 1).len()), (2, 2));

    // Nor does it help that a node knew nothing of what was destroyed.
    scene.house.put_back(1, &before);
    scene.house.beat();
    assert_eq!((keys(&scene.house, 0).len(), keys(&scene.house, 1).len()), (2, 1));
    let destroy = shown(&scene, child, None);
    (0..2).for_each(|at| scene.double.destroy(&scene.talks(), at, &destroy).unwrap());
    for restarted in [false, true] {
        if restarted {
            (0..2).for_each(|at| scene.house.restart(at));
        }
        for at in 0..2 {
            let fault = bring(&scene, at).unwrap_err();
            assert!(fault.detail.contains("was destroyed at this node"), "node {at}: {fault}");
            let again = scene.talks()[at].ask(&Question::MayDerive(mandated.clone())).unwrap_err();
            assert!(again.detail.contains("was destroyed at this node"), "node {at}: {again}");
            assert_eq!(keys(&scene.house, at), [master], "node {at}");
        }
    }
}
