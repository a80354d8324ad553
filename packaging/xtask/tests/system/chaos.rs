//! kill -9 of anything at any moment, while threads sign and generate keys. What was acknowledged is true.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, sleep},
    time::{Duration, Instant, SystemTime},
};

use cryptoki::{
    error::RvError,
    object::{Attribute, ObjectClass},
    session::Session,
};
use rustix::process::Signal;
use strongroom_shared::message::{AuditRecord, Outcome};

use crate::support::{
    Application, DEADLINE, MARGIN, Pair, Place, World, alone, assert_signs, code, generate, point, sign,
    verifies,
};

const SIGNATURES: usize = 10_000;
const PAIRS: usize = 1_000;
const SIGNERS: usize = 5;
const GENERATORS: usize = 3;
const BLOWS: usize = 20;
/// What a generation may take: it waits for a link that breaks again and again.
const GENERATION: Duration = Duration::from_secs(10);

/// splitmix64: the moments are random and can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What the application was told.
#[derive(Default)]
struct Told {
    signatures: Mutex<Vec<(String, Vec<u8>)>>,
    pairs: Mutex<Vec<Pair>>,
    signed: AtomicUsize,
    generated: AtomicUsize,
    failures: Mutex<Vec<(&'static str, RvError, Duration)>>,
    blows: AtomicUsize,
    over: AtomicBool,
}

impl Told {
    /// How far the application should be with `total` things, so that every blow hits it at work.
    fn is_ahead(&self, done: usize, total: usize) -> bool {
        done * (BLOWS + 1) >= total * (self.blows.load(Relaxed) + 1)
    }

    fn goes_on(&self, done: &AtomicUsize, total: usize) -> bool {
        if self.is_ahead(done.load(Relaxed), total) {
            sleep(Duration::from_millis(4));
        }
        !self.over.load(Relaxed) || done.load(Relaxed) < total
    }

    fn failed(&self, what: &'static str, error: &cryptoki::error::Error, took: Duration) {
        self.failures.lock().unwrap().push((what, code(error), took));
    }

    fn sign(&self, name: usize, session: &Session, pair: &Pair) {
        for turn in 0.. {
            if !self.goes_on(&self.signed, SIGNATURES) {
                break;
            }
            let message = format!("signer {name}: {turn}");
            let begun = Instant::now();
            match sign(session, pair.private, message.as_bytes()) {
                Ok(signature) => {
                    self.signatures.lock().unwrap().push((message, signature));
                    self.signed.fetch_add(1, Relaxed);
                }
                Err(error) => self.failed("C_Sign", &error, begun.elapsed()),
            }
        }
    }

    fn generate(&self, name: usize, session: &Session) {
        for turn in 0.. {
            if !self.goes_on(&self.generated, PAIRS) {
                break;
            }
            let begun = Instant::now();
            match generate(session, format!("pair {name}: {turn}").as_bytes(), Place::Token) {
                Ok(pair) => {
                    self.pairs.lock().unwrap().push(pair);
                    self.generated.fetch_add(1, Relaxed);
                }
                Err(error) => self.failed("C_GenerateKeyPair", &error, begun.elapsed()),
            }
        }
    }

    /// Waits until signers and generators have each succeeded again.
    fn await_recovery(&self, blow: &str) {
        let before = (self.signed.load(Relaxed), self.generated.load(Relaxed));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.signed.load(Relaxed) < before.0 + SIGNERS || self.generated.load(Relaxed) <= before.1 {
            assert!(Instant::now() < deadline, "no recovery within 20 s from: {blow}");
            sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn killing_anything_at_any_moment_loses_nothing_acknowledged() {
    let name = "chaos::killing_anything_at_any_moment_loses_nothing_acknowledged";
    alone(name, Duration::from_secs(200), |mut world| {
        let seed = env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into()
        });
        println!("STRONGROOM_SEED={seed}");
        let begun = Instant::now();
        let application = world.application();
        let pair = generate(&application.session, b"signer", Place::Token).unwrap();
        let told = Told::default();
        thread::scope(|scope| {
            for name in 0..SIGNERS {
                let (session, told, pair) = (application.session(), &told, &pair);
                scope.spawn(move || told.sign(name, &session, pair));
            }
            for name in 0..GENERATORS {
                let (session, told) = (application.session(), &told);
                scope.spawn(move || told.generate(name, &session));
            }
            // Whatever comes of it, the others must end.
            let _over = Over(&told);
            strike(&mut world, &told, &mut Dice(seed));
        });
        println!("{:.1} s of chaos", begun.elapsed().as_secs_f32());
        check_failures(&told);
        check_results(&application, &pair, &told);
        check_audit(&mut world, &told);
        println!("{:.1} s in all", begun.elapsed().as_secs_f32());
    });
}

struct Over<'a>(&'a Told);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Relaxed);
    }
}

