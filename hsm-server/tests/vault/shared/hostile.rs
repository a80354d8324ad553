//! A bad coordinator, with a share of its own: what honest nodes refuse, and what they remember.

use std::collections::{BTreeMap, BTreeSet};

use strongroom_server::{
    cluster::Document,
    crypto::threshold::{CeremonyId, Epoch, KeyId, SchemeId, Share},
    door::Door,
    store::memory::Disk,
};
use strongroom_shared::fault::FaultCode;

use super::{
    double::{Begin, Content, Double, End, Parcel, Question, Reply, Talk, Task, party},
    *,
};

/// Two honest nodes and the bad one.
pub struct Scene {
    pub house: House,
    pub double: Double,
    pub document: Vec<u8>,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(2)
    }

    /// So many honest nodes and the bad one.
    pub fn of(honest: usize) -> Self {
        let (house, double) = (House::new(honest), Double::new());
        let mut membership = membership(2, &house.nodes.iter().collect::<Vec<_>>());
        membership.members.push(double.member(&house.nodes[0].said.authority));
        let document = membership.sign(&[&administrator(1)]).unwrap();
        for node in &house.nodes {
            node.install(&document).unwrap();
        }
        house.beat();
        Self { house, double, document }
    }

    pub fn talks(&self) -> Vec<Talk<'_>> {
        self.house.nodes.iter().map(|node| self.double.meet(node, &self.document)).collect()
    }

    /// A key of all three, and the bad node's share of it.
    pub fn key(&self, kind: Kind, scheme: SchemeId) -> (ObjectId, Share) {
        self.key_of(&kind.wish(2, 3), (scheme, 2))
    }

    /// The same, by this wish.
    pub fn key_of(&self, wish: &GenerateKeyPair, scheme: (SchemeId, u8)) -> (ObjectId, Share) {
        let id = [9; 16];
        let body = minicbor::to_vec(wish).unwrap();
        let mandated = self.house.mandated(CallId::GenerateKeyPair, body);
        (ObjectId(id), self.double.make(&self.talks(), scheme, id, &mandated))
    }

    pub fn mandated(&self, kind: Kind, key: ObjectId, input: &[u8]) -> Mandated {
        self.house.mandated(CallId::Sign, to_sign(kind, key, input))
    }
}

pub fn to_begin(attempt: u8, key: ObjectId, mandated: &Mandated, signers: [u8; 2]) -> Begin {
    let signers: BTreeSet<_> = signers.into_iter().map(party).collect();
    let task = Task::Sign { mandated: mandated.clone(), signers, bans: Vec::new() };
    Begin { id: CeremonyId([attempt; 32]), key: KeyId(key.0), epoch: Epoch(0), task, parcels: Vec::new() }
}

/// Asks for a ceremony to begin, which is refused.
fn refused(talk: &Talk<'_>, begin: Begin, hint: &str) {
    let fault = talk.ask(&Question::Begin(begin)).expect_err(hint);
    assert!(fault.detail.contains(hint), "{hint}: {fault}");
}

