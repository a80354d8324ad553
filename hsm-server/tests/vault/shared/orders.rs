//! A bad node that coordinates new shares: what honest nodes believe of an order, and what ends a ban.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_server::{
    cluster::{
        document::ClusterId,
        order::{Order, OrderApproval, OrderedAct, Seat, SignedOrder},
    },
    crypto::threshold::{CeremonyId, Epoch, KeyId, Ready, SchemeId, Setup, Share, refresh},
};

use strongroom_shared::shares::{Certificate, Claim};

use super::{
    double::{
        Account, Begin, Content, Double, End, Liar, Objects, Parcel, Question, Renewal, Reply, Talk, Task,
        party,
    },
    life::{ANN, BOB, ruled_by_two},
    *,
};

const ED: Kind = Kind::Ed25519;

/// Two honest nodes, and a bad one with a share.
struct Scene {
    house: House,
    double: Double,
    document: Vec<u8>,
    key: ObjectId,
    share: Share,
    /// The certificate of its first shares.
    certificate: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let (house, double) = (House::new(2), Double::new());
        let mut membership = membership(2, &house.nodes.iter().collect::<Vec<_>>());
        membership.members.push(double.member(&house.nodes[0].said.authority));
        let document = ruled_by_two(membership, 1);
        house.nodes.iter().for_each(|node| assert!(node.install(&document).is_ok()));
        house.beat();
        let talks: Vec<_> = house.nodes.iter().map(|node| double.meet(node, &document)).collect();
        let body = minicbor::to_vec(ED.wish(2, 3)).unwrap();
        let mandated = house.mandated(CallId::GenerateKeyPair, body);
        let (key, share) =
            (ObjectId([9; 16]), double.make(&talks, (SchemeId::Ed25519, 2), [9; 16], &mandated));
        let question = Question::Certificate { partition: "trading".into(), key };
        let Ok(Reply::Certificate(account)) = talks[0].ask(&question) else { panic!() };
        drop(talks);
        let certificate = account.certificate.unwrap().into();
        Self { house, double, document, key, share, certificate }
    }

    fn talks(&self) -> Vec<Talk<'_>> {
        self.house.nodes.iter().map(|node| self.double.meet(node, &self.document)).collect()
    }

    fn order(&self) -> Order {
        self.house.order(0, self.key, OrderedAct::Refresh)
    }

    fn begin(&self, attempt: u8, order: Option<SignedOrder>) -> Begin {
        let (public, private) = (None, Template::new());
        let renewal = Renewal {
            order,
            certificate: self.certificate.clone(),
            dealers: BTreeMap::new(),
            bans: Vec::new(),
            objects: Objects { public, private },
        };
        let epoch = Epoch(self.share.public().epoch().0 + 1);
        let task = Task::Renew(renewal);
        Begin { id: CeremonyId([attempt; 32]), key: KeyId(self.key.0), epoch, task, parcels: Vec::new() }
    }
}

fn signed(order: &Order, seeds: &[u8]) -> Option<SignedOrder> {
    let text = order.to_bytes();
    let approvals = seeds.iter().map(|seed| OrderApproval::new(&text, &administrator(*seed))).collect();
    Some(SignedOrder { text, approvals })
}

fn changed(begin: &Begin, change: impl FnOnce(&mut Renewal)) -> Begin {
    let mut begin = begin.clone();
    let Task::Renew(renewal) = &mut begin.task else { panic!() };
    change(renewal);
    begin
}

