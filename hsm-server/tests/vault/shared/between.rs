//! A bad network between the nodes that do not coordinate: their greetings and handshakes, what they ask each other before
//! they sign or let shares become others, and what they do by themselves afterwards.

use strongroom_server::{cluster::order::OrderedAct, door::Door};

use super::{
    weather::{blames_nobody, mishaps, recover, some, survives},
    *,
};

/// All nodes have just been started: they know no session, and have heard of no ban.
fn fresh(house: &mut House) {
    (0..house.nodes.len()).for_each(|at| house.restart(at));
}

/// Whoever died is there again, and everybody greets everybody.
fn revive(house: &mut House) {
    house.clear_up();
    fresh(house);
    house.beat();
}

/// This happens to one call of those that do not coordinate, of whatever kind.
fn strike_others(house: &House, after: usize, mishap: Mishap) -> Arc<AtomicUsize> {
    house.strike_calls(|caller, _| caller != "a", after, mishap)
}

/// The others greet everybody and do what they do by themselves, in the weather that there is.
fn look_after_shares(house: &House) {
    house.nodes.iter().for_each(|node| node.world.platform.pass(20_000_000));
    for node in &house.nodes[1..] {
        node.vault.beat();
        node.vault.tend();
    }
}

/// How many calls the others make meanwhile, in good weather; and one of them, as it was sent.
fn calls_of_others(house: &mut House, act: impl FnOnce(&mut House)) -> (usize, Vec<u8>) {
    fresh(house);
    house.net.said.lock().unwrap().clear();
    let calls = strike_others(house, usize::MAX, Mishap::None);
    act(house);
    let said = house.net.said.lock().unwrap();
    let earlier = said.iter().rfind(|(from, ..)| from != "a").unwrap().2.clone();
    (calls.load(Ordering::Relaxed), earlier)
}

/// Signs with a key at its coordinator with every one of these mishaps at every call between the others, or with some of
/// them at each.
fn signs_whatever_happens_between_the_others(
    house: &mut House,
    (kind, made): (Kind, &KeyPair),
    each: impl Fn(Vec<Mishap>, usize) -> Vec<Mishap>,
) {
    let key = made.private.id;
    let (calls, earlier) = calls_of_others(house, |house| drop(house.sign(0, kind, key, MESSAGE).unwrap()));
    // Two other signers shake hands with each other, and hear which bans each holder knows.
    assert!(calls >= 4, "{calls}");
    for after in 0..calls {
        for mishap in each(mishaps(&earlier), after) {
            fresh(house);
            let struck = strike_others(house, after, mishap.clone());
            let signature = house.sign(0, kind, key, MESSAGE);
            let signature = signature.unwrap_or_else(|fault| panic!("{mishap:?} after {after}: {fault}"));
            assert!(struck.load(Ordering::Relaxed) > after, "{mishap:?} after {after}: it struck nobody");
            house.clear_up();
            house.check(0, kind, made.public.id, &signature);
        }
        blames_nobody(house, key);
        house.desks[0] = house.log_in(0);
    }
    recover(house);
    let signature = house.sign(0, kind, key, MESSAGE).unwrap();
    house.check(0, kind, made.public.id, &signature);
}

#[test]
fn schnorr_is_signed_whatever_happens_between_the_others() {
    let mut house = House::new(4);
    let made = house.generate(0, &Kind::Ed25519.wish(3, 4)).unwrap();
    signs_whatever_happens_between_the_others(&mut house, (Kind::Ed25519, &made), some(5));
}

#[test]
fn ecdsa_of_three_signers_survives_every_mishap() {
    let mut house = House::new(4);
    let made = house.generate(0, &Kind::K1.wish(3, 4)).unwrap();
    survives(&mut house, (Kind::K1, &made), some(2));
    signs_whatever_happens_between_the_others(&mut house, (Kind::K1, &made), some(1));
}

