//! BIP-32 descendants: at all nodes or at none, the ones that the world knows, and never apart from their master.

use strongroom_server::{
    cluster::order::{OrderedAct, Seat},
    crypto::threshold::{KeyId, SchemeId},
};

use super::{
    double::{End, Question, Reply, Task, party},
    hostile::{Scene, to_begin},
    *,
};
use strongroom_shared::{
    fault::FaultCode,
    mechanism::CKM_STRONGROOM_BIP32_CHILD,
    object::{CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_MASTER, CKA_STRONGROOM_PATH, ObjectInfo},
};

/// A key that may have descendants.
fn master(house: &House) -> KeyPair {
    let mut wish = Kind::K1.wish(2, 3);
    wish.private.set(CKA_DERIVE, Value::Bool(true));
    house.generate(0, &wish).unwrap()
}

pub fn template() -> Template {
    Template::new().with(CKA_TOKEN, Value::Bool(true)).with(CKA_LABEL, Value::bytes(b"desk-1"))
}

pub fn wish(base: ObjectId, path: &[u32], template: Template) -> DeriveKey {
    let mechanism = CKM_STRONGROOM_BIP32_CHILD;
    DeriveKey { mechanism, params: Params::Path(path.to_vec()), base, template }
}

fn derive(house: &House, at: usize, wish: &DeriveKey) -> Result<ObjectInfo, Fault> {
    let mandated = house.mandated(CallId::DeriveKey, minicbor::to_vec(wish).unwrap());
    house.ask(at, &DeriveShared { mandated })
}

fn destroy(house: &House, at: usize, object: ObjectId) -> Result<Done, Fault> {
    let body = minicbor::to_vec(DestroyObject { object }).unwrap();
    house.ask(at, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) })
}

fn bytes(house: &House, at: usize, object: ObjectId, kind: u64) -> Vec<u8> {
    let answers = house.ask(at, &ReadAttributes { object, kinds: vec![kind] }).unwrap().answers;
    let Answer::Value(Value::Bytes(value)) = &answers[0] else { panic!("{kind:#x}: {answers:?}") };
    value.to_vec()
}

/// The public key, uncompressed: the end of its SubjectPublicKeyInfo.
pub fn point(house: &House, at: usize, object: ObjectId) -> Vec<u8> {
    let info = bytes(house, at, object, CKA_PUBLIC_KEY_INFO);
    info[info.len() - 65..].to_vec()
}

/// BIP-32's CKDpub, by libsecp256k1 and OpenSSL: the child's public key and chain code.
fn child_of(point: &[u8], chain_code: &[u8], index: u32) -> (Vec<u8>, Vec<u8>) {
    let parent = secp256k1::PublicKey::from_slice(point).unwrap();
    let key = openssl::pkey::PKey::hmac(chain_code).unwrap();
    let mut hmac = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha512(), &key).unwrap();
    hmac.update(&parent.serialize()).unwrap();
    hmac.update(&index.to_be_bytes()).unwrap();
    let hash = hmac.sign_to_vec().unwrap();
    let tweak = secp256k1::Scalar::from_be_bytes(hash[..32].try_into().unwrap()).unwrap();
    let child = parent.add_exp_tweak(&tweak).unwrap();
    (child.serialize_uncompressed().to_vec(), hash[32..].to_vec())
}

pub fn check(point: &[u8], signature: &[u8]) {
    assert!(verifies(Kind::K1, point, MESSAGE, signature) && !verifies(Kind::K1, point, b"else", signature));
}

/// What `derive` makes of a mandate's text.
pub fn id_of(mandated: &Mandated) -> ObjectId {
    ObjectId(openssl::sha::sha256(&mandated.text)[..16].try_into().unwrap())
}

/// Only these answer.
fn only(house: &House, there: &'static [usize]) {
    let names: Vec<String> = there.iter().map(|at| house.nodes[*at].name.clone()).collect();
    house.net.weather(
        move |_, to, _| {
            if names.iter().any(|name| name == to) { Mishap::None } else { Mishap::Lost }
        },
    );
}

