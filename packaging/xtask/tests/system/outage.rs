//! A server that is away, silent, or says no: what the application is told, when, and how it goes on.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use cryptoki::{error::RvError, mechanism::Mechanism, object::Attribute, session::UserType};
use rustix::process::Signal;
use serde_json::Value;
use xtask::{
    server::Server,
    shell::{Echo, Shell},
};

use crate::support::{
    CLIENT, DEADLINE, MARGIN, PARTITION, Place, World, alone, assert_fails, assert_signs, code, eventually,
    generate, pin, sign,
};

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_server_that_is_down_at_the_start_is_a_token_that_is_not_present() {
    alone("outage::a_server_that_is_down_at_the_start_is_a_token_that_is_not_present", LIMIT, |mut world| {
        let application = world.application();
        let pair = generate(&application.session, b"kept", Place::Token).unwrap();
        application.session.close().unwrap();
        application.module.finalize().unwrap();

        world.server.stop().unwrap();
        let module = world.module();
        let slot = module.get_all_slots().unwrap()[0];
        assert!(module.get_slots_with_token().unwrap().is_empty());
        assert_fails(RvError::TokenNotPresent, || module.get_token_info(slot));
        assert_fails(RvError::TokenNotPresent, || module.open_rw_session(slot));

        world.server.start().unwrap();
        let session = eventually("a session", || module.open_rw_session(slot).ok());
        session.login(UserType::User, Some(&pin())).unwrap();
        let template = [Attribute::Id(b"kept".to_vec()), Attribute::Sign(true)];
        let private = session.find_objects(&template).unwrap()[0];
        assert_signs(&session, &crate::support::Pair { private, ..pair });
    });
}

#[test]
fn the_next_call_after_a_restart_works_with_the_same_session_and_handles() {
    let name = "outage::the_next_call_after_a_restart_works_with_the_same_session_and_handles";
    alone(name, LIMIT, |mut world| {
        let application = world.application();
        let session = &application.session;
        let token = generate(session, b"token's", Place::Token).unwrap();
        let fleeting = generate(session, b"session's", Place::Session).unwrap();
        assert_signs(session, &token);
        assert_signs(session, &fleeting);

        world.server.stop().unwrap();
        for _ in 0..2 {
            assert_fails(RvError::DeviceError, || sign(session, token.private, b"sell"));
        }
        // What needs no server goes on.
        session.digest(&Mechanism::Sha256, b"sell").unwrap();
        world.server.start().unwrap();
        assert_signs(session, &token);
        generate(session, b"another", Place::Token).unwrap();
        // Its key lived in the vault's memory alone.
        assert_fails(RvError::KeyHandleInvalid, || sign(session, fleeting.private, b"sell"));

        world.kill_and_restart();
        assert_signs(session, &token);
    });
}

