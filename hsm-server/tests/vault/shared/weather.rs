//! A bad network, and nodes that die: signatures come about or do not, and no node is left with half a key.

use super::*;
use strongroom_shared::fault::FaultCode;

/// Everything that can happen to a message.
pub fn mishaps(earlier: &[u8]) -> Vec<Mishap> {
    vec![
        Mishap::Lost,
        Mishap::ReplyLost,
        Mishap::Twice,
        Mishap::Altered,
        Mishap::ReplyAltered,
        Mishap::Cut,
        Mishap::Late,
        Mishap::Replaced(earlier.to_vec()),
        Mishap::Dies,
        Mishap::DiesAfter,
    ]
}

/// So many of them in turn at each message, for what takes long.
pub fn some(count: usize) -> impl Fn(Vec<Mishap>, usize) -> Vec<Mishap> {
    move |all, after| all.into_iter().cycle().skip(count * after).take(count).collect()
}

/// Brings back whoever died, and lets everybody greet everybody.
pub fn recover(house: &mut House) {
    house.clear_up();
    (1..house.nodes.len()).for_each(|at| house.restart(at));
    house.beat();
}

/// Nobody was banned or left out: what the network spoils is the fault of no node.
pub fn blames_nobody(house: &House, key: ObjectId) {
    for node in &house.nodes {
        let read = ReadShares { partition: "trading".into(), key, challenge: vec![5; 32] };
        let said = node.world.ask(&node.vault, &node.admin(), &read).unwrap();
        assert_eq!(said.bans, 0, "node {}", node.name);
        let records = node.world.records(&node.vault);
        let blames = records.iter().find(|record| record.detail.contains("broke the protocol"));
        assert_eq!(blames, None, "node {}", node.name);
    }
}

fn a_signature_survives_every_mishap(kind: Kind, t: u8, n: u8) {
    let mut house = House::new(n.into());
    let made = house.generate(0, &kind.wish(t, n)).unwrap();
    survives(&mut house, (kind, &made), |all, _| all);
}

/// Signs with every one of these mishaps at every message of the first node, or with some of them at each.
pub fn survives(
    house: &mut House,
    (kind, made): (Kind, &KeyPair),
    each: impl Fn(Vec<Mishap>, usize) -> Vec<Mishap>,
) {
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.sign(0, kind, made.private.id, MESSAGE).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 1, "{calls}");
    let earlier = house.net.said.lock().unwrap().last().unwrap().2.clone();
    for after in 0..calls {
        for mishap in each(mishaps(&earlier), after) {
            let struck = house.strike("a", after, mishap.clone());
            let signature = house.sign(0, kind, made.private.id, MESSAGE);
            let signature = signature.unwrap_or_else(|fault| panic!("{mishap:?} after {after}: {fault}"));
            assert!(struck.load(Ordering::Relaxed) > calls, "{mishap:?} after {after}: nobody noticed");
            recover(house);
            house.check(0, kind, made.public.id, &signature);
        }
        blames_nobody(house, made.private.id);
        house.desks[0] = house.log_in(0);
    }
}

#[test]
fn ecdsa_survives_every_mishap() {
    a_signature_survives_every_mishap(Kind::K1, 2, 3);
}

#[test]
fn schnorr_by_way_of_the_coordinator_survives_every_mishap() {
    a_signature_survives_every_mishap(Kind::Ed25519, 3, 5);
}

/// Makes keys with every one of these mishaps at every message, or with one of them in turn at each.
fn a_key_is_at_all_nodes_or_at_none(kind: Kind, each: impl Fn(Vec<Mishap>, usize) -> Vec<Mishap>) {
    let mut house = House::new(3);
    let wish = kind.wish(2, 3);
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.generate(0, &wish).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let earlier = house.net.said.lock().unwrap().last().unwrap().2.clone();
    let (mut made, mut tried) = (1, 1);
    for after in 0..calls {
        // Tickets end with the hours that pass.
        (0..3).for_each(|at| house.desks[at] = house.log_in(at));
        for mishap in each(mishaps(&earlier), after) {
            tried += 1;
            house.strike("a", after, mishap.clone());
            let done = house.generate(0, &wish);
            recover(&mut house);
            made += usize::from(done.is_ok());
            let all = keys(&house, 0);
            assert_eq!(all.len(), made, "{mishap:?} after {after}: {done:?}");
            for at in 1..3 {
                assert_eq!(keys(&house, at), all, "{mishap:?} after {after}, node {at}");
            }
            if let Ok(pair) = done {
                house.sign(2, kind, pair.private.id, MESSAGE).unwrap();
            }
        }
    }
    assert!(made > 1 && made < tried, "{made} of {tried}");
}

#[test]
fn a_key_is_at_all_nodes_or_at_none_whatever_happens() {
    a_key_is_at_all_nodes_or_at_none(Kind::Ed25519, |all, _| all);
}

