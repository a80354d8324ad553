//! Making and destroying: what a shared key is like at every node, and what no node may be talked into.

use super::*;
use strongroom_server::platform::Platform;
use strongroom_shared::{
    fault::FaultCode,
    object::{CKA_STRONGROOM_EPOCH, Shares},
};

#[test]
fn a_shared_key_is_the_same_at_every_node_and_looks_like_any_other() {
    let mut house = House::new(3);
    let made = house.generate(1, &Kind::Ed25519.wish(2, 3)).unwrap();
    assert_eq!(made.private.shares, Some(Shares { threshold: 2, parties: 3 }));
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
        }
        for at in 0..3 {
            let kinds = vec![
                CKA_LOCAL,
                CKA_SENSITIVE,
                CKA_ALWAYS_SENSITIVE,
                CKA_NEVER_EXTRACTABLE,
                CKA_EXTRACTABLE,
                CKA_COPYABLE,
                CKA_VALUE,
                CKA_STRONGROOM_THRESHOLD,
                CKA_STRONGROOM_EPOCH,
            ];
            let call = ReadAttributes { object: made.private.id, kinds };
            let answers = house.ask(at, &call).unwrap().answers;
            let [yes, no] = [true, false].map(|value| Answer::Value(Value::Bool(value)));
            let number = |value| Answer::Value(Value::Ulong(value));
            let expected =
                [&yes, &yes, &yes, &yes, &no, &no, &Answer::Absent, &number(2), &number(0)].map(Clone::clone);
            assert_eq!(answers, expected, "node {at}");
            let described = house.ask(at, &DescribeObject { object: made.private.id }).unwrap();
            assert_eq!(described, made.private);
            // Nothing of an ordinary key's uses is open to it.
            let sign = Sign {
                key: made.private.id,
                mechanism: CKM_EDDSA,
                params: Params::None,
                input: MESSAGE.to_vec(),
            };
            assert_eq!(code(house.ask(at, &sign)), FaultCode::KeyFunctionNotPermitted);
            let copy = CopyObject { object: made.private.id, template: Template::new() };
            assert_eq!(code(house.ask(at, &copy)), FaultCode::ActionProhibited);
            let destroy = DestroyObject { object: made.private.id };
            assert_eq!(code(house.ask(at, &destroy)), FaultCode::ActionProhibited);
            // One node alone cannot show it under a label or id by which the others do not know it.
            for kind in [CKA_LABEL, CKA_ID] {
                let template = Template::new().with(kind, Value::bytes(b"desk-2"));
                let write = WriteAttributes { object: made.private.id, template };
                assert_eq!(code(house.ask(at, &write)), FaultCode::ActionProhibited);
            }
        }
        house.beat();
        let signature = house.sign(0, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
        house.check(2, Kind::Ed25519, made.public.id, &signature);
    }
    for node in &house.nodes {
        let records = node.records("GenerateShared");
        assert_eq!(records.len(), 3, "{records:?}");
        assert!(
            records[0].detail.contains("for client desk: a, b, c; this node begins to deal"),
            "{records:?}"
        );
        assert!(records[1].detail.contains("for client desk: a, b, c; its share waits"), "{records:?}");
        assert_eq!(records[1].object, Some(made.private.id));
        assert!(records[2].detail.contains("every node has its share"), "{records:?}");
        assert!(
            records.iter().all(|record| record.outcome == Outcome::Done && record.partition == "trading")
        );
    }
}

#[test]
fn what_cannot_be_shared_is_refused_and_leaves_nothing() {
    let house = House::new(3);
    let with = |kind: u64, value: Value| {
        let mut wish = Kind::K1.wish(2, 3);
        wish.private.set(kind, value);
        wish
    };
    let p384 = {
        let mut wish = Kind::K1.wish(2, 3);
        wish.public.set(CKA_EC_PARAMS, Value::bytes([0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]));
        wish
    };
    let session_public = {
        let mut wish = Kind::K1.wish(2, 3);
        wish.public.set(CKA_TOKEN, Value::Bool(false));
        wish
    };
    let rsa = GenerateKeyPair { mechanism: CKM_RSA_PKCS_KEY_PAIR_GEN, ..Kind::K1.wish(2, 3) };
    for (wish, expected) in [
        (Kind::K1.wish(2, 2), FaultCode::AttributeValueInvalid),
        (Kind::K1.wish(1, 3), FaultCode::AttributeValueInvalid),
        (Kind::K1.wish(4, 3), FaultCode::AttributeValueInvalid),
        (with(CKA_TOKEN, Value::Bool(false)), FaultCode::TemplateInconsistent),
        (with(CKA_SENSITIVE, Value::Bool(false)), FaultCode::TemplateInconsistent),
        (with(CKA_EXTRACTABLE, Value::Bool(true)), FaultCode::TemplateInconsistent),
        (session_public, FaultCode::TemplateInconsistent),
        (p384, FaultCode::CurveNotSupported),
        (rsa, FaultCode::MechanismInvalid),
    ] {
        assert_eq!(code(house.generate(0, &wish)), expected, "{wish:?}");
    }
    assert!(house.nodes.iter().all(|node| node.records("SealedCall").is_empty()), "nobody was asked");
    // The same wish of an ordinary call, which the other nodes would not believe.
    assert_eq!(code(house.ask(0, &Kind::K1.wish(2, 3))), FaultCode::TemplateInconsistent);
    assert!(keys(&house, 0).is_empty());
}

