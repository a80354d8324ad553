//! Nodes of a cluster: which documents they take, from whom, and what passes between their vaults.

use std::sync::Arc;

use strongroom_server::{
    certificates,
    cluster::{document::ClusterId, introduction},
    door::Door,
};
use strongroom_shared::{
    fault::FaultCode,
    message::*,
    wire::{CallId, HEADER, Kind, encode_request},
};

use crate::{net::*, world::*};

#[test]
fn three_nodes_find_and_prove_one_another() {
    let (net, nodes) = cluster();
    for node in &nodes {
        for other in &nodes {
            let state = node.finds(&other.name);
            assert!(state.reachable && state.sealed, "{} → {}: {state:?}", node.name, other.name);
            assert_eq!((state.version, state.trouble.as_str()), (Some(1), ""));
        }
        let installed = node.records("InstallMembership");
        assert!(
            installed[0].detail.ends_with("version 1: a, b, c; approved by ann"),
            "{}",
            installed[0].detail
        );
        assert_eq!(installed.len(), 1);
    }
    let plain =
        net.said.lock().unwrap().iter().filter(|(_, _, frame)| frame.windows(3).any(|w| w == b"ann")).count();
    assert_eq!(plain, 0, "nothing of the document was sent to whoever had it");
}

#[test]
fn a_newer_document_travels_by_itself() {
    let (_, nodes) = cluster();
    let [a, b, c] = &nodes[..] else { panic!() };
    a.install(&document(2, &[a, b, c])).unwrap();
    assert_eq!(b.finds("a").version, Some(1));
    a.beat();
    for node in [b, c] {
        let taken = node.records("OfferMembership");
        assert_eq!((taken.len(), taken[0].client.as_str(), taken[0].outcome), (1, "node a", Outcome::Done));
        node.beat();
        assert_eq!(node.finds("a").version, Some(2));
        assert!(node.finds("a").sealed);
    }
}

#[test]
fn documents_that_do_not_prove_themselves_are_refused_and_recorded() {
    let (_, nodes) = cluster();
    let [a, b, c] = &nodes[..] else { panic!() };
    let all = [a, b, c];
    let newest = document(5, &all);
    a.install(&newest).unwrap();
    a.install(&newest).unwrap();
    let listed_herself = |signer: u8| {
        let mut membership = membership(6, &all);
        membership.administrators[0].key = *administrator_key(signer);
        membership.sign(&[&administrator(signer)]).unwrap()
    };
    let other_cluster = || {
        let mut membership = membership(6, &all);
        membership.cluster = ClusterId([8; 16]);
        membership.sign(&[&administrator(1)]).unwrap()
    };
    let other_key = || {
        let mut membership = membership(6, &all);
        membership.members[0].sealing[0] ^= 1;
        membership.sign(&[&administrator(1)]).unwrap()
    };
    let broken = || {
        let mut document = document(6, &all);
        *document.last_mut().unwrap() ^= 1;
        document
    };
    let before = a.records("InstallMembership").len();
    let cases = [
        (document(4, &all), "version 4, version 5 is in force"),
        (membership(5, &all).sign(&[&administrator(1), &administrator(2)]).unwrap(), "version 5 is in force"),
        (membership(6, &all).sign(&[&administrator(2)]).unwrap(), "0 of the administrators"),
        (membership(6, &all).sign(&[]).unwrap(), "0 of the administrators"),
        (listed_herself(2), "0 of the administrators"),
        (other_cluster(), "belongs to cluster"),
        (other_key(), "another certificate or sealing key"),
        (broken(), "a signature on it is wrong"),
        (b"nonsense".to_vec(), "malformed"),
    ];
    for (document, hint) in &cases {
        let fault = a.install(document).unwrap_err();
        assert_eq!(fault.code, FaultCode::MembershipRefused, "{fault}");
        assert!(fault.detail.contains(hint), "{fault}");
    }
    let records = a.records("InstallMembership");
    let refused = records[before..].iter().filter(|record| record.outcome == Outcome::Refused).count();
    assert_eq!((refused, records.len()), (cases.len(), before + cases.len()));
    // A restart forgets none of it.
    let mut nodes = nodes;
    nodes[0].restart();
    assert_eq!(nodes[0].install(&cases[0].0).unwrap_err().code, FaultCode::MembershipRefused);
    assert_eq!(nodes[0].finds("a").version, Some(5));
}