#[test]
fn only_the_applications_own_word_counts() {
    let scene = Scene::new();
    let (key, _) = scene.key(Kind::Ed25519, SchemeId::Ed25519);
    let (house, kind) = (&scene.house, Kind::Ed25519);
    let node = &house.nodes[0];
    let admin = node.admin();
    node.world.ask(&node.vault, &admin, &CreatePartition { name: "savings".into() }).unwrap();
    let talks = scene.talks();
    let good = house.mandate(CallId::Sign, to_sign(kind, key, MESSAGE));
    let changed = |change: &dyn Fn(&mut Mandate)| {
        let mut mandate = good.clone();
        change(&mut mandate);
        signed(&mandate, &desk_key())
    };
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[51; 32]).unwrap();
    let mut altered = signed(&good, &desk_key());
    let at = altered.text.windows(3).position(|window| window == b"pay").unwrap();
    altered.text[at] ^= 1;
    let own_key = signed(&Mandate { key: public(&stranger), ..good.clone() }, &stranger);
    let now = good.expires - 60;
    let mut attempt = 100;
    for (mandated, hint) in [
        (altered, "signature of the mandate is wrong"),
        (signed(&good, &stranger), "signature of the mandate is wrong"),
        (own_key, "not admitted"),
        (changed(&|m| m.cluster = [8; 16]), "another cluster"),
        (changed(&|m| m.partition = "savings".into()), "not admitted"),
        (changed(&|m| m.partition = "attic".into()), "no partition attic"),
        (changed(&|m| m.expires = now), "clocks"),
        (changed(&|m| m.expires = now + Mandate::LONGEST + 60), "clocks"),
        (changed(&|m| m.call = CallId::Decrypt as u16), "another call"),
        (changed(&|m| m.body = to_sign(kind, ObjectId([8; 16]), MESSAGE)), "another key"),
        (changed(&|m| m.body = vec![1, 2, 3]), ""),
        // What the bad node showed the application is not what stands here.
        (changed(&|m| m.seen.as_mut().unwrap().public = [1; 32]), "shown another key"),
        (changed(&|m| m.seen.as_mut().unwrap().label = b"cold".to_vec()), "shown another key"),
        (changed(&|m| m.seen = None), "which key the application was shown"),
    ] {
        attempt += 1;
        refused(&talks[0], to_begin(attempt, key, &mandated, [1, 3]), hint);
    }
    let records = house.nodes[0].records("SignShared");
    assert!(records.iter().all(|record| record.outcome != Outcome::Done), "{records:?}");
    assert_eq!((records.len(), records[0].client.as_str()), (14, "node z"));
    // The true one is carried out, so it was none of the rest that was refused.
    let mandated = signed(&good, &desk_key());
    assert!(talks[0].ask(&Question::Begin(to_begin(1, key, &mandated, [1, 3]))).is_ok());
}

