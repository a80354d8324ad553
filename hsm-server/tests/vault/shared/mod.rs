//! Keys of which several vaults hold shares: real vaults, and a network that can be made bad.

mod abandon;
mod administrators;
mod anew;
mod between;
mod children;
mod concurrent;
mod crashes;
mod destruction;
mod double;
mod hearsay;
mod hostile;
mod inherit;
mod keys;
mod leaving;
mod life;
mod memory;
mod orders;
mod proofs;
mod renewals;
mod reordered;
mod sharing;
mod signers;
mod signing;
mod spoilt;
mod status;
mod waiting;
mod weather;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use pkcs11_sys::*;
use strongroom_server::{audit::memory::MemorySink, platform::Platform, store::memory::Memory};
use strongroom_shared::{
    fault::Fault,
    mandate::{Mandate, Mandated, Seen},
    mechanism::{CKM_STRONGROOM_BIP340, Params},
    message::*,
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, ObjectId, Template, Value},
    wire::{Call, CallId, decode_body},
};

use crate::{net::*, world::*};

/// P-256, as an OID.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Ed25519, as an OID.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

/// What the tests sign.
pub const MESSAGE: &[u8] = b"pay the baker five pounds today.";

/// The four kinds of shared keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    K1,
    P256,
    Ed25519,
    Bip340,
}

impl Kind {
    /// The mechanism that signs with it.
    pub const fn mechanism(self) -> u64 {
        match self {
            Self::K1 | Self::P256 => CKM_ECDSA_SHA256,
            Self::Ed25519 => CKM_EDDSA,
            Self::Bip340 => CKM_STRONGROOM_BIP340,
        }
    }

    /// What an application asks for.
    pub fn wish(self, threshold: u8, parties: u8) -> GenerateKeyPair {
        let (mechanism, curve) = match self {
            Self::K1 | Self::Bip340 => (CKM_EC_KEY_PAIR_GEN, SECP256K1),
            Self::P256 => (CKM_EC_KEY_PAIR_GEN, P256),
            Self::Ed25519 => (CKM_EC_EDWARDS_KEY_PAIR_GEN, ED25519),
        };
        let mut private = Template::new()
            .with(CKA_TOKEN, Value::Bool(true))
            .with(CKA_LABEL, Value::bytes(b"desk-1"))
            .with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(threshold.into()))
            .with(CKA_STRONGROOM_PARTIES, Value::Ulong(parties.into()));
        if self == Self::Bip340 {
            private.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_STRONGROOM_BIP340]));
        }
        let public = Template::new()
            .with(CKA_TOKEN, Value::Bool(true))
            .with(CKA_LABEL, Value::bytes(b"desk-1"))
            .with(CKA_EC_PARAMS, Value::bytes(curve));
        GenerateKeyPair { mechanism, params: Params::None, public, private }
    }
}

/// The client's mandate key.
pub fn desk_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[50; 32]).unwrap()
}

pub fn public(key: &Ed25519KeyPair) -> [u8; 32] {
    key.public_key().as_ref().try_into().unwrap()
}

pub fn signed(mandate: &Mandate, key: &Ed25519KeyPair) -> Mandated {
    let text = minicbor::to_vec(mandate).unwrap();
    let signature = key.sign(&Mandate::to_sign(&text)).as_ref().to_vec();
    Mandated { text, signature }
}

/// Several nodes with the same partition, at each of which the client is logged in and admitted.
pub struct House {
    pub net: Arc<Net>,
    pub nodes: Vec<Node>,
    pub desks: Vec<Client>,
    certificates: Vec<Vec<u8>>,
    nonces: AtomicU64,
}

/// A node's disk as it was.
pub struct OldCopy {
    store: Memory,
    sink: MemorySink,
}

impl House {
    pub fn new(count: usize) -> Self {
        let net = Arc::new(Net::default());
        let names = ["a", "b", "c", "d", "e"].into_iter().take(count);
        let nodes: Vec<_> = (1..).zip(names).map(|(seed, name)| Node::new(&net, name, seed)).collect();
        let document = document(1, &nodes.iter().collect::<Vec<_>>());
        for node in &nodes {
            node.install(&document).unwrap();
        }
        let (certificates, desks) = nodes.iter().map(|node| node.world.desk(&node.vault)).unzip();
        let house = Self { net, nodes, desks, certificates, nonces: AtomicU64::new(0) };
        for node in &house.nodes {
            let key = public(&desk_key()).to_vec();
            let call = AdmitClient { name: "desk".into(), partition: "trading".into(), key };
            node.world.ask(&node.vault, &node.admin(), &call).unwrap();
        }
        house.beat();
        house
    }

