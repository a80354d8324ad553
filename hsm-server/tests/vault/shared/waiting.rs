//! Orders that wait at a node: over restarts, and until they can come about no more.

use strongroom_server::cluster::order::{Order, OrderedAct, Seat};
use strongroom_shared::fault::{Fault, FaultCode};

use super::{
    life::{ANN, BOB, two_administrators},
    *,
};

const ED: Kind = Kind::Ed25519;

impl House {
    /// The orders that wait at the first node.
    fn waiting(&self) -> Vec<WaitingOrder> {
        let node = &self.nodes[0];
        node.world.ask(&node.vault, &node.admin(), &ListOrders {}).unwrap().orders
    }

    /// How many orders the first node has on disk.
    fn kept_orders(&self) -> usize {
        let rows = strongroom_server::store::Store::load(&self.nodes[0].world.store).unwrap();
        rows.iter().filter(|row| row.path.starts_with("order/")).count()
    }

    /// The same signature again changes nothing.
    fn sign_again(&self, order: &Order, client: &Client) {
        let version = self.nodes[0].world.store.copy();
        assert_eq!(self.approve(0, client, order, ANN).unwrap().approvals, 1);
        let rows = |store| strongroom_server::store::Store::load(store).unwrap().len();
        assert_eq!(rows(&version), rows(&self.nodes[0].world.store));
    }
}

#[test]
fn an_order_waits_over_a_restart_for_the_second_signature() {
    let mut house = House::ruled(3, 2);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let order = house.order(0, made.private.id, OrderedAct::Refresh);
    let (ann, bob) = (house.admin(0, ANN), house.admin(0, BOB));
    house.approve(0, &ann, &order, ANN).unwrap();
    let records = house.nodes[0].records("RenewShares");
    assert_eq!(records.last().unwrap().detail, "refresh, signed by ann: 1 of 2 signatures");
    house.restart(0);
    house.beat();
    let waiting = house.waiting();
    assert_eq!((waiting.len(), house.kept_orders()), (1, 1));
    assert_eq!((&waiting[0].order, waiting[0].needed), (&order.to_bytes(), 2));
    assert_eq!((waiting[0].signed_by.as_slice(), &waiting[0].trouble), (&["ann".to_owned()][..], &None));
    // It is known still on whose connection the first signature came.
    let fault = house.approve(0, &ann, &order, BOB).unwrap_err();
    assert!(fault.detail.contains("same certificate"), "{fault}");
    let state = house.approve(0, &bob, &order, BOB).unwrap();
    assert_eq!((state.approvals, state.epoch), (2, Some(1)));
    assert_eq!((house.waiting().len(), house.kept_orders()), (0, 0));
    house.is_sound(ED, &made, 1);
}

#[test]
fn what_can_come_about_no_more_is_erased() {
    let mut house = House::ruled(3, 2);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let (ann, bob) = (house.admin(0, ANN), house.admin(0, BOB));
    let key = made.private.id;
    let begin = |house: &House, client: &Client, seed| {
        let order = house.order(0, key, OrderedAct::Refresh);
        assert_eq!(house.approve(0, client, &order, seed).unwrap().epoch, None);
        order
    };
    // Another one was carried out meanwhile.
    let (first, _) = (begin(&house, &ann, ANN), begin(&house, &ann, ANN));
    house.restart(0);
    house.beat();
    assert_eq!((house.waiting().len(), house.kept_orders()), (2, 2));
    house.approve(0, &bob, &first, BOB).unwrap();
    house.beat();
    assert_eq!((house.kept_orders(), house.waiting().len()), (0, 0));
    // Its time is over, while nobody looks and no process runs.
    begin(&house, &ann, ANN);
    assert_eq!(house.kept_orders(), 1);
    house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000));
    house.restart(0);
    house.beat();
    assert_eq!(house.kept_orders(), 0);
    // Who signed it is no administrator any more.
    begin(&house, &bob, BOB);
    let both = begin(&house, &ann, ANN);
    house.sign_again(&both, &ann);
    let ann_alone = membership(3, &house.nodes.iter().collect::<Vec<_>>());
    let signers = [&administrator(ANN), &administrator(BOB)];
    house.nodes[0].install(&ann_alone.sign(&signers).unwrap()).unwrap();
    assert_eq!((house.kept_orders(), house.waiting().len()), (1, 1));
    house.restart(0);
    assert_eq!(house.waiting()[0].signed_by, ["ann"]);
    // The node leaves the cluster.
    let rest: Vec<&Node> = house.nodes.iter().skip(1).collect();
    house.nodes[0].install(&document(4, &rest)).unwrap();
    assert_eq!(house.kept_orders(), 0);
}

