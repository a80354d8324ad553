//! The life of shares over real servers: refreshed while nodes are killed, repaired after a node was put back to an
//! old copy, and moved to other nodes and back.

use std::{
    fs,
    path::Path,
    thread::{self, sleep},
    time::Duration,
};

use serde_json::Value;
use xtask::{
    shell::{Echo, Shell},
    workspace::Artefacts,
};

use crate::{
    support::{CLIENT, PARTITION, alone_in, eventually},
    threshold::{Shared, World},
};

/// The private key, as an administrator of a node sees it: its id, and how it is shared.
fn listed(world: &World, node: usize) -> Option<(String, String)> {
    let listed = world.nodes.servers[node].ask(&["--json", "key", "list", PARTITION]).ok()?;
    let all: Value = serde_json::from_str(&listed).ok()?;
    let rows = all.as_array().cloned().or_else(|| all.get("rows")?.as_array().cloned())?;
    let private = rows.iter().find(|row| row["class"] == "private")?;
    Some((private["id"].as_str()?.to_owned(), private["shares"].as_str()?.to_owned()))
}

/// Has the first administrator order something about the key's shares.
pub fn order(world: &World, words: &[&str]) -> Result<String, String> {
    let key = listed(world, 0).unwrap().0;
    let (act, rest) = words.split_first().unwrap();
    let words = [&["--json", "key", act, PARTITION, &key, "--yes"][..], rest].concat();
    world.nodes.servers[0].ask(&words).map_err(|error| error.to_string())
}

pub fn sign(world: &World, key: &Shared) -> Result<(), String> {
    key.sign_eddsa(&world.session, b"buy low").map_err(|error| error.to_string())
}

/// Whichever node is missing, the others sign.
fn is_sound(world: &mut World, key: &Shared) {
    for missing in [2, 1] {
        world.kill(missing);
        eventually("the others sign", || sign(world, key).ok());
        world.start(missing);
        world.nodes.await_all().unwrap();
    }
}

/// Runs `hsmctl` as another administrator than the first.
pub fn hsmctl_as(folder: &Path, words: &[&str]) -> Result<String, String> {
    let (tool, folder) = (Artefacts::built().unwrap().hsmctl(), folder.display().to_string());
    let told = Shell::new(Echo::Nothing).run(&[&[tool.as_str(), "--admin", &folder], words].concat());
    told.map_err(|error| error.to_string())
}

#[test]
fn two_administrators_order_together_each_with_a_certificate() {
    let name = "shares::two_administrators_order_together_each_with_a_certificate";
    alone_in(name, Duration::from_secs(300), "a", |folder| {
        let bob = folder.join("bob");
        let with = bob.display().to_string();
        let mut world = World::joined(folder, |nodes| {
            let (first, others) = nodes.servers.split_first().unwrap();
            first.hsmctl(&["client", "add", "bob", "--admin", "--out", &with]).unwrap();
            let approved = ["--with", &with, "--yes"];
            first
                .hsmctl(&[&["cluster", "init", "--name", "a", "--approvals", "2"][..], &approved].concat())
                .unwrap();
            for other in others {
                let (admin, name) = (other.admin().display().to_string(), xtask::cluster::name(other));
                first
                    .hsmctl(&[&["cluster", "join", &admin, "--name", &name][..], &approved].concat())
                    .unwrap();
            }
            nodes.await_all().unwrap();
        });
        let key = world.generate("EC:edwards25519", "edwards");
        let refused = order(&world, &["reshare", "--threshold", "4", "--parties", "3"]).unwrap_err();
        assert!(refused.contains("threshold ≤ parties") && !refused.contains("signed by"), "{refused}");
        let told = order(&world, &["refresh"]).unwrap();
        assert!(told.contains("\"signatures\": 1") && told.contains("\"epoch\": null"), "{told}");
        // What waits outlives the node's process.
        world.kill(0);
        world.start(0);
        world.nodes.await_all().unwrap();
        // Bob knows the node by its fingerprint, sees what waits, and signs it.
        let told = hsmctl_as(&bob, &["--json", "key", "approve"]).unwrap();
        let waiting: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&waiting[0]["act"], &waiting[0]["needed"]), (&"refresh".into(), &2.into()), "{told}");
        let digits = waiting[0]["order"].as_str().unwrap();
        let approve = || hsmctl_as(&bob, &["--json", "key", "approve", digits, "--yes"]);
        let pinned = fs::read_to_string(world.nodes.servers[0].admin().join("node.fingerprint")).unwrap();
        if !bob.join("node.fingerprint").exists() {
            assert!(approve().unwrap_err().contains("cluster pin"));
            hsmctl_as(&bob, &["cluster", "pin", pinned.trim()]).unwrap();
        }
        let told = approve().unwrap();
        assert!(told.contains("\"epoch\": 1") && told.contains("\"signatures\": 2"), "{told}");
        sign(&world, &key).unwrap();
        assert_eq!(hsmctl_as(&bob, &["--json", "key", "approve"]).unwrap().trim(), "[]");
        // Nothing waits, and what is in use is not abandoned.
        let first = &world.nodes.servers[0];
        assert_eq!(first.ask(&["--json", "key", "list", PARTITION, "--waiting"]).unwrap().trim(), "[]");
        let refused = order(&world, &["abandon"]).unwrap_err();
        assert!(refused.contains("only a new key is abandoned"), "{refused}");
        // Or both at one machine.
        let told = order(&world, &["refresh", "--with", &with]).unwrap();
        assert!(told.contains("\"epoch\": 2"), "{told}");
        sign(&world, &key).unwrap();
        // A key that one node holds becomes theirs.
        let client = world.nodes.servers[0].state().join(CLIENT);
        let (pin, client) = (client.with_extension("pin"), client.display().to_string());
        let pin = pin.display().to_string();
        let made = world.nodes.servers[0].ask(&[
            "--json",
            "key",
            "generate",
            "--client",
            &client,
            "--kind",
            "EC:edwards25519",
            "--label",
            "whole",
            "--pin-file",
            &pin,
        ]);
        let made: Value = serde_json::from_str(&made.unwrap()).unwrap();
        let id = made["private"].as_str().unwrap();
        let share =
            ["key", "share", PARTITION, id, "--threshold", "2", "--parties", "3", "--with", &with, "--yes"];
        world.nodes.servers[0].ask(&share).unwrap();
        let listed = world.nodes.servers[2].ask(&["--json", "key", "list", PARTITION]).unwrap();
        assert!(listed.contains(id), "{listed}");
        let shared = world.find("whole");
        sign(&world, &shared).unwrap();
    });
}