#[test]
fn a_ceremony_is_begun_once_and_stepped_by_its_coordinator_alone() {
    let scene = Scene::new();
    let (key, _) = scene.key(Kind::Ed25519, SchemeId::Ed25519);
    let talks = scene.talks();
    let mandated = scene.mandated(Kind::Ed25519, key, MESSAGE);
    let begin = |attempt, signers| to_begin(attempt, key, &mandated, signers);
    talks[0].ask(&Question::Begin(begin(1, [1, 3]))).unwrap();
    refused(&talks[0], begin(1, [1, 3]), "was begun before");
    // A coordinator with other shares is told of those that there are, and nothing begins.
    let later = talks[0].ask(&Question::Begin(Begin { epoch: Epoch(1), ..begin(2, [1, 3]) }));
    let Ok(Reply::Progress(progress)) = later else { panic!() };
    let Some(End::Elsewhen { epoch, .. }) = progress.end else { panic!("{progress:?}") };
    assert_eq!((epoch, progress.parcels.len()), (Epoch(0), 0));
    refused(&talks[0], begin(3, [2, 3]), "own seat");
    refused(&talks[0], begin(4, [1, 7]), "no member");
    let garbage = |from, to, content| Parcel { from: party(from), to: Some(party(to)), content };
    let step = |id: u8, parcel| Question::Step { id: CeremonyId([id; 32]), parcels: vec![parcel] };
    let plain = || Content::Plain(b"nonsense".to_vec());
    for (question, hint) in [
        (step(9, garbage(3, 1, plain())), "not under way"),
        (step(1, garbage(2, 1, plain())), "not in this ceremony"),
        (step(1, garbage(3, 2, plain())), "for another party"),
        (step(1, garbage(3, 1, plain())), "no message of this version"),
    ] {
        let fault = talks[0].ask(&question).unwrap_err();
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    // Between two others: only what is sealed by the one that says so.
    talks[0].ask(&Question::Begin(begin(5, [1, 2]))).unwrap();
    let fault = talks[0].ask(&step(5, garbage(2, 1, plain()))).unwrap_err();
    assert!(fault.detail.contains("not sealed"), "{fault}");
    // Another session of the same node does not go on with it.
    let other = scene.double.meet(&scene.house.nodes[0], &scene.document);
    let fault = other.ask(&step(1, garbage(3, 1, plain()))).unwrap_err();
    assert!(fault.detail.contains("not under way"), "{fault}");
    let fault = talks[0].ask(&step(1, garbage(3, 1, plain()))).unwrap_err();
    assert!(fault.detail.contains("no message of this version"), "it goes on: {fault}");
    // Its time ends it.
    scene.house.nodes[0].world.platform.pass(5_000_000);
    let fault = talks[0].ask(&step(1, garbage(3, 1, plain()))).unwrap_err();
    assert!(fault.detail.contains("not under way"), "{fault}");
    // A mandate is not begun without end.
    for attempt in 20..28 {
        let _ = talks[0].ask(&Question::Begin(begin(attempt, [1, 3])));
    }
    refused(&talks[0], begin(40, [1, 3]), "used up");
    // What one coordinator has tried takes nothing from another.
    scene.house.beat();
    scene.house.cut_off(&["z"]);
    scene.house.ask(1, &SignShared { mandated: mandated.clone() }).unwrap();
}

#[test]
fn a_ban_is_kept_before_anybody_hears_of_it_and_spreads() {
    let mut scene = Scene::new();
    let kind = Kind::K1;
    let (key, share) = scene.key(kind, SchemeId::EcdsaSecp256k1);
    let mandated = scene.mandated(kind, key, MESSAGE);
    let input = openssl::sha::sha256(MESSAGE);
    let begin = to_begin(1, key, &mandated, [1, 3]);
    let talks = scene.talks();
    let spoil = |text: &mut Vec<u8>| {
        let place = text.len() / 2;
        text[place] ^= 1;
    };
    let ended = scene.double.sign(&talks[0], &share, ([1; 32], &input), &begin, spoil).unwrap();
    let Some(End::Aborted(verdict)) = ended.end else { panic!("{:?}", ended.end) };
    let ban = verdict.ban.expect("a ban");
    assert_eq!((ban.ban.reporter, ban.ban.against), (party(1), party(3)));
    drop(talks);
    for restarted in [false, true] {
        if restarted {
            scene.house.restart(0);
        }
        let attempt = 2 + u8::from(restarted);
        let told = |bans| {
            let mut begin = to_begin(attempt, key, &mandated, [1, 3]);
            if let Task::Sign { bans: told, .. } = &mut begin.task {
                *told = bans;
            }
            scene.double.meet(&scene.house.nodes[0], &scene.document).ask(&Question::Begin(begin))
        };
        // A coordinator that keeps silent about it is told; one that knows is refused.
        let Ok(Reply::Progress(progress)) = told(Vec::new()) else { panic!() };
        assert!(matches!(progress.end, Some(End::Behind(bans)) if bans == [ban.clone()]));
        let fault = told(vec![ban.clone()]).unwrap_err();
        assert!(fault.detail.contains("must not sign together"), "{fault}");
        let mut forged = ban.clone();
        (forged.ban.reporter, forged.ban.against) = (party(2), party(1));
        assert!(told(vec![ban.clone(), forged]).unwrap_err().detail.contains("nobody declared"));
        for (reporter, against) in [(3, 3), (3, 9)] {
            let mut none = ban.clone();
            (none.ban.reporter, none.ban.against) = (party(reporter), party(against));
            assert!(told(vec![ban.clone(), none]).unwrap_err().detail.contains("no pair"));
        }
    }
    // The honest two sign, and the other one has heard of it.
    scene.house.beat();
    let signature = scene.house.sign(0, kind, key, MESSAGE).unwrap();
    assert_eq!(signature.len(), 64);
    let heard = scene.house.nodes[1].records("SignShared");
    assert!(
        heard
            .iter()
            .any(|record| record.detail.contains("must not sign together any more: party 1 and party 3"))
    );
    scene.house.restart(1);
    let talk = scene.double.meet(&scene.house.nodes[1], &scene.document);
    let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(to_begin(9, key, &mandated, [2, 3])))
    else {
        panic!()
    };
    assert!(matches!(progress.end, Some(End::Behind(_))), "it survives a restart there too");
}

#[test]
fn one_node_that_keeps_certificates_to_itself_takes_no_place_from_others() {
    let (scene, kind) = (Scene::new(), Kind::Ed25519);
    let body = minicbor::to_vec(kind.wish(2, 3)).unwrap();
    let mandated = || scene.house.mandated(CallId::GenerateKeyPair, body.clone());
    for key in 1..=64 {
        // Not too many of its ceremonies in a time.
        let talks = scene.talks();
        scene.double.begin_key(&talks, (SchemeId::Ed25519, 2), [key; 16], &mandated());
    }
    let node = &scene.house.nodes[0];
    let status = node.world.ask(&node.vault, &node.admin(), &ReadStatus {}).unwrap();
    assert_eq!(status.waiting_shares, Some(64));
    let task = |mandated| Task::Generate {
        mandated,
        public: ObjectId([0xff; 16]),
        seats: ["a", "b", "z"].map(str::to_owned).into(),
    };
    let (id, key) = (CeremonyId([65; 32]), KeyId([65; 16]));
    let begin = Begin { id, key, epoch: Epoch(0), task: task(mandated()), parcels: Vec::new() };
    let fault = scene.talks()[0].ask(&Question::Begin(begin)).unwrap_err();
    assert_eq!(fault.code, FaultCode::Full, "{fault}");
    assert!(fault.detail.contains("node z has had made"), "{fault}");
    // By way of another it fails for no other reason than that the bad node is silent.
    let fault = scene.house.generate(0, &kind.wish(2, 3)).unwrap_err();
    assert_eq!(fault.code, FaultCode::QuorumMissing, "{fault}");
    assert!(fault.detail.contains("node z"), "{fault}");
}

