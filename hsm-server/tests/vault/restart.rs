//! What survives the process, what is not done twice, and what is not served.

use std::sync::atomic::Ordering;

use pkcs11_sys::*;
use strongroom_server::{
    audit::memory,
    door::{Door, Verdict},
    platform::Fake,
    store,
    vault::Vault,
};
use strongroom_shared::{
    fault::FaultCode,
    mechanism::Params,
    message::*,
    object::{ObjectId, Template, Value},
    wire::{CallId, Header, Kind, Permit, Retry, encode_request},
};

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
    assert_eq!(verified.records, expected.len() as u64 + 1, "the reading too");
}

#[test]
fn every_question_of_an_administrator_is_one_record() {
    let world = World::new();
    let vault = world.vault();
    world.desk(&vault);
    let admin = world.administrator(&vault);
    let before = world.records(&vault).len() + 1;
    let partition = || String::from("trading");
    world.ask(&vault, &admin, &ListPartitions {}).unwrap();
    world.ask(&vault, &admin, &ListClients {}).unwrap();
    world.ask(&vault, &admin, &ListKeys { partition: partition() }).unwrap();
    world.ask(&vault, &admin, &ListWaiting { partition: partition() }).unwrap();
    world.ask(&vault, &admin, &ReadPolicy { partition: partition() }).unwrap();
    world.ask(&vault, &admin, &ReadStatus {}).unwrap();
    world.ask(&vault, &admin, &ReadCluster {}).unwrap();
    world.ask(&vault, &admin, &VerifyAudit {}).unwrap();
    world.ask(&vault, &admin, &TailAudit { count: 3, after: None }).unwrap();
    let shares = ReadShares { partition: partition(), key: ObjectId([9; 16]), challenge: vec![1; 32] };
    assert_eq!(code(world.ask(&vault, &admin, &shares)), FaultCode::KeyHandleInvalid);
    assert_eq!(code(world.ask(&vault, &admin, &ListOrders {})), FaultCode::Forbidden, "in no cluster");
    let records = world.records(&vault).split_off(before);
    let acts: Vec<_> =
        records.iter().map(|record| (record.act.as_str(), record.partition.as_str())).collect();
    let expected = [
        ("ListPartitions", ""),
        ("ListClients", ""),
        ("ListKeys", "trading"),
        ("ListWaiting", "trading"),
        ("ReadPolicy", "trading"),
        ("ReadStatus", ""),
        ("ReadCluster", ""),
        ("VerifyAudit", ""),
        ("TailAudit", ""),
        ("ReadShares", "trading"),
        ("ListOrders", ""),
    ];
    assert_eq!(acts, expected);
    let (answered, refused) = records.split_at(expected.len() - 2);
    assert!(answered.iter().all(|record| record.client == "admin" && record.outcome == Outcome::Done));
    assert!(refused.iter().all(|record| record.client == "admin" && record.outcome == Outcome::Refused));
    // Every one of them is in the table: a new question is a new line here.
    let questions = CallId::ALL
        .iter()
        .filter(|call| call.permit() == Permit::Administrator && call.retry() == Retry::Safe);
    assert_eq!(questions.count(), expected.len());
}

#[test]
fn following_the_log_is_one_act_and_nothing_else_is_read_with_it() {
    let world = World::new();
    let vault = world.vault();
    let admin = world.administrator(&vault);
    let tail = |client: &Client, count, after| {
        world.ask(&vault, client, &TailAudit { count, after }).unwrap().records
    };
    let last = |records: &[AuditRecord]| records.last().unwrap().sequence;
    let mut after = last(&tail(&admin, 1, None));
    // Its own record comes first, and then nothing more for as long as it only reads on.
    let own = tail(&admin, 100, Some(after));
    assert_eq!((own.len(), own[0].act.as_str()), (1, "TailAudit"));
    assert_eq!(own[0].detail, format!("from record {after} on"));
    after = own[0].sequence;
    for _ in 0..20 {
        assert_eq!(tail(&admin, 100, Some(after)), []);
    }
    world.ask(&vault, &admin, &CreatePartition { name: "new".into() }).unwrap();
    let news = tail(&admin, 100, Some(after));
    assert_eq!((news.len(), news[0].act.as_str()), (1, "CreatePartition"));
    after = news[0].sequence;
    // To go back, to jump and to read on another's behalf are acts of their own.
    let other = world.administrator(&vault);
    for (client, from) in [(&admin, 0), (&admin, after + 50), (&other, after)] {
        let before = world.ask(&vault, &admin, &VerifyAudit {}).unwrap().records;
        tail(client, 1, Some(from));
        let since = world.ask(&vault, &admin, &VerifyAudit {}).unwrap().records - before;
        assert_eq!(since, 2, "VerifyAudit, and reading after {from}");
    }
    // A connection that ended has read nothing.
    let end = last(&tail(&admin, 1000, Some(0)));
    vault.disconnect(&admin.peer);
    tail(&admin, 100, Some(end));
    let record = tail(&other, 1, None).remove(0);
    assert_eq!((record.act, record.detail), ("TailAudit".into(), format!("from record {} on", end + 1)));
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
    vault.tick().unwrap();
    let old = world.sink.copy();
    for label in ["a", "b"] {
        world.ask(&vault, &client, &ec_pair(label)).unwrap();
    }
    drop(vault);
    let rolled_back = World { sink: old, ..world };
    let error = rolled_back.try_vault().unwrap_err().to_string();
    assert!(error.contains("older than its store"), "{error}");
}

