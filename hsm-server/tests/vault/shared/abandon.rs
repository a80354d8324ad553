//! New keys of which shares wait and no certificate is shown: abandoned on administrators' order, at all nodes or at none.

use strongroom_server::{
    cluster::Document,
    cluster::order::{Order, OrderApproval, OrderedAct, SignedOrder},
    crypto::threshold::{CeremonyId, Epoch, KeyId, SchemeId},
};
use strongroom_shared::fault::FaultCode;

use super::{
    double::{Begin, Promised, Question, Reply, Signer, Spoils, Stand, Task},
    hostile::Scene,
    life::ANN,
    spoilt::bad_signer,
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
        let talk = self.signer.ear.double.meet(&self.house.nodes[at], &self.signer.ear.document());
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

    /// An honest node's promise to the bad one.
    fn promise(&self, at: usize, order: &SignedOrder) -> Promised {
        let talk = self.signer.ear.double.meet(&self.house.nodes[at], &self.signer.ear.document());
        let Ok(Reply::Promised(promised)) = talk.ask(&Question::MayAbandon(order.clone())) else { panic!() };
        promised
    }

    fn refused(&self, at: usize, question: Question, hint: &str) {
        let fault = self.ask(at, &question).expect_err(hint);
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }

    /// What the bad node says of the key from now on.
    fn stand(&self, given_up: bool) {
        *self.signer.stand.lock().unwrap() = Some(Stand { given_up, time: u64::MAX });
    }

    /// Only these are members any more.
    fn leave(&self, stay: &[&str]) {
        let document = Document::read(&self.signer.ear.document()).unwrap();
        let mut next = document.membership().clone();
        next.version += 1;
        next.members.retain(|member| stay.contains(&member.name.as_str()));
        let document = next.sign(&[&administrator(ANN)]).unwrap();
        for node in self.house.nodes.iter().filter(|node| stay.contains(&node.name.as_str())) {
            node.install(&document).unwrap();
        }
        *self.signer.ear.document.lock().unwrap() = document;
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
            for told in [
                "promised to take no certificate of the key, ordered by ann",
                "abandoned, ordered by ann: no node takes a certificate of its shares",
            ] {
                let found: Vec<_> = records.iter().filter(|record| record.detail == told).collect();
                assert_eq!(found.len(), 1, "{told}: {records:?}");
                assert_eq!(found[0].object, Some(scene.key));
            }
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
fn whoever_has_promised_takes_no_certificate_and_whoever_is_shown_too_few_promises_gives_nothing_up() {
    let mut scene = Waiting::new();
    scene.pass(HOUR);
    let order = signed(&scene.order());
    // A bad coordinator that skips what it should ask first.
    scene.refused(0, Question::Abandon(order.clone(), Vec::new()), "has not promised by this order");
    let forged = SignedOrder { approvals: Vec::new(), ..order.clone() };
    let refresh = signed(&Order { act: OrderedAct::Refresh, ..scene.order() });
    let late = signed(&Order { expires: scene.order().expires - 600, ..scene.order() });
    for (order, hint) in [(forged, "0 administrators"), (refresh, "another act"), (late, "clocks")] {
        for question in [Question::MayAbandon(order.clone()), Question::Abandon(order, Vec::new())] {
            scene.refused(0, question, hint);
        }
    }
    let a = scene.promise(0, &order);
    assert_eq!(scene.promise(0, &order), a, "asked again");
    // Another order does not take its place, unless it ends later.
    let other = Order { nonce: [9; 16], ..scene.order() };
    scene.refused(0, Question::MayAbandon(signed(&other)), "has promised by another order");
    for restarted in [false, true] {
        if restarted {
            scene.house.restart(0);
        }
        let fault = scene.show(0).unwrap_err();
        assert!(fault.detail.contains("has promised to take no certificate"), "{fault}");
        // The other honest node has promised nothing, or by another order, or of another key.
        let z = scene.signer.ear.double.promise(&order);
        let by_other = scene.promise(1, &signed(&Order { nonce: [7; 16], ..scene.order() }));
        let of_other = scene.promise(1, &signed(&Order { key: ObjectId([8; 16]), ..scene.order() }));
        let borrowed = Promised { node: by_other.node.clone(), ..a.clone() };
        for other in [None, Some(z.clone()), Some(by_other), Some(of_other), Some(borrowed)] {
            let promises = [a.clone(), z.clone()].into_iter().chain(other).collect();
            scene.refused(0, Question::Abandon(order.clone(), promises), "node b has not promised");
        }
        let flood = vec![a.clone(); 40];
        scene.refused(0, Question::Abandon(order.clone(), flood), "40 promises");
        assert_eq!((scene.list(0).len(), keys(&scene.house, 0).len()), (1, 0));
        scene.pass(1_000_000);
    }
    // A node with nothing of a key promises, and makes no share of it then.
    let none = ObjectId([8; 16]);
    scene.promise(0, &signed(&Order { key: none, expires: scene.order().expires + 1, ..scene.order() }));
    let begin = Begin { key: KeyId(none.0), ..scene.again(1) };
    scene.refused(0, Question::Begin(begin), "has promised to take no certificate");
}

#[test]
fn a_bad_node_has_none_adopt_what_another_drops() {
    let mut scene = Waiting::new();
    scene.pass(HOUR);
    let order = scene.order();
    let text = signed(&order);
    let z = scene.signer.ear.double.promise(&text);
    let promises = vec![scene.promise(0, &text), scene.promise(1, &text), z];
    // One is shown that all have promised, and the other the certificate.
    scene.ask(0, &Question::Abandon(text.clone(), promises.clone())).unwrap();
    assert!(scene.list(0).is_empty());
    scene.house.restart(1);
    let never = |scene: &Waiting| {
        for _ in 0..2 {
            let fault = scene.show(1).unwrap_err();
            assert!(fault.detail.contains("has promised to take no certificate"), "{fault}");
            scene.house.beat();
        }
        assert_eq!((scene.list(1).len(), keys(&scene.house, 1).len()), (1, 0));
    };
    never(&scene);
    // Nor when the order is over, and the bad one says that nobody has given the key up: it asks the other too.
    scene.pass(700_000_000);
    scene.stand(false);
    never(&scene);
    scene.refused(1, Question::Abandon(text, promises), "clocks");
    // Whoever dropped it says so, and the next order has this one drop it too.
    let state = scene.house.approve(1, &scene.house.admin(1, ANN), &scene.order(), ANN).unwrap();
    assert!(state.note.contains("no node has the key"), "{}", state.note);
    assert!(scene.list(1).is_empty());
    for at in 0..2 {
        assert!(scene.show(at).unwrap_err().detail.contains("no share waits here"));
    }
}

#[test]
fn a_bad_node_has_none_drop_what_another_adopts() {
    for leaves in [false, true] {
        let mut scene = Waiting::new();
        scene.pass(HOUR);
        let order = signed(&scene.order());
        let a = scene.promise(0, &order);
        scene.show(1).unwrap();
        // It holds one promise and lacks the other for ever.
        scene.refused(1, Question::MayAbandon(order.clone()), "in use at this node");
        let z = scene.signer.ear.double.promise(&order);
        scene.refused(0, Question::Abandon(order.clone(), vec![a, z]), "node b has not promised");
        scene.house.restart(0);
        scene.house.beat();
        assert_eq!((scene.list(0).len(), keys(&scene.house, 0).len()), (1, 0), "it has promised");
        // Administrators are told so.
        let fault = scene.abandon(&scene.order()).unwrap_err();
        let told = ["in use at this node", "has promised to take no certificate"];
        assert!(told.iter().all(|told| fault.detail.contains(told)), "{fault}");
        // When the order is over it asks all others, and the bad one says nothing or lies, until it says how it is, or is out.
        scene.pass(700_000_000);
        scene.house.beat();
        scene.stand(true);
        scene.pass(700_000_000);
        scene.house.beat();
        assert_eq!((scene.list(0).len(), keys(&scene.house, 0).len()), (1, 0), "{leaves}");
        match leaves {
            true => scene.leave(&["a", "b"]),
            false => scene.stand(false),
        }
        scene.pass(700_000_000);
        (0..3).for_each(|_| scene.house.beat());
        assert_eq!((scene.list(0).len(), keys(&scene.house, 0)), (0, vec![scene.key]), "{leaves}");
        let records = scene.house.nodes[0].records("RenewShares");
        assert!(records.iter().any(|record| record.detail.contains("has ended: nobody")), "{records:?}");
        scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
    }
}

#[test]
fn a_key_in_use_at_one_node_is_handed_on_instead_of_given_up() {
    let mut scene = Waiting::new();
    scene.pass(HOUR);
    scene.show(1).unwrap();
    let state = scene.abandon(&scene.order()).unwrap();
    assert!(state.note.contains("nothing was abandoned"), "{}", state.note);
    for at in 0..2 {
        assert_eq!((scene.list(at).len(), keys(&scene.house, at)), (0, vec![scene.key]), "node {at}");
    }
    scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
}

#[test]
fn without_a_node_that_is_down_for_ever_a_key_is_abandoned_once_it_has_left() {
    let mut scene = Waiting::new();
    scene.pass(HOUR);
    scene.house.cut_off(&["b"]);
    let fault = scene.abandon(&scene.order()).unwrap_err();
    assert!(fault.detail.contains("node b: lost"), "{fault}");
    scene.leave(&["a", "z"]);
    let state = scene.abandon(&scene.order()).unwrap();
    assert!(state.note.contains("1 that left the cluster were not asked"), "{}", state.note);
    assert!(scene.list(0).is_empty());
    assert!(scene.show(0).unwrap_err().detail.contains("no share waits here"));
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
