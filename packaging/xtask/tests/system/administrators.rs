//! The administrators of a cluster, as they come and go: begun with one, it cannot end a ban; with a second it does.

use std::path::Path;

use aws_lc_rs::signature::Ed25519KeyPair;
use minicbor::{Decode, Encode};
use serde_json::Value;
use strongroom_server::{
    crypto::threshold::{Epoch, KeyId, Party},
    store::{self, Batch, Record},
};
use strongroom_shared::message::SecretBytes;
use xtask::server::Server;

use crate::{
    kept::Kept,
    shares::{hsmctl_as, order, sign},
    support::{PARTITION, alone_in, eventually},
    threshold::World,
};

/// What a node keeps of its keys, as far as it is read here.
#[derive(Decode)]
struct NodeRecord {
    #[n(0)]
    identity: SecretBytes,
}

/// A pair of nodes that must not sign together, as the first one says.
#[derive(Encode)]
struct Ban {
    #[n(0)]
    key: KeyId,
    #[n(1)]
    epoch: Epoch,
    #[n(2)]
    reporter: Party,
    #[n(3)]
    against: Party,
}

#[derive(Encode)]
struct SignedBan {
    #[n(0)]
    ban: Ban,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

fn identity(records: &[Record]) -> Ed25519KeyPair {
    let node = records.iter().find(|(path, _)| matches!(path, store::Path::Node)).unwrap();
    let node: NodeRecord = minicbor::decode(&node.1).unwrap();
    Ed25519KeyPair::from_seed_unchecked(&node.identity.0).unwrap()
}

/// Has a node that does not run have said that it must not sign with the other one any more, as if it had found a
/// message of the other wrong.
fn ban(node: &Server, other: [u8; 32]) {
    let Kept { store, records, partition, key, claim, .. } = Kept::at(node);
    let pair = identity(&records);
    let seat = |node: &[u8]| {
        let place = claim.seats.iter().position(|seat| seat == node).unwrap();
        Party::new(u8::try_from(place + 1).unwrap()).unwrap()
    };
    let own = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let ban = Ban { key: KeyId(key.0), epoch: Epoch(0), reporter: seat(&own), against: seat(&other) };
    let text = [b"strongroom ban 1\0", &claim.cluster[..], &minicbor::to_vec(&ban).unwrap()].concat();
    let signature = pair.sign(&text).as_ref().try_into().unwrap();
    let bans = minicbor::to_vec([SignedBan { ban, signature }]).unwrap();
    let mut batch = Batch::new();
    batch.put(store::Path::Bans(partition, key), bans.into());
    store.commit(batch, &[]).unwrap();
}

/// The public key by which a node vouches, from the membership document in a folder.
fn node_key(folder: &Path, name: &str) -> [u8; 32] {
    let document = std::fs::read(folder.join("cluster.document")).unwrap();
    let document = strongroom_server::cluster::Document::read(&document).unwrap();
    document.membership().members.iter().find(|member| member.name == name).unwrap().identity
}

fn json(told: &str) -> Value {
    serde_json::from_str(told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

/// The administrators, as every node lists them.
fn listed(world: &World) -> Vec<Value> {
    let list = |server: &Server| json(&server.ask(&["--json", "cluster", "administrators"]).unwrap());
    let lists: Vec<_> = world.nodes.servers.iter().map(list).collect();
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    let all: Vec<Vec<Value>> = lists.iter().map(names).collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0].clone()
}

/// Waits until this version is in force everywhere.
fn await_version(world: &World, version: u64) {
    for server in &world.nodes.servers {
        let everywhere = || {
            let rows = json(&server.ask(&["--json", "cluster", "list"]).ok()?);
            rows.as_array()?.iter().all(|row| row["version"] == version).then_some(())
        };
        eventually("the document is in force everywhere", everywhere);
    }
    world.nodes.await_all().unwrap();
}

#[test]
fn a_cluster_begun_with_one_administrator_gets_a_second_and_both_end_a_ban() {
    let name = "administrators::a_cluster_begun_with_one_administrator_gets_a_second_and_both_end_a_ban";
    alone_in(name, std::time::Duration::from_secs(300), "a", |folder| {
        let mut world = World::new(folder);
        let key = world.generate("EC:edwards25519", "edwards");
        let b = node_key(&world.nodes.servers[0].admin(), "b");
        world.nodes.servers[0].stop().unwrap();
        ban(&world.nodes.servers[0], b);
        world.start(0);
        world.nodes.await_all().unwrap();
        eventually("a and c sign", || sign(&world, &key).ok());
        world.kill(2);
        for _ in 0..3 {
            assert!(sign(&world, &key).is_err(), "a and b must not sign together");
        }
        world.start(2);
        world.nodes.await_all().unwrap();
        let told = json(&order(&world, &["refresh"]).unwrap());
        assert_eq!(
            (&told["signatures"], &told["needed"], &told["epoch"]),
            (&1.into(), &2.into(), &Value::Null)
        );

        // Bob's key is made in his folder, and stays there.
        let bob = folder.join("bob");
        let of_bob = bob.display().to_string();
        let first = |world: &World, words: &[&str]| -> Result<String, String> {
            world.nodes.servers[0].ask(words).map_err(|error| error.to_string())
        };
        first(&world, &["client", "add", "bob", "--admin", "--out", &of_bob]).unwrap();
        let shown = json(&hsmctl_as(&bob, &["--json", "cluster", "key"]).unwrap());
        let digits = shown["key"].as_str().unwrap().to_owned();
        assert_eq!(json(&hsmctl_as(&bob, &["--json", "cluster", "key"]).unwrap()), shown, "it is made once");
        let refused = hsmctl_as(&bob, &["cluster", "admit-administrator", &of_bob, "--yes"]).unwrap_err();
        assert!(refused.contains("0 of the administrators"), "he does not admit himself: {refused}");
        let admit = |name: &str, key: &str, more: &[&str]| {
            let words = ["--json", "cluster", "admit-administrator", "--name", name, "--key", key, "--yes"];
            first(&world, &[&words[..], more].concat())
        };
        for (told, hint) in [
            (admit("bob", "12", &[]), "64 hexadecimal digits"),
            (admit("Bob", &digits, &[]), "is not a name"),
            (admit("admin", &digits, &[]), "another administrator's name"),
            (admit("bob", &digits, &["--approvals", "3"]), "3 administrators cannot be asked to sign"),
            (admit("bob", &digits, &["--approvals", "0"]), "0 administrators cannot be asked to sign"),
            (
                first(&world, &["cluster", "dismiss-administrator", "admin", "--yes"]),
                "0 administrator would be left",
            ),
            (first(&world, &["cluster", "dismiss-administrator", "bob", "--yes"]), "no administrator bob"),
        ] {
            let refused = told.unwrap_err();
            assert!(refused.contains(hint), "{hint}: {refused}");
        }
        assert_eq!(listed(&world), ["admin"]);
        let told = json(&admit("bob", &digits, &[]).unwrap());
        assert_eq!((&told["version"], &told["approvals"]), (&4.into(), &"1 of 2".into()), "{told}");
        assert!(admit("bob", &digits, &[]).unwrap_err().contains("an administrator of this cluster already"));
        await_version(&world, 4);
        assert_eq!(listed(&world), ["admin", "bob"]);

        // Both of them end the ban.
        let told = json(&order(&world, &["refresh", "--with", &of_bob]).unwrap());
        assert_eq!((&told["signatures"], &told["epoch"]), (&2.into(), &1.into()), "{told}");
        world.kill(2);
        eventually("a and b sign together", || sign(&world, &key).ok());
        world.start(2);
        world.nodes.await_all().unwrap();

        // Carol comes, whom the first alone could not list as a second key of their own, and every change takes two. Bob goes, and signs nothing any more.
        let carol = folder.join("carol");
        let of_carol = carol.display().to_string();
        let first = |words: &[&str]| -> Result<String, String> {
            world.nodes.servers[0].ask(words).map_err(|error| error.to_string())
        };
        first(&["client", "add", "carol", "--admin", "--out", &of_carol]).unwrap();
        let admit = ["cluster", "admit-administrator", &of_carol, "--approvals", "2", "--yes"];
        let refused = first(&admit).unwrap_err();
        assert!(refused.contains("1 of the administrators") && refused.contains("it takes 2"), "{refused}");
        let told = first(&["cluster", "administrators"]).unwrap();
        assert!(
            told.contains("next version takes 1 of 2") && told.contains("administrators takes 2"),
            "{told}"
        );
        first(&[&admit[..], &["--with", &of_bob]].concat()).unwrap();
        assert!(carol.join("cluster.document").exists(), "she knows the cluster");
        let dismiss =
            |more: &[&str]| first(&[&["cluster", "dismiss-administrator", "bob", "--yes"], more].concat());
        assert!(dismiss(&[]).unwrap_err().contains("1 of the administrators"));
        assert!(
            dismiss(&["--with", &of_carol, "--approvals", "3"]).unwrap_err().contains("there would be 2")
        );
        dismiss(&["--with", &of_carol]).unwrap();
        await_version(&world, 6);
        assert_eq!(listed(&world), ["admin", "carol"]);
        let refused = order(&world, &["refresh", "--with", &of_bob]).unwrap_err();
        assert!(refused.contains("does not list"), "{refused}");
        let told = json(&order(&world, &["refresh", "--with", &of_carol]).unwrap());
        assert_eq!(told["epoch"], 2, "{told}");
        sign(&world, &key).unwrap();
        for server in &world.nodes.servers {
            let records = server.ask(&["--json", "audit", "tail", "-n", "1000"]).unwrap();
            let change = "1 of the administrators admin, bob sign from now on; approved by admin";
            assert!(records.contains(change), "{records}");
            let whole = server.ask(&["--json", "audit", "verify"]).unwrap();
            assert!(whole.contains("\"whole\": true"), "{whole}");
        }
        assert!(world.nodes.servers[1].ask(&["key", "list", PARTITION]).unwrap().contains("2 of 3"));
    });
}
