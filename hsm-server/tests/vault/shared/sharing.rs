//! A key that one node holds becomes shares: it is whole nowhere afterwards, and none is lost on the way.

use strongroom_server::cluster::order::OrderedAct;
use strongroom_shared::fault::FaultCode;

use super::{life::ANN, *};

const ED: Kind = Kind::Ed25519;

#[test]
fn a_key_that_one_node_holds_becomes_shares_and_is_whole_nowhere() {
    for kind in [Kind::Ed25519, Kind::Bip340, Kind::K1] {
        let mut house = House::ruled(3, 1);
        let mut wish = kind.wish(2, 3);
        wish.private.0.retain(|attribute| {
            ![CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES].contains(&attribute.kind)
        });
        if let Some(only) = wish.private.value(CKA_ALLOWED_MECHANISMS).cloned() {
            wish.public.set(CKA_ALLOWED_MECHANISMS, only);
        }
        let made = house.ask(0, &wish).unwrap();
        let key = made.private.id;
        let node = &house.nodes[0];
        let read = ReadShares { partition: "trading".into(), key, challenge: vec![5; 32] };
        let known = node.world.ask(&node.vault, &node.admin(), &read).unwrap();
        assert_eq!((known.epoch, known.threshold, known.seats.len()), (None, 0, 0));
        // As other commands show it, and as it will be when it is shared.
        let point = ReadAttributes { object: made.public.id, kinds: vec![CKA_EC_POINT] };
        let Answer::Value(Value::Bytes(point)) = house.ask(0, &point).unwrap().answers.remove(0) else {
            panic!()
        };
        // BIP340 knows x alone.
        let point = if kind == Kind::Bip340 { &point[3..35] } else { &point[2..] };
        assert_eq!(known.public_key, point);
        let share = |house: &House, seats: &[usize]| {
            let act =
                OrderedAct::Share { threshold: 2, seats: seats.iter().map(|at| house.seat(*at)).collect() };
            let order = house.order_of(key, 0, act);
            house.approve(0, &house.admin(0, ANN), &order, ANN)
        };
        // A copy would stay whole.
        let template = Template::new();
        let copy = house.ask(0, &CopyObject { object: key, template }).unwrap();
        assert_eq!(code(share(&house, &[0, 1, 2])), FaultCode::ActionProhibited);
        house.ask(0, &DestroyObject { object: copy.id }).unwrap();
        assert!(share(&house, &[1, 2]).unwrap_err().detail.contains("is to hold a share"));
        house.cut_off(&["c"]);
        assert_eq!(code(share(&house, &[0, 1, 2])), FaultCode::QuorumMissing);
        house.clear_up();
        house.beat();
        let plain = Sign { key, mechanism: kind.mechanism(), params: Params::None, input: MESSAGE.to_vec() };
        house.ask(0, &plain).unwrap();
        let state = share(&house, &[0, 1, 2]).unwrap();
        assert_eq!(state.note, "");
        let epoch = state.epoch.unwrap();
        for restarted in [false, true] {
            if restarted {
                (0..3).for_each(|at| house.restart(at));
                house.beat();
            }
            house.is_sound(kind, &made, epoch);
            assert_eq!(code(house.ask(0, &plain)), FaultCode::KeyFunctionNotPermitted);
        }
        for at in 0..3 {
            let kinds = vec![
                CKA_LOCAL,
                CKA_ALWAYS_SENSITIVE,
                CKA_NEVER_EXTRACTABLE,
                CKA_EXTRACTABLE,
                CKA_COPYABLE,
                CKA_SENSITIVE,
                CKA_VALUE,
                CKA_LABEL,
            ];
            let answers = house.ask(at, &ReadAttributes { object: key, kinds }).unwrap().answers;
            let [yes, no] = [true, false].map(|value| Answer::Value(Value::Bool(value)));
            let label = Answer::Value(Value::bytes(b"desk-1"));
            let expected = [&no, &no, &no, &no, &no, &yes, &Answer::Absent, &label].map(Clone::clone);
            assert_eq!(answers, expected, "node {at}");
        }
        house.renew(1, key, OrderedAct::Refresh).unwrap();
        house.is_sound(kind, &made, epoch + 1);
    }
}

#[test]
fn a_key_of_another_kind_is_not_shared() {
    let house = House::ruled(3, 1);
    let mut wish = Kind::K1.wish(2, 3);
    wish.private
        .0
        .retain(|attribute| ![CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES].contains(&attribute.kind));
    wish.public.set(CKA_EC_PARAMS, Value::bytes([0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]));
    let made = house.ask(0, &wish).unwrap();
    let node = &house.nodes[0];
    for (key, expected) in [
        (made.private.id, FaultCode::CurveNotSupported),
        (made.public.id, FaultCode::KeyTypeInconsistent),
        (ObjectId([3; 16]), FaultCode::KeyHandleInvalid),
    ] {
        let read = ReadShares { partition: "trading".into(), key, challenge: vec![5; 32] };
        assert_eq!(code(node.world.ask(&node.vault, &node.admin(), &read)), expected);
    }
}

#[test]
fn a_key_that_was_whole_is_kept_until_its_shares_have_signed() {
    let house = House::ruled(3, 1);
    let whole = || {
        let mut wish = ED.wish(2, 3);
        let shares = [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES];
        wish.private.0.retain(|attribute| !shares.contains(&attribute.kind));
        house.ask(0, &wish).unwrap()
    };
    let share = |made: &KeyPair| {
        let seats = (0..3).map(|at| house.seat(at)).collect();
        let order = house.order_of(made.private.id, 0, OrderedAct::Share { threshold: 2, seats });
        house.approve(0, &house.admin(0, ANN), &order, ANN).unwrap()
    };
    let calls = house.strike("a", usize::MAX, Mishap::None);
    share(&whole());
    let calls = calls.load(Ordering::Relaxed);
    // The last words are the proof and that it is one.
    let seen = AtomicUsize::new(0);
    house.net.weather(move |from, _, call| {
        let lost =
            from == "a" && call == CallId::SealedCall && seen.fetch_add(1, Ordering::Relaxed) + 3 >= calls;
        if lost { Mishap::Lost } else { Mishap::None }
    });
    let made = whole();
    let state = share(&made);
    assert!(state.note.contains("have not all signed yet"), "{state:?}");
    assert!(house.keeps_former(0, made.private.id), "nothing has shown that the shares sign");
    house.clear_up();
    (0..6).for_each(|_| house.beat());
    house.is_sound(ED, &made, 1);
}