    /// Everybody greets everybody, until all are well.
    pub fn beat(&self) {
        for _ in 0..2 {
            self.nodes.iter().for_each(|node| node.world.platform.pass(20_000_000));
            self.nodes.iter().for_each(|node| {
                use strongroom_server::door::Door;
                node.vault.beat();
                node.vault.tend();
            });
        }
    }

    /// kill -9 of a node, and a new process, to which the application connects.
    pub fn restart(&mut self, at: usize) {
        self.nodes[at].restart();
        let node = &self.nodes[at];
        let peer = node.world.connect(&node.vault, &self.certificates[at], 1).peer;
        self.desks[at].peer = peer;
    }

    /// What a node has on disk now.
    pub fn copy(&self, at: usize) -> OldCopy {
        let World { store, sink, .. } = &self.nodes[at].world;
        OldCopy { store: store.copy(), sink: sink.copy() }
    }

    /// kill -9 of a node, and a new process on an old copy of its disk, which can be put back again.
    pub fn put_back(&mut self, at: usize, old: &OldCopy) {
        let world = &mut self.nodes[at].world;
        (world.store, world.sink) = (old.store.copy(), old.sink.copy());
        self.restart(at);
    }

    /// The application logs in again: its ticket may have expired.
    pub fn log_in(&self, at: usize) -> Client {
        let node = &self.nodes[at];
        let mut desk = node.world.connect(&node.vault, &self.certificates[at], 1);
        node.world.login(&node.vault, &mut desk, User::Normal, USER_PIN).unwrap();
        desk
    }

    pub fn mandate(&self, call: CallId, body: Vec<u8>) -> Mandate {
        Mandate { seen: self.seen(call, &body), ..self.mandate_unseen(call, body) }
    }

    /// One that does not say which key the application was shown.
    pub fn mandate_unseen(&self, call: CallId, body: Vec<u8>) -> Mandate {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonces.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Mandate {
            cluster: [7; 16],
            partition: "trading".into(),
            key: public(&desk_key()),
            nonce,
            expires: self.nodes[0].world.platform.now() / 1_000_000 + 60,
            call: call as u16,
            seen: None,
            body,
        }
    }

    /// The key that a call is about, as a node shows it to the application.
    fn seen(&self, call: CallId, body: &[u8]) -> Option<Seen> {
        let object = match call {
            CallId::Sign => decode_body::<Sign>(body).ok()?.key,
            CallId::DestroyObject => decode_body::<DestroyObject>(body).ok()?.object,
            CallId::DeriveKey => decode_body::<DeriveKey>(body).ok()?.base,
            _ => return None,
        };
        let call = ReadAttributes { object, kinds: vec![CKA_PUBLIC_KEY_INFO, CKA_LABEL, CKA_ID] };
        let answers = (0..self.nodes.len()).find_map(|at| self.ask(at, &call).ok())?.answers;
        let [public, label, id] = [0, 1, 2].map(|place| match &answers[place] {
            Answer::Value(Value::Bytes(bytes)) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        Some(Seen { public: openssl::sha::sha256(&public), label, id })
    }

    pub fn mandated(&self, call: CallId, body: Vec<u8>) -> Mandated {
        signed(&self.mandate(call, body), &desk_key())
    }

    /// A call of the application at this node.
    pub fn ask<C: Call>(&self, at: usize, call: &C) -> Result<C::Reply, Fault> {
        let node = &self.nodes[at];
        node.world.ask(&node.vault, &self.desks[at], call)
    }

    pub fn generate(&self, at: usize, wish: &GenerateKeyPair) -> Result<KeyPair, Fault> {
        let mandated = self.mandated(CallId::GenerateKeyPair, minicbor::to_vec(wish).unwrap());
        self.ask(at, &GenerateShared { mandated })
    }

    pub fn sign(&self, at: usize, kind: Kind, key: ObjectId, input: &[u8]) -> Result<Vec<u8>, Fault> {
        let mandated = self.mandated(CallId::Sign, to_sign(kind, key, input));
        Ok(self.ask(at, &SignShared { mandated })?.bytes)
    }

    /// Whether somebody else's library takes the signature, under the public key that this node shows.
    pub fn check(&self, at: usize, kind: Kind, public: ObjectId, signature: &[u8]) {
        let call = ReadAttributes { object: public, kinds: vec![CKA_EC_POINT] };
        let answers = self.ask(at, &call).unwrap().answers;
        let Answer::Value(Value::Bytes(point)) = &answers[0] else { panic!("no CKA_EC_POINT") };
        // Without the OCTET STRING around it.
        assert!(verifies(kind, &point[2..], MESSAGE, signature), "{kind:?}");
        assert!(!verifies(kind, &point[2..], b"something else", signature), "{kind:?}");
        let call = Verify {
            key: public,
            mechanism: kind.mechanism(),
            params: Params::None,
            input: MESSAGE.to_vec(),
            signature: signature.to_vec(),
        };
        self.ask(at, &call).unwrap();
    }

    /// Some nodes answer nobody.
    pub fn cut_off(&self, names: &'static [&'static str]) {
        self.net.weather(move |from, to, _| {
            if names.contains(&from) || names.contains(&to) { Mishap::Lost } else { Mishap::None }
        });
    }

    /// This happens to the call of vault to vault from `from` that comes after `after` others.
    pub fn strike(&self, from: &'static str, after: usize, mishap: Mishap) -> Arc<AtomicUsize> {
        self.strike_calls(move |caller, call| caller == from && call == CallId::SealedCall, after, mishap)
    }

    /// This happens to the call that comes after `after` others of those that are `meant`, by caller and call.
    pub fn strike_calls(
        &self,
        meant: impl Fn(&str, CallId) -> bool + Send + 'static,
        after: usize,
        mishap: Mishap,
    ) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        self.net.weather(move |caller, _, call| {
            if !meant(caller, call) {
                return Mishap::None;
            }
            if seen.fetch_add(1, Ordering::Relaxed) == after { mishap.clone() } else { Mishap::None }
        });
        count
    }

