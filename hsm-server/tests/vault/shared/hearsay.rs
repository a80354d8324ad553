//! Nodes that did not hear that the shares that they use have signed, before those become others.

use strongroom_server::cluster::order::OrderedAct;

use super::*;

const ED: Kind = Kind::Ed25519;

/// A refresh by the first node, in which this one of the others does not hear that the new shares have signed.
fn refresh_unheard(house: &House, key: ObjectId, deaf: &'static str) {
    let seen = house.strike("a", usize::MAX, Mishap::None);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    let calls = seen.load(Ordering::Relaxed);
    let count = AtomicUsize::new(0);
    house.net.weather(move |from, to, call| {
        let sent = from == "a" && call == CallId::SealedCall;
        // The last two calls tell of the proof.
        let lost = sent && count.fetch_add(1, Ordering::Relaxed) + 2 >= calls && to == deaf;
        if lost { Mishap::Lost } else { Mishap::None }
    });
    assert_eq!(house.renew(0, key, OrderedAct::Refresh).unwrap().note, "");
    house.clear_up();
}

#[test]
fn whoever_did_not_hear_of_a_proof_hears_of_it_before_shares_become_others() {
    for coordinator in [0, 1, 2] {
        let house = House::ruled(3, 1);
        let made = house.generate(0, &ED.wish(2, 3)).unwrap();
        let key = made.private.id;
        refresh_unheard(&house, key, "b");
        let kept: Vec<_> = (0..3).map(|at| house.keeps_former(at, key)).collect();
        assert_eq!(kept, [false, true, false], "only the second has not heard");
        let told = |house: &House| {
            let records = house.nodes[1].records("RenewShares");
            let of_it = |record: &&AuditRecord| record.detail.contains("every share of epoch 2 has signed");
            records.iter().filter(of_it).count()
        };
        assert_eq!(told(&house), 0);
        house.renew(coordinator, key, OrderedAct::Refresh).unwrap();
        assert_eq!(told(&house), 1, "by way of {coordinator}");
        house.is_sound(ED, &made, 3);
    }
}