#[test]
fn descendants_are_those_of_bip32_at_every_node_and_every_two_sign() {
    let mut house = House::new(3);
    let master = master(&house).private.id;
    let child = derive(&house, 1, &wish(master, &[44, 0], template())).unwrap();
    let derivable = template().with(CKA_DERIVE, Value::Bool(true));
    let other = derive(&house, 0, &wish(master, &[7], derivable)).unwrap();
    let grandchild = derive(&house, 2, &wish(other.id, &[0x7fff_ffff], template())).unwrap();
    let (root, code) = (point(&house, 0, master), bytes(&house, 0, master, CKA_STRONGROOM_CHAIN_CODE));
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
            house.beat();
        }
        for at in 0..3 {
            for (id, path) in [(child.id, &[44, 0][..]), (other.id, &[7]), (grandchild.id, &[7, 0x7fff_ffff])]
            {
                let (expected, chain_code) =
                    path.iter().fold((root.clone(), code.clone()), |(point, code), index| {
                        child_of(&point, &code, *index)
                    });
                assert_eq!(point(&house, at, id), expected, "node {at}, {path:?}");
                assert_eq!(bytes(&house, at, id, CKA_STRONGROOM_CHAIN_CODE), chain_code);
                assert_eq!(bytes(&house, at, id, CKA_STRONGROOM_MASTER), master.to_string().into_bytes());
                let indices: Vec<u8> = path.iter().flat_map(|index: &u32| index.to_be_bytes()).collect();
                assert_eq!(bytes(&house, at, id, CKA_STRONGROOM_PATH), indices);
            }
            assert_eq!(house.ask(at, &DescribeObject { object: child.id }).unwrap(), child);
        }
        for there in [&[0, 1][..], &[1, 2], &[2, 0]] {
            only(&house, there);
            for id in [child.id, grandchild.id, master] {
                let signature = house.sign(there[0], Kind::K1, id, MESSAGE).unwrap();
                check(&point(&house, there[0], id), &signature);
            }
        }
        house.clear_up();
    }
    let records = house.nodes[0].records("SignShared");
    let with = format!("; with m/7/2147483647 of {master}");
    let named = |id| records.iter().rfind(|record| record.object == Some(id)).unwrap().detail.clone();
    assert!(named(grandchild.id).ends_with(&with), "{}", named(grandchild.id));
    assert!(!named(master).contains("; with"), "{}", named(master));
    let made = house.nodes[2].records("DeriveShared");
    assert!(made.iter().all(|record| record.outcome == Outcome::Done), "{made:?}");
    let waits = format!("m/44/0 of {master} for client desk, by way of node b; it waits for the others");
    assert!(made[0].detail == waits && made[0].object == Some(child.id), "{made:?}");
    assert!(made[1].detail.ends_with("every node has it"), "{made:?}");
}

#[test]
fn a_descendant_looks_like_a_derived_key_and_its_public_key_is_one_for_every_use() {
    let house = House::new(3);
    let pair = master(&house);
    let child = derive(&house, 0, &wish(pair.private.id, &[1], template())).unwrap();
    assert_eq!(child.shares, pair.private.shares);
    let kinds = vec![
        CKA_SENSITIVE,
        CKA_ALWAYS_SENSITIVE,
        CKA_NEVER_EXTRACTABLE,
        CKA_EXTRACTABLE,
        CKA_LOCAL,
        CKA_DERIVE,
        CKA_VALUE,
    ];
    let [yes, no] = [true, false].map(|value| Answer::Value(Value::Bool(value)));
    let expected = [&yes, &yes, &yes, &no, &no, &no, &Answer::Absent].map(Clone::clone);
    let answers = house.ask(0, &ReadAttributes { object: child.id, kinds }).unwrap().answers;
    assert_eq!(answers, expected);
    let point = point(&house, 0, child.id);
    let template = Template::new()
        .with(CKA_CLASS, Value::Ulong(CKO_PUBLIC_KEY))
        .with(CKA_KEY_TYPE, Value::Ulong(CKK_EC))
        .with(CKA_EC_PARAMS, Value::bytes(SECP256K1))
        .with(CKA_EC_POINT, Value::bytes([&[4, 65], point.as_slice()].concat()));
    let public = house.ask(0, &CreateObject { template }).unwrap();
    let signature = house.sign(0, Kind::K1, child.id, MESSAGE).unwrap();
    house.check(0, Kind::K1, public.id, &signature);
    // An administrator sees what it is.
    let node = &house.nodes[1];
    let keys = node.world.ask(&node.vault, &node.admin(), &ListKeys { partition: "trading".into() }).unwrap();
    let descent = |id| keys.keys.iter().find(|key| key.object.id == id).unwrap().descent.clone();
    assert_eq!(descent(child.id).unwrap().to_string(), format!("m/1 of {}", pair.private.id));
    assert_eq!(descent(pair.private.id), None);
}

