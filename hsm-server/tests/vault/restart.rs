//! What survives the process, what is not done twice, and what is not served.

use strongroom_shared::{fault::FaultCode, message::*};

use crate::world::*;

#[test]
fn keys_tickets_and_handles_survive() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    drop(vault);
    let vault = world.vault();
    let client = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
    world.ask(&vault, &client, &sign(key)).unwrap();
}

#[test]
fn a_resent_request_is_answered_again_and_recorded_once() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let first = world.ask_as(&vault, &client, 777, &ec_pair("k")).unwrap();
    let again = world.ask_as(&vault, &client, 777, &ec_pair("k")).unwrap();
    assert_eq!(first.private, again.private);
    let records = world.records(&vault);
    assert_eq!(records.iter().filter(|record| record.request == 777).count(), 1);

    drop(vault);
    let vault = world.vault();
    let client = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
    assert_eq!(code(world.ask_as(&vault, &client, 777, &ec_pair("k"))), FaultCode::AnswerLost);
    assert_eq!(
        world
            .ask(&vault, &world.administrator(&vault), &ListKeys { partition: "trading".into() })
            .unwrap()
            .keys
            .len(),
        2
    );
}

#[test]
fn every_act_is_one_record() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    world.ask(&vault, &client, &sign(key)).unwrap();
    let records = world.records(&vault);
    let acts: Vec<_> = records.iter().map(|record| record.act.as_str()).collect();
    let expected = [
        "Initialise",
        "Start",
        "CreatePartition",
        "AddClient",
        "InitToken",
        "Login",
        "InitPin",
        "Login",
        "GenerateKeyPair",
        "Sign",
    ];
    assert_eq!(acts, expected);
    let signature = records.last().unwrap();
    assert_eq!((signature.client.as_str(), signature.partition.as_str()), ("desk", "trading"));
    assert_eq!(signature.message_hash.len(), 32);
    let verified = world.ask(&vault, &world.administrator(&vault), &VerifyAudit {}).unwrap();
    assert_eq!(verified.records, expected.len() as u64);
}

#[test]
fn a_store_older_than_its_log_is_not_served() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let old = world.store.copy();
    world.ask(&vault, &client, &ec_pair("k")).unwrap();
    drop(vault);
    let rolled_back = World { store: old, ..world };
    let error = rolled_back.try_vault().unwrap_err().to_string();
    assert!(error.contains("older than its audit log"), "{error}");
}

#[test]
fn a_log_older_than_its_store_is_not_served() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    vault_tick(&vault);
    let old = world.sink.copy();
    for label in ["a", "b"] {
        world.ask(&vault, &client, &ec_pair(label)).unwrap();
    }
    drop(vault);
    let rolled_back = World { sink: old, ..world };
    let error = rolled_back.try_vault().unwrap_err().to_string();
    assert!(error.contains("older than its store"), "{error}");
}

fn vault_tick(vault: &impl strongroom_server::door::Door) {
    vault.tick();
}

#[test]
fn revoked_clients_are_not_admitted() {
    use strongroom_server::door::Door;
    let world = World::new();
    let vault = world.vault();
    let (certificate, _) = world.desk(&vault);
    let before = vault.admissions().0;
    world.ask(&vault, &world.administrator(&vault), &RevokeClient { name: "desk".into() }).unwrap();
    assert!(vault.admissions().0 > before);
    assert!(vault.admit(&certificate, ([127, 0, 0, 1], 7).into()).is_err());
}

#[test]
fn a_deleted_partition_is_gone_for_good() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    world.ask(&vault, &world.administrator(&vault), &DeletePartition { name: "trading".into() }).unwrap();
    assert_eq!(code(world.ask(&vault, &client, &sign(key))), FaultCode::Forbidden);
    drop(vault);
    let vault = world.vault();
    assert_eq!(
        world.ask(&vault, &world.administrator(&vault), &ListPartitions {}).unwrap().partitions.len(),
        0
    );
}

#[test]
fn broken_frames_get_a_fault_and_no_panic() {
    use strongroom_server::door::Door;
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    for frame in [&[][..], &[0; 15], &[0; 16], &[0xff; 64]] {
        let mut reply = Vec::new();
        vault.handle(&client.peer, frame, &mut reply);
        assert!(!reply.is_empty());
    }
}
