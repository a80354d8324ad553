//! New keys of which shares wait and no certificate is shown: abandoned on administrators' order, at all nodes or at none.

use strongroom_server::{
    cluster::order::{Order, OrderApproval, OrderedAct, SignedOrder},
    crypto::threshold::{CeremonyId, Epoch, KeyId, SchemeId},
};
use strongroom_shared::fault::FaultCode;

use super::{
    double::{Begin, Question, Signer, Spoils, Task},
    hostile::{Scene, bad_signer},
    life::ANN,
    *,
};

const ED: Kind = Kind::Ed25519;
const HOUR: u64 = 3600 * 1_000_000;

/// Two honest nodes at which shares of a new key wait, and the bad one that had it made and keeps the certificate to
/// itself.
struct Waiting {
    house: House,
    signer: Arc<Signer>,
    key: ObjectId,
    certificate: Vec<u8>,
}

impl Waiting {
    fn new() -> Self {
        let scene = Scene::new();
        let key = ObjectId([9; 16]);
        let body = minicbor::to_vec(ED.wish(2, 3)).unwrap();
        let mandated = scene.house.mandated(CallId::GenerateKeyPair, body);
        let (made, said) = scene.double.begin_key(&scene.talks(), (SchemeId::Ed25519, 2), key.0, &mandated);
        let certificate = minicbor::to_vec(scene.double.complete(&said)).unwrap();
        let (house, signer) = bad_signer(scene, made.unwrap().share.unwrap(), Spoils::Part);
        Self { house, signer, key, certificate }
    }

    /// Asks an honest node as the bad one.
    fn ask(&self, at: usize, question: &Question) -> Result<(), Fault> {
        let talk = self.signer.ear.double.meet(&self.house.nodes[at], &self.signer.ear.document);
        talk.ask(question).map(drop)
    }

    fn show(&self, at: usize) -> Result<(), Fault> {
        self.ask(at, &Question::Activate(self.certificate.clone(), None))
    }

    /// A new ceremony for a key of the same id.
    fn again(&self, attempt: usize) -> Begin {
        let body = minicbor::to_vec(ED.wish(2, 3)).unwrap();
        let mandated = self.house.mandated(CallId::GenerateKeyPair, body);
        let seats = ["a", "b", "z"].map(str::to_owned).into();
        let task = Task::Generate { mandated, public: ObjectId([0x55; 16]), seats };
        let (id, key) = (CeremonyId([attempt as u8 + 100; 32]), KeyId(self.key.0));
        Begin { id, key, epoch: Epoch(0), task, parcels: Vec::new() }
    }

    fn pass(&mut self, time: u64) {
        self.house.nodes.iter().for_each(|node| node.world.platform.pass(time));
        (0..2).for_each(|at| self.house.desks[at] = self.house.log_in(at));
    }

    fn order(&self) -> Order {
        self.house.order_of(self.key, 0, OrderedAct::Abandon)
    }

    fn abandon(&self, order: &Order) -> Result<OrderState, Fault> {
        self.house.approve(0, &self.house.admin(0, ANN), order, ANN)
    }

    /// The shares that wait at a node.
    fn list(&self, at: usize) -> Vec<WaitingShare> {
        list(&self.house, at)
    }
}

fn list(house: &House, at: usize) -> Vec<WaitingShare> {
    let node = &house.nodes[at];
    let call = ListWaiting { partition: "trading".into() };
    node.world.ask(&node.vault, &node.admin(), &call).unwrap().shares
}

fn signed(order: &Order) -> SignedOrder {
    let text = order.to_bytes();
    SignedOrder { approvals: vec![OrderApproval::new(&text, &administrator(ANN))], text }
}

#[test]
fn a_new_key_that_no_node_has_is_abandoned_at_all_nodes_and_for_ever() {
    let mut scene = Waiting::new();
    for at in 0..2 {
        let [share] = &scene.list(at)[..] else { panic!() };
        assert_eq!((share.key, share.epoch, share.node.as_str()), (scene.key, 0, "z"));
        assert_eq!((share.label.as_slice(), share.new), (&b"desk-1"[..], true));
    }
    let read = ReadShares { partition: "trading".into(), key: scene.key, challenge: vec![5; 32] };
    let node = &scene.house.nodes[0];
    let read = node.world.ask(&node.vault, &node.admin(), &read).unwrap();
    assert_eq!((read.epoch, read.threshold, read.seats.len()), (None, 2, 3));
    assert_eq!((read.waiting, read.label.as_slice()), (Some(scene.list(0)[0].since), &b"desk-1"[..]));
    let refused = |scene: &Waiting, order: &Order, hint: &str| {
        let fault = scene.abandon(order).expect_err(hint);
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
        assert_eq!((scene.list(0).len(), scene.list(1).len()), (1, 1), "{hint}");
    };
    refused(&scene, &scene.order(), "less than an hour");
    scene.pass(HOUR);
    // Every node that may hold a share answers.
    scene.house.cut_off(&["b"]);
    refused(&scene, &scene.order(), "node b: lost");
    scene.house.clear_up();
    refused(&scene, &Order { public_key: vec![2; 32].into(), ..scene.order() }, "another public key");
    refused(&scene, &Order { key: ObjectId([8; 16]), ..scene.order() }, "no share of a new key");
    refused(&scene, &Order { epoch: 1, ..scene.order() }, "starts from epoch 1");
    let stranger = scene.house.approve(0, &scene.house.admin(0, ANN), &scene.order(), 7).unwrap_err();
    assert!(stranger.detail.contains("does not list"), "{stranger}");
    let refresh = Order { act: OrderedAct::Refresh, ..scene.order() };
    refused(&scene, &refresh, "no share of key");

    // The last answer of the other honest node is lost: it has dropped its share, and the order is carried out again.
    let order = scene.order();
    scene.house.strike("a", 2, Mishap::ReplyLost);
    let fault = scene.abandon(&order).unwrap_err();
    assert!(fault.detail.contains("order it again: node b"), "{fault}");
    assert_eq!((scene.list(0).len(), scene.list(1).len()), (1, 0));
    scene.house.clear_up();
    let state = scene.abandon(&order).unwrap();
    assert_eq!((state.epoch, state.approvals), (Some(0), 1));
    assert!(state.note.contains("no node has the key"), "{}", state.note);
    for restarted in [false, true] {
        if restarted {
            (0..2).for_each(|at| scene.house.restart(at));
        }
        for at in 0..2 {
            assert!(scene.list(at).is_empty(), "node {at}");
            let fault = scene.show(at).unwrap_err();
            assert!(fault.detail.contains("no share waits here"), "node {at}: {fault}");
            let fault = scene.ask(at, &Question::Begin(scene.again(at))).unwrap_err();
            assert!(fault.detail.contains("was destroyed at this node"), "node {at}: {fault}");
            assert!(keys(&scene.house, at).is_empty(), "node {at}");
            let records = scene.house.nodes[at].records("RenewShares");
            let told = "abandoned, ordered by ann: no node has a certificate of its shares";
            let record = records.iter().find(|record| record.detail == told);
            assert!(record.is_some_and(|record| record.object == Some(scene.key)), "{records:?}");
        }
    }
    refused_again(&scene, &order);
}