#[test]
fn what_has_no_descendants_and_what_cannot_be_one_is_refused_and_leaves_nothing() {
    let house = House::new(3);
    let master = master(&house).private.id;
    let sealed = |house: &House| -> usize {
        house.net.said.lock().unwrap().iter().filter(|(_, _, frame)| frame.len() > 400).count()
    };
    let ordinary = house.ask(0, &ec_pair("desk-1")).unwrap().private.id;
    let mut undecided = Kind::K1.wish(2, 3);
    undecided.private.set(CKA_LABEL, Value::bytes(b"x"));
    let undecided = house.generate(0, &undecided).unwrap().private.id;
    let shared = |kind: Kind| {
        let mut wish = kind.wish(2, 3);
        wish.private.set(CKA_DERIVE, Value::Bool(true));
        house.generate(0, &wish).unwrap().private.id
    };
    let (edwards, bip340) = (shared(Kind::Ed25519), shared(Kind::Bip340));
    let mut narrow = Kind::K1.wish(2, 3);
    narrow.private.set(CKA_DERIVE, Value::Bool(true));
    narrow.private.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_ECDSA_SHA256]));
    let narrow = house.generate(0, &narrow).unwrap().private.id;
    let before: Vec<_> = (0..3).map(|at| keys(&house, at)).collect();
    let said = sealed(&house);
    let with = |kind, value| wish(master, &[0], template().with(kind, value));
    let (bool, ulong) = (Value::Bool, Value::Ulong);
    let raw = Value::Mechanisms(vec![CKM_STRONGROOM_BIP340]);
    for (wish, expected) in [
        (wish(ordinary, &[0], template()), FaultCode::KeyTypeInconsistent),
        (wish(edwards, &[0], template()), FaultCode::KeyTypeInconsistent),
        (wish(bip340, &[0], template()), FaultCode::KeyTypeInconsistent),
        (wish(undecided, &[0], template()), FaultCode::KeyFunctionNotPermitted),
        (wish(narrow, &[0], template()), FaultCode::MechanismInvalid),
        (wish(ObjectId([1; 16]), &[0], template()), FaultCode::KeyHandleInvalid),
        (wish(master, &[], template()), FaultCode::MechanismParamInvalid),
        (wish(master, &[1 << 31], template()), FaultCode::MechanismParamInvalid),
        (wish(master, &[0, u32::MAX], template()), FaultCode::MechanismParamInvalid),
        (wish(master, &[0; 17], template()), FaultCode::MechanismParamInvalid),
        (
            DeriveKey { params: Params::None, ..with(CKA_ID, Value::bytes([1])) },
            FaultCode::MechanismParamInvalid,
        ),
        (DeriveKey { mechanism: CKM_ECDSA, ..with(CKA_ID, Value::bytes([1])) }, FaultCode::MechanismInvalid),
        (with(CKA_TOKEN, bool(false)), FaultCode::TemplateInconsistent),
        (with(CKA_SENSITIVE, bool(false)), FaultCode::TemplateInconsistent),
        (with(CKA_EXTRACTABLE, bool(true)), FaultCode::TemplateInconsistent),
        (with(CKA_CLASS, ulong(CKO_SECRET_KEY)), FaultCode::TemplateInconsistent),
        (with(CKA_KEY_TYPE, ulong(CKK_RSA)), FaultCode::TemplateInconsistent),
        (with(CKA_VALUE, Value::bytes([1; 32])), FaultCode::TemplateInconsistent),
        (with(CKA_STRONGROOM_THRESHOLD, ulong(2)), FaultCode::AttributeReadOnly),
        (with(CKA_STRONGROOM_CHAIN_CODE, Value::bytes([1; 32])), FaultCode::AttributeReadOnly),
        (with(CKA_ALLOWED_MECHANISMS, raw), FaultCode::TemplateInconsistent),
    ] {
        assert_eq!(code(derive(&house, 0, &wish)), expected, "{wish:?}");
    }
    assert_eq!(sealed(&house), said, "nobody was asked");
    // The ordinary call, which the other nodes would not believe.
    let plain = house.ask(0, &wish(master, &[0], template()));
    assert_eq!(code(plain), FaultCode::KeyFunctionNotPermitted);
    assert_eq!(code(house.ask(0, &wish(ordinary, &[0], template()))), FaultCode::KeyTypeInconsistent);
    for (at, before) in before.iter().enumerate() {
        assert_eq!(keys(&house, at), *before, "node {at}");
    }
    // Sixteen generations, and no more.
    let deep = derive(&house, 0, &wish(master, &[3; 16], template().with(CKA_DERIVE, bool(true)))).unwrap();
    let signature = house.sign(2, Kind::K1, deep.id, MESSAGE).unwrap();
    check(&point(&house, 1, deep.id), &signature);
    assert_eq!(code(derive(&house, 0, &wish(deep.id, &[0], template()))), FaultCode::MechanismParamInvalid);
}

