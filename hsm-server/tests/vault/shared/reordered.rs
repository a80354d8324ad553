//! Messages in another order than they were sent in: letters that a coordinator hands on as it likes, and calls that
//! overtake one another on their way.

use strongroom_server::crypto::threshold::{
    CeremonyId, Epoch, KeyId, SchemeId, Setup, Signing, Step, combine,
};

use super::{
    double::{Begin, Delivery, Task, party},
    hostile::Scene,
    weather::blames_nobody,
    *,
};

/// The bad node coordinates, and hands every letter on when it has no newer one: those of a later round come before those
/// of the round under way. The three honest ones make a key with it, and sign by themselves.
fn letters_may_overtake_one_another(kind: Kind, scheme: SchemeId) {
    let mut scene = Scene::of(3);
    scene.double.delivery = Delivery::NewestFirst;
    let (key, share) = scene.key_of(&kind.wish(3, 4), (scheme, 3));
    let overtaken = || scene.double.overtaken.swap(0, Ordering::Relaxed);
    assert!(overtaken() > 0, "every letter of the key's making came in its turn");
    let (talks, input) = (
        scene.talks(),
        match kind {
            Kind::K1 | Kind::P256 => openssl::sha::sha256(MESSAGE).to_vec(),
            Kind::Ed25519 | Kind::Bip340 => MESSAGE.to_vec(),
        },
    );
    let signers: std::collections::BTreeSet<_> = [1, 2, 3].map(party).into();
    let (id, epoch) = (CeremonyId([77; 32]), Epoch(0));
    let mandated = scene.mandated(kind, key, MESSAGE);
    let task = Task::Sign { mandated, signers: signers.clone(), bans: Vec::new() };
    let begin = Begin { id, key: KeyId(key.0), epoch, task, parcels: Vec::new() };
    let said = scene.double.have_signed(&talks, &begin);
    assert!(overtaken() > 0, "every letter of the signature came in its turn");
    let setup = Setup { key: KeyId(key.0), id, epoch, me: party(4) };
    let combining = combine(&share, &Signing { signers, input }, &setup).unwrap();
    let Step::Done(signature, _) = combining.step(said) else { panic!("{kind:?}: no signature") };
    scene.house.check(1, kind, ObjectId(key.0.map(|byte| byte ^ 0xff)), &signature);
    blames_nobody(&scene.house, key);
}

#[test]
fn letters_of_schnorr_may_overtake_one_another() {
    letters_may_overtake_one_another(Kind::Ed25519, SchemeId::Ed25519);
}

#[test]
fn letters_of_ecdsa_may_overtake_one_another() {
    letters_may_overtake_one_another(Kind::K1, SchemeId::EcdsaSecp256k1);
}

/// Signs at all nodes side by side while every third call of any node is overtaken by another one. All of them sign each
/// time: what one of them does not take spoils the signature.
fn calls_may_overtake_one_another(kind: Kind, times: usize) {
    let mut house = House::new(3);
    let made = house.generate(0, &kind.wish(3, 3)).unwrap();
    // Handshakes and what comes before the first signature change places too.
    (0..3).for_each(|at| house.restart(at));
    let calls = AtomicUsize::new(0);
    house.net.weather(move |_, _, _| {
        if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) { Mishap::Overtaken } else { Mishap::None }
    });
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let house = &house;
            scope.spawn(move || {
                for _ in 0..times {
                    let signature = house.sign(thread % 3, kind, made.private.id, MESSAGE).unwrap();
                    house.check(thread % 3, kind, made.public.id, &signature);
                }
            });
        }
    });
    let overtaken = house.net.overtaken.load(Ordering::Relaxed);
    assert!(overtaken > times, "{overtaken}");
    blames_nobody(&house, made.private.id);
}

#[test]
fn calls_of_schnorr_may_overtake_one_another() {
    calls_may_overtake_one_another(Kind::Ed25519, 6);
}

#[test]
fn calls_of_ecdsa_may_overtake_one_another() {
    calls_may_overtake_one_another(Kind::K1, 2);
}