/// Has an administrator change something, whatever comes of it.
fn try_to_change(world: &World, vault: &Vault<Fake>) {
    let admin = world.administrator(vault);
    let mut frame = Vec::new();
    let id = world.requests.fetch_add(1, Ordering::Relaxed);
    encode_request(&mut frame, id, &admin.caller, &CreatePartition { name: "new".into() });
    let mut reply = Vec::new();
    assert_eq!(vault.handle(&admin.peer, &frame, &mut reply), Verdict::Answered);
    assert_eq!(reply[5], Kind::Fault as u8);
}

#[test]
fn a_vault_whose_log_failed_says_what_to_do_and_the_next_one_works_as_soon_as_it_can() {
    let world = World::new();
    let vault = world.vault();
    let (certificate, client) = world.desk(&vault);
    let key = world.ask(&vault, &client, &ec_pair("k")).unwrap().private.id;
    vault.tick().unwrap();
    world.sink.set_disk(memory::Disk::Full);
    try_to_change(&world, &vault);
    assert!(vault.commit().is_err());
    let told = vault.tick().unwrap_err();
    assert_eq!(told.code, FaultCode::NotDurable);
    assert!(told.detail.contains("make room on its disk"), "{told}");
    drop(vault);
    assert!(world.try_vault().is_err());

    world.sink.set_disk(memory::Disk::Good);
    let vault = world.vault();
    let client = Client { peer: world.connect(&vault, &certificate, 1).peer, caller: client.caller };
    world.ask(&vault, &client, &sign(key)).unwrap();
    vault.tick().unwrap();
}

#[test]
fn a_vault_whose_store_is_unsure_says_what_to_do_and_the_next_one_works() {
    let world = World::new();
    let vault = world.vault();
    world.store.set_disk(store::memory::Disk::Failing);
    try_to_change(&world, &vault);
    world.store.set_disk(store::memory::Disk::Good);
    let told = vault.tick().unwrap_err();
    assert!(told.detail.contains("make room on its disk"), "{told}");
    drop(vault);
    let vault = world.vault();
    vault.tick().unwrap();
    // It had come to the disk after all, and is on record now.
    let records = world.records(&vault);
    let outcomes =
        records.iter().filter(|record| record.act == "CreatePartition").map(|record| record.outcome);
    assert_eq!(outcomes.collect::<Vec<_>>(), [Outcome::Failed, Outcome::Done]);
}

#[test]
fn revoked_clients_are_not_admitted() {
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
fn whoever_is_at_work_in_a_partition_that_is_deleted_is_told_so() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let public = Template::new()
        .with(CKA_MODULUS_BITS, Value::Ulong(2048))
        .with(CKA_PUBLIC_EXPONENT, Value::bytes(vec![1, 0, 1]))
        .with(CKA_TOKEN, Value::Bool(true));
    let private = Template::new().with(CKA_TOKEN, Value::Bool(true));
    let mechanism = CKM_RSA_PKCS_KEY_PAIR_GEN;
    let slow = GenerateKeyPair { mechanism, params: Params::None, public, private };
    std::thread::scope(|scope| {
        // Each is in the middle of a key nearly all of the time.
        let workers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..1000).find_map(|_| world.ask(&vault, &client, &slow).err())))
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let delete = DeletePartition { name: "trading".into() };
        world.ask(&vault, &world.administrator(&vault), &delete).unwrap();
        for worker in workers {
            let told = worker.join().unwrap().unwrap();
            assert_eq!(told.code, FaultCode::Forbidden, "{told}");
        }
    });
    vault.tick().unwrap();
}

#[test]
fn what_is_no_request_of_this_protocol_closes_the_connection() {
    let world = World::new();
    let vault = world.vault();
    let (_, client) = world.desk(&vault);
    let header = |kind, call, length| Header { length, kind, call, id: 7 }.encode().to_vec();
    let unknown = header(Kind::Request, 0x7fff, 0);
    for (frame, hint) in [
        (vec![], "without a header"),
        (vec![0; 15], "without a header"),
        (vec![0; 16], "version"),
        (vec![0xff; 64], "version"),
        (header(Kind::Reply, 1, 0), "whole request"),
        (header(Kind::Request, 1, 5), "whole request"),
        (unknown, "0x7fff is unknown"),
    ] {
        let mut reply = Vec::new();
        let Verdict::Close(reason) = vault.handle(&client.peer, &frame, &mut reply) else {
            panic!("{frame:?} was answered");
        };
        assert!(reply.is_empty() && reason.contains(hint), "{reason}");
    }
    // A call that is known keeps its connection, whatever its body is.
    let mut reply = Vec::new();
    let verdict = vault.handle(&client.peer, &header(Kind::Request, 1, 0), &mut reply);
    assert_eq!((verdict, reply.is_empty()), (Verdict::Answered, false));
}