#[test]
fn a_new_key_takes_the_place_of_no_other_object() {
    let scene = Scene::new();
    let (key, _) = scene.key(Kind::Ed25519, SchemeId::Ed25519);
    let body = minicbor::to_vec(Kind::Ed25519.wish(2, 3)).unwrap();
    let mandated = || scene.house.mandated(CallId::GenerateKeyPair, body.clone());
    let seats: Vec<_> = ["a", "b", "z"].map(str::to_owned).into();
    let begin = |attempt: u8, private: [u8; 16], public, mandated| Begin {
        id: CeremonyId([attempt; 32]),
        key: KeyId(private),
        epoch: Epoch(0),
        task: Task::Generate { mandated, public, seats: seats.clone() },
        parcels: Vec::new(),
    };
    let talk = &scene.talks()[0];
    let free = ObjectId([5; 16]);
    for (attempt, private, public) in [(21, [6; 16], key), (22, key.0, free), (23, [5; 16], free)] {
        refused(talk, begin(attempt, private, public, mandated()), "an id that is taken");
    }
    refused(talk, Begin { epoch: Epoch(1), ..begin(24, [6; 16], free, mandated()) }, "another epoch");
    // Nor that of one that was destroyed.
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let destroyed = scene.house.mandated(CallId::DestroyObject, body);
    scene.double.destroy(&scene.talks(), 0, &destroyed).unwrap();
    refused(talk, begin(27, key.0, free, mandated()), "was destroyed at this node");
    // One mandate, one key.
    let once = mandated();
    talk.ask(&Question::Begin(begin(25, [6; 16], free, once.clone()))).unwrap();
    refused(talk, begin(26, [7; 16], ObjectId([8; 16]), once), "for one key");
}

#[test]
fn an_id_is_no_other_keys_in_any_partition() {
    let scene = Scene::new();
    let (key, _) = scene.key(Kind::Ed25519, SchemeId::Ed25519);
    // The bad node has an application of its own, in another partition.
    let accomplice = Ed25519KeyPair::from_seed_unchecked(&[51; 32]).unwrap();
    let (node, partition) = (&scene.house.nodes[0], String::from("savings"));
    let admin = node.admin();
    node.world.ask(&node.vault, &admin, &CreatePartition { name: partition.clone() }).unwrap();
    let (name, admitted) = ("clerk".into(), public(&accomplice).to_vec());
    let admit = AdmitClient { name, partition: partition.clone(), key: admitted };
    node.world.ask(&node.vault, &admin, &admit).unwrap();
    let body = minicbor::to_vec(Kind::Ed25519.wish(2, 3)).unwrap();
    let talk = &scene.talks()[0];
    let begin = |attempt: u8, private: [u8; 16]| {
        let mandate = scene.house.mandate(CallId::GenerateKeyPair, body.clone());
        let mandate = Mandate { partition: partition.clone(), key: public(&accomplice), ..mandate };
        let mandated = signed(&mandate, &accomplice);
        let seats = ["a", "b", "z"].map(str::to_owned).into();
        let task = Task::Generate { mandated, public: ObjectId([5; 16]), seats };
        let id = CeremonyId([attempt; 32]);
        Begin { id, key: KeyId(private), epoch: Epoch(0), task, parcels: Vec::new() }
    };
    // A free one is looked at further.
    refused(talk, begin(21, [6; 16]), "the token of partition savings is not initialised");
    refused(talk, begin(22, key.0), "an id that is taken");
    refused(talk, begin(23, [9 ^ 0xff; 16]), "an id that is taken");
    let body = minicbor::to_vec(DestroyObject { object: key }).unwrap();
    let mandated = scene.house.mandated(CallId::DestroyObject, body);
    scene.double.destroy(&scene.talks(), 0, &mandated).unwrap();
    refused(talk, begin(24, key.0), "was destroyed at this node");
}