/// An orderly stop finishes what is in flight, so that a restart costs no caller anything but time.
#[test]
fn a_restart_in_the_middle_of_calls_is_not_noticed() {
    alone("outage::a_restart_in_the_middle_of_calls_is_not_noticed", LIMIT, |mut world| {
        let application = world.application();
        let pair = generate(&application.session, b"token's", Place::Token).unwrap();
        let (signed, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failures = thread::scope(|scope| {
            let signers: Vec<_> = (0..6)
                .map(|_| {
                    let session = application.session();
                    let (pair, signed, over) = (&pair, &signed, &over);
                    scope.spawn(move || {
                        let mut failures = Vec::new();
                        while !over.load(Relaxed) {
                            let begun = Instant::now();
                            match sign(&session, pair.private, b"sell") {
                                Ok(_) => drop(signed.fetch_add(1, Relaxed)),
                                Err(error) => failures.push((code(&error), begun.elapsed())),
                            }
                        }
                        failures
                    })
                })
                .collect();
            for _ in 0..3 {
                sleep(Duration::from_millis(300));
                world.server.stop().unwrap();
                world.server.start().unwrap();
                let before = signed.load(Relaxed);
                eventually("signing goes on", || (signed.load(Relaxed) > before + 20).then_some(()));
            }
            over.store(true, Relaxed);
            signers.into_iter().flat_map(|signer| signer.join().unwrap()).collect::<Vec<_>>()
        });
        println!("{} signatures; failures: {failures:?}", signed.load(Relaxed));
        for (code, took) in failures {
            // Only a machine so busy that stop and start took longer than the deadline.
            assert_eq!(code, RvError::DeviceError);
            assert!(took > DEADLINE - Duration::from_millis(200), "it gave up after {took:?}");
            assert!(took < DEADLINE + MARGIN, "it took {took:?}");
        }
    });
}

/// A process that is stopped holds its connections open and answers nothing: a black hole.
#[test]
fn a_server_that_goes_silent_is_an_error_within_the_deadline() {
    alone("outage::a_server_that_goes_silent_is_an_error_within_the_deadline", LIMIT, |world| {
        let application = world.application();
        let session = &application.session;
        let pair = generate(session, b"token's", Place::Token).unwrap();
        for role in ["front", "vault"] {
            assert_signs(session, &pair);
            world.signal(role, Signal::STOP);
            // On a connection that was open, and on a new one.
            for _ in 0..2 {
                assert_fails(RvError::DeviceError, || sign(session, pair.private, b"sell"));
            }
            // Of many at once none waits for another.
            let begun = Instant::now();
            thread::scope(|scope| {
                for _ in 0..16 {
                    // A new session asks no server.
                    let session = application.session();
                    scope.spawn(move || sign(&session, pair.private, b"sell").unwrap_err());
                }
            });
            assert!(begun.elapsed() < DEADLINE + MARGIN * 2, "{role}: {:?}", begun.elapsed());
            world.signal(role, Signal::CONT);
            assert_signs(session, &pair);
        }
    });
}

#[test]
fn a_revoked_client_is_cut_off_and_its_next_handshake_is_on_record() {
    alone("outage::a_revoked_client_is_cut_off_and_its_next_handshake_is_on_record", LIMIT, |world| {
        let application = world.application();
        let pair = generate(&application.session, b"token's", Place::Token).unwrap();
        assert_signs(&application.session, &pair);
        world.server.hsmctl(&["client", "revoke", CLIENT]).unwrap();
        assert_fails(RvError::DeviceError, || sign(&application.session, pair.private, b"sell"));
        assert_fails(RvError::TokenNotPresent, || application.module.get_token_info(application.slot));
        let refusal = await_refusal(&world, "revoked");
        assert_eq!(refusal["act"], "Handshake", "{refusal}");
        let revocation = world.audit().into_iter().find(|record| record["act"] == "RevokeClient").unwrap();
        let what = format!("client {CLIENT}").into();
        assert_eq!((&revocation["outcome"], &revocation["detail"]), (&"done".into(), &what));
        // Nothing was signed after it.
        let signs = |record: &Value| {
            record["act"] == "Sign" && record["sequence"].as_u64() > revocation["sequence"].as_u64()
        };
        assert!(!world.audit().iter().any(signs));
    });
}

#[test]
fn another_servers_client_is_refused_and_on_record() {
    alone("outage::another_servers_client_is_refused_and_on_record", LIMIT, |mut world| {
        // Another house with the same names; its certificate, shown at our door.
        let other = world.folder.join("other");
        let mut stranger = Server::create(&Shell::new(Echo::Nothing), &world.artefacts, &other).unwrap();
        stranger.start().unwrap();
        stranger.enrol(PARTITION, CLIENT).unwrap();
        stranger.stop().unwrap();
        let (ours, theirs) = (world.state().join(CLIENT), other.join(CLIENT));
        let config = ours.join("strongroom.toml");
        let second = slot_of(&config, &ours, &theirs);
        // And one that shows a certificate of ours, to a server that it does not believe.
        let third = slot_of(&config, &theirs, &ours);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}\n{second}\n{third}")).unwrap();

        let application = world.application();
        let slots = application.module.get_all_slots().unwrap();
        assert_eq!(slots.len(), 3);
        assert_fails(RvError::TokenNotPresent, || application.module.get_token_info(slots[1]));
        assert_fails(RvError::TokenNotPresent, || application.module.open_rw_session(slots[2]));
        let refusal = await_refusal(&world, "Handshake");
        println!("{refusal}");
        // Nobody else was disturbed.
        let pair = generate(&application.session, b"token's", Place::Token).unwrap();
        assert_signs(&application.session, &pair);
        // The record outlives the server.
        world.server.stop().unwrap();
        world.server.start().unwrap();
        await_refusal(&world, "Handshake");
        world.server.hsmctl(&["audit", "verify"]).unwrap();
    });
}