#[test]
fn a_descendant_does_not_get_away_from_rules_freezes_or_mechanisms() {
    let house = House::new(3);
    let mut wished = Kind::K1.wish(2, 3);
    wished.private.set(CKA_DERIVE, Value::Bool(true));
    let allowed = vec![CKM_ECDSA_SHA256, CKM_STRONGROOM_BIP32_CHILD];
    wished.private.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(allowed));
    let master = house.generate(0, &wished).unwrap().private.id;
    let rule = "[[rule]]\nname = \"desk\"\nkeys = [\"desk-*\"]\nsignatures_per_minute = 2\n";
    for node in &house.nodes {
        let call = SetPolicy { partition: "trading".into(), text: rule.into() };
        node.world.ask(&node.vault, &node.admin(), &call).unwrap();
    }
    let free = template().with(CKA_LABEL, Value::bytes(b"free"));
    assert_eq!(code(derive(&house, 0, &wish(master, &[0], free))), FaultCode::PolicyRefused);
    // Two objects of the same key share its limit; another key has its own.
    let twins = [0, 1].map(|at| derive(&house, at, &wish(master, &[0], template())).unwrap().id);
    assert_ne!(twins[0], twins[1]);
    let other = derive(&house, 0, &wish(master, &[1], template())).unwrap().id;
    only(&house, &[0, 1]);
    for twin in twins {
        house.sign(0, Kind::K1, twin, MESSAGE).unwrap();
    }
    for twin in twins {
        assert_eq!(code(house.sign(0, Kind::K1, twin, MESSAGE)), FaultCode::PolicyRefused);
    }
    house.sign(0, Kind::K1, other, MESSAGE).unwrap();
    let raw = Sign { key: other, mechanism: CKM_ECDSA, params: Params::None, input: vec![1; 32] };
    let mandated = house.mandated(CallId::Sign, minicbor::to_vec(raw).unwrap());
    assert_eq!(code(house.ask(0, &SignShared { mandated })), FaultCode::MechanismInvalid);
    // A freeze of the master is one of all that descends from it.
    house.clear_up();
    let node = &house.nodes[0];
    let freeze = Freeze { partition: "trading".into(), key: Some(master) };
    node.world.ask(&node.vault, &node.admin(), &freeze).unwrap();
    assert_eq!(code(house.sign(0, Kind::K1, other, MESSAGE)), FaultCode::Frozen);
    assert_eq!(code(derive(&house, 0, &wish(master, &[2], template()))), FaultCode::Frozen);
    assert_eq!(code(destroy(&house, 0, other)), FaultCode::Frozen);
    let listed = ListKeys { partition: "trading".into() };
    let keys = node.world.ask(&node.vault, &node.admin(), &listed).unwrap().keys;
    assert!(keys.iter().find(|key| key.object.id == other).unwrap().frozen);
}