fn administrator_key(seed: u8) -> Box<[u8; 32]> {
    use aws_lc_rs::signature::KeyPair;
    Box::new(administrator(seed).public_key().as_ref().try_into().unwrap())
}

#[test]
fn the_first_document_comes_from_the_servers_own_administrator() {
    let net = std::sync::Arc::new(Net::default());
    let (a, b) = (Node::new(&net, "a", 1), Node::new(&net, "b", 2));
    let strangers = document(1, &[&a]);
    let fault = b.install(&strangers).unwrap_err();
    assert!(fault.detail.contains("does not name this server"), "{fault}");
    let unsigned = membership(1, &[&a, &b]).sign(&[&administrator(9)]).unwrap();
    assert!(b.install(&unsigned).unwrap_err().detail.contains("it takes 1"));
    // Nobody but administrators, and only where the front may call others.
    let certificate = b.world.partition(&b.vault, "trading", "desk");
    let desk = b.world.connect(&b.vault, &certificate, 1);
    let call = InstallMembership { document: document(1, &[&a, &b]) };
    assert_eq!(code(b.world.ask(&b.vault, &desk, &call)), FaultCode::Forbidden);
    assert_eq!(code(b.world.ask(&b.vault, &desk, &GreetNode { version: 1 })), FaultCode::Forbidden);
    let alone = World::new();
    let vault = alone.vault();
    let refused =
        alone.ask(&vault, &alone.administrator(&vault), &Introduce { name: "x".into(), challenge: None });
    let fault = refused.unwrap_err();
    assert_eq!(fault.code, FaultCode::ConfigurationInvalid);
    assert!(fault.detail.contains("[cluster]"), "{fault}");
}

#[test]
fn only_nodes_of_the_document_get_in_and_only_as_nodes() {
    let (net, nodes) = cluster();
    let [a, b, _] = &nodes[..] else { panic!() };
    let stranger = Node::new(&net, "d", 4);
    assert_eq!(
        a.vault.admit(&stranger.said.certificate, ([127, 0, 0, 1], 9).into()).unwrap_err().code,
        FaultCode::Forbidden
    );
    assert!(a.vault.admit(&a.said.certificate, ([127, 0, 0, 1], 9).into()).is_err(), "not itself");
    let peer = a.vault.admit(&b.said.certificate, ([127, 0, 0, 1], 9).into()).unwrap();
    let node = Client { peer, caller: Caller::default() };
    for refused in [
        a.world.ask(&a.vault, &node, &ListClients {}).map(drop),
        a.world.ask(&a.vault, &node, &ReadCluster {}).map(drop),
        a.world.ask(&a.vault, &node, &ReadToken {}).map(drop),
        a.world.ask(&a.vault, &node, &InstallMembership { document: Vec::new() }).map(drop),
    ] {
        assert_eq!(code(refused), FaultCode::Forbidden);
    }
    // Removed, its open connection is no good any more.
    a.install(&document(2, &[a, &nodes[2]])).unwrap();
    assert_eq!(code(a.world.ask(&a.vault, &node, &GreetNode { version: 1 })), FaultCode::Forbidden);
}

