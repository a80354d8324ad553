//! The life of shares: refreshed, repaired and moved on administrators' order, over vaults that may miss a part of it.

use strongroom_server::{
    certificates,
    cluster::{
        Administrator, Document, Membership,
        document::ClusterId,
        order::{Order, OrderApproval, OrderedAct, Seat},
    },
};
use strongroom_shared::{fault::FaultCode, object::CKA_STRONGROOM_EPOCH};

use super::*;

const ED: Kind = Kind::Ed25519;

/// The administrators, by the seed of the key that signs orders.
pub const ANN: u8 = 1;
pub const BOB: u8 = 2;

/// A document of these nodes, with two administrators of whom so many sign.
pub fn two_administrators(version: u64, nodes: &[&Node], approvals: u32) -> Vec<u8> {
    ruled_by_two(membership(version, nodes), approvals)
}

/// The document of this membership, with the same.
pub fn ruled_by_two(mut membership: Membership, approvals: u32) -> Vec<u8> {
    let listed = |name: &str, seed| {
        let key = administrator(seed).public_key().as_ref().try_into().unwrap();
        Administrator { name: name.into(), key }
    };
    membership.administrators = vec![listed("ann", ANN), listed("bob", BOB)];
    membership.approvals = approvals;
    membership.sign(&[&administrator(ANN)]).unwrap()
}

impl House {
    /// A house whose administrators are ann and bob.
    pub fn ruled(count: usize, approvals: u32) -> Self {
        let house = Self::new(count);
        let document = two_administrators(2, &house.nodes.iter().collect::<Vec<_>>(), approvals);
        house.nodes.iter().for_each(|node| assert!(node.install(&document).is_ok()));
        house.beat();
        house
    }

    /// An order about the shares that there are at the first node.
    pub fn order(&self, at: usize, key: ObjectId, act: OrderedAct) -> Order {
        self.order_of(key, self.epoch(at, key), act)
    }

    /// An order about the shares of this epoch.
    pub fn order_of(&self, key: ObjectId, epoch: u64, act: OrderedAct) -> Order {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonces.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Order {
            cluster: ClusterId([7; 16]),
            partition: "trading".into(),
            key,
            epoch,
            nonce,
            expires: self.nodes[0].world.platform.now() / 1_000_000 + 600,
            act,
            public_key: self.public_key(key).into(),
        }
    }

    /// The public key as orders name it: what the first node says that has anything of it.
    pub fn public_key(&self, key: ObjectId) -> Vec<u8> {
        let read = ReadShares { partition: "trading".into(), key, challenge: vec![5; 32] };
        let mut said = self.nodes.iter().map(|node| node.world.ask(&node.vault, &node.admin(), &read));
        said.find_map(Result::ok).map(|read| read.public_key).unwrap_or_default()
    }

    /// The epoch of a key that a node shows.
    pub fn epoch(&self, at: usize, key: ObjectId) -> u64 {
        let call = ReadAttributes { object: key, kinds: vec![CKA_STRONGROOM_EPOCH] };
        match self.ask(at, &call).unwrap().answers[..] {
            [Answer::Value(Value::Ulong(epoch))] => epoch,
            ref other => panic!("{other:?}"),
        }
    }

    /// The connection of an administrator: ann's is the first administrator's.
    pub fn admin(&self, at: usize, who: u8) -> Client {
        let node = &self.nodes[at];
        if who == ANN {
            return node.admin();
        }
        let (_, request) = certificates::request("bob").unwrap();
        let call = AddClient { name: format!("bob{who}"), partition: None, request, days: 30 };
        let made = node.world.ask(&node.vault, &node.admin(), &call).unwrap();
        let certificate = pem::parse(made.certificate).unwrap().into_contents();
        node.world.connect(&node.vault, &certificate, 0)
    }

    /// A signature under an order, on this administrator's connection.
    pub fn approve(&self, at: usize, client: &Client, order: &Order, seed: u8) -> Result<OrderState, Fault> {
        let text = order.to_bytes();
        let OrderApproval { key, signature } = OrderApproval::new(&text, &administrator(seed));
        let call = RenewShares { order: text, key: key.to_vec(), signature: signature.to_vec() };
        let node = &self.nodes[at];
        node.world.ask(&node.vault, client, &call)
    }