/// An order that was carried out has nothing to begin from.
fn refused_again(scene: &Waiting, order: &Order) {
    let fault = scene.abandon(order).unwrap_err();
    assert!(fault.detail.contains("no share of a new key"), "{fault}");
}

#[test]
fn whoever_has_promised_takes_no_certificate_and_whoever_has_not_gives_nothing_up() {
    let mut scene = Waiting::new();
    scene.pass(HOUR);
    let order = signed(&scene.order());
    // A bad coordinator that skips what it should ask first.
    let fault = scene.ask(0, &Question::Abandon(order.clone())).unwrap_err();
    assert!(fault.detail.contains("has not promised"), "{fault}");
    let forged = SignedOrder { approvals: Vec::new(), ..order.clone() };
    let refresh = signed(&Order { act: OrderedAct::Refresh, ..scene.order() });
    let late = signed(&Order { expires: scene.order().expires - 600, ..scene.order() });
    for (order, hint) in [(forged, "0 administrators"), (refresh, "another act"), (late, "clocks")] {
        for question in [Question::MayAbandon(order.clone()), Question::Abandon(order)] {
            let fault = scene.ask(0, &question).unwrap_err();
            assert!(fault.detail.contains(hint), "{hint}: {fault}");
        }
    }
    scene.ask(0, &Question::MayAbandon(order.clone())).unwrap();
    let fault = scene.show(0).unwrap_err();
    assert!(fault.detail.contains("abandoned just now"), "{fault}");
    // A promise ends, with its time and with the process.
    scene.pass(61_000_000);
    let fault = scene.ask(0, &Question::Abandon(order.clone())).unwrap_err();
    assert!(fault.detail.contains("has not promised"), "{fault}");
    scene.ask(0, &Question::MayAbandon(order.clone())).unwrap();
    scene.house.restart(0);
    let fault = scene.ask(0, &Question::Abandon(order.clone())).unwrap_err();
    assert!(fault.detail.contains("has not promised"), "{fault}");
    // The key comes about after all, at one node; the other gets it instead of giving it up, and it signs.
    scene.show(1).unwrap();
    let fault = scene.ask(1, &Question::MayAbandon(order)).unwrap_err();
    assert!(fault.detail.contains("in use at this node"), "{fault}");
    let state = scene.abandon(&scene.order()).unwrap();
    assert!(state.note.contains("nothing was abandoned"), "{}", state.note);
    assert_eq!((scene.list(0).len(), scene.list(1).len()), (0, 0));
    scene.pass(1);
    for at in 0..2 {
        assert_eq!(keys(&scene.house, at), [scene.key], "node {at}");
    }
    scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
}

#[test]
fn only_what_is_new_is_abandoned() {
    let house = House::ruled(3, 1);
    let made = house.generate(0, &ED.wish(2, 3)).unwrap();
    let fault = house.renew(0, made.private.id, OrderedAct::Abandon).unwrap_err();
    assert_eq!(fault.code, FaultCode::KeyHandleInvalid, "{fault}");
    // A share of later ones waits at one node, whose answers are lost.
    let calls = house.strike("a", usize::MAX, Mishap::None);
    house.renew(0, made.private.id, OrderedAct::Refresh).unwrap();
    let calls = calls.load(Ordering::Relaxed);
    for after in (0..calls).rev() {
        house.strike("a", after, Mishap::ReplyLost);
        let _ = house.renew(0, made.private.id, OrderedAct::Refresh);
        house.clear_up();
        if (0..3).any(|at| !list(&house, at).is_empty()) {
            break;
        }
    }
    let at = (0..3).find(|at| !list(&house, *at).is_empty()).expect("a share that waits");
    let waiting = list(&house, at);
    assert!(waiting.iter().all(|share| !share.new && share.epoch > 0), "{waiting:?}");
    let fault = house.renew(at, made.private.id, OrderedAct::Abandon).unwrap_err();
    assert_eq!(fault.code, FaultCode::KeyHandleInvalid, "{fault}");
    assert_eq!(list(&house, at).len(), waiting.len());
}
