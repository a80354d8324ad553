//! ECDSA shares that are renewed in a bad network. Their ceremonies are long and take long, so not every message meets
//! every mishap: messages all along a refresh, a repair and a reshare meet one each, another one at the next, and the
//! three together every kind. `life` has all of them at all messages, with shares that take a hundredth of the time.

use std::time::{Duration, Instant};

use strongroom_server::cluster::order::{OrderedAct, Seat};

use super::{
    weather::{mishaps, recover},
    *,
};

/// What no single renewal may take, whatever happens to it: an unoptimised build on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// What a node knows of a key's shares: how many sign, and who holds them.
fn committee(house: &House, key: ObjectId) -> (u32, Vec<usize>, u32) {
    let node = &house.nodes[0];
    let read = ReadShares { partition: "trading".into(), key, challenge: vec![5; 32] };
    let said = node.world.ask(&node.vault, &node.admin(), &read).unwrap();
    let holds = |at: &usize| said.seats.iter().any(|seat| *seat.as_slice() == house.seat(*at).0);
    (said.threshold, (0..house.nodes.len()).filter(holds).collect(), said.bans)
}

/// Renews the shares of an ECDSA key of so many nodes, as `act` says for the committee that there is, with one of these
/// mishaps at each of as many messages of the first node, all along.
fn outlives(count: usize, kinds: std::ops::Range<usize>, act: impl Fn(&House, &[usize]) -> OrderedAct) {
    let mut house = House::ruled(count, 1);
    let made = house.generate(0, &Kind::K1.wish(2, count as u8)).unwrap();
    let key = made.private.id;
    let calls = house.strike("a", usize::MAX, Mishap::None);
    let ordered = act(&house, &committee(&house, key).1);
    house.renew(0, key, ordered).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let earlier = house.net.said.lock().unwrap().last().unwrap().2.clone();
    let mishaps: Vec<_> = mishaps(&earlier)[kinds].to_vec();
    assert!(calls >= mishaps.len(), "{calls}");
    let (mut done, mut undone) = (0, 0);
    for (number, mishap) in mishaps.iter().enumerate() {
        // From the first to the last but one: with the last one lost, everything is done.
        let after = number * (calls - 1) / mishaps.len();
        (0..count).for_each(|at| house.desks[at] = house.log_in(at));
        let (before, ordered) = (house.epoch(0, key), act(&house, &committee(&house, key).1));
        house.strike("a", after, mishap.clone());
        let begun = Instant::now();
        let renewed = house.renew(0, key, ordered);
        assert!(begun.elapsed() < LONGEST, "{mishap:?} after {after}: {:?}", begun.elapsed());
        recover(&mut house);
        let told = format!("{mishap:?} after {after}: {renewed:?}");
        let (threshold, holders, bans) = committee(&house, key);
        assert_eq!(bans, 0, "{told}: what the network spoils is no ban");
        assert_eq!(threshold, 2, "{told}");
        let epoch = house.epoch(0, key);
        assert!(epoch >= before, "{told}");
        if let Ok(state) = &renewed {
            assert_eq!(state.epoch, Some(epoch), "{told}");
        }
        let signer = *holders.last().unwrap();
        let signature = house.sign(signer, Kind::K1, key, MESSAGE);
        house.check(
            0,
            Kind::K1,
            made.public.id,
            &signature.unwrap_or_else(|fault| panic!("{told}: {fault}")),
        );
        house.beat();
        for at in &holders {
            assert_eq!(house.epoch(*at, key), epoch, "{told}, node {at}");
        }
        *(if renewed.is_ok() { &mut done } else { &mut undone }) += 1;
    }
    assert!(done + undone == mishaps.len() && undone > 0, "{done} {undone}");
    // In good weather it goes on, and nothing is left of what failed.
    (0..8).for_each(|_| house.beat());
    (0..count).for_each(|at| house.desks[at] = house.log_in(at));
    let ordered = act(&house, &committee(&house, key).1);
    assert_eq!(house.renew(0, key, ordered).unwrap().note, "");
    let (_, holders, _) = committee(&house, key);
    for at in 0..count {
        assert!(!house.keeps_former(at, key), "node {at}");
        assert_eq!(keys(&house, at).contains(&key), holders.contains(&at), "node {at}");
    }
}

#[test]
fn whatever_happens_to_a_refresh_of_ecdsa_shares_all_nodes_sign_with_the_same() {
    outlives(3, 0..10, |_, _| OrderedAct::Refresh);
}

#[test]
fn whatever_happens_to_a_repair_of_an_ecdsa_share_all_nodes_sign_with_the_same() {
    outlives(3, 0..5, |house, _| {
        let Seat(node) = house.seat(2);
        OrderedAct::Repair { node }
    });
}

#[test]
fn whatever_happens_to_a_reshare_of_an_ecdsa_key_its_holders_sign_with_the_same() {
    // From all four to a, b and c; from there to a, c and d, and back.
    outlives(4, 5..10, |house, holders| {
        let next: &[usize] = if *holders == [0, 1, 2] { &[0, 2, 3] } else { &[0, 1, 2] };
        OrderedAct::Reshare { threshold: 2, seats: next.iter().map(|at| house.seat(*at)).collect() }
    });
}