#[test]
fn a_descendant_is_at_all_nodes_or_at_none_whatever_happens() {
    let mut house = House::new(3);
    let master = master(&house).private.id;
    let calls = house.strike("a", usize::MAX, Mishap::None);
    derive(&house, 0, &wish(master, &[0], template())).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let earlier = house.net.said.lock().unwrap().last().unwrap().2.clone();
    let (mut made, mut index) = (2, 0);
    for after in 0..calls {
        for mishap in weather::mishaps(&earlier) {
            house.strike("a", after, mishap.clone());
            index += 1;
            let done = derive(&house, 0, &wish(master, &[index], template()));
            weather::recover(&mut house);
            made += usize::from(done.is_ok());
            let all = keys(&house, 0);
            assert_eq!(all.len(), made, "{mishap:?} after {after}: {done:?}");
            for at in 1..3 {
                assert_eq!(keys(&house, at), all, "{mishap:?} after {after}, node {at}");
            }
        }
    }
    assert!(made > 2 && made < 2 + calls * weather::mishaps(&[]).len(), "{made}");
}

#[test]
fn a_descendant_that_was_refused_never_comes_to_life() {
    let mut house = House::new(3);
    let master = master(&house).private.id;
    house.cut_off(&["c"]);
    let fault = derive(&house, 0, &wish(master, &[0], template())).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing);
    assert!(fault.detail.contains("no descendant was made") && fault.detail.contains("node c"), "{fault}");
    assert!(house.nodes[1].records("DeriveShared").is_empty(), "nothing waits for a node that is down");
    // The answer of one that has agreed is lost: it waits, and nobody has a certificate.
    house.clear_up();
    house.beat();
    house.strike("a", 3, Mishap::ReplyLost);
    assert_eq!(code(derive(&house, 0, &wish(master, &[0], template()))), FaultCode::QuorumMissing);
    let waits = |house: &House, text: &str| {
        let records = house.nodes.iter().flat_map(|node| node.records("DeriveShared"));
        records.filter(|record| record.detail.contains(text)).count()
    };
    assert_eq!(waits(&house, "it waits for the others"), 2);
    weather::recover(&mut house);
    for node in &house.nodes {
        node.world.platform.pass(3_600_000_000);
    }
    house.beat();
    assert_eq!(waits(&house, "it was dropped"), 2);
    (0..3).for_each(|at| house.restart(at));
    house.beat();
    for at in 0..3 {
        house.desks[at] = house.log_in(at);
        assert_eq!(keys(&house, at), [master], "node {at}");
    }
}

#[test]
fn a_mandate_is_for_one_descendant_and_no_node_is_talked_into_another() {
    let house = House::new(3);
    let master = master(&house).private.id;
    let call = wish(master, &[0], template());
    let mandated = house.mandated(CallId::DeriveKey, minicbor::to_vec(&call).unwrap());
    let made = house.ask(0, &DeriveShared { mandated: mandated.clone() }).unwrap();
    for at in 0..3 {
        let again = house.ask(at, &DeriveShared { mandated: mandated.clone() });
        assert_eq!(code(again), FaultCode::Forbidden, "node {at}");
    }
    destroy(&house, 0, made.id).unwrap();
    for at in 0..3 {
        let again = house.ask(at, &DeriveShared { mandated: mandated.clone() });
        assert_eq!(code(again), FaultCode::Forbidden, "node {at}, after it was destroyed");
    }
    // A mandate for something else, or of a stranger.
    let other = house.mandated(CallId::GenerateKeyPair, minicbor::to_vec(&call).unwrap());
    assert_eq!(code(house.ask(0, &DeriveShared { mandated: other })), FaultCode::Forbidden);
    let mandate = house.mandate(CallId::DeriveKey, minicbor::to_vec(&call).unwrap());
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[51; 32]).unwrap();
    let forged = Mandate { key: public(&stranger), ..mandate };
    let mandated = signed(&forged, &stranger);
    assert_eq!(code(house.ask(0, &DeriveShared { mandated })), FaultCode::Forbidden);
    // One node has a freeze: none makes it.
    let node = &house.nodes[2];
    let freeze = Freeze { partition: "trading".into(), key: Some(master) };
    node.world.ask(&node.vault, &node.admin(), &freeze).unwrap();
    let fault = derive(&house, 0, &wish(master, &[1], template())).unwrap_err();
    assert!(fault.code == FaultCode::QuorumMissing && fault.detail.contains("frozen"), "{fault}");
    for at in 0..3 {
        assert_eq!(keys(&house, at), [master], "node {at}");
    }
}