#[test]
fn members_that_the_document_does_not_name_make_no_key() {
    let scene = Scene::new();
    let body = minicbor::to_vec(Kind::Ed25519.wish(2, 3)).unwrap();
    let begin = |attempt: u8, seats: &[&str]| Begin {
        id: CeremonyId([attempt; 32]),
        key: KeyId([attempt; 16]),
        epoch: Epoch(0),
        task: Task::Generate {
            mandated: scene.house.mandated(CallId::GenerateKeyPair, body.clone()),
            public: ObjectId([0x55; 16]),
            seats: seats.iter().map(|name| (*name).to_owned()).collect(),
        },
        parcels: Vec::new(),
    };
    let talks = scene.talks();
    for (attempt, seats) in [(1, &["z", "a", "b"][..]), (2, &["a", "z"]), (3, &["a", "z", "z"])] {
        refused(&talks[0], begin(attempt, seats), "another list of members");
    }
    // Four at once, and no more.
    for attempt in 4..8 {
        talks[0].ask(&Question::Begin(begin(attempt, &["a", "b", "z"]))).unwrap();
    }
    let fault = talks[0].ask(&Question::Begin(begin(8, &["a", "b", "z"]))).unwrap_err();
    assert_eq!(fault.code, FaultCode::Full, "{fault}");
    // Under another document they are gone.
    let names = scene.house.nodes.iter().collect::<Vec<_>>();
    let next = membership(3, &names).sign(&[&administrator(1)]).unwrap();
    scene.house.nodes[0].install(&next).unwrap();
    assert!(Document::read(&next).is_ok());
}

#[test]
fn a_node_that_was_put_back_to_an_old_copy_hears_of_its_own_bans_before_it_signs() {
    let mut scene = Scene::new();
    let kind = Kind::K1;
    let (key, share) = scene.key(kind, SchemeId::EcdsaSecp256k1);
    let before = scene.house.copy(0);
    let input = openssl::sha::sha256(MESSAGE);
    let spoil = |text: &mut Vec<u8>| {
        let place = text.len() / 2;
        text[place] ^= 1;
    };
    // The disk is full when it finds the message wrong: nobody is told, and the key signs nothing until it is written.
    scene.house.nodes[0].world.store.set_disk(Disk::Full);
    let mandated = scene.mandated(kind, key, MESSAGE);
    let begin = to_begin(1, key, &mandated, [1, 3]);
    let fault = scene.double.sign(&scene.talks()[0], &share, ([1; 32], &input), &begin, spoil).unwrap_err();
    assert_eq!(fault.code, FaultCode::NotDurable, "{fault}");
    scene.house.beat();
    let told = |scene: &Scene, at: usize| {
        let told = |record: &AuditRecord| record.detail.contains("must not sign together any more");
        let records = scene.house.nodes[at].records("SignShared");
        records.iter().filter(|record| told(record) && record.outcome == Outcome::Done).count()
    };
    assert_eq!((told(&scene, 0), told(&scene, 1)), (0, 0));
    assert_eq!(code(scene.house.sign(0, kind, key, MESSAGE)), FaultCode::NotDurable);
    scene.house.nodes[0].world.store.set_disk(Disk::Good);
    scene.house.nodes[0].vault.tick().unwrap();
    // Nobody signs; greetings spread it.
    scene.house.beat();
    assert_eq!(told(&scene, 1), 1);
    // It is put back to the old copy. The bad node does not tell the ban.
    scene.house.put_back(0, &before);
    let talk = scene.double.meet(&scene.house.nodes[0], &scene.document);
    let mandated = scene.mandated(kind, key, MESSAGE);
    refused(&talk, to_begin(2, key, &mandated, [1, 3]), "another node knows");
    assert_eq!(told(&scene, 0), 1);
    // With whom it signs has to have told: b is silent now, and a was started again.
    drop(talk);
    scene.house.restart(0);
    scene.house.cut_off(&["b"]);
    let talk = scene.double.meet(&scene.house.nodes[0], &scene.document);
    let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(to_begin(3, key, &mandated, [1, 2])))
    else {
        panic!()
    };
    let Some(End::Behind(known)) = progress.end else { panic!("{:?}", progress.end) };
    let mut begin = to_begin(3, key, &mandated, [1, 2]);
    if let Task::Sign { bans, .. } = &mut begin.task {
        *bans = known;
    }
    // It says whose silence it is.
    let Ok(Reply::Progress(progress)) = talk.ask(&Question::Begin(begin)) else { panic!() };
    let Some(End::Aborted(verdict)) = progress.end else { panic!("{:?}", progress.end) };
    assert!(verdict.reason.contains("node b has not told"), "{}", verdict.reason);
    assert_eq!((verdict.suspects, verdict.culprits), ([party(2)].into(), BTreeSet::new()));
}

