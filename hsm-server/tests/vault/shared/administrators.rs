//! Administrators who come and go: what becomes of the orders that they have signed, and what the records say.

use minicbor::bytes::ByteVec;
use strongroom_server::cluster::{Administrator, Document, Membership, order::OrderedAct};

use strongroom_shared::wire::{HEADER, Header, Kind as Frame, decode_body, encode_request};

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

/// What an earlier document says, and who signed it.
type Earlier = (ByteVec, Vec<(ByteVec, ByteVec)>);

/// What a document holds beside what it says: signatures, and the earlier ones with theirs.
#[derive(Clone, minicbor::Encode, minicbor::Decode)]
struct Handed {
    #[n(0)]
    body: ByteVec,
    #[n(1)]
    approvals: Vec<(ByteVec, ByteVec)>,
    #[n(2)]
    earlier: Option<Vec<Earlier>>,
}

/// Hands a document to a node as another one that may have changed it.
fn offer(from: &Node, to: &Node, document: &[u8]) -> Result<(), String> {
    let mut frame = Vec::new();
    encode_request(&mut frame, 1, &Caller::default(), &OfferMembership { document: document.to_vec() });
    let reply = deliver(&to.vault, &from.said.certificate, &frame).unwrap();
    match Header::decode(reply[..HEADER].try_into().unwrap(), u32::MAX).unwrap().kind {
        Frame::Fault => Err(decode_body::<Fault>(&reply[HEADER..]).unwrap().detail),
        Frame::Reply | Frame::Request => Ok(()),
    }
}

#[test]
fn what_a_bad_node_takes_off_a_document_or_puts_into_it_keeps_nobody_from_following() {
    let house = House::new(3);
    house.cut_off(&["c"]);
    let view = |at: usize| {
        let node = &house.nodes[at];
        let state = node.world.ask(&node.vault, &node.admin(), &ReadCluster {}).unwrap();
        Document::read(&state.document).unwrap()
    };
    let versions = || [0, 1, 2].map(|at| view(at).membership().version);
    let next = |version, who: &[(&str, u8)], signers: &[u8]| {
        let pairs: Vec<_> = signers.iter().map(|seed| administrator(*seed)).collect();
        let next = Membership { approvals: 1, ..listing(version, &house, who) };
        next.sign_after(&view(0), &pairs.iter().collect::<Vec<_>>()).unwrap()
    };
    house.nodes[0].install(&next(2, &[("ann", ANN), ("bob", BOB)], &[ANN])).unwrap();
    house.nodes[0].install(&next(3, &[("bob", BOB), ("cid", CID)], &[ANN, BOB])).unwrap();
    house.beat();
    // Node b is the bad one: it has the next document alone, and hands it on in pieces.
    let whole = next(4, &[("bob", BOB), ("cid", CID)], &[CID]);
    let handed: Handed = minicbor::decode(&whole).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<Earlier>)| {
        let mut handed = handed.clone();
        handed.earlier.iter_mut().for_each(change);
        minicbor::to_vec(handed).unwrap()
    };
    let mine: Handed = minicbor::decode(&ruled_by(3, &house, &[("eve", 7)], &[7])).unwrap();
    let mine = (mine.body, mine.approvals);
    let [a, b, c] = &house.nodes[..] else { panic!() };
    for (document, hint) in [
        (changed(&|earlier| earlier.clear()), "get it from another node"),
        (changed(&|earlier| drop(earlier.pop())), "get it from another node"),
        (changed(&|earlier| earlier[2].1.clear()), "get it from another node"),
        (changed(&|earlier| earlier[1] = mine.clone()), "get it from another node"),
        (changed(&|earlier| earlier.resize(17, mine.clone())), "too many earlier documents"),
        (changed(&|earlier| earlier[1].0[5] ^= 1), "refused"),
    ] {
        let refused = offer(b, c, &document).unwrap_err();
        assert!(refused.contains(hint), "{hint}: {refused}");
    }
    assert_eq!(versions(), [3, 3, 1]);
    // Whoever has them puts back what is missing, and hands on all of it.
    offer(b, a, &changed(&|earlier| earlier.clear())).unwrap();
    assert_eq!(view(0).bytes(), whole);
    // What the document does not come after goes no further.
    offer(b, c, &changed(&|earlier| earlier.insert(1, mine.clone()))).unwrap();
    assert_eq!(view(2).bytes(), whole);
    house.clear_up();
    house.beat();
    assert_eq!(versions(), [4, 4, 4]);
    // One that no honest node has yet is not taken in pieces by whoever was away, but from one that has all of it.
    house.cut_off(&["c"]);
    a.install(&next(5, &[("cid", CID), ("dan", 5)], &[BOB, CID])).unwrap();
    a.install(&next(6, &[("cid", CID), ("dan", 5)], &[5])).unwrap();
    house.beat();
    let mut handed: Handed = minicbor::decode(view(0).bytes()).unwrap();
    handed.earlier = None;
    let stripped = minicbor::to_vec(handed).unwrap();
    assert!(offer(b, c, &stripped).unwrap_err().contains("get it from another node"));
    let far = Membership { version: u64::MAX, ..view(2).membership().clone() };
    let far = far.sign_after(&view(2), &[&administrator(CID)]).unwrap();
    assert!(offer(b, c, &far).unwrap_err().contains("at most 1000000 beyond"));
    house.clear_up();
    house.beat();
    assert_eq!(versions(), [6, 6, 6]);
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
