//! Administrators who come and go: what becomes of the orders that they have signed, and what the records say.

use strongroom_server::cluster::{Administrator, Document, Membership, order::OrderedAct};

use super::{
    life::{ANN, BOB},
    *,
};

const CID: u8 = 3;

/// A document of these nodes with these administrators, of whom all sign, signed by `signers`.
fn ruled_by(version: u64, house: &House, who: &[(&str, u8)], signers: &[u8]) -> Vec<u8> {
    let pairs: Vec<_> = signers.iter().map(|seed| administrator(*seed)).collect();
    listing(version, house, who).sign(&pairs.iter().collect::<Vec<_>>()).unwrap()
}

fn listing(version: u64, house: &House, who: &[(&str, u8)]) -> Membership {
    let mut membership = membership(version, &house.nodes.iter().collect::<Vec<_>>());
    let listed = |(name, seed): &(&str, u8)| Administrator {
        name: (*name).into(),
        key: public(&administrator(*seed)),
    };
    membership.administrators = who.iter().map(listed).collect();
    membership.approvals = who.len() as u32;
    membership
}

#[test]
fn who_is_dismissed_signs_nothing_any_more_and_spoils_no_order_of_the_others() {
    let house = House::new(3);
    let three = ruled_by(2, &house, &[("ann", ANN), ("bob", BOB), ("cid", CID)], &[ANN]);
    house.nodes.iter().for_each(|node| assert!(node.install(&three).is_ok()));
    house.beat();
    let made = house.generate(0, &Kind::Ed25519.wish(2, 3)).unwrap();
    let key = made.private.id;
    let waiting = |house: &House| {
        let node = &house.nodes[0];
        let orders = node.world.ask(&node.vault, &node.admin(), &ListOrders {}).unwrap().orders;
        orders.into_iter().map(|order| order.signed_by).collect::<Vec<_>>()
    };
    let (hers, theirs) = (house.order(0, key, OrderedAct::Refresh), house.order(0, key, OrderedAct::Refresh));
    let (ann, bob, cid) = (house.admin(0, ANN), house.admin(0, BOB), house.admin(0, CID));
    for order in [&hers, &theirs] {
        assert_eq!(house.approve(0, &ann, order, ANN).unwrap().approvals, 1);
    }
    assert_eq!(house.approve(0, &bob, &theirs, BOB).unwrap().approvals, 2);
    assert_eq!(waiting(&house).len(), 2);

    let two = ruled_by(3, &house, &[("bob", BOB), ("cid", CID)], &[ANN, BOB, CID]);
    house.nodes[0].install(&two).unwrap();
    house.beat();
    assert_eq!(waiting(&house), [["bob"]], "what ann alone has signed is forgotten");
    let records = house.nodes[2].records("OfferMembership");
    let told = "2 of the administrators bob, cid sign from now on; approved by ann, bob, cid";
    assert!(records.iter().any(|record| record.detail.ends_with(told)), "{records:?}");

    let refused = house.approve(0, &ann, &theirs, ANN).unwrap_err();
    assert!(refused.detail.contains("does not list"), "{refused}");
    let state = house.approve(0, &cid, &theirs, CID).unwrap();
    assert_eq!((state.approvals, state.epoch), (2, Some(1)));
    house.is_sound(Kind::Ed25519, &made, 1);
    let refused = house.nodes[1].install(&ruled_by(4, &house, &[("ann", ANN)], &[ANN, BOB])).unwrap_err();
    assert!(refused.detail.contains("1 of the administrators"), "{refused}");
}

#[test]
fn a_node_that_was_away_while_the_administrators_became_others_follows_them() {
    let mut house = House::new(3);
    house.cut_off(&["c"]);
    let view = |house: &House, at: usize| {
        let node = &house.nodes[at];
        let state = node.world.ask(&node.vault, &node.admin(), &ReadCluster {}).unwrap();
        Document::read(&state.document).unwrap()
    };
    let install = |house: &House, membership: Membership, signers: &[u8]| {
        let pairs: Vec<_> = signers.iter().map(|seed| administrator(*seed)).collect();
        let document = membership.sign_after(&view(house, 0), &pairs.iter().collect::<Vec<_>>()).unwrap();
        house.nodes[0].install(&document)
    };
    let with_approvals = |membership: Membership, approvals| Membership { approvals, ..membership };
    let two = with_approvals(listing(2, &house, &[("ann", ANN), ("bob", BOB)]), 1);
    install(&house, two.clone(), &[ANN]).unwrap();
    let others = with_approvals(listing(3, &house, &[("bob", BOB), ("cid", CID)]), 1);
    let refused = install(&house, others.clone(), &[ANN]).unwrap_err();
    assert!(refused.detail.contains("have signed it, it takes 2"), "ann alone: {refused}");
    install(&house, others.clone(), &[ANN, BOB]).unwrap();
    install(&house, Membership { version: 4, ..others }, &[CID]).unwrap();
    house.beat();
    assert_eq!([0, 1, 2].map(|at| view(&house, at).membership().version), [4, 4, 1]);
    house.restart(0);
    house.clear_up();
    house.beat();
    assert_eq!([0, 1, 2].map(|at| view(&house, at).membership().version), [4, 4, 4]);
    let records = house.nodes[2].records("OfferMembership");
    let told = "1 of the administrators bob, cid sign from now on; approved by cid";
    assert!(records.last().unwrap().detail.ends_with(told), "{records:?}");
}