    /// Ann orders it alone.
    pub fn renew(&self, at: usize, key: ObjectId, act: OrderedAct) -> Result<OrderState, Fault> {
        let order = self.order(at, key, act);
        self.approve(at, &self.admin(at, ANN), &order, ANN)
    }

    /// Whether a node keeps a share that another has replaced.
    pub fn keeps_former(&self, at: usize, key: ObjectId) -> bool {
        let rows = strongroom_server::store::Store::load(&self.nodes[at].world.store).unwrap();
        rows.iter().any(|row| row.path.ends_with(&format!("/former/{key}")))
    }

    pub fn seat(&self, at: usize) -> Seat {
        Seat(self.nodes[at].said.identity.clone().try_into().unwrap())
    }

    /// Every node signs with the shares of this epoch, and keeps none of before.
    pub fn is_sound(&self, kind: Kind, made: &KeyPair, epoch: u64) {
        for at in 0..self.nodes.len() {
            assert_eq!(self.epoch(at, made.private.id), epoch, "node {at}");
            assert!(!self.keeps_former(at, made.private.id), "node {at}");
            let signature = self.sign(at, kind, made.private.id, MESSAGE);
            let signature = signature.unwrap_or_else(|fault| panic!("node {at}: {fault}"));
            self.check(at, kind, made.public.id, &signature);
        }
    }
}

#[test]
fn a_refresh_makes_other_shares_of_the_same_key() {
    let mut house = House::ruled(3, 1);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    for epoch in 1..3 {
        let state = house.renew(1, made.private.id, OrderedAct::Refresh).unwrap();
        assert_eq!((state.epoch, state.note.as_str()), (Some(epoch), ""));
        house.is_sound(ED, &made, epoch);
    }
    for at in 0..3 {
        let records = house.nodes[at].records("RenewShares");
        let told = |text: &str| records.iter().filter(|record| record.detail.contains(text)).count();
        assert_eq!(told("refresh ordered by ann: a, b, c; its share waits"), 2, "{records:?}");
        assert_eq!(told("epoch 2; refresh, ordered by ann"), 1, "{records:?}");
        assert_eq!(told("every share of epoch 2 has signed; the one before it is erased"), 1, "{records:?}");
        let good = |record: &AuditRecord| record.partition == "trading" && record.outcome == Outcome::Done;
        assert!(records.iter().all(good), "{records:?}");
    }
    (0..3).for_each(|at| house.restart(at));
    house.beat();
    house.is_sound(ED, &made, 2);
    // Nothing is left of the key once it is destroyed, but that it was.
    let body = minicbor::to_vec(DestroyObject { object: made.private.id }).unwrap();
    house.ask(0, &DestroyShared { mandated: house.mandated(CallId::DestroyObject, body) }).unwrap();
    for node in &house.nodes {
        let rows = strongroom_server::store::Store::load(&node.world.store).unwrap();
        let left: Vec<_> =
            rows.iter().filter(|row| row.path.contains(&made.private.id.to_string())).collect();
        assert!(left.len() == 1 && left[0].path.contains("/destroyed/"), "{left:?}");
    }
}

#[test]
fn it_takes_as_many_administrators_as_the_document_asks_for_each_with_a_certificate() {
    let house = House::ruled(3, 2);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let order = house.order(0, made.private.id, OrderedAct::Refresh);
    let (ann, bob) = (house.admin(0, ANN), house.admin(0, BOB));
    for _ in 0..2 {
        let state = house.approve(0, &ann, &order, ANN).unwrap();
        assert_eq!((state.approvals, state.needed, state.epoch), (1, 2, None), "the same one twice is one");
    }
    let fault = house.approve(0, &ann, &order, BOB).unwrap_err();
    assert!(fault.detail.contains("same certificate"), "{fault}");
    let stranger = house.approve(0, &house.admin(0, 9), &order, 9).unwrap_err();
    assert!(stranger.detail.contains("does not list"), "{stranger}");
    let listed = house.nodes[0].world.ask(&house.nodes[0].vault, &bob, &ListOrders {}).unwrap().orders;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].order, listed[0].needed), (&order.to_bytes(), 2));
    assert_eq!(listed[0].signed_by, ["ann"]);
    let state = house.approve(0, &bob, &order, BOB).unwrap();
    assert_eq!((state.approvals, state.epoch), (2, Some(1)));
    house.is_sound(ED, &made, 1);
    // It is used up.
    let fault = house.approve(0, &bob, &order, BOB).unwrap_err();
    assert!(fault.detail.contains("the key is at epoch 1"), "{fault}");
    assert!(house.nodes[0].world.ask(&house.nodes[0].vault, &bob, &ListOrders {}).unwrap().orders.is_empty());
    // And one ends with its time.
    let order = house.order(0, made.private.id, OrderedAct::Refresh);
    house.approve(0, &ann, &order, ANN).unwrap();
    house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000));
    let fault = house.approve(0, &bob, &order, BOB).unwrap_err();
    assert!(fault.detail.contains("clocks"), "{fault}");
}