#[test]
fn a_node_that_was_removed_may_begin_anew() {
    let (_, mut nodes) = cluster();
    let without = document(2, &[&nodes[0], &nodes[1]]);
    nodes[2].install(&without).unwrap();
    nodes[2].beat();
    let before = nodes[2].said.certificate.clone();
    nodes[2].introduce();
    assert_ne!(nodes[2].said.certificate, before, "it shows another certificate from now on");
    let [a, b, c] = &nodes[..] else { panic!() };
    let state = c.world.ask(&c.vault, &c.admin(), &ReadCluster {}).unwrap();
    assert!(state.members.iter().all(|member| member.name != "c"));
    let mut other = membership(1, &[c]);
    other.cluster = ClusterId([8; 16]);
    c.install(&other.sign(&[&administrator(1)]).unwrap()).unwrap();
    assert!(c.install(&document(3, &[a, b, c])).is_err(), "it belongs to another cluster now");
}

#[test]
fn a_node_comes_back_with_another_certificate() {
    let (_, mut nodes) = cluster();
    nodes[2].install(&document(2, &[&nodes[0], &nodes[1]])).unwrap();
    nodes[2].introduce();
    let back = document(3, &nodes.iter().collect::<Vec<_>>());
    for node in &nodes {
        node.install(&back).unwrap();
    }
    nodes.iter().for_each(Node::beat);
    nodes[2].restart();
    nodes.iter().for_each(Node::beat);
    for (node, other) in [(0, "c"), (2, "a"), (2, "b")] {
        let state = nodes[node].finds(other);
        assert!(state.reachable && state.sealed, "{node} → {other}: {state:?}");
    }
}

#[test]
fn two_documents_of_one_version_are_told_and_nothing_sealed_passes_between_them() {
    let (net, nodes) = cluster();
    let [a, b, c] = &nodes[..] else { panic!() };
    let all = [a, b, c];
    let mut other = membership(2, &all);
    other.approvals = 1;
    other.members[2].address = "127.0.0.1:7474".into();
    a.install(&document(2, &all)).unwrap();
    b.install(&other.sign(&[&administrator(1)]).unwrap()).unwrap();
    [a, b, a].into_iter().for_each(Node::beat);
    for (node, other) in [(a, "b"), (b, "a")] {
        let state = node.finds(other);
        assert!(state.reachable && !state.sealed && state.trouble.contains("split"), "{state:?}");
        assert_eq!(state.version, Some(2));
        assert_ne!(state.digest, node.finds(&node.name).digest);
    }
    // Their vaults do not even shake hands, whatever their fronts say of the documents.
    let first = last_said(&net, "a", "b", CallId::ShakeHands);
    assert_eq!(kind(&deliver(&b.vault, &a.said.certificate, &first).unwrap()), Kind::Fault as u8);
    assert!(a.finds("c").sealed, "c took a's");
    // A later version mends it.
    a.install(&document(3, &all)).unwrap();
    [a, b, a].into_iter().for_each(Node::beat);
    assert!(a.finds("b").sealed && b.finds("a").sealed);
}

#[test]
fn a_vault_proves_who_it_is() {
    let (_, nodes) = cluster();
    let node = &nodes[0];
    let ask = |challenge: &[u8]| {
        let call = Introduce { name: "a".into(), challenge: Some(challenge.to_vec().into()) };
        node.world.ask(&node.vault, &node.admin(), &call)
    };
    let pinned = certificates::fingerprint(&node.said.identity);
    assert!(introduction::check(ask(&[1; 32]).unwrap(), &[1; 32], &pinned).is_some());
    assert!(introduction::check(ask(&[1; 32]).unwrap(), &[2; 32], &pinned).is_none());
    assert_eq!(ask(&[1; 31]).unwrap_err().code, FaultCode::ArgumentsBad);
    assert_eq!(node.world.node, pinned, "what `hsmctl init` wrote down");
}

/// The last frame of this call that went from one to the other.
fn last_said(net: &Net, from: &str, to: &str, call: CallId) -> Vec<u8> {
    let said = net.said.lock().unwrap();
    let frames = said.iter().rev().filter(|(f, t, _)| f == from && t == to);
    let number = (call as u16).to_be_bytes();
    frames.map(|(_, _, frame)| frame.clone()).find(|frame| frame[6..8] == number).unwrap()
}

fn kind(reply: &[u8]) -> u8 {
    reply[5]
}