#[test]
fn new_shares_are_made_on_administrators_word_alone() {
    let scene = Scene::new();
    let talks = scene.talks();
    let order = scene.order();
    let now = order.expires - 600;
    let with = |change: &dyn Fn(&mut Order)| {
        let mut order = order.clone();
        change(&mut order);
        signed(&order, &[ANN])
    };
    let seats = vec![scene.house.seat(0), scene.house.seat(1)];
    let Seat(stranger) = Seat([5; 32]);
    let good = scene.begin(1, signed(&order, &[ANN]));
    let ordered = |order| scene.begin(1, order);
    let mut altered = signed(&order, &[ANN]).unwrap();
    altered.text[30] ^= 1;
    for (begin, hint) in [
        (ordered(None), "no refresh by the schedule is set"),
        (ordered(signed(&order, &[])), "0 administrators have signed it, it takes 1"),
        (ordered(signed(&order, &[7])), "does not list"),
        (ordered(Some(altered)), "refused"),
        (ordered(with(&|o| o.cluster = ClusterId([8; 16]))), "belongs to cluster"),
        (ordered(with(&|o| o.partition = "savings".into())), "about other shares"),
        (ordered(with(&|o| o.key = ObjectId([8; 16]))), "about other shares"),
        (ordered(with(&|o| o.epoch = 1)), "about other shares"),
        (ordered(with(&|o| o.expires = now)), "clocks"),
        (ordered(with(&|o| o.expires = now + 25 * 3600)), "clocks"),
        (ordered(with(&|o| o.act = OrderedAct::Repair { node: stranger })), "holds no share of this key"),
        (
            ordered(with(&|o| o.act = OrderedAct::Reshare { threshold: 2, seats: seats.clone() })),
            "another act than the one",
        ),
        (changed(&good, |r| r.dealers = BTreeMap::from([(party(1), party(1))])), "another act than the one"),
        (changed(&good, |r| r.certificate.truncate(40)), ""),
        (changed(&good, |r| *r.certificate.last_mut().unwrap() ^= 1), "not all nodes have signed"),
        (Begin { epoch: Epoch(0), ..good.clone() }, "cannot follow"),
        (Begin { epoch: Epoch(65), ..good.clone() }, "cannot follow"),
        (Begin { key: KeyId([8; 16]), ..good.clone() }, "another key"),
    ] {
        let fault = talks[0].ask(&Question::Begin(begin)).expect_err(hint);
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    let records = scene.house.nodes[0].records("RenewShares");
    assert!(records.iter().all(|record| record.outcome != Outcome::Done), "{records:?}");
    // None of the rest was what was refused.
    assert!(talks[0].ask(&Question::Begin(good)).is_ok());
    // One order is no leave for as many attempts as a coordinator likes.
    let attempts: Vec<_> = (2..20)
        .map(|attempt| talks[0].ask(&Question::Begin(scene.begin(attempt, signed(&order, &[ANN])))))
        .collect();
    assert!(
        attempts
            .iter()
            .flat_map(|attempt| attempt.as_ref().err())
            .any(|fault| fault.detail.contains("used up"))
    );
}

#[test]
fn a_key_of_one_bad_node_takes_the_place_of_no_other() {
    let scene = Scene::new();
    let talks = scene.talks();
    let whole: Certificate = minicbor::decode(&scene.certificate).unwrap();
    let claim: Claim = minicbor::decode(&whole.claim).unwrap();
    let (own, second) = (77, 79);
    let pretended = scene.double.pretend(&claim, Epoch(0));
    let stolen = scene.double.certify(&pretended, &[own, second]);
    let [a, b] = [0, 1].map(|at| scene.house.seat(at));
    let begin = |attempt, certificate: &[u8], order: &Order| {
        let begin = scene.begin(attempt, signed(order, &[ANN]));
        changed(&begin, |renewal| {
            renewal.certificate = certificate.to_vec();
            renewal.dealers = BTreeMap::from([(party(3), party(1)), (party(4), party(2))]);
        })
    };
    // A genuine order that leaves it out. Nobody but the bad node deals, under seats of its own.
    let act = OrderedAct::Reshare { threshold: 2, seats: vec![a, b] };
    let order = scene.house.order(0, scene.key, act);
    let fooled = Order {
        public_key: public_key(&pretended).into(),
        ..scene.house.order(0, scene.key, order.act.clone())
    };
    let renamed = scene.double.certify(&claim, &[own, second, 80]);
    let twice = scene.double.certify(&claim, &[own, own, second]);
    let fewer = scene.double.certify(&claim, &[own, second]);
    let many = scene.double.certify(&claim, &(0..=255).collect::<Vec<_>>());
    let unsigned = Double::respell(
        &scene.certificate,
        |_| (),
        |signatures| {
            let first = signatures[0].clone();
            signatures.resize(256, first);
        },
    );
    for (attempt, certificate, order, hint) in [
        (60, &stolen, &order, "another public key than the certificate of the shares"),
        (61, &stolen, &fooled, "another public key than the share here"),
        (62, &renamed, &order, "the one here is of epoch 0"),
        (63, &twice, &order, "sits at two seats"),
        (65, &fewer, &order, "names 2 seats and has 2 signatures, for 3 shares"),
        (66, &many, &order, "names 256 seats and has 256 signatures, for 3 shares"),
        (67, &unsigned, &order, "names 3 seats and has 256 signatures, for 3 shares"),
    ] {
        for talk in &talks {
            let fault = talk.ask(&Question::Begin(begin(attempt, certificate, order))).expect_err(hint);
            assert!(fault.detail.contains(hint), "{hint}: {fault}");
        }
    }
    let double_dealer = changed(&begin(64, &scene.certificate, &order), |renewal| {
        renewal.dealers = BTreeMap::from([(party(3), party(3)), (party(4), party(3))]);
    });
    let fault = talks[0].ask(&Question::Begin(double_dealer)).unwrap_err();
    assert!(fault.detail.contains("deals twice"), "{fault}");
    // A certificate of later shares that leaves everybody else out, with an order that says so.
    let [z, y] =
        [own, second].map(|seed| Seat(public(&Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())));
    let act = OrderedAct::Reshare { threshold: 2, seats: vec![z, y] };
    let order = signed(&scene.house.order(0, scene.key, act), &[ANN, BOB]).unwrap();
    let mut later = scene.double.pretend(&claim, Epoch(1));
    later.mandate = openssl::sha::sha256(&order.text);
    let later = scene.double.certify(&later, &[own, second]);
    for (at, talk) in talks.iter().enumerate() {
        let fault = talk.ask(&Question::Activate(later.clone(), Some(order.clone()))).unwrap_err();
        assert!(fault.detail.contains("another public key than the share here"), "{fault}");
        assert!(!scene.house.keeps_former(at, scene.key));
    }
    drop(talks);
    scene.house.beat();
    scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
}

/// The public key of a claim, as orders name it.
fn public_key(claim: &Claim) -> Vec<u8> {
    Ready::from_bytes(&claim.ready).unwrap().shares().public_key().unwrap()
}

#[test]
fn a_ban_is_ended_by_two_administrators_and_not_by_one() {
    let mut scene = Scene::new();
    let talks = scene.talks();
    let ban = scene.double.ban(KeyId(scene.key.0), Epoch(0), party(1));
    let sign = |scene: &Scene, talk: &Talk<'_>, attempt, epoch, bans| {
        let mandated = scene.house.mandated(CallId::Sign, to_sign(ED, scene.key, MESSAGE));
        let signers: BTreeSet<_> = [1, 3].map(party).into();
        let task = Task::Sign { mandated, signers, bans };
        let (id, key) = (CeremonyId([attempt; 32]), KeyId(scene.key.0));
        talk.ask(&Question::Begin(Begin { id, key, epoch, task, parcels: Vec::new() }))
    };
    let refused = sign(&scene, &talks[0], 50, Epoch(0), vec![ban.clone()]).unwrap_err();
    assert!(refused.detail.contains("must not sign together"), "{refused}");
    let read = ReadShares { partition: "trading".into(), key: scene.key, challenge: vec![5; 32] };
    let node = &scene.house.nodes[0];
    assert_eq!(node.world.ask(&node.vault, &node.admin(), &read).unwrap().bans, 1);
    let order = scene.order();
    // One administrator is told that it takes two, by whichever node.
    let state = scene.house.approve(0, &scene.house.admin(0, ANN), &order, ANN).unwrap();
    assert_eq!((state.approvals, state.needed, state.epoch), (1, 2, None));
    let told = |begin: &Begin| changed(begin, |renewal| renewal.bans = vec![ban.clone()]);
    for seeds in [&[ANN][..], &[ANN, ANN]] {
        let fault =
            talks[0].ask(&Question::Begin(told(&scene.begin(51, signed(&order, seeds))))).unwrap_err();
        assert!(fault.detail.contains("1 administrators have signed it, it takes 2"), "{fault}");
    }
    let both = scene.begin(52, signed(&order, &[ANN, BOB]));
    let Ok(Reply::Progress(progress)) = talks[0].ask(&Question::Begin(both.clone())) else { panic!() };
    assert!(
        matches!(progress.end, Some(End::Behind(bans)) if bans == [ban.clone()]),
        "it is not kept from anybody"
    );
    let share = scene.double.refresh(&talks, &scene.share, &told(&both));
    drop(talks);
    scene.share = share;
    for at in 0..2 {
        assert_eq!(scene.house.epoch(at, scene.key), 1);
        let rows = strongroom_server::store::Store::load(&scene.house.nodes[at].world.store).unwrap();
        assert!(rows.iter().all(|row| !row.path.contains("/bans/")), "node {at}");
    }
    scene.house.restart(0);
    let talks = scene.talks();
    let begun = sign(&scene, &talks[0], 53, Epoch(1), Vec::new());
    assert!(matches!(begun, Ok(Reply::Progress(progress)) if progress.end.is_none()));
    let old = sign(&scene, &talks[0], 54, Epoch(1), vec![ban]).unwrap_err();
    assert!(old.detail.contains("another key or epoch"), "{old}");
    // Both must have signed to prove the new shares: the bad node is silent, so the share before is kept.
    assert!(scene.house.keeps_former(1, scene.key));
    scene.house.beat();
    let signature = scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
    assert_eq!(signature.len(), 64);
}