#[test]
fn a_node_that_missed_the_activation_catches_up_within_a_signature() {
    for (missed, coordinator) in [(2, 0), (2, 2)] {
        let house = House::ruled(3, 1);
        let made = house.generate(0, &ED.wish(2, 3)).unwrap();
        let calls = house.strike("a", usize::MAX, Mishap::None);
        house.renew(0, made.private.id, OrderedAct::Refresh).unwrap();
        let calls = calls.load(Ordering::Relaxed);
        assert_eq!(house.epoch(missed, made.private.id), 1);
        // The next time nobody hears of the certificate.
        let (count, before) = (AtomicUsize::new(0), calls);
        let text = Arc::new(std::sync::Mutex::new(0));
        let cut = Arc::clone(&text);
        house.net.weather(move |from, to, call| {
            if from != "a" || call != CallId::SealedCall {
                return Mishap::None;
            }
            let n = count.fetch_add(1, Ordering::Relaxed);
            let late = *cut.lock().unwrap();
            if late > 0 && n >= late && to == "c" { Mishap::Lost } else { Mishap::None }
        });
        // Two questions of each round, two certificates, and the proof: all that comes after the certificates to c.
        let proof = 2 + 2 + 4;
        *text.lock().unwrap() = before - proof;
        let state = house.renew(0, made.private.id, OrderedAct::Refresh).unwrap();
        house.clear_up();
        if house.epoch(missed, made.private.id) == 2 {
            panic!("it heard of it: {state:?}");
        }
        assert!(state.note.contains("has not taken its new share into use yet"), "{state:?}");
        assert!(house.keeps_former(0, made.private.id), "nothing is proven yet");
        house.cut_off(&["b"]);
        let signature = house.sign(coordinator, ED, made.private.id, MESSAGE).unwrap();
        house.check(coordinator, ED, made.public.id, &signature);
        assert_eq!(house.epoch(missed, made.private.id), 2);
        house.clear_up();
        // Greeting one another, they prove the new shares and erase the old.
        (0..4).for_each(|_| house.beat());
        house.is_sound(ED, &made, 2);
    }
}

#[test]
fn a_node_put_back_to_an_old_copy_is_refused_until_it_is_repaired() {
    is_refused_until_it_is_repaired(ED);
}

#[test]
fn a_node_put_back_to_an_old_copy_of_an_ecdsa_share_is_refused_until_it_is_repaired() {
    is_refused_until_it_is_repaired(Kind::K1);
}

fn is_refused_until_it_is_repaired(kind: Kind) {
    let mut house = House::ruled(3, 1);
    let made = house.generate(0, &kind.wish(2, 3)).unwrap();
    let key = made.private.id;
    let before = house.copy(2);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    house.is_sound(kind, &made, 1);
    house.put_back(2, &before);
    house.beat();
    assert_eq!(house.epoch(2, key), 0, "it does not know better");
    house.cut_off(&["b"]);
    for at in [0, 2] {
        assert!(house.sign(at, kind, key, MESSAGE).is_err(), "an old share and a new one");
    }
    house.clear_up();
    let fault = house.sign(2, kind, key, MESSAGE).unwrap_err();
    assert!(fault.detail.contains("hsmctl key repair"), "{fault}");
    house.restart(2);
    let fault = house.sign(2, kind, key, MESSAGE).unwrap_err();
    assert!(fault.detail.contains("hsmctl key repair"), "it remembers: {fault}");
    house.beat();
    house.sign(0, kind, key, MESSAGE).unwrap();
    // A refresh cannot give it a share.
    let fault = house.renew(0, key, OrderedAct::Refresh).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing);
    assert!(fault.detail.contains("node c") && fault.detail.contains("hsmctl key repair"), "{fault}");
    let Seat(node) = house.seat(2);
    assert_eq!(house.renew(0, key, OrderedAct::Repair { node }).unwrap().epoch, Some(2));
    house.is_sound(kind, &made, 2);
    house.restart(2);
    house.beat();
    house.is_sound(kind, &made, 2);
}

