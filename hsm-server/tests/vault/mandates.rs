//! Mandates: whose signed word a node believes, and for what.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use strongroom_shared::{
    fault::{Fault, FaultCode},
    mandate::{Mandate, Mandated},
    message::*,
    object::ObjectId,
    wire::{Call, CallId},
};

use crate::{net::*, world::*};

/// A client's mandate key.
fn desk_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[50; 32]).unwrap()
}

fn public(key: &Ed25519KeyPair) -> [u8; 32] {
    key.public_key().as_ref().try_into().unwrap()
}

fn signed(mandate: &Mandate, key: &Ed25519KeyPair) -> Mandated {
    let text = minicbor::to_vec(mandate).unwrap();
    let signature = key.sign(&Mandate::to_sign(&text)).as_ref().to_vec();
    Mandated { text, signature }
}

/// A node of a cluster of its own, with a logged-in application and its ordinary key.
struct Office {
    node: Node,
    desk: Client,
    key: ObjectId,
}

impl Office {
    fn new() -> Self {
        let net = Arc::new(Net::default());
        let node = Node::new(&net, "a", 1);
        node.install(&document(1, &[&node])).unwrap();
        let (_, desk) = node.world.desk(&node.vault);
        let key = node.world.ask(&node.vault, &desk, &ec_pair("k")).unwrap().private.id;
        Self { node, desk, key }
    }

    fn administer<C: Call>(&self, call: &C) -> Result<C::Reply, Fault> {
        self.node.world.ask(&self.node.vault, &self.node.admin(), call)
    }

    fn admit(&self, name: &str, partition: &str, key: &Ed25519KeyPair) -> Result<Done, Fault> {
        let key = public(key).to_vec();
        self.administer(&AdmitClient { name: name.into(), partition: partition.into(), key })
    }

    fn mandate(&self) -> Mandate {
        Mandate {
            cluster: [7; 16],
            partition: "trading".into(),
            key: public(&desk_key()),
            nonce: [3; 16],
            expires: START / 1_000_000 + 60,
            call: CallId::Sign as u16,
            body: minicbor::to_vec(sign(self.key)).unwrap(),
            seen: None,
        }
    }

    /// `KeyTypeInconsistent` if the mandate is believed: the key is an ordinary one.
    fn show(&self, mandated: Mandated) -> Fault {
        self.node.world.ask(&self.node.vault, &self.desk, &SignShared { mandated }).unwrap_err()
    }
}

#[test]
fn a_mandate_is_believed_if_its_key_is_admitted() {
    let mut office = Office::new();
    let good = signed(&office.mandate(), &desk_key());
    let fault = office.show(good.clone());
    assert_eq!(fault.code, FaultCode::Forbidden);
    assert!(fault.detail.contains("hsmctl client admit"), "{fault}");

    office.admit("desk", "trading", &desk_key()).unwrap();
    office.admit("desk", "trading", &desk_key()).unwrap();
    assert_eq!(office.show(good.clone()).code, FaultCode::KeyTypeInconsistent);
    let listed = office.administer(&ListClients {}).unwrap().admitted.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].partition.as_str()), ("desk", "trading"));
    assert_eq!(listed[0].key, public(&desk_key()));

    office.node.restart();
    assert_eq!(office.show(good).code, FaultCode::KeyTypeInconsistent);
    assert_eq!(office.node.records("AdmitClient").len(), 2, "each is an act");
}

#[test]
fn each_of_the_calls_asks_for_its_own_mandate() {
    let office = Office::new();
    office.admit("desk", "trading", &desk_key()).unwrap();
    let mandated = |call: CallId, body: Vec<u8>| {
        signed(&Mandate { call: call as u16, body, ..office.mandate() }, &desk_key())
    };
    let destroy = minicbor::to_vec(DestroyObject { object: office.key }).unwrap();
    let generate = minicbor::to_vec(ec_pair("other")).unwrap();
    let (world, vault, desk) = (&office.node.world, &office.node.vault, &office.desk);
    let destroyed = |mandated| world.ask(vault, desk, &DestroyShared { mandated }).map(drop);
    let generated = |mandated| world.ask(vault, desk, &GenerateShared { mandated }).map(drop);
    for (good, other) in [
        (
            destroyed(mandated(CallId::DestroyObject, destroy.clone())),
            destroyed(mandated(CallId::Sign, destroy)),
        ),
        (
            generated(mandated(CallId::GenerateKeyPair, generate.clone())),
            generated(mandated(CallId::DestroyObject, generate)),
        ),
    ] {
        assert_ne!(code(good), FaultCode::Forbidden);
        let fault = other.unwrap_err();
        assert_eq!(fault.code, FaultCode::Forbidden);
        assert!(fault.detail.contains("another call"), "{fault}");
    }
    // What a mandate says must be the call that it names.
    assert_eq!(code(destroyed(mandated(CallId::DestroyObject, vec![1]))), FaultCode::Malformed);
}