#[test]
fn a_sealed_frame_is_taken_once_as_it_is_and_from_its_sender() {
    let (net, nodes) = cluster();
    let [a, b, c] = &nodes[..] else { panic!() };
    let sealed = last_said(&net, "a", "b", CallId::SealedCall);
    let replayed = deliver(&b.vault, &a.said.certificate, &sealed).unwrap();
    assert_eq!(kind(&replayed), Kind::Fault as u8);
    let records = b.records("SealedCall");
    assert!(records[0].detail.contains("came twice"), "{}", records[0].detail);
    assert_eq!(
        (records.len(), records[0].client.as_str(), records[0].outcome),
        (1, "node a", Outcome::Refused)
    );

    // The same from another node is in no session of its own: it is told so and nothing else.
    let stolen = deliver(&b.vault, &c.said.certificate, &sealed).unwrap();
    assert_eq!((kind(&stolen), stolen.len() - HEADER), (Kind::Reply as u8, 2));

    for (mishap, who, hint) in [
        (Mishap::Altered, "b", "not genuine"),
        (Mishap::Twice, "b", "came twice"),
        (Mishap::ReplyAltered, "", ""),
        (Mishap::Replaced(sealed.clone()), "b", "came twice"),
    ] {
        let before = b.records("SealedCall").len();
        let bad = mishap.clone();
        net.weather(move |from, to, call| {
            if (from, to, call) == ("a", "b", CallId::SealedCall) { bad.clone() } else { Mishap::None }
        });
        a.beat();
        assert!(!a.finds("b").sealed, "{mishap:?}");
        assert!(!a.finds("b").trouble.is_empty(), "{mishap:?}");
        assert!(a.finds("c").sealed, "{mishap:?}");
        let records = b.records("SealedCall");
        if who == "b" {
            assert_eq!(records.len(), before + 1, "{mishap:?}");
            assert!(records.last().unwrap().detail.contains(hint), "{mishap:?}: {:?}", records.last());
        }
        net.weather(|_, _, _| Mishap::None);
        a.beat();
        assert!(a.finds("b").sealed, "well again after {mishap:?}");
    }
}

#[test]
fn a_handshake_with_another_key_is_refused_and_on_record() {
    let (net, nodes) = cluster();
    let [a, b, _] = &nodes[..] else { panic!() };
    let first = last_said(&net, "a", "b", CallId::ShakeHands);
    // c shows its own certificate and a's message.
    let stolen = deliver(&b.vault, &nodes[2].said.certificate, &first).unwrap();
    assert_eq!(kind(&stolen), Kind::Fault as u8);
    let records = b.records("ShakeHands");
    assert_eq!(
        (records.len(), records[0].client.as_str(), records[0].outcome),
        (1, "node c", Outcome::Refused)
    );
    let mut altered = first.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(kind(&deliver(&b.vault, &a.said.certificate, &altered).unwrap()), Kind::Fault as u8);
    // a's own message once more begins a session that nobody but a could use, and spoils none.
    assert_eq!(kind(&deliver(&b.vault, &a.said.certificate, &first).unwrap()), Kind::Reply as u8);
    a.beat();
    assert!(a.finds("b").sealed);
}