fn strike(world: &mut World, told: &Told, dice: &mut Dice) {
    told.await_recovery("the start");
    for blow in 0..BLOWS {
        while !told.is_ahead(told.signed.load(Relaxed), SIGNATURES)
            || !told.is_ahead(told.generated.load(Relaxed), PAIRS)
        {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(50) + Duration::from_micros(dice.roll(100_000)));
        // The supervisor waits longer with every death in a row, until it is new itself.
        let kind = if blow % 5 == 4 { 9 } else { dice.roll(9) };
        let name = match kind {
            0..3 => {
                world.signal("vault", Signal::KILL);
                "vault"
            }
            3..6 => {
                world.signal("front", Signal::KILL);
                "front"
            }
            6..8 => {
                world.signal("vault", Signal::KILL);
                world.signal("front", Signal::KILL);
                "both"
            }
            8 => {
                world.signal("front", Signal::KILL);
                sleep(Duration::from_micros(dice.roll(300_000)));
                world.signal("vault", Signal::KILL);
                "front, and vault while it comes back"
            }
            _ => {
                world.kill_and_restart();
                "supervisor"
            }
        };
        told.await_recovery(name);
        told.blows.fetch_add(1, Relaxed);
    }
}

/// The application was told of nothing but a device that is away, and in time.
fn check_failures(told: &Told) {
    let failures = told.failures.lock().unwrap();
    let longest = failures.iter().map(|(_, _, took)| *took).max().unwrap_or_default();
    println!("{} calls failed, the longest after {longest:?}", failures.len());
    for (what, code, took) in failures.iter() {
        assert_eq!(*code, RvError::DeviceError, "{what}");
        let limit = if *what == "C_Sign" { DEADLINE } else { GENERATION };
        assert!(*took < limit + MARGIN, "{what} took {took:?}");
    }
}

/// Every signature verifies; every key pair is there, once, and signs; by the same sessions and handles as ever.
fn check_results(application: &Application, pair: &Pair, told: &Told) {
    assert_signs(&application.session, pair);
    let signatures = told.signatures.lock().unwrap();
    assert!(signatures.len() >= SIGNATURES);
    for (message, signature) in signatures.iter() {
        assert!(verifies(&pair.point, message.as_bytes(), signature), "{message}");
    }
    let pairs = told.pairs.lock().unwrap();
    assert!(pairs.len() >= PAIRS);
    let session = &application.session;
    let one = |class: ObjectClass, pair: &Pair| {
        let name = String::from_utf8_lossy(&pair.id).into_owned();
        let found = session.find_objects(&[Attribute::Class(class), Attribute::Id(pair.id.clone())]).unwrap();
        assert_eq!(found.len(), 1, "{class} of {name}");
        found[0]
    };
    for pair in pairs.iter() {
        assert_eq!(point(session, one(ObjectClass::PUBLIC_KEY, pair)).unwrap(), pair.point);
        // The handle that the generation gave, and the one that a search gives, are of the same key.
        assert_signs(session, pair);
        assert_signs(session, &Pair { private: one(ObjectClass::PRIVATE_KEY, pair), ..pair.clone() });
    }
    println!("{} signatures, {} key pairs", signatures.len(), pairs.len());
}

/// The log is whole, knows of everything that was told, and of nothing twice.
fn check_audit(world: &mut World, told: &Told) {
    let verified = world.server.hsmctl(&["--json", "audit", "verify"]).unwrap();
    assert!(verified.contains("\"whole\": true"), "{verified}");
    world.server.stop().unwrap();
    let records = records(world);
    let numbers: Vec<_> = records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>(), "no gap, no fork");

    let done = |act: &str| -> Vec<_> {
        records.iter().filter(|record| record.act == act && record.outcome == Outcome::Done).collect()
    };
    for (act, told) in
        [("Sign", told.signed.load(Relaxed)), ("GenerateKeyPair", told.generated.load(Relaxed))]
    {
        let done = done(act);
        println!("{act}: {} on record, {told} told", done.len());
        assert!(done.len() >= told, "{act}: {} on record, {told} told", done.len());
        let mut seen = HashSet::new();
        for record in done {
            let request = (record.certificate.clone(), record.instance, record.request);
            assert!(seen.insert(request), "a request was carried out twice: {record:?}");
        }
    }
    // Each message that was signed is on record by its hash.
    let mut hashes: HashMap<Vec<u8>, usize> = HashMap::new();
    for record in done("Sign") {
        *hashes.entry(record.message_hash.clone()).or_default() += 1;
    }
    for (message, _) in told.signatures.lock().unwrap().iter() {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message.as_bytes());
        assert_eq!(hashes.get(hash.as_ref()), Some(&1), "{message}");
    }
}

/// The log as it lies on the disk: `length u32 | record | link: 32 bytes`, again and again.
fn records(world: &World) -> Vec<AuditRecord> {
    let mut segments: Vec<_> = fs::read_dir(world.state().join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let mut records = Vec::new();
    for segment in segments {
        let bytes = fs::read(segment).unwrap();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (record, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            records.push(minicbor::decode(record).unwrap());
            rest = &after[32..];
        }
    }
    records
}
