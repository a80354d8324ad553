//! ECDSA keys that three servers share, as real processes: a P-256 key that was one server's becomes shares and lives on,
//! and a secp256k1 key has the BIP-32 children that the world knows. OpenSSL and libsecp256k1 verify the signatures.

use std::{fs, time::Duration};

use cryptoki::{
    error::{Error, RvError},
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use openssl::{bn::*, ec::*, ecdsa::EcdsaSig, nid::Nid};
use serde_json::Value;
use strongroom_shared::{
    mechanism::CKM_STRONGROOM_BIP32_CHILD,
    object::{CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_PATH},
};

use crate::{
    support::{CLIENT, PARTITION, alone_in, assert_fails, eventually, point},
    threshold::World,
};

const MESSAGE: &[u8] = b"pay the baker five pounds today.";

/// Makes a key at the first node, with these words for `hsmctl key generate`: the private key's id.
fn generate(world: &World, kind: &str, more: &[&str]) -> String {
    let client = world.nodes.servers[0].state().join(CLIENT);
    let pin = client.with_extension("pin");
    fs::write(&pin, xtask::token::PIN).unwrap();
    let (client, pin) = (client.display().to_string(), pin.display().to_string());
    let words = ["--json", "key", "generate", "--client", &client, "--kind", kind, "--label", kind];
    let made = world.nodes.servers[0].ask(&[&words[..], &["--pin-file", &pin], more].concat()).unwrap();
    serde_json::from_str::<Value>(&made).unwrap()["private"].as_str().unwrap().to_owned()
}

/// Orders something about a key's shares at the first node; gives their epoch.
fn order(world: &World, act: &str, id: &str, more: &[&str]) -> Result<u64, String> {
    let words = [&["--json", "key", act, PARTITION, id, "--yes"][..], more].concat();
    let told = world.nodes.servers[0].ask(&words).map_err(|error| error.to_string())?;
    let told: Value = serde_json::from_str(&told).unwrap();
    told["epoch"].as_u64().ok_or_else(|| told.to_string())
}

fn find(session: &Session, class: ObjectClass, label: &str) -> ObjectHandle {
    session.find_objects(&[Attribute::Label(label.into()), Attribute::Class(class)]).unwrap()[0]
}

fn sign(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Ecdsa, key, &openssl::sha::sha256(MESSAGE))
}

/// Whether OpenSSL takes a signature under this point of P-256.
fn check_p256(point: &[u8], signature: &[u8]) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let point = EcPoint::from_bytes(&group, point, &mut BigNumContext::new().unwrap()).unwrap();
    let key = EcKey::from_public_key(&group, &point).unwrap();
    let half = |part: &[u8]| BigNum::from_slice(part).unwrap();
    let signature =
        EcdsaSig::from_private_components(half(&signature[..32]), half(&signature[32..])).unwrap();
    assert!(signature.verify(&openssl::sha::sha256(MESSAGE), &key).unwrap());
    assert!(!signature.verify(&openssl::sha::sha256(b"else"), &key).unwrap());
}

#[test]
fn a_p256_key_becomes_shares_and_is_refreshed_put_back_and_repaired_under_the_same_public_key() {
    let name =
        "ecdsa::a_p256_key_becomes_shares_and_is_refreshed_put_back_and_repaired_under_the_same_public_key";
    alone_in(name, Duration::from_secs(500), "a", |folder| {
        let mut world = World::new(folder);
        let id = generate(&world, "EC:prime256v1", &["--id", "01"]);
        let label = "EC:prime256v1";
        let public = point(&world.session, find(&world.session, ObjectClass::PUBLIC_KEY, label)).unwrap();
        let whole = find(&world.session, ObjectClass::PRIVATE_KEY, label);
        check_p256(&public, &sign(&world.session, whole).unwrap());

        let epoch = order(&world, "share", &id, &["--threshold", "2", "--parties", "3"]).unwrap();
        let shared = find(&world.session, ObjectClass::PRIVATE_KEY, label);
        let signs = |world: &World| {
            let signature = eventually("two of three sign", || sign(&world.session, shared).ok());
            check_p256(&public, &signature);
        };
        signs(&world);
        let local = world.session.get_attributes(shared, &[AttributeType::Local]).unwrap();
        assert_eq!(local, [Attribute::Local(false)], "it was whole once");

        // A copy of the third node is taken, and put back after a refresh.
        let old = folder.join("old");
        world.copy(2, &old);
        assert_eq!(order(&world, "refresh", &id, &[]).unwrap(), epoch + 1);
        signs(&world);
        world.put_back(2, &old);
        world.kill(1);
        for _ in 0..3 {
            assert_fails(RvError::DeviceError, || sign(&world.session, shared).map(drop));
        }
        world.start(1);
        world.nodes.await_all().unwrap();
        signs(&world);
        assert!(order(&world, "refresh", &id, &[]).unwrap_err().contains("key repair"));
        assert_eq!(order(&world, "repair", &id, &["--node", "c"]).unwrap(), epoch + 2);
        for missing in [2, 1] {
            world.kill(missing);
            signs(&world);
            world.start(missing);
            world.nodes.await_all().unwrap();
        }
    });
}