#[test]
fn whoever_spoils_a_refresh_is_named_and_the_shares_are_as_they_were() {
    let scene = Scene::new();
    let talks = scene.talks();
    let begin = scene.begin(1, signed(&scene.order(), &[ANN]));
    let setup = Setup { key: begin.key, id: begin.id, epoch: begin.epoch, me: party(3) };
    let (_, said) = refresh(&scene.share, &setup).unwrap();
    let Ok(Reply::Progress(_)) = talks[0].ask(&Question::Begin(begin.clone())) else { panic!() };
    let Ok(Reply::Progress(from_b)) = talks[1].ask(&Question::Begin(begin.clone())) else { panic!() };
    // Its own letter, with another text in it that is as long; and b's as it is.
    let mine: Vec<Vec<u8>> = said.iter().map(|message| message.bytes.to_vec()).collect();
    let mut ended = None;
    for spoilt in mine {
        let mut spoilt = spoilt;
        let place = spoilt.len() - 8;
        spoilt[place] ^= 1;
        let parcel = Parcel { from: party(3), to: Some(party(1)), content: Content::Plain(spoilt) };
        let others = from_b.parcels.iter().filter(|parcel| parcel.to == Some(party(1))).cloned();
        let parcels = others.chain([parcel]).collect();
        let answer = talks[0].ask(&Question::Step { id: begin.id, parcels });
        let Ok(Reply::Progress(progress)) = answer else { continue };
        ended = progress.end.or(ended);
        break;
    }
    let Some(End::Aborted(verdict)) = ended else { panic!("{ended:?}") };
    let blamed: BTreeSet<_> = verdict.culprits.union(&verdict.suspects).copied().collect();
    assert!(blamed.contains(&party(3)) && verdict.ban.is_none(), "{verdict:?}");
    let records = scene.house.nodes[0].records("RenewShares");
    assert!(records.iter().any(|record| record.outcome == Outcome::Failed), "{records:?}");
    assert_eq!(scene.house.epoch(0, scene.key), 0);
    scene.house.beat();
    scene.house.sign(0, ED, scene.key, MESSAGE).unwrap();
}

