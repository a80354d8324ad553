//! Known answers that the server checks at every start, before it serves anybody: one for each back-end
//! and family. They find a library that was miscompiled, replaced, or cannot run on this processor.
//!
//! Every key here is published, and good for nothing else.

use aws_lc_rs::digest;
use openssl::rsa::Rsa;
use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    object::{Template, Value},
};

use super::{
    Error, Key, Task, algorithm, complete,
    ec::{Curve, Private},
    prove, rsa_key, whole,
};

/// Checks known answers of each family with each of its back-ends.
///
/// # Errors
/// `Internal`, with the family that is broken.
pub fn self_test() -> Result<(), Error> {
    aes()?;
    hmac()?;
    ed25519()?;
    secp256k1()?;
    bip340()?;
    for (curve, mechanism, scalar, signature) in NIST {
        nist(*curve, *mechanism, scalar, signature)?;
    }
    rsa()
}

/// SP 800-38D's test case 14 of GCM, and SP 800-38A's first blocks of CBC (F.2.1) and CTR (F.5.1).
fn aes() -> Result<(), Error> {
    const WHAT: Error = Error::Internal("self-test of AES failed");
    let counted = hex("000102030405060708090a0b0c0d0e0f");
    let counter = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    let block = |bytes: Vec<u8>| <[u8; 16]>::try_from(bytes).map_err(|_| WHAT);
    let gcm = Params::Gcm { iv: vec![0; 12], aad: Vec::new(), tag_bits: 128 };
    let cases = [
        (
            Mechanism::AesGcm,
            gcm,
            vec![0; 32],
            vec![0; 16],
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (
            Mechanism::AesCbc,
            Params::Iv(block(counted)?),
            hex(SP_800_38A_KEY),
            hex(SP_800_38A_TEXT),
            "7649abac8119b246cee98e9b12e9197d",
        ),
        (
            Mechanism::AesCtr,
            Params::Ctr { bits: 128, block: block(counter)? },
            hex(SP_800_38A_KEY),
            hex(SP_800_38A_TEXT),
            "874d6191b620e3261bef6864990db6ce",
        ),
    ];
    for (mechanism, params, value, text, answer) in cases {
        let key = secret(CKK_AES, value)?;
        let task = Task { mechanism, params: &params, input: &text };
        let encrypted = algorithm(&key, &task, CKF_ENCRYPT)?.encrypt(&task)?;
        let task = Task { mechanism, params: &params, input: &encrypted };
        let decrypted = algorithm(&key, &task, CKF_DECRYPT)?.decrypt(&task)?;
        if *encrypted != hex(answer) || *decrypted != text {
            return Err(WHAT);
        }
    }
    Ok(())
}

/// RFC 4231, test case 1.
fn hmac() -> Result<(), Error> {
    let key = secret(CKK_GENERIC_SECRET, vec![0x0b; 20])?;
    let answer = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
    match sign(&key, Mechanism::Sha256Hmac, b"Hi There")? == hex(answer) {
        true => Ok(()),
        false => Err(Error::Internal("self-test of HMAC failed")),
    }
}

/// RFC 8032, 7.1, test 1.
fn ed25519() -> Result<(), Error> {
    let key = template(CKO_PRIVATE_KEY, CKK_EC_EDWARDS)
        .with(CKA_EC_PARAMS, Value::bytes([0x06, 0x03, 0x2b, 0x65, 0x70]))
        .with(
            CKA_VALUE,
            Value::bytes(hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")),
        );
    let answer = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                  5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    match sign(&Key::parse(&key)?, Mechanism::Eddsa, b"")? == hex(answer) {
        true => Ok(()),
        false => Err(Error::Internal("self-test of Ed25519 failed")),
    }
}

/// The key 1 of secp256k1, whose RFC 6979 signatures many libraries test.
fn secp256k1() -> Result<(), Error> {
    let mut scalar = vec![0; 31];
    scalar.push(1);
    let answer = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8\
                  2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5";
    let key = ec_private(Curve::Secp256k1, scalar);
    match sign(&Key::parse(&key)?, Mechanism::EcdsaSha256, b"Satoshi Nakamoto")? == hex(answer) {
        true => Ok(()),
        false => Err(Error::Internal("self-test of secp256k1 failed")),
    }
}

/// The BIP's first test vector; nonces are random, so it is verified, and so is a signature of one's own.
fn bip340() -> Result<(), Error> {
    const WHAT: Error = Error::Internal("self-test of BIP340 failed");
    let mut scalar = vec![0; 31];
    scalar.push(3);
    let private = ec_private(Curve::Secp256k1, scalar);
    let public = ec_public(&private)?;
    let answer = "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215\
                  25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0";
    let task = Task { mechanism: Mechanism::Bip340, params: &Params::None, input: &[0; 32] };
    let key = Key::parse(&public)?;
    algorithm(&key, &task, CKF_VERIFY)?.verify(&task, &hex(answer)).map_err(|_| WHAT)?;
    prove(Mechanism::Bip340, &public, &private).map_err(|_| WHAT)
}

/// The back-end's nonces are random: a signature of RFC 6979 must verify, and so must one of its own.
fn nist(curve: Curve, mechanism: Mechanism, scalar: &str, signature: &str) -> Result<(), Error> {
    const WHAT: Error = Error::Internal("self-test of ECDSA failed");
    let private = ec_private(curve, hex(scalar));
    let public = ec_public(&private)?;
    let task = Task { mechanism, params: &Params::None, input: b"sample" };
    let key = Key::parse(&public)?;
    algorithm(&key, &task, CKF_VERIFY)?.verify(&task, &hex(signature)).map_err(|_| WHAT)?;
    prove(mechanism, &public, &private).map_err(|_| WHAT)
}

/// A key of this repository, and what OpenSSL's own program signed with it.
fn rsa() -> Result<(), Error> {
    const WHAT: Error = Error::Internal("self-test of RSA failed");
    let key = Rsa::private_key_from_der(include_bytes!("self_test_rsa.der"))?;
    let values = rsa_key::private_values(&key)?;
    let private = whole(&Template::new(), CKO_PRIVATE_KEY, CKK_RSA, &values);
    let signature = sign(&Key::parse(&private)?, Mechanism::Sha256RsaPkcs, b"Strongroom")?;
    let answer = "12a3edd56422fcc752ebd6e06f1362f54ec3d5ca2bd1e413362d1f2b3a52f243";
    if digest::digest(&digest::SHA256, &signature).as_ref() != hex(answer) {
        return Err(WHAT);
    }
    let public = whole(&Template::new(), CKO_PUBLIC_KEY, CKK_RSA, &values);
    prove(Mechanism::Sha256RsaPkcs, &public, &private).map_err(|_| WHAT)
}

fn sign(key: &Key, mechanism: Mechanism, input: &[u8]) -> Result<Vec<u8>, Error> {
    let task = Task { mechanism, params: &Params::None, input };
    algorithm(key, &task, CKF_SIGN)?.sign(&task)
}

fn secret(key_type: CK_KEY_TYPE, value: Vec<u8>) -> Result<Key, Error> {
    let template = template(CKO_SECRET_KEY, key_type).with(CKA_VALUE, Value::bytes(value));
    complete(&template)?;
    Key::parse(&template)
}

fn ec_private(curve: Curve, scalar: Vec<u8>) -> Template {
    template(CKO_PRIVATE_KEY, CKK_EC)
        .with(CKA_EC_PARAMS, Value::bytes(curve.oid()))
        .with(CKA_VALUE, Value::bytes(scalar))
}

/// The public key of a private one.
fn ec_public(private: &Template) -> Result<Template, Error> {
    let Private { curve, point, scalar: _ } = Private::parse(private)?;
    let public = template(CKO_PUBLIC_KEY, CKK_EC).with(CKA_EC_PARAMS, Value::bytes(curve.oid()));
    Ok(public.with(CKA_EC_POINT, Value::bytes(point)))
}

fn template(class: CK_OBJECT_CLASS, key_type: CK_KEY_TYPE) -> Template {
    whole(&Template::new(), class, key_type, &Template::new())
}

/// Reads hexadecimal digits; anything else is left out, and fails the comparison.
fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

const SP_800_38A_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
const SP_800_38A_TEXT: &str = "6bc1bee22e409f96e93d7e117393172a";

/// RFC 6979, A.2.5 to A.2.7: the private key, and its signature of "sample" with the digest of the curve's size.
const NIST: &[(Curve, Mechanism, &str, &str)] = &[
    (
        Curve::P256,
        Mechanism::EcdsaSha256,
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
         f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
    (
        Curve::P384,
        Mechanism::EcdsaSha384,
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
        "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46\
         99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
    ),
    (
        Curve::P521,
        Mechanism::EcdsaSha512,
        "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa8\
         96eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
        "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e\
         25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa\
         00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af2826\
         23eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
    ),
];
