//! A new key that never came about, over real servers: its shares wait, are shown, and are given up by all nodes.

use std::{fs, time::Duration};

use minicbor::{Decode, Encode};
use serde_json::Value;
use strongroom_server::{
    cluster::{Document, NodeId},
    store::{self, Batch},
};
use strongroom_shared::{message::SecretBytes, object::Template};
use xtask::server::Server;

use crate::{
    kept::Kept,
    support::{PARTITION, alone_in},
    threshold::World,
};

#[derive(Decode)]
struct ObjectRecord {
    #[n(0)]
    attributes: Template,
}

/// A share that waits, as a node keeps it.
#[derive(Encode)]
struct PendingRecord {
    #[n(0)]
    share: SecretBytes,
    #[cbor(n(1), with = "minicbor::bytes")]
    claim: Vec<u8>,
    #[n(2)]
    public: Template,
    #[n(3)]
    private: Template,
    #[n(4)]
    made: u64,
    #[n(5)]
    order: Option<()>,
    #[n(6)]
    coordinator: NodeId,
}

/// Puts a node that does not run back to where it has its share of the new key, and has not heard of a certificate.
/// Its name for the key.
fn forget(node: &Server, coordinator: NodeId) -> String {
    let Kept { store, records, partition, key, share, signed, claim } = Kept::at(node);
    let object = |id| {
        let of_it = records.iter().find(|(path, _)| *path == store::Path::Object(partition, id));
        minicbor::decode::<ObjectRecord>(&of_it.unwrap().1).unwrap().attributes
    };
    let pending = PendingRecord {
        share,
        claim: signed,
        public: object(claim.public),
        private: object(key),
        made: 1_767_571_200_000_000,
        order: None,
        coordinator,
    };
    let mut batch = Batch::new();
    batch
        .put(store::Path::Pending(partition, key, 0), minicbor::to_vec(pending).unwrap().into())
        .delete(store::Path::Share(partition, key))
        .delete_if_there(store::Path::Standing(partition, key))
        .delete(store::Path::Object(partition, key))
        .delete(store::Path::Object(partition, claim.public));
    store.commit(batch, &[]).unwrap();
    key.to_string()
}

fn rows(node: &Server, words: &[&str]) -> Vec<Value> {
    let told = node.ask(&[&["--json"], words].concat()).unwrap();
    serde_json::from_str::<Value>(&told).unwrap().as_array().unwrap().clone()
}

fn waiting(node: &Server) -> Vec<Value> {
    rows(node, &["key", "list", PARTITION, "--waiting"])
}

#[test]
fn administrators_have_a_new_key_abandoned_at_all_nodes_or_at_none() {
    let name = "abandoned::administrators_have_a_new_key_abandoned_at_all_nodes_or_at_none";
    alone_in(name, Duration::from_secs(300), "a", |folder| {
        let mut world = World::new(folder);
        world.generate("EC:edwards25519", "edwards");
        let document = fs::read(world.nodes.servers[0].admin().join("cluster.document")).unwrap();
        let document = Document::read(&document).unwrap();
        let coordinator = document.membership().members.iter().find(|one| one.name == "b").unwrap().id;
        (0..3).for_each(|node| world.kill(node));
        let keys: Vec<_> = world.nodes.servers.iter().map(|node| forget(node, coordinator)).collect();
        let key = keys[0].as_str();
        (0..3).for_each(|node| world.start(node));
        world.nodes.await_all().unwrap();
        for node in &world.nodes.servers {
            let [share] = &waiting(node)[..] else { panic!("{:?}", waiting(node)) };
            assert_eq!((&share["key"], &share["made_by"]), (&key.into(), &"b".into()), "{share}");
            assert_eq!((&share["label"], &share["new"]), (&"edwards".into(), &true.into()), "{share}");
            assert!(node.ask(&["--json", "status"]).unwrap().contains("\"waiting_shares\": 1"));
        }

        let order = |world: &World, act: &str| -> Result<String, String> {
            let words = ["--json", "key", act, PARTITION, key, "--yes"];
            world.nodes.servers[0].ask(&words).map_err(|error| error.to_string())
        };
        assert!(order(&world, "refresh").unwrap_err().contains("`hsmctl key abandon` gives it up"));
        world.kill(2);
        let refused = order(&world, "abandon").unwrap_err();
        assert!(refused.contains("nothing was abandoned") && refused.contains("node c"), "{refused}");
        world.start(2);
        world.nodes.await_all().unwrap();
        assert!(world.nodes.servers.iter().all(|node| waiting(node).len() == 1));
        let told: Value = serde_json::from_str(&order(&world, "abandon").unwrap()).unwrap();
        assert_eq!((&told["act"], &told["epoch"]), (&"abandon".into(), &0.into()), "{told}");
        for restarted in [false, true] {
            if restarted {
                (0..3).for_each(|node| world.kill(node));
                (0..3).for_each(|node| world.start(node));
                world.nodes.await_all().unwrap();
            }
            for node in &world.nodes.servers {
                assert!(waiting(node).is_empty());
                assert!(rows(node, &["key", "list", PARTITION]).is_empty());
                let records = node.ask(&["--json", "audit", "tail", "-n", "1000"]).unwrap();
                assert!(records.contains("abandoned, ordered by admin"), "{records}");
            }
        }
        assert!(order(&world, "abandon").is_err(), "there is nothing left of it");
        assert!(world.nodes.servers[1].ask(&["audit", "verify"]).is_ok());
    });
}