    pub fn clear_up(&self) {
        self.net.weather(|_, _, _| Mishap::None);
    }
}

pub fn to_sign(kind: Kind, key: ObjectId, input: &[u8]) -> Vec<u8> {
    let call = Sign { key, mechanism: kind.mechanism(), params: Params::None, input: input.to_vec() };
    minicbor::to_vec(call).unwrap()
}

/// Libraries that made no part of the signature.
fn verifies(kind: Kind, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let digest = || openssl::sha::sha256(message);
    match kind {
        // It takes low s only.
        Kind::K1 => {
            let key = secp256k1::PublicKey::from_slice(point).unwrap();
            let signature = secp256k1::ecdsa::Signature::from_compact(signature).unwrap();
            signature.verify(secp256k1::Message::from_digest(digest()), &key).is_ok()
        }
        Kind::P256 => {
            use openssl::{bn::*, ec::*, ecdsa::EcdsaSig, nid::Nid};
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let mut context = BigNumContext::new().unwrap();
            let point = EcPoint::from_bytes(&group, point, &mut context).unwrap();
            let key = EcKey::from_public_key(&group, &point).unwrap();
            let half = |part: &[u8]| BigNum::from_slice(part).unwrap();
            let signature =
                EcdsaSig::from_private_components(half(&signature[..32]), half(&signature[32..])).unwrap();
            signature.verify(&digest(), &key).unwrap()
        }
        Kind::Ed25519 => {
            use openssl::{pkey::*, sign::Verifier};
            let key = PKey::public_key_from_raw_bytes(point, Id::ED25519).unwrap();
            Verifier::new_without_digest(&key).unwrap().verify_oneshot(signature, message).unwrap()
        }
        Kind::Bip340 => {
            let key = secp256k1::PublicKey::from_slice(point).unwrap().x_only_public_key().0;
            let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into().unwrap());
            signature.verify(message, &key).is_ok()
        }
    }
}

/// The names of the private keys that a node shows.
pub fn keys(house: &House, at: usize) -> Vec<ObjectId> {
    let template = Template::new().with(CKA_CLASS, Value::Ulong(CKO_PRIVATE_KEY));
    let found = house.ask(at, &FindObjects { template, after: None }).unwrap();
    found.objects.iter().map(|object| object.id).collect()
}

/// Every way to choose `t` of the first `n`.
pub fn subsets(t: usize, n: usize) -> Vec<Vec<usize>> {
    let chosen = |mask: u32| (0..n).filter(|place| mask >> place & 1 == 1).collect::<Vec<_>>();
    (0..1 << n).map(chosen).filter(|subset| subset.len() == t).collect()
}