#[test]
fn a_master_stands_as_long_as_its_descendants_and_they_are_destroyed_everywhere_or_nowhere() {
    let mut house = House::new(3);
    let master = master(&house).private.id;
    let child = derive(&house, 0, &wish(master, &[0], template())).unwrap().id;
    let fault = destroy(&house, 1, master).unwrap_err();
    assert!(fault.code == FaultCode::ActionProhibited && fault.detail.contains("1 keys descend"), "{fault}");
    house.cut_off(&["b"]);
    assert_eq!(code(destroy(&house, 0, child)), FaultCode::QuorumMissing);
    house.clear_up();
    house.beat();
    house.sign(2, Kind::K1, child, MESSAGE).unwrap();
    destroy(&house, 2, child).unwrap();
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
            house.beat();
        }
        for at in 0..3 {
            assert_eq!(keys(&house, at), [master]);
            assert_eq!(code(house.sign(at, Kind::K1, child, MESSAGE)), FaultCode::KeyHandleInvalid);
        }
    }
    house.sign(0, Kind::K1, master, MESSAGE).unwrap();
    destroy(&house, 1, master).unwrap();
    assert!((0..3).all(|at| keys(&house, at).is_empty()));
}

#[test]
fn a_ban_over_a_descendant_is_one_over_its_master_and_all_that_descends_from_it() {
    let scene = Scene::new();
    let mut wished = Kind::K1.wish(2, 3);
    wished.private.set(CKA_DERIVE, Value::Bool(true));
    let (master, share) = scene.key_of(&wished, (SchemeId::EcdsaSecp256k1, 2));
    let children = [5, 6].map(|index| {
        let body = minicbor::to_vec(wish(master, &[index], template())).unwrap();
        let mandated = scene.house.mandated(CallId::DeriveKey, body);
        scene.double.derive(&scene.talks(), &mandated);
        id_of(&mandated)
    });
    let share = share.child(KeyId(children[0].0), 5).unwrap();
    let mandated = scene.mandated(Kind::K1, children[0], MESSAGE);
    let begin = to_begin(1, children[0], &mandated, [1, 3]);
    let spoil = |text: &mut Vec<u8>| {
        let place = text.len() / 2;
        text[place] ^= 1;
    };
    let input = openssl::sha::sha256(MESSAGE);
    let ended = scene.double.sign(&scene.talks()[0], &share, ([1; 32], &input), &begin, spoil).unwrap();
    let Some(End::Aborted(verdict)) = ended.end else { panic!("{:?}", ended.end) };
    let ban = verdict.ban.expect("a ban");
    assert_eq!((ban.ban.key, ban.ban.reporter, ban.ban.against), (KeyId(master.0), party(1), party(3)));
    for (attempt, key) in (2..).zip([master, children[0], children[1]]) {
        let mandated = scene.mandated(Kind::K1, key, MESSAGE);
        let mut begin = to_begin(attempt, key, &mandated, [1, 3]);
        let talk = &scene.talks()[0];
        let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(begin.clone())) else { panic!() };
        assert!(matches!(progress.end, Some(End::Behind(bans)) if bans == [ban.clone()]));
        let Task::Sign { bans, .. } = &mut begin.task else { panic!() };
        bans.push(ban.clone());
        let fault = talk.ask(&Question::Begin(begin)).unwrap_err();
        assert!(fault.detail.contains("must not sign together"), "{fault}");
    }
    // The honest two go on, and the other one has heard of it.
    scene.house.beat();
    let signature = scene.house.sign(0, Kind::K1, children[1], MESSAGE).unwrap();
    check(&point(&scene.house, 1, children[1]), &signature);
    let heard = scene.house.nodes[1].records("SignShared");
    assert!(heard.iter().any(|record| record.detail.contains("must not sign together")), "{heard:?}");
}