#[test]
fn a_bad_node_that_takes_part_in_no_proof_does_not_stop_the_schedule_and_is_named() {
    let mut scene = Scene::new();
    for at in 0..2 {
        scene.house.nodes[at].world.refresh_hours.store(24, Ordering::Relaxed);
        scene.house.restart(at);
    }
    let begin = scene.begin(1, signed(&scene.order(), &[ANN]));
    let talks = scene.talks();
    scene.double.refresh(&talks, &scene.share, &begin);
    drop(talks);
    let Scene { house, double, document, key, .. } = scene;
    assert!(house.keeps_former(0, key), "the bad node has not had them proved");
    assert_eq!(house.cluster_status(0).unwrap().unproven, 1);
    let liar = Liar::sit(double, document, &house, Account::default());
    house.nodes.iter().for_each(|node| node.world.platform.pass(31 * 3_600_000_000));
    house.beat();
    let asked = liar.asked.lock().unwrap();
    assert!(asked.iter().any(|task| matches!(task, Task::Prove { .. })), "{asked:?}");
    assert!(asked.iter().any(|task| matches!(task, Task::Renew(_))), "{asked:?}");
    let records = house.nodes[0].records("RenewShares");
    let named = |record: &&AuditRecord| record.detail.contains("node z: it refused");
    let of_refresh =
        |record: &&AuditRecord| record.detail.contains("every node that is to hold a share takes");
    assert!(records.iter().filter(named).any(|record| of_refresh(&record)), "{records:?}");
    assert!(house.keeps_former(0, key));
}

#[test]
fn one_bad_node_does_not_have_the_others_sign_proofs_all_day() {
    let mut scene = Scene::new();
    let proof = |scene: &Scene, talk: &Talk<'_>, attempt: u8| {
        let question = Question::Certificate { partition: "trading".into(), key: scene.key };
        let Ok(Reply::Certificate(account)) = talk.ask(&question) else { panic!() };
        let whole: Certificate = minicbor::decode(&account.certificate.unwrap()).unwrap();
        let task =
            Task::Prove { signers: [1, 3].map(party).into(), claim: openssl::sha::sha256(&whole.claim) };
        let (id, key, epoch) = (CeremonyId([attempt; 32]), KeyId(scene.key.0), scene.share.public().epoch());
        talk.ask(&Question::Begin(Begin { id, key, epoch, task, parcels: Vec::new() }))
    };
    let talks = scene.talks();
    let fault = proof(&scene, &talks[0], 100).unwrap_err();
    assert!(fault.detail.contains("nothing to show"), "{fault}");
    // Others replace them, and the bad node never says that they sign.
    let begin = scene.begin(101, signed(&scene.order(), &[ANN]));
    let share = scene.double.refresh(&talks, &scene.share, &begin);
    drop(talks);
    scene.share = share;
    let talks = scene.talks();
    let signed =
        |from: u8| (from..from + 40).filter(|attempt| proof(&scene, &talks[0], *attempt).is_ok()).count();
    assert_eq!(signed(110), 12);
    let fault = proof(&scene, &talks[0], 150).unwrap_err();
    assert!(fault.detail.contains("often enough"), "{fault}");
    drop(talks);
    // An hour later, in another session.
    scene.house.nodes[0].world.platform.pass(3_600_000_000);
    let talk = &scene.talks()[0];
    assert!(proof(&scene, talk, 151).is_ok());
}