#[test]
fn sessions_end_with_the_process_with_the_document_and_with_the_hour() {
    let (net, mut nodes) = cluster();
    let handshakes = |net: &Net| {
        let number = (CallId::ShakeHands as u16).to_be_bytes();
        let said = net.said.lock().unwrap();
        said.iter().filter(|(from, to, frame)| from == "a" && to == "b" && frame[6..8] == number).count()
    };
    assert_eq!(handshakes(&net), 1);
    nodes[0].beat();
    assert_eq!(handshakes(&net), 1, "a session is used again");
    nodes[1].restart();
    nodes[0].beat();
    assert_eq!(handshakes(&net), 2);
    assert!(nodes[0].finds("b").sealed, "a restart of the other end goes unnoticed");
    nodes[0].world.platform.pass(1_800_000_000);
    nodes[0].beat();
    assert_eq!(handshakes(&net), 3);
    let all: Vec<_> = nodes.iter().collect();
    let document = document(2, &all);
    for node in &nodes {
        node.install(&document).unwrap();
    }
    nodes[0].beat();
    assert_eq!(handshakes(&net), 4);
    // An hour later the other end has forgotten, whatever the caller thinks of the time.
    nodes[1].world.platform.pass(3_600_000_000);
    let old = last_said(&net, "a", "b", CallId::SealedCall);
    let reply = deliver(&nodes[1].vault, &nodes[0].said.certificate, &old).unwrap();
    assert_eq!((kind(&reply), reply.len() - HEADER), (Kind::Reply as u8, 2));
}

#[test]
fn a_node_that_is_down_is_told_so_and_found_again() {
    let (net, mut nodes) = cluster();
    net.weather(|_, to, _| if to == "b" { Mishap::Lost } else { Mishap::None });
    nodes[0].beat();
    let state = nodes[0].finds("b");
    assert!(!state.reachable && !state.sealed);
    assert!(state.trouble.contains("lost") && state.seen.is_some(), "{state:?}");
    // It is left alone for a while.
    let said = net.said.lock().unwrap().len();
    nodes[0].vault.beat();
    let to_b = net.said.lock().unwrap()[said..].iter().filter(|(_, to, _)| to == "b").count();
    assert_eq!(to_b, 0);
    net.weather(|_, _, _| Mishap::None);
    nodes[1].restart();
    nodes[0].beat();
    assert!(nodes[0].finds("b").sealed);
    // A node that was down while the document changed catches up.
    let all: Vec<_> = nodes.iter().collect();
    let document = document(2, &all);
    nodes[0].install(&document).unwrap();
    net.weather(
        |_, to, call| {
            if to == "b" && call == CallId::OfferMembership { Mishap::ReplyLost } else { Mishap::None }
        },
    );
    nodes[0].beat();
    assert_eq!(nodes[1].finds("b").version, Some(2), "it came, though its thanks were lost");
    net.weather(|_, _, _| Mishap::None);
    nodes[0].beat();
    assert!(nodes[0].finds("b").sealed);
}

#[test]
fn a_nodes_keys_are_made_with_the_store_and_outlive_the_process() {
    let (_, mut nodes) = cluster();
    let node = &mut nodes[0];
    let before = node.said.identity.clone();
    assert_eq!(node.records("Introduce")[0].detail, "as a");
    node.restart();
    let ask = Introduce { name: "z".into(), challenge: None };
    let again = node.world.ask(&node.vault, &node.admin(), &ask).unwrap();
    assert_eq!((again.identity, again.sealing), (before, node.said.sealing.clone()));
    assert_eq!(again.certificate, node.said.certificate);
    assert!(!again.document.is_empty());
    assert!(certificates::life(&again.certificate).unwrap().not_after > START / 1_000_000 + 3600 * 24 * 3000);
    // A frame that says it is a node's call, from nobody who may.
    let mut frame = Vec::new();
    encode_request(&mut frame, 1, &Caller::default(), &GreetNode { version: 1 });
    assert!(deliver(&node.vault, &node.world.administrator.clone(), &frame).unwrap()[5] == Kind::Fault as u8);
}

#[test]
fn a_server_whose_frames_are_too_short_for_nodes_says_what_to_set() {
    let net = Arc::new(Net::default());
    let mut node = Node::new(&net, "a", 1);
    let document = document(1, &[&node]);
    node.world.frame_bytes = (512 << 10) - 1;
    node.restart();
    let fault = node.install(&document).unwrap_err();
    assert_eq!(fault.code, FaultCode::ConfigurationInvalid);
    assert!(fault.detail.contains("frame_bytes") && fault.detail.contains("524288"), "{fault}");
    node.world.frame_bytes += 1;
    node.restart();
    node.install(&document).unwrap();
}