/// Begins a renewal of a key whose certificate is not its own, in a partition of this name.
fn stray(talk: &Talk<'_>, forged: &[u8], (attempt, key): (u8, ObjectId)) -> Fault {
    let objects = super::double::Objects { public: None, private: Template::new() };
    let (order, dealers, bans) = (None, BTreeMap::new(), Vec::new());
    let renewal = super::double::Renewal { order, certificate: forged.to_vec(), dealers, bans, objects };
    let (id, task) = (CeremonyId([attempt; 32]), Task::Renew(renewal));
    let begin = Begin { id, key: KeyId(key.0), epoch: Epoch(1), task, parcels: Vec::new() };
    talk.ask(&Question::Begin(begin)).unwrap_err()
}

#[test]
fn what_a_node_asks_in_vain_is_on_record_however_long_and_does_not_fill_the_log() {
    use strongroom_shared::shares::{Certificate, Claim};
    let scene = Scene::new();
    let (key, _share) = scene.key(Kind::Ed25519, SchemeId::Ed25519);
    let talk = scene.double.meet(&scene.house.nodes[0], &scene.document);
    let question = Question::Certificate { partition: "trading".into(), key };
    let Ok(Reply::Certificate(account)) = talk.ask(&question) else { panic!() };
    let whole: Certificate = minicbor::decode(&account.certificate.unwrap()).unwrap();
    let mut claim: Claim = minicbor::decode(&whole.claim).unwrap();
    // So long that a record of it would be longer than one may be.
    claim.partition = format!("\x1b[2J{}", "x".repeat(100_000));
    let forged = scene.double.certify(&claim, &[201, 202, 203]);
    let records = || scene.house.nodes[0].records("RenewShares");
    // What was refused before does not count any more.
    scene.house.nodes[0].world.platform.pass(61_000_000);
    let before = records().len();
    stray(&talk, &forged, (1, key));
    let first = records();
    assert_eq!(first.len(), before + 1);
    let (name, detail) = (&first[before].partition, &first[before].detail);
    assert!(name.len() < 5000 && detail.len() < 5000, "{} {}", name.len(), detail.len());
    assert!(!name.contains('\x1b') && name.contains("xxx") && name.ends_with('…'), "{name}");
    (2..=70).for_each(|attempt| drop(stray(&talk, &forged, (attempt, key))));
    assert_eq!(records().len(), before + 60);
    // A minute later they count again.
    scene.house.nodes[0].world.platform.pass(61_000_000);
    stray(&talk, &forged, (71, key));
    assert_eq!(records().len(), before + 61);
    // How many were left out is on record once: when the next is refused, when the minute is over, and at the end.
    let (vault, platform) = (&scene.house.nodes[0].vault, &scene.house.nodes[0].world.platform);
    let left_out = || {
        let records = scene.house.nodes[0].records("SealedCall").into_iter();
        let told = records.filter(|record| record.detail.contains("not on record one by one"));
        let count = |record: AuditRecord| {
            assert_eq!((record.client.as_str(), record.outcome), ("node z", Outcome::Refused));
            record.detail.split(' ').next().unwrap().parse().unwrap()
        };
        told.map(count).collect::<Vec<u32>>()
    };
    assert_eq!(left_out(), [10]);
    claim.partition = "attic".into();
    let forged = scene.double.certify(&claim, &[201, 202, 203]);
    (72..=135).for_each(|attempt| drop(stray(&talk, &forged, (attempt, key))));
    vault.tick().unwrap();
    assert_eq!(left_out(), [10], "the minute is not over");
    platform.pass(61_000_000);
    (0..2).for_each(|_| vault.tick().unwrap());
    assert_eq!(left_out(), [10, 5]);
    (136..=200).for_each(|attempt| drop(stray(&talk, &forged, (attempt, key))));
    vault.close();
    assert_eq!(left_out(), [10, 5, 5]);
}