/// A `[[token]]` with the CA of one folder and the certificate of another.
fn slot_of(config: &Path, trusted: &Path, shown: &Path) -> String {
    let text = fs::read_to_string(config).unwrap();
    let table = text.split_once("[[token]]").unwrap().1.split("[[token]]").next().unwrap().to_owned();
    let name = |folder: &Path, file: &str| format!("\"{}\"", folder.join(file).display());
    let table = table.replace("\"ca.pem\"", &name(trusted, "ca.pem"));
    let table = table.replace("\"client.pem\"", &name(shown, "client.pem"));
    format!("[[token]]{}", table.replace("\"client.key\"", &name(shown, "client.key")))
}

/// A refusal that speaks of something.
fn await_refusal(world: &World, what: &str) -> Value {
    eventually(what, || {
        let refused = |record: &Value| record["outcome"] == "refused" && record.to_string().contains(what);
        world.audit().into_iter().find(refused)
    })
}

#[test]
fn a_policys_refusal_is_told_and_its_rule_is_on_record() {
    alone("outage::a_policys_refusal_is_told_and_its_rule_is_on_record", LIMIT, |mut world| {
        let application = world.application();
        let session = &application.session;
        let limited = generate(session, b"desk-1", Place::Token).unwrap();
        let other = generate(session, b"vault-1", Place::Token).unwrap();
        let policy = world.folder.join("policy.toml");
        let text = "default = \"refuse\"\n[[rule]]\nname = \"five a minute\"\nkeys = [\"desk-*\"]\n\
                    mechanisms = [\"CKM_ECDSA_SHA256\"]\nsignatures_per_minute = 5\n";
        fs::write(&policy, text).unwrap();
        world.server.hsmctl(&["policy", "set", PARTITION, policy.to_str().unwrap()]).unwrap();

        let begun = Instant::now();
        assert_fails(RvError::FunctionRejected, || sign(session, other.private, b"sell"));
        let digest = [7; 32];
        assert_fails(RvError::FunctionRejected, || session.sign(&Mechanism::Ecdsa, limited.private, &digest));
        for _ in 0..3 {
            assert_signs(session, &limited);
        }
        // The count survives everything, and lets not one through too many.
        world.signal("vault", Signal::KILL);
        assert_signs(session, &limited);
        world.kill_and_restart();
        assert_signs(session, &limited);
        let refused = sign(session, limited.private, b"sell").map_err(|error| code(&error));
        if begun.elapsed() < Duration::from_secs(55) {
            assert_eq!(refused, Err(RvError::FunctionRejected), "the sixth within a minute");
            let refusal = await_refusal(&world, "five a minute");
            assert_eq!((&refusal["act"], &refusal["client"]), (&"Sign".into(), &CLIENT.into()));
        }
        await_refusal(&world, "default");
    });
}

#[test]
fn what_is_frozen_signs_nothing_until_it_is_thawed() {
    alone("outage::what_is_frozen_signs_nothing_until_it_is_thawed", LIMIT, |mut world| {
        let application = world.application();
        let session = &application.session;
        let one = generate(session, b"one", Place::Token).unwrap();
        let two = generate(session, b"two", Place::Token).unwrap();
        let keys: Vec<Value> =
            serde_json::from_str(&world.server.hsmctl(&["--json", "key", "list", PARTITION]).unwrap())
                .unwrap();
        let key = keys.iter().find(|key| key["label"] == "one" && key["class"] == "private").unwrap();
        let id = key["id"].as_str().unwrap();

        world.server.hsmctl(&["freeze", PARTITION, "--key", id]).unwrap();
        assert_fails(RvError::FunctionRejected, || sign(session, one.private, b"sell"));
        assert_signs(session, &two);
        // It stays frozen.
        world.kill_and_restart();
        assert_fails(RvError::FunctionRejected, || sign(session, one.private, b"sell"));
        await_refusal(&world, "frozen");
        world.server.hsmctl(&["thaw", PARTITION, "--key", id]).unwrap();
        assert_signs(session, &one);

        world.server.hsmctl(&["freeze", PARTITION]).unwrap();
        for pair in [&one, &two] {
            assert_fails(RvError::FunctionRejected, || sign(session, pair.private, b"sell"));
        }
        world.server.hsmctl(&["thaw", PARTITION]).unwrap();
        assert_signs(session, &one);
        assert_signs(session, &two);
    });
}