#[test]
fn what_is_wrong_with_a_mandate_is_said() {
    let office = Office::new();
    office.admit("desk", "trading", &desk_key()).unwrap();
    office.administer(&CreatePartition { name: "savings".into() }).unwrap();
    office.admit("other", "savings", &desk_key()).unwrap();
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[51; 32]).unwrap();
    let now = START / 1_000_000;
    let changed = |change: fn(&mut Mandate, u64)| {
        let mut mandate = office.mandate();
        change(&mut mandate, now);
        signed(&mandate, &desk_key())
    };
    let good = changed(|_, _| ());
    let spoiled = |place: usize| {
        let mut spoiled = good.clone();
        spoiled.text[place] ^= 1;
        spoiled
    };
    let message = good.text.windows(3).position(|window| window == b"buy").unwrap();
    let cases = [
        (changed(|m, _| m.cluster = [8; 16]), "another cluster"),
        (changed(|m, _| m.partition = "attic".into()), "hsmctl partition create"),
        (changed(|m, _| m.partition = "savings".into()), "another connection"),
        (changed(|m, now| m.expires = now), "clocks"),
        (changed(|m, now| m.expires = now + Mandate::LONGEST + 1), "clocks"),
        (changed(|m, _| m.call = CallId::Decrypt as u16), "another call"),
        (changed(|m, _| m.key = [1; 32]), "hsmctl client admit"),
        (signed(&office.mandate(), &stranger), "signature"),
        (spoiled(message), "signature"),
        (Mandated { signature: vec![0; 64], ..good.clone() }, "signature"),
        (Mandated { signature: Vec::new(), ..good.clone() }, "signature"),
    ];
    for (mandated, hint) in cases {
        let fault = office.show(mandated);
        assert_eq!(fault.code, FaultCode::Forbidden, "{hint}: {fault}");
        assert!(fault.detail.contains(hint), "{hint}: {fault}");
    }
    assert_eq!(office.show(Mandated { text: b"x".to_vec(), ..good.clone() }).code, FaultCode::Malformed);
    let refused = office.node.records("SignShared");
    assert!(refused.iter().all(|record| record.outcome != Outcome::Done), "each is on record");
    assert_eq!(refused.len(), 12);
    // To the last second, and not one longer.
    office.node.world.platform.pass(59_000_000);
    assert_eq!(office.show(good.clone()).code, FaultCode::KeyTypeInconsistent);
    office.node.world.platform.pass(1_000_000);
    assert_eq!(office.show(good).code, FaultCode::Forbidden);
}

#[test]
fn a_revoked_client_and_a_deleted_partition_give_no_mandates() {
    let mut office = Office::new();
    let good = signed(&office.mandate(), &desk_key());
    office.admit("desk", "trading", &desk_key()).unwrap();
    // Of a client that has its certificate from another node.
    let guest = Ed25519KeyPair::from_seed_unchecked(&[52; 32]).unwrap();
    office.admit("guest", "trading", &guest).unwrap();
    let admitted = |office: &Office| office.administer(&ListClients {}).unwrap().admitted.unwrap().len();
    office.administer(&RevokeClient { name: "guest".into() }).unwrap();
    assert_eq!(admitted(&office), 1);
    let again = office.administer(&RevokeClient { name: "guest".into() });
    assert_eq!(code(again), FaultCode::NotFound);
    office.administer(&RevokeClient { name: "desk".into() }).unwrap();
    assert_eq!(admitted(&office), 0);
    office.node.restart();
    assert_eq!(admitted(&office), 0, "nor after a restart");

    let certificate = office.node.world.client(&office.node.vault, "trading", "desk2", 30);
    let desk = office.node.world.connect(&office.node.vault, &certificate, 2);
    office.admit("desk2", "trading", &desk_key()).unwrap();
    office.administer(&DeletePartition { name: "trading".into() }).unwrap();
    assert_eq!(admitted(&office), 0);
    office.node.restart();
    assert_eq!(admitted(&office), 0);
    office.administer(&CreatePartition { name: "trading".into() }).unwrap();
    assert_eq!(admitted(&office), 0, "a new partition of the name is another one");
    let fault = office.node.world.ask(&office.node.vault, &desk, &SignShared { mandated: good });
    assert_eq!(code(fault), FaultCode::Forbidden);
}

#[test]
fn a_name_is_one_client_and_a_key_is_one_name() {
    let office = Office::new();
    office.administer(&CreatePartition { name: "savings".into() }).unwrap();
    office.admit("guest", "savings", &desk_key()).unwrap();
    let taken = [
        office.admit("other", "savings", &desk_key()),
        office.admit("desk", "savings", &desk_key()),
        office.admit("admin", "savings", &desk_key()),
    ];
    for taken in taken {
        assert_eq!(code(taken), FaultCode::AlreadyExists);
    }
    let (_, request) = strongroom_server::certificates::request("guest").unwrap();
    let add = |partition: &str| AddClient {
        name: "guest".into(),
        partition: Some(partition.into()),
        request: request.clone(),
        days: 30,
    };
    assert_eq!(code(office.administer(&add("trading"))), FaultCode::AlreadyExists);
    office.administer(&add("savings")).unwrap();
    assert_eq!(code(office.admit("UPPER", "savings", &desk_key())), FaultCode::ArgumentsBad);
    assert_eq!(code(office.admit("guest", "attic", &desk_key())), FaultCode::NotFound);
    let short = AdmitClient { name: "guest".into(), partition: "savings".into(), key: vec![1; 31] };
    assert_eq!(code(office.administer(&short)), FaultCode::ArgumentsBad);
}

#[test]
fn a_server_in_no_cluster_believes_no_mandate() {
    let world = World::new();
    let vault = world.vault();
    let (_, desk) = world.desk(&vault);
    let mandate = Mandate {
        cluster: [7; 16],
        partition: "trading".into(),
        key: public(&desk_key()),
        nonce: [3; 16],
        expires: START / 1_000_000 + 60,
        call: CallId::Sign as u16,
        body: Vec::new(),
        seen: None,
    };
    let call = SignShared { mandated: signed(&mandate, &desk_key()) };
    let fault = world.ask(&vault, &desk, &call).unwrap_err();
    assert_eq!(fault.code, FaultCode::Forbidden);
    assert!(fault.detail.contains("in no cluster"), "{fault}");
}
