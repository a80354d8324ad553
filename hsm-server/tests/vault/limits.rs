//! Policy: what it refuses, whom it charges, what a restart does not forgive, and the freeze switch.

use strongroom_server::{
    door::Door,
    platform::{Fake, Platform},
};
use strongroom_shared::{
    fault::FaultCode,
    message::*,
    object::{Template, Value},
};

use crate::world::*;

const POLICY: &str = "[[rule]]\nname = \"desk\"\nkeys = [\"desk-*\"]\nsignatures_per_minute = 3\n";

fn set_policy(world: &World, vault: &strongroom_server::vault::Vault<Fake>, text: &str) {
    let call = SetPolicy { partition: "trading".into(), text: text.into() };
    world.ask(vault, &world.administrator(vault), &call).unwrap();
}

#[test]
fn a_limit_counts_copies_and_outlives_the_process() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    set_policy(&world, &vault, POLICY);
    let key = world.ask(&vault, &client, &ec_pair("desk-1")).unwrap().private.id;
    let copy = CopyObject { object: key, template: Template::new() };
    let copy = world.ask(&vault, &client, &copy).unwrap().id;
    world.ask(&vault, &client, &sign(key)).unwrap();
    world.ask(&vault, &client, &sign(copy)).unwrap();
    drop(vault);

    let vault = world.vault();
    let reconnected = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
    world.ask(&vault, &reconnected, &sign(copy)).unwrap();
    let refused = world.ask(&vault, &reconnected, &sign(key)).unwrap_err();
    assert_eq!(refused.code, FaultCode::PolicyRefused);
    assert!(refused.detail.contains("desk"), "{refused}");
    world.platform.pass(60_000_000);
    world.ask(&vault, &reconnected, &sign(key)).unwrap();
}

#[test]
fn a_clock_that_is_set_neither_stops_a_desk_nor_gives_it_more() {
    const HOUR: i64 = 60 * MINUTE;
    const MINUTE: i64 = 60 * 1_000_000;
    let world = World::new();
    let mut vault = world.vault();
    let (certificate, mut client) = world.desk(&vault);
    set_policy(&world, &vault, POLICY);
    let key = world.ask(&vault, &client, &ec_pair("desk-1")).unwrap().private.id;
    let spend = |vault: &_, client: &Client| {
        (0..3).for_each(|_| drop(world.ask(vault, client, &sign(key)).unwrap()));
        assert_eq!(code(world.ask(vault, client, &sign(key))), FaultCode::PolicyRefused);
    };
    for step in [-3 * HOUR, 10 * MINUTE] {
        for restart in [false, true] {
            spend(&vault, &client);
            world.platform.set_clock(world.platform.now().saturating_add_signed(step));
            if restart {
                drop(vault);
                vault = world.vault();
                client = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
            }
            assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::PolicyRefused, "{step}");
            world.platform.pass(MINUTE.unsigned_abs());
            vault.tick().unwrap();
        }
    }
    spend(&vault, &client);
}

#[test]
fn threads_get_exactly_the_limit() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    set_policy(&world, &vault, "[[rule]]\nname = \"desk\"\nkeys = [\"*\"]\nsignatures_per_minute = 25\n");
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    let signed: usize = std::thread::scope(|scope| {
        let signer = || (0..10).filter(|_| world.ask(&vault, &client, &sign(key)).is_ok()).count();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(signer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(signed, 25);
}

#[test]
fn a_refusal_is_on_record_with_its_rule() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    set_policy(&world, &vault, POLICY);
    let key = world.ask(&vault, &client, &ec_pair("cold")).unwrap().private.id;
    assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::PolicyRefused);
    let records = world.records(&vault);
    let policy = records.iter().find(|record| record.act == "SetPolicy").unwrap();
    assert_eq!((policy.partition.as_str(), policy.detail.len()), ("trading", "SHA-256 ".len() + 64));
    let last = records.last().unwrap();
    assert_eq!((last.act.as_str(), last.outcome, last.object), ("Sign", Outcome::Refused, Some(key)));
    assert!(last.detail.contains("default"));
}

#[test]
fn a_key_cannot_change_its_rules_by_a_new_label() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    set_policy(&world, &vault, &format!("default = \"allow\"\n{POLICY}"));
    let key = world.ask(&vault, &client, &ec_pair("desk-1")).unwrap().private.id;
    let label = |text: &[u8]| Template::new().with(pkcs11_sys::CKA_LABEL, Value::bytes(text));
    let write = WriteAttributes { object: key, template: label(b"free") };
    assert_eq!(code(world.ask(&vault, &client, &write)), FaultCode::PolicyRefused);
    let copy = CopyObject { object: key, template: label(b"free") };
    assert_eq!(code(world.ask(&vault, &client, &copy)), FaultCode::PolicyRefused);
    let write = WriteAttributes { object: key, template: label(b"desk-2") };
    world.ask(&vault, &client, &write).unwrap();
}

#[test]
fn a_frozen_key_does_nothing_until_it_is_thawed() {
    let world = World::new();
    let mut vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    let public = world.ask(&vault, &client, &ec_pair("k")).unwrap().public.id;
    let freeze = Freeze { partition: "trading".into(), key: Some(public) };
    assert_eq!(code(world.ask(&vault, &world.administrator(&vault), &freeze)), FaultCode::ArgumentsBad);
    for frozen in [Some(key), None] {
        let partition = || String::from("trading");
        let admin = world.administrator(&vault);
        world.ask(&vault, &admin, &Freeze { partition: partition(), key: frozen }).unwrap();
        drop(vault);
        vault = world.vault();
        let client =
            Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller.clone() };
        assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::Frozen);
        assert_eq!(code(world.ask(&vault, &client, &DestroyObject { object: key })), FaultCode::Frozen);
        let admin = world.administrator(&vault);
        world.ask(&vault, &admin, &Thaw { partition: partition(), key: frozen }).unwrap();
        world.ask(&vault, &client, &sign(key)).unwrap();
    }
}

#[test]
fn a_freeze_and_a_login_at_once_lose_nothing() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..9 {
                let mut guesser = world.connect(&vault, &certificate, 9);
                world.login(&vault, &mut guesser, User::Normal, b"0000").unwrap_err();
            }
        });
        let admin = world.administrator(&vault);
        for _ in 0..20 {
            world.ask(&vault, &admin, &Thaw { partition: "trading".into(), key: None }).unwrap();
            world.ask(&vault, &admin, &Freeze { partition: "trading".into(), key: None }).unwrap();
            assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::Frozen);
        }
    });
    assert_eq!(world.ask(&vault, &client, &ReadToken {}).unwrap().user, Tries::Last);
    assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::Frozen);
}