#[test]
fn shares_are_refreshed_repaired_and_moved_while_nodes_die() {
    let name = "shares::shares_are_refreshed_repaired_and_moved_while_nodes_die";
    alone_in(name, Duration::from_secs(400), "a", |folder| {
        let mut world = World::new(folder);
        let key = world.generate("EC:edwards25519", "edwards");
        // An old copy of a node.
        let old = folder.join("old");
        world.copy(2, &old);

        let told = order(&world, &["refresh"]).unwrap();
        assert!(told.contains("\"epoch\": 1"), "{told}");
        is_sound(&mut world, &key);

        // kill -9 of a node in a refresh, each time closer to the moment at which it comes to be: later if it was not
        // carried out without that node, earlier if it was.
        let (mut pause, mut step, mut seen) = (60, 60, Vec::new());
        for attempt in 0..10 {
            let id = listed(&world, 0).unwrap().0;
            let victim = 1 + attempt % 2;
            let mut nodes = std::mem::take(&mut world.nodes.servers);
            let told = thread::scope(|scope| {
                let (first, others) = nodes.split_first_mut().unwrap();
                let first = &*first;
                let asked = scope.spawn(move || {
                    let told = first.ask(&["--json", "key", "refresh", PARTITION, &id, "--yes"]);
                    told.map_err(|error| error.to_string())
                });
                sleep(Duration::from_millis(pause));
                others[victim - 1].kill().unwrap();
                asked.join().unwrap()
            });
            world.nodes.servers = nodes;
            println!("killed after {pause} ms, carried out: {}", told.is_ok());
            if seen.last().is_some_and(|last| *last != told.is_ok()) {
                step = (step / 2).max(4);
            }
            pause = if told.is_ok() { pause.saturating_sub(step).max(1) } else { pause + step };
            seen.push(told.is_ok());
            eventually("two of three sign", || sign(&world, &key).ok());
            world.start(victim);
            world.nodes.await_all().unwrap();
            sign(&world, &key).unwrap();
        }
        assert!(seen.contains(&true) && seen.contains(&false), "before and after it came to be: {seen:?}");
        let told = eventually("a refresh by all", || order(&world, &["refresh"]).ok());
        assert!(told.contains("\"note\": null"), "{told}");
        is_sound(&mut world, &key);

        // The node is put back to its old copy: its share is worth nothing until it is repaired.
        world.put_back(2, &old);
        world.kill(1);
        for _ in 0..3 {
            assert!(sign(&world, &key).is_err(), "an old share and a new one");
        }
        world.start(1);
        world.nodes.await_all().unwrap();
        eventually("the two others sign", || sign(&world, &key).ok());
        let told = order(&world, &["refresh"]).unwrap_err();
        assert!(told.contains("key repair"), "{told}");
        order(&world, &["repair", "--node", "c"]).unwrap();
        is_sound(&mut world, &key);

        // Another number signs, other nodes hold the shares, and back.
        for (threshold, parties, nodes) in [("3", "3", "abc"), ("2", "2", "ab"), ("2", "3", "abc")] {
            let named = nodes.chars().flat_map(|node| ["--node".to_owned(), node.to_string()]);
            let words: Vec<String> = ["reshare", "--threshold", threshold, "--parties", parties]
                .map(str::to_owned)
                .into_iter()
                .chain(named)
                .collect();
            order(&world, &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            sign(&world, &key).unwrap();
            for (node, name) in ["a", "b", "c"].into_iter().enumerate() {
                let shown = listed(&world, node).map(|(_, shares)| shares);
                let expected = nodes.contains(name).then(|| format!("{threshold} of {parties}"));
                assert_eq!(shown, expected, "node {name}");
            }
        }
        is_sound(&mut world, &key);
        for server in &world.nodes.servers {
            let whole = server.hsmctl(&["--json", "audit", "verify"]).unwrap();
            assert!(whole.contains("\"whole\": true"), "{whole}");
        }
    });
}