#[test]
fn a_key_is_made_by_all_nodes_or_by_none() {
    let house = House::new(3);
    house.cut_off(&["c"]);
    let fault = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing);
    assert!(fault.detail.contains("node c"), "{fault}");
    house.clear_up();
    for at in 0..3 {
        assert!(keys(&house, at).is_empty(), "node {at}");
    }
}

#[test]
fn a_shared_key_is_destroyed_everywhere_or_nowhere() {
    let mut house = House::new(3);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    let destroy = |house: &House| {
        let body = minicbor::to_vec(DestroyObject { object: made.private.id }).unwrap();
        house.ask(0, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) })
    };
    house.cut_off(&["b"]);
    let fault = destroy(&house).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing);
    assert!(fault.detail.contains("nothing was destroyed. ") && fault.detail.contains("node b"), "{fault}");
    assert!(fault.detail.contains("hsmctl cluster remove"), "{fault}");
    house.clear_up();
    house.beat();
    house.sign(2, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
    destroy(&house).unwrap();
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
        }
        for at in 0..3 {
            let gone = house.ask(at, &DescribeObject { object: made.private.id });
            assert_eq!(code(gone), FaultCode::ObjectHandleInvalid);
            assert_eq!(
                code(house.sign(at, Kind::Ed25519, made.private.id, MESSAGE)),
                FaultCode::KeyHandleInvalid
            );
        }
    }
}

#[test]
fn a_node_that_is_silent_from_the_beginning_is_waited_for_half_a_second() {
    let house = House::new(3);
    house.cut_off(&["c"]);
    house.net.patience.lock().unwrap().clear();
    let fault = house.generate(0, &Kind::K1.wish(2, 3)).unwrap_err();
    assert!(fault.detail.contains("node c"), "{fault}");
    let patience = house.net.patience.lock().unwrap().clone();
    assert!(patience.iter().all(|patience| patience.as_millis() <= 500), "{patience:?}");
    assert!(house.nodes[1].records("GenerateShared").is_empty(), "nothing was begun");
}

#[test]
fn one_key_of_a_partition_is_made_at_a_time() {
    let house = House::new(3);
    let (begun, seen) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    house.net.weather(move |_, _, _| {
        // The first call waits until the other generation was refused.
        if begun.send(()).is_ok() {
            let _ = wait.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20));
        }
        Mishap::None
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| house.generate(0, &Kind::Ed25519.wish(2, 3)));
        seen.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        let fault = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap_err();
        assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
        assert!(fault.detail.contains("another shared key"), "{fault}");
        drop((seen, go));
        first.join().unwrap().unwrap();
    });
    house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
}

#[test]
fn a_share_that_waits_is_destroyed_with_the_key() {
    let mut house = House::new(3);
    let calls = |house: &House, lost: usize| {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        house.net.weather(move |from, to, call| {
            if (from, to, call) != ("a", "c", CallId::SealedCall) {
                return Mishap::None;
            }
            if seen.fetch_add(1, Ordering::Relaxed) == lost { Mishap::Lost } else { Mishap::None }
        });
        count
    };
    let count = calls(&house, usize::MAX);
    house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    // The last one brings c the certificate.
    let last = count.load(Ordering::Relaxed) - 1;
    calls(&house, last);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    house.clear_up();
    assert_eq!((keys(&house, 0).len(), keys(&house, 2).len()), (2, 1), "it waits at c");
    let body = minicbor::to_vec(DestroyObject { object: made.private.id }).unwrap();
    house.ask(0, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) }).unwrap();
    for restarted in [false, true] {
        if restarted {
            (0..3).for_each(|at| house.restart(at));
        }
        house.beat();
        (0..3).for_each(|at| assert_eq!(keys(&house, at).len(), 1, "node {at}"));
    }
    let destroyed = house.nodes[2].records("DestroyShared");
    assert_eq!(destroyed.last().unwrap().object, Some(made.private.id));
}

#[test]
fn a_token_that_is_not_initialised_at_another_node_is_named_with_what_to_do() {
    let house = House::new(2);
    let node = Node::new(&house.net, "c", 9);
    let clock = |node: &Node| node.world.platform.now();
    node.world.platform.pass(clock(&house.nodes[0]) - clock(&node));
    let nodes = [&house.nodes[0], &house.nodes[1], &node];
    let next = document(2, &nodes);
    assert!(nodes.iter().all(|node| node.install(&next).is_ok()));
    let admin = node.admin();
    node.world.ask(&node.vault, &admin, &CreatePartition { name: "trading".into() }).unwrap();
    let key = public(&desk_key()).to_vec();
    let admit = AdmitClient { name: "desk".into(), partition: "trading".into(), key };
    node.world.ask(&node.vault, &admin, &admit).unwrap();
    let fault = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap_err();
    assert!(fault.detail.contains("node c") && fault.detail.contains("C_InitToken"), "{fault}");
}