#[test]
fn shares_become_others_everywhere_whatever_happens_between_the_others() {
    let mut house = House::ruled(3, 1);
    let kind = Kind::Ed25519;
    let made = house.generate(0, &kind.wish(2, 3)).unwrap();
    let key = made.private.id;
    let renew = |house: &mut House| {
        let renewed = house.renew(0, key, OrderedAct::Refresh);
        look_after_shares(house);
        renewed
    };
    let (calls, earlier) = calls_of_others(&mut house, |house| drop(renew(house).unwrap()));
    let (mut done, mut undone) = (0, 0);
    for after in 0..calls {
        for mishap in some(1)(mishaps(&earlier), after) {
            fresh(&mut house);
            strike_others(&house, after, mishap.clone());
            let renewed = renew(&mut house);
            revive(&mut house);
            let told = format!("{mishap:?} after {after}: {renewed:?}");
            let epoch = house.epoch(0, key);
            assert_eq!([1, 2].map(|at| house.epoch(at, key)), [epoch; 2], "{told}");
            let signature =
                house.sign(2, kind, key, MESSAGE).unwrap_or_else(|fault| panic!("{told}: {fault}"));
            house.check(2, kind, made.public.id, &signature);
            *(if renewed.is_ok() { &mut done } else { &mut undone }) += 1;
        }
        blames_nobody(&house, key);
        house.desks = (0..3).map(|at| house.log_in(at)).collect();
    }
    assert!(done > 0 && undone > 0, "{done} {undone}");
    (0..4).for_each(|_| house.beat());
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    let epoch = house.epoch(0, key);
    house.is_sound(kind, &made, epoch);
}

#[test]
fn a_certificate_is_asked_for_until_it_is_had_whatever_happens() {
    let mut house = House::new(3);
    let kind = Kind::Ed25519;
    let count = house.strike("a", usize::MAX, Mishap::None);
    house.generate(0, &kind.wish(2, 3)).unwrap();
    // The last two calls of the coordinator tell the others of the certificate, and are lost from here on.
    let told = count.load(Ordering::Relaxed) - 2;
    let make = |house: &mut House, after: usize, mishap: Mishap| {
        let (said, struck) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&struck);
        house.net.weather(move |from, _, call| match (from, call) {
            ("a", CallId::SealedCall) if said.fetch_add(1, Ordering::Relaxed) >= told => Mishap::Lost,
            ("a", _) => Mishap::None,
            _ if seen.fetch_add(1, Ordering::Relaxed) == after => mishap.clone(),
            _ => Mishap::None,
        });
        let made = house.generate(0, &kind.wish(2, 3));
        look_after_shares(house);
        (made, struck.load(Ordering::Relaxed))
    };
    fresh(&mut house);
    house.net.said.lock().unwrap().clear();
    let (made, calls) = make(&mut house, usize::MAX, Mishap::None);
    made.unwrap();
    let earlier = house.net.said.lock().unwrap().iter().rfind(|(from, ..)| from != "a").unwrap().2.clone();
    assert_eq!([0, 1, 2].map(|at| keys(&house, at).len()), [2; 3], "they asked for it");
    let (mut done, mut undone) = (2, 0);
    for after in 0..calls {
        house.desks = (0..3).map(|at| house.log_in(at)).collect();
        for mishap in some(1)(mishaps(&earlier), after) {
            fresh(&mut house);
            let (made, _) = make(&mut house, after, mishap.clone());
            revive(&mut house);
            *(if made.is_ok() { &mut done } else { &mut undone }) += 1;
            let told = format!("{mishap:?} after {after}: {made:?}");
            assert_eq!([0, 1, 2].map(|at| keys(&house, at).len()), [done; 3], "{told}");
            if let Ok(made) = made {
                let signature = house.sign(2, kind, made.private.id, MESSAGE).unwrap();
                house.check(1, kind, made.public.id, &signature);
            }
        }
    }
    assert!(undone > 0, "{done} {undone}");
}