/// Reads an attribute of ours.
fn vendor(session: &Session, key: ObjectHandle, kind: u64) -> Vec<u8> {
    match session.get_attributes(key, &[AttributeType::VendorDefined(kind)]).unwrap().as_slice() {
        [Attribute::VendorDefined((_, bytes))] => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

/// BIP-32's CKDpub, by libsecp256k1 and OpenSSL.
fn child_of(parent: &secp256k1::PublicKey, chain_code: &[u8], index: u32) -> (secp256k1::PublicKey, Vec<u8>) {
    let key = openssl::pkey::PKey::hmac(chain_code).unwrap();
    let mut hmac = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha512(), &key).unwrap();
    hmac.update(&parent.serialize()).unwrap();
    hmac.update(&index.to_be_bytes()).unwrap();
    let hash = hmac.sign_to_vec().unwrap();
    let tweak = secp256k1::Scalar::from_be_bytes(hash[..32].try_into().unwrap()).unwrap();
    (parent.add_exp_tweak(&tweak).unwrap(), hash[32..].to_vec())
}

fn check_k1(key: &secp256k1::PublicKey, signature: &[u8]) {
    let signature = secp256k1::ecdsa::Signature::from_compact(signature).unwrap();
    let message = |text: &[u8]| secp256k1::Message::from_digest(openssl::sha::sha256(text));
    assert!(signature.verify(message(MESSAGE), key).is_ok());
    assert!(signature.verify(message(b"else"), key).is_err());
}

#[test]
fn a_client_derives_the_children_of_bip32_and_two_nodes_sign_with_them() {
    let name = "ecdsa::a_client_derives_the_children_of_bip32_and_two_nodes_sign_with_them";
    alone_in(name, Duration::from_secs(400), "a", |folder| {
        const PATH: [u32; 2] = [44, 7];
        let mut world = World::new(folder);
        let (label, path) = ("EC:secp256k1", PATH.map(u32::to_be_bytes).concat());
        generate(&world, label, &["--id", "01", "--threshold", "2", "--parties", "3", "--derive"]);
        let master = find(&world.session, ObjectClass::PRIVATE_KEY, label);
        let public = point(&world.session, find(&world.session, ObjectClass::PUBLIC_KEY, label)).unwrap();
        let mut expected = secp256k1::PublicKey::from_slice(&public).unwrap();
        let mut code = vendor(&world.session, master, CKA_STRONGROOM_CHAIN_CODE);
        for index in PATH {
            (expected, code) = child_of(&expected, &code, index);
        }

        let kind = MechanismType::new_vendor_defined(CKM_STRONGROOM_BIP32_CHILD).unwrap();
        let derive = |path: &[u32; 2]| {
            let mechanism = Mechanism::VendorDefined(VendorDefinedMechanism::new(kind, Some(path)));
            let template = [Attribute::Token(true), Attribute::Label("child".into())];
            world.session.derive_key(&mechanism, master, &template)
        };
        assert_fails(RvError::MechanismParamInvalid, || derive(&[44, 1 << 31]).map(drop));
        // A node that is busy just then is a node that is down.
        let child = eventually("every node has it", || derive(&PATH).ok());
        assert_eq!(vendor(&world.session, child, CKA_STRONGROOM_CHAIN_CODE), code);
        assert_eq!(vendor(&world.session, child, CKA_STRONGROOM_PATH), path);
        let info = world.session.get_attributes(child, &[AttributeType::PublicKeyInfo]).unwrap();
        let [Attribute::PublicKeyInfo(info)] = info.as_slice() else { panic!("{info:?}") };
        assert!(info.ends_with(&expected.serialize_uncompressed()), "another key than BIP-32's");
        for missing in [2, 1] {
            world.kill(missing);
            let signature = eventually("two of three sign", || sign(&world.session, child).ok());
            check_k1(&expected, &signature);
            assert_fails(RvError::DeviceError, || {
                let mechanism =
                    Mechanism::VendorDefined(VendorDefinedMechanism::new(kind, Some(&[44u32, 8])));
                let template = [Attribute::Token(true), Attribute::Label("other".into())];
                world.session.derive_key(&mechanism, master, &template).map(drop)
            });
            world.start(missing);
            world.nodes.await_all().unwrap();
        }
        // It is at every node, and nothing else came of what was refused.
        for server in &world.nodes.servers {
            let listed = server.ask(&["--json", "key", "list", PARTITION]).unwrap();
            assert!(listed.contains("\"child\"") && !listed.contains("\"other\""), "{listed}");
        }
        world.kill(0);
        world.start(0);
        world.nodes.await_all().unwrap();
        let signature = eventually("after a restart too", || sign(&world.session, child).ok());
        check_k1(&expected, &signature);
    });
}
