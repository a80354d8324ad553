//! Callers who ask for too much, and acts that meet one another.

use pkcs11_sys::*;
use strongroom_server::door::Door;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::Params,
    message::*,
    object::{Template, Value},
};

use crate::world::*;

fn data(bytes: usize) -> CreateObject {
    let template = Template::new()
        .with(CKA_CLASS, Value::Ulong(CKO_DATA))
        .with(CKA_PRIVATE, Value::Bool(false))
        .with(CKA_VALUE, Value::bytes(vec![7; bytes]));
    CreateObject { template }
}

#[test]
fn an_answer_is_never_longer_than_a_frame() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let object = world.ask(&vault, &client, &data(100_000)).unwrap().id;
    let read = |times| ReadAttributes { object, kinds: vec![CKA_VALUE; times] };
    assert_eq!(world.ask(&vault, &client, &read(5)).unwrap().answers.len(), 5);
    assert_eq!(code(world.ask(&vault, &client, &read(20))), FaultCode::ArgumentsBad);
    assert_eq!(code(world.ask(&vault, &client, &read(10_000))), FaultCode::ArgumentsBad);
}

#[test]
fn session_objects_have_a_limit_and_give_their_room_back() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let fill = || (0..200).find_map(|_| world.ask(&vault, &client, &data(1_000_000)).err());
    assert_eq!(fill().unwrap().code, FaultCode::Full);
    world.ask(&vault, &client, &CloseSession {}).unwrap();
    world.ask(&vault, &client, &data(1_000_000)).unwrap();
}

#[test]
fn a_frozen_partition_makes_nothing_and_shows_no_key() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let template = Template::new()
        .with(CKA_VALUE_LEN, Value::Ulong(32))
        .with(CKA_SENSITIVE, Value::Bool(false))
        .with(CKA_EXTRACTABLE, Value::Bool(true));
    let open = GenerateKey { mechanism: CKM_AES_KEY_GEN, params: Params::None, template };
    let key = world.ask(&vault, &client, &open).unwrap().id;
    let read = ReadAttributes { object: key, kinds: vec![CKA_VALUE] };
    world.ask(&vault, &client, &read).unwrap();
    let shown = world.records(&vault).iter().filter(|record| record.act == "ReadAttributes").count();
    assert_eq!(shown, 1, "a key that was shown is on record");
    let freeze = Freeze { partition: "trading".into(), key: None };
    world.ask(&vault, &world.administrator(&vault), &freeze).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &read)), FaultCode::Frozen);
    assert_eq!(code(world.ask(&vault, &client, &open)), FaultCode::Frozen);
    assert_eq!(code(world.ask(&vault, &client, &ec_pair("k"))), FaultCode::Frozen);
}

#[test]
fn a_connection_does_not_outlive_its_certificate() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    world.ask(&vault, &client, &ReadToken {}).unwrap();
    world.ask(&vault, &world.administrator(&vault), &RevokeClient { name: "desk".into() }).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &ReadToken {})), FaultCode::Forbidden);
    let certificate = world.partition(&vault, "other", "short");
    let short = world.connect(&vault, &certificate, 1);
    world.ask(&vault, &short, &ReadToken {}).unwrap();
    world.platform.pass(31 * 86_400 * 1_000_000);
    assert_eq!(code(world.ask(&vault, &short, &ReadToken {})), FaultCode::Forbidden);
}

#[test]
fn a_destroyed_key_stays_destroyed_whoever_changes_it_meanwhile() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    for _ in 0..10 {
        let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for label in [b"a", b"b", b"c"] {
                    let template = Template::new().with(CKA_LABEL, Value::bytes(*label));
                    let _ = world.ask(&vault, &client, &WriteAttributes { object: key, template });
                }
            });
            world.ask(&vault, &client, &DestroyObject { object: key }).unwrap();
        });
        assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::KeyHandleInvalid);
    }
    drop(vault);
    let vault = world.vault();
    let client = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
    let find =
        FindObjects { template: Template::new().with(CKA_CLASS, Value::Ulong(CKO_PRIVATE_KEY)), after: None };
    assert_eq!(world.ask(&vault, &client, &find).unwrap().objects.len(), 0);
}

#[test]
fn what_needs_no_login_does_not_mind_an_ended_ticket() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let other = world.connect(&vault, &certificate, 2);
    world.ask(&vault, &other, &SetPin { old: Pin::new(USER_PIN), new: Pin::new(b"5678") }).unwrap();
    world.ask(&vault, &client, &ReadToken {}).unwrap();
    world.ask(&vault, &client, &CloseSession {}).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &ec_pair("k"))), FaultCode::TicketExpired);
    vault.tick().unwrap();
}