#[test]
fn an_ecdsa_key_is_at_all_nodes_or_at_none_whatever_happens() {
    // It takes a hundred times as long to make, so each message meets one of them.
    a_key_is_at_all_nodes_or_at_none(Kind::K1, |all, after| vec![all[after % all.len()].clone()]);
}

#[test]
fn a_coordinator_that_dies_with_the_certificate_brings_it_when_it_is_back() {
    let mut house = House::new(3);
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    // The last two calls tell the others of the certificate.
    let before = calls.load(Ordering::Relaxed) - 2;
    let said = Arc::new(AtomicUsize::new(0));
    house.net.weather(move |from, to, call| {
        let counts = from == "a" && call == CallId::SealedCall;
        let late = counts && said.fetch_add(1, Ordering::Relaxed) >= before;
        if late || (to == "a") { Mishap::Lost } else { Mishap::None }
    });
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    house.beat();
    assert_eq!(keys(&house, 0).len(), 2);
    assert_eq!((keys(&house, 1).len(), keys(&house, 2).len()), (1, 1), "they wait");
    // However long it takes: nobody but the one that is away can know.
    for node in &house.nodes {
        node.world.platform.pass(2 * 3_600_000_000);
    }
    (0..3).for_each(|at| house.restart(at));
    house.beat();
    house.clear_up();
    house.beat();
    for at in 0..3 {
        house.desks[at] = house.log_in(at);
        assert_eq!(keys(&house, at).len(), 2, "node {at}");
        house.sign(at, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
    }
}

#[test]
fn a_share_that_no_node_shows_a_certificate_for_is_kept_however_long_it_takes() {
    let mut house = House::new(3);
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    // The reply to the last step of one of the others, in which it would have signed.
    house.strike("a", calls - 3, Mishap::ReplyLost);
    assert_eq!(code(house.generate(0, &Kind::Ed25519.wish(2, 3))), FaultCode::QuorumMissing);
    recover(&mut house);
    let waits = |house: &House| {
        let left = |node: &Node| {
            let rows = strongroom_server::store::Store::load(&node.world.store).unwrap();
            rows.iter().filter(|row| row.path.contains("/pending/")).count()
        };
        house.nodes.iter().map(left).collect::<Vec<_>>()
    };
    let before = waits(&house);
    assert!(before.contains(&1), "{before:?}");
    for node in &house.nodes {
        node.world.platform.pass(3 * 3_600_000_000);
    }
    (0..3).for_each(|_| house.beat());
    assert_eq!(waits(&house), before, "whoever has signed it may be shown the certificate still");
    for at in 0..3 {
        house.desks[at] = house.log_in(at);
        assert_eq!(keys(&house, at).len(), 1);
    }
    (0..3).for_each(|at| house.restart(at));
    house.beat();
    assert_eq!(waits(&house), before);
}

#[test]
fn no_node_is_waited_for_longer_than_the_time_that_is_left() {
    let house = House::new(3);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    house.net.patience.lock().unwrap().clear();
    let (platform, first) = (Arc::clone(&house.nodes[0].world.platform), AtomicUsize::new(0));
    house.net.weather(move |from, _, _| {
        if from != "a" || first.fetch_add(1, Ordering::Relaxed) > 0 {
            return Mishap::None;
        }
        platform.pass(1_500_000);
        Mishap::Lost
    });
    house.sign(0, Kind::Ed25519, made.private.id, MESSAGE).unwrap();
    let patience = house.net.patience.lock().unwrap().clone();
    assert!(patience.len() > 2 && patience[0].as_millis() == 600, "{patience:?}");
    assert!(patience[1..].iter().all(|patience| patience.as_millis() <= 200), "{patience:?}");
}

#[test]
fn a_front_cannot_refuse_in_its_vaults_name() {
    let house = House::new(3);
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    house.net.weather(
        |from, _, call| {
            if (from, call) == ("a", CallId::SealedCall) { Mishap::Forged } else { Mishap::None }
        },
    );
    let fault = house.sign(0, Kind::Ed25519, made.private.id, MESSAGE).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
    assert!(fault.detail.contains("unsealed"), "{fault}");
}

#[test]
fn a_node_that_is_back_is_greeted_at_once_however_long_it_was_away() {
    use strongroom_server::door::Door;
    let mut house = House::new(3);
    let kind = Kind::Ed25519;
    let key = house.generate(0, &kind.wish(3, 3)).unwrap().private.id;
    house.sign(0, kind, key, MESSAGE).unwrap();
    house.cut_off(&["c"]);
    (0..6).for_each(|_| house.beat());
    house.clear_up();
    house.restart(2);
    // It greets the others, and each of those asks again in what time it asks one that is there.
    for node in [&house.nodes[2], &house.nodes[0], &house.nodes[1]] {
        node.vault.beat();
    }
    house.sign(0, kind, key, MESSAGE).unwrap();
}