#[test]
fn a_node_put_back_to_an_old_copy_hears_of_bans_before_it_lets_one_administrator_end_them() {
    let mut scene = Scene::new();
    let before = scene.house.copy(0);
    // Both honest nodes hear of a ban, and one of them is put back to a copy from before.
    let ban = scene.double.ban(KeyId(scene.key.0), Epoch(0), party(1));
    let order = scene.order();
    let told = |begin: &Begin| changed(begin, |renewal| renewal.bans = vec![ban.clone()]);
    for talk in &scene.talks() {
        let fault = talk.ask(&Question::Begin(told(&scene.begin(81, signed(&order, &[ANN]))))).unwrap_err();
        assert!(fault.detail.contains("it takes 2"), "{fault}");
    }
    scene.house.put_back(0, &before);
    let talk = scene.double.meet(&scene.house.nodes[0], &scene.document);
    // The bad node is silent about it.
    let silent = scene.begin(82, signed(&order, &[ANN]));
    let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(silent)) else { panic!() };
    assert!(matches!(progress.end, Some(End::Behind(bans)) if bans == [ban.clone()]));
    let fault = talk.ask(&Question::Begin(told(&scene.begin(83, signed(&order, &[ANN]))))).unwrap_err();
    assert!(fault.detail.contains("it takes 2"), "{fault}");
    // Whoever has not told yet what it knows is waited for.
    drop(talk);
    scene.house.restart(1);
    scene.house.cut_off(&["a"]);
    let talk = scene.double.meet(&scene.house.nodes[1], &scene.document);
    let both = told(&scene.begin(84, signed(&order, &[ANN, BOB])));
    let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(both.clone())) else { panic!() };
    let Some(End::Aborted(verdict)) = progress.end else { panic!("{:?}", progress.end) };
    assert!(verdict.reason.contains("node a has not told"), "{}", verdict.reason);
    drop(talk);
    scene.house.clear_up();
    let talk = scene.double.meet(&scene.house.nodes[1], &scene.document);
    assert!(talk.ask(&Question::Begin(Begin { id: CeremonyId([85; 32]), ..both })).is_ok());
}

#[test]
fn a_key_that_is_destroyed_while_it_gets_new_shares_gets_none_then_or_later() {
    let mut scene = Scene::new();
    let body = minicbor::to_vec(DestroyObject { object: scene.key }).unwrap();
    let mandated = scene.house.mandated(CallId::DestroyObject, body);
    let order = signed(&scene.order(), &[ANN]);
    let talks = scene.talks();
    let mut letters = 0;
    let made = scene.double.refresh_while(&talks, &scene.share, &scene.begin(91, order.clone()), || {
        letters += 1;
        // Both have begun: each has written to the two others.
        if letters == 4 {
            (0..talks.len()).for_each(|at| scene.double.destroy(&talks, at, &mandated).unwrap());
        }
    });
    let fault = made.unwrap_err();
    assert!(fault.detail.contains("was destroyed at this node"), "{fault}");
    drop(talks);
    for restarted in [false, true] {
        if restarted {
            (0..2).for_each(|at| scene.house.restart(at));
        }
        for (at, talk) in scene.talks().iter().enumerate() {
            let again = scene.begin(92 + at as u8, order.clone());
            let fault = talk.ask(&Question::Begin(again)).unwrap_err();
            assert!(fault.detail.contains("was destroyed at this node"), "node {at}: {fault}");
            assert!(keys(&scene.house, at).is_empty(), "node {at}");
            let node = &scene.house.nodes[at];
            let status = node.world.ask(&node.vault, &node.admin(), &ReadStatus {}).unwrap();
            assert_eq!(status.waiting_shares, Some(0), "node {at}");
        }
    }
}