#[test]
fn a_descendant_signs_on_after_a_refresh_of_its_master() {
    let mut house = House::ruled(3, 1);
    let master = master(&house).private.id;
    let child = derive(&house, 0, &wish(master, &[3], template())).unwrap().id;
    let (code, public) = (bytes(&house, 0, master, CKA_STRONGROOM_CHAIN_CODE), point(&house, 0, child));
    // So that each node keeps the descendant's share of this epoch.
    (0..3).for_each(|at| check(&public, &house.sign(at, Kind::K1, child, MESSAGE).unwrap()));
    house.renew(1, master, OrderedAct::Refresh).unwrap();
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
            house.beat();
        }
        for at in 0..3 {
            assert_eq!(house.epoch(at, master), 1);
            assert_eq!(bytes(&house, at, master, CKA_STRONGROOM_CHAIN_CODE), code);
            assert_eq!(point(&house, at, child), public);
            check(&public, &house.sign(at, Kind::K1, child, MESSAGE).unwrap());
        }
    }
    let later = derive(&house, 2, &wish(master, &[4], template())).unwrap().id;
    assert_eq!(point(&house, 0, later), child_of(&point(&house, 0, master), &code, 4).0);
    check(&point(&house, 0, later), &house.sign(0, Kind::K1, later, MESSAGE).unwrap());
}

#[test]
fn descendants_go_where_the_shares_of_their_master_go() {
    let mut house = House::ruled(4, 1);
    let mut wished = Kind::K1.wish(2, 4);
    wished.private.set(CKA_DERIVE, Value::Bool(true));
    let master = house.generate(0, &wished).unwrap().private.id;
    let child = derive(&house, 0, &wish(master, &[0], template())).unwrap().id;
    let public = point(&house, 0, child);
    let signs = |house: &House, at: usize| {
        let signature = house.sign(at, Kind::K1, child, MESSAGE);
        check(&public, &signature.unwrap_or_else(|fault| panic!("node {at}: {fault}")));
    };
    let is_shared = |house: &House, at: usize, (threshold, parties): (u8, u8)| {
        let shares = house.ask(at, &DescribeObject { object: child }).unwrap().shares.unwrap();
        assert_eq!((shares.threshold, shares.parties), (threshold, parties), "node {at}");
    };
    let seats: Vec<Seat> = (0..3).map(|at| house.seat(at)).collect();
    house.renew(0, master, OrderedAct::Reshare { threshold: 3, seats }).unwrap();
    (0..3).for_each(|at| is_shared(&house, at, (3, 3)));
    signs(&house, 1);
    assert!(house.ask(3, &DescribeObject { object: child }).is_err(), "nothing is left where no share is");
    let rows = strongroom_server::store::Store::load(&house.nodes[3].world.store).unwrap();
    assert!(!rows.iter().any(|row| row.path.ends_with(&format!("/{child}"))));
    // By a node that leaves: it is the one that brings them to the newcomer.
    let seats: Vec<Seat> = (1..4).map(|at| house.seat(at)).collect();
    let state = house.renew(0, master, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    assert_eq!(state.note, "this node holds no share of the key any more");
    for restarted in [false, true] {
        if restarted {
            (1..4).for_each(|at| house.restart(at));
            house.beat();
        }
        for at in 1..4 {
            is_shared(&house, at, (2, 3));
            assert_eq!(point(&house, at, child), public);
            signs(&house, at);
        }
    }
}

#[test]
fn a_node_that_has_lost_descendants_gets_them_with_its_repair() {
    let mut house = House::ruled(3, 1);
    let master = master(&house).private.id;
    let before = house.copy(2);
    let child = derive(&house, 0, &wish(master, &[0], template())).unwrap().id;
    let public = point(&house, 0, child);
    house.put_back(2, &before);
    house.beat();
    assert!(house.sign(2, Kind::K1, child, MESSAGE).is_err());
    let Seat(node) = house.seat(2);
    assert_eq!(house.renew(0, master, OrderedAct::Repair { node }).unwrap().note, "");
    (0..3).for_each(|at| check(&public, &house.sign(at, Kind::K1, child, MESSAGE).unwrap()));
}