#[test]
fn an_order_for_which_nodes_were_away_may_be_tried_again_and_says_so() {
    let mut house = House::ruled(3, 2);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let order = house.order(0, made.private.id, OrderedAct::Refresh);
    let (ann, bob) = (house.admin(0, ANN), house.admin(0, BOB));
    house.cut_off(&["c"]);
    house.approve(0, &ann, &order, ANN).unwrap();
    let fault = house.approve(0, &bob, &order, BOB).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
    house.restart(0);
    house.beat();
    let waiting = house.waiting();
    assert_eq!(waiting[0].signed_by, ["ann", "bob"]);
    let trouble = waiting[0].trouble.as_deref().unwrap();
    assert!(trouble.contains("node c"), "{trouble}");
    house.clear_up();
    house.beat();
    let state = house.approve(0, &ann, &order, ANN).unwrap();
    assert_eq!((state.approvals, state.epoch), (2, Some(1)));
    assert_eq!((house.waiting().len(), house.kept_orders()), (0, 0));
    house.is_sound(ED, &made, 1);
}

#[test]
fn an_order_that_was_begun_too_often_waits_until_it_may_be_begun_again() {
    let house = House::new(3);
    let document = two_administrators(2, &house.nodes.iter().collect::<Vec<_>>(), 1);
    house.nodes.iter().for_each(|node| assert!(node.install(&document).is_ok()));
    house.beat();
    let key = house.generate(0, &ED.wish(2, 3)).unwrap().private.id;
    let order = house.order(0, key, OrderedAct::Refresh);
    let ann = house.admin(0, ANN);
    // Node c answers what it has, and never takes part.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    house.net.weather(move |_, to, call| {
        let lost = to == "c" && call == CallId::SealedCall && count.fetch_add(1, Ordering::Relaxed) > 0;
        if lost { Mishap::Lost } else { Mishap::None }
    });
    let mut faults: Vec<Fault> = Vec::new();
    while faults.len() < 20 && faults.last().is_none_or(|fault| fault.code == FaultCode::QuorumMissing) {
        asked.store(0, Ordering::Relaxed);
        faults.push(house.approve(0, &ann, &order, ANN).unwrap_err());
    }
    let last = faults.pop().unwrap();
    assert!(last.detail.contains("used up") && faults.len() > 2, "{last}, {faults:?}");
    // What the administrators have signed stays theirs, and says what was wrong.
    let waiting = house.waiting();
    assert!(waiting[0].trouble.as_deref().unwrap().contains("used up"), "{waiting:?}");
    house.clear_up();
    house.nodes.iter().for_each(|node| node.world.platform.pass(200_000_000));
    house.beat();
    assert_eq!(house.approve(0, &ann, &order, ANN).unwrap().epoch, Some(1));
    assert_eq!((house.waiting().len(), house.kept_orders()), (0, 0));
}

#[test]
fn what_cannot_come_about_is_refused_before_anybody_else_signs_it() {
    let house = House::ruled(3, 2);
    let key = house.generate(0, &ED.wish(2, 3)).unwrap().private.id;
    let ann = house.admin(0, ANN);
    let all: Vec<Seat> = (0..3).map(|at| house.seat(at)).collect();
    let twice = vec![all[0], all[1], all[0]];
    let stranger = vec![all[0], all[1], Seat([5; 32])];
    let reshare = |threshold, seats| OrderedAct::Reshare { threshold, seats };
    for (act, hint) in [
        (reshare(4, all.clone()), "2 ≤ threshold ≤ parties"),
        (reshare(1, all.clone()), "2 ≤ threshold ≤ parties"),
        (reshare(2, twice), "two shares"),
        (reshare(2, stranger), "no member of the cluster"),
        (OrderedAct::Repair { node: [5; 32] }, "holds no share"),
        (OrderedAct::Share { threshold: 4, seats: all.clone() }, "2 ≤ threshold ≤ parties"),
        (OrderedAct::Share { threshold: 2, seats: all }, "no private key that is whole here"),
    ] {
        let fault = house.approve(0, &ann, &house.order(0, key, act), ANN).unwrap_err();
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    let other = Order { public_key: vec![7; 33].into(), ..house.order(0, key, OrderedAct::Refresh) };
    let fault = house.approve(0, &ann, &other, ANN).unwrap_err();
    assert!(fault.detail.contains("another public key"), "{fault}");
    assert_eq!(house.kept_orders(), 0);
}