#[test]
fn shares_move_to_other_committees_and_back() {
    let house = House::ruled(5, 1);
    let wish = ED.wish(2, 5);
    let made = house.generate(0, &wish).unwrap();
    let key = made.private.id;
    let reshare = |threshold, seats: &[usize]| {
        let seats = seats.iter().map(|at| house.seat(*at)).collect();
        house.renew(0, key, OrderedAct::Reshare { threshold, seats })
    };
    let shown = |at: usize| {
        let kinds = vec![CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_EPOCH];
        let answers = house.ask(at, &ReadAttributes { object: key, kinds }).unwrap().answers;
        answers.into_iter().map(|answer| match answer {
            Answer::Value(Value::Ulong(number)) => number,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(reshare(2, &[0, 1, 2]).unwrap().epoch, Some(1));
    for at in 0..3 {
        assert_eq!(shown(at).collect::<Vec<_>>(), [2, 3, 1], "node {at}");
        let signature = house.sign(at, ED, key, MESSAGE).unwrap();
        house.check(at, ED, made.public.id, &signature);
        assert!(!house.keeps_former(at, key));
    }
    for at in 3..5 {
        assert!(keys(&house, at).is_empty() && !house.keeps_former(at, key), "node {at}");
        assert_eq!(code(house.sign(at, ED, key, MESSAGE)), FaultCode::KeyHandleInvalid);
        let records = house.nodes[at].records("RenewShares");
        assert!(
            records.iter().any(|record| record.detail.contains("reshare, ordered by ann")),
            "{records:?}"
        );
    }
    assert_eq!(reshare(3, &[4, 0, 3, 1, 2]).unwrap().epoch, Some(2));
    for at in 0..5 {
        assert_eq!(shown(at).collect::<Vec<_>>(), [3, 5, 2], "node {at}");
    }
    house.is_sound(ED, &made, 2);
    house.cut_off(&["b", "c"]);
    house.sign(0, ED, key, MESSAGE).unwrap();
    house.cut_off(&["b", "c", "d"]);
    assert_eq!(code(house.sign(0, ED, key, MESSAGE)), FaultCode::QuorumMissing);
    house.clear_up();
    house.beat();
    assert_eq!(code(reshare(1, &[0, 1])), FaultCode::AttributeValueInvalid);
    assert!(reshare(2, &[0, 1, 1]).unwrap_err().detail.contains("two shares"));
}

#[test]
fn a_node_whose_store_is_lost_comes_back_as_another_and_takes_its_seat() {
    let mut house = House::ruled(3, 1);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let lost = house.seat(2);
    // Another server under the same name.
    let node = Node::new(&house.net, "c", 33);
    node.world.platform.pass(house.nodes[0].world.platform.now() - node.world.platform.now());
    let (certificate, desk) = node.world.desk(&node.vault);
    let call =
        AdmitClient { name: "desk".into(), partition: "trading".into(), key: public(&desk_key()).to_vec() };
    node.world.ask(&node.vault, &node.admin(), &call).unwrap();
    (house.nodes[2], house.desks[2], house.certificates[2]) = (node, desk, certificate);
    let document = two_administrators(3, &house.nodes.iter().collect::<Vec<_>>(), 1);
    house.nodes.iter().for_each(|node| assert!(node.install(&document).is_ok()));
    house.beat();
    house.sign(0, ED, made.private.id, MESSAGE).unwrap();
    assert!(keys(&house, 2).is_empty());
    let fault = house.renew(0, made.private.id, OrderedAct::Refresh).unwrap_err();
    assert!(fault.detail.contains("no member of the cluster any more"), "{fault}");
    let Seat(node) = lost;
    assert!(house.renew(0, made.private.id, OrderedAct::Repair { node }).is_err());
    let seats = (0..3).map(|at| house.seat(at)).collect();
    house.renew(0, made.private.id, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    house.is_sound(ED, &made, 1);
    house.restart(2);
    house.beat();
    house.is_sound(ED, &made, 1);
    assert!(Document::read(&document).is_ok());
}

#[test]
fn by_the_schedule_shares_are_refreshed_when_they_are_old_and_nobody_hurries_it() {
    let mut house = House::ruled(3, 2);
    let hour = 3_600_000_000;
    let set = |house: &mut House, hours: [u64; 3]| {
        for (at, hours) in hours.into_iter().enumerate() {
            house.nodes[at].world.refresh_hours.store(hours, Ordering::Relaxed);
            house.restart(at);
        }
        house.beat();
    };
    set(&mut house, [0; 3]);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let pass = |house: &House, time| {
        house.nodes.iter().for_each(|node| node.world.platform.pass(time));
        house.beat();
        house.beat();
    };
    let epochs = |house: &mut House| -> Vec<u64> {
        (0..3).for_each(|at| house.desks[at] = house.log_in(at));
        (0..3).map(|at| house.epoch(at, made.private.id)).collect()
    };
    // A node whose setting is lower than that of the others moves nobody.
    set(&mut house, [1, 24, 0]);
    pass(&house, 2 * hour);
    assert_eq!(epochs(&mut house), [0; 3]);
    let refused = house.nodes[1].records("SealedCall").len() + house.nodes[1].records("RenewShares").len();
    assert!(refused > 0, "it said why");
    set(&mut house, [24; 3]);
    pass(&house, 21 * hour);
    assert_eq!(epochs(&mut house), [0; 3], "not before its time");
    house.cut_off(&["c"]);
    pass(&house, 10 * hour);
    assert_eq!(epochs(&mut house), [0; 3], "not without one");
    house.clear_up();
    house.beat();
    pass(&house, hour);
    assert_eq!(epochs(&mut house), [1; 3]);
    house.is_sound(ED, &made, 1);
    let records = house.nodes[2].records("RenewShares");
    assert!(
        records.iter().any(|record| record.detail.contains("refresh by the schedule: a, b, c")),
        "{records:?}"
    );
}

#[test]
fn a_node_that_was_away_when_it_was_left_out_gives_its_share_up_when_it_is_back() {
    let house = House::ruled(4, 1);
    let made = house.generate(0, &ED.wish(2, 4)).unwrap();
    let key = made.private.id;
    house.cut_off(&["d"]);
    let seats = (0..3).map(|at| house.seat(at)).collect();
    house.renew(0, key, OrderedAct::Reshare { threshold: 2, seats }).unwrap();
    house.clear_up();
    assert_eq!(keys(&house, 3).len(), 1, "it knows nothing of it");
    // And the others go on meanwhile.
    house.cut_off(&["d"]);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    house.clear_up();
    house.nodes.iter().for_each(|node| node.world.platform.pass(700_000_000));
    (0..3).for_each(|_| house.beat());
    assert!(keys(&house, 3).is_empty());
    assert!(!house.keeps_former(3, key), "the shares after those have signed");
}

/// Everything that can happen to a message of a refresh.
fn mishaps() -> Vec<Mishap> {
    use Mishap::*;
    vec![Lost, ReplyLost, Twice, Altered, ReplyAltered, Dies, DiesAfter]
}

#[test]
fn whatever_happens_to_a_refresh_all_nodes_sign_with_the_same_shares_after_it() {
    let mut house = House::ruled(3, 1);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let key = made.private.id;
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    let (mut done, mut undone) = (0, 0);
    for after in 0..calls {
        for mishap in mishaps() {
            house.strike("a", after, mishap.clone());
            let renewed = house.renew(0, key, OrderedAct::Refresh);
            house.clear_up();
            (0..3).for_each(|at| house.restart(at));
            let signed = house.sign(2, ED, key, MESSAGE);
            assert!(signed.is_ok(), "{mishap:?} after {after}: {signed:?}, {renewed:?}");
            house.beat();
            let at_a = house.epoch(0, key);
            assert_eq!(
                [1, 2].map(|at| house.epoch(at, key)),
                [at_a; 2],
                "{mishap:?} after {after}: {renewed:?}"
            );
            if (done + undone) % 40 == 39 {
                house.desks = (0..3).map(|at| house.log_in(at)).collect();
            }
            *(if renewed.is_ok() { &mut done } else { &mut undone }) += 1;
        }
    }
    assert!(done > 0 && undone > 0, "{done} {undone}");
    (0..8).for_each(|_| house.beat());
    house.desks = (0..3).map(|at| house.log_in(at)).collect();
    house.renew(0, key, OrderedAct::Refresh).unwrap();
    let epoch = house.epoch(0, key);
    house.is_sound(ED, &made, epoch);
}
