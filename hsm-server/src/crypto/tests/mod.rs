//! What the room promises, family by family. This file has what the others need: keys, and acts with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod aes;
mod ec;
mod edwards;
mod every;
mod generic;
mod rsa;

use std::{cell::Cell, time::Instant};

use aws_lc_rs::digest;
use strongroom_shared::object::{Attribute, ObjectId};

use super::*;

/// The same bytes in every run.
struct Repeatable(Cell<u64>);

impl Repeatable {
    fn seeded(seed: u64) -> Self {
        Self(Cell::new(seed << 32))
    }
}

impl Random for Repeatable {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let digest = digest::digest(&digest::SHA256, &self.0.get().to_be_bytes());
            chunk.copy_from_slice(&digest.as_ref()[..chunk.len()]);
            self.0.set(self.0.get() + 1);
        }
    }
}

/// Authority for an act that nobody asked a policy about.
fn authority(act: Act, mechanism: Mechanism, params: &Params, input: &[u8]) -> Authorized {
    Authorized::for_test(Intent {
        act,
        key: ObjectId([0; 16]),
        mechanism,
        params: params.clone(),
        input: Zeroizing::new(input.to_vec()),
        message_hash: [0; 32],
    })
}

/// A mechanism with its parameter: the acts with a key, shortened.
struct By(Mechanism, Params);

impl By {
    fn plain(mechanism: Mechanism) -> Self {
        Self(mechanism, Params::None)
    }

    fn sign(&self, key: &Key, input: &[u8]) -> Result<Vec<u8>, Error> {
        sign(key, authority(Act::Sign, self.0, &self.1, input))
    }

    fn verify(&self, key: &Key, input: &[u8], signature: &[u8]) -> Result<(), Error> {
        verify(key, authority(Act::Verify, self.0, &self.1, input), signature)
    }

    fn encrypt(&self, key: &Key, input: &[u8]) -> Result<Vec<u8>, Error> {
        encrypt(key, authority(Act::Encrypt, self.0, &self.1, input)).map(|bytes| bytes.to_vec())
    }

    fn decrypt(&self, key: &Key, input: &[u8]) -> Result<Vec<u8>, Error> {
        decrypt(key, authority(Act::Decrypt, self.0, &self.1, input)).map(|bytes| bytes.to_vec())
    }
}

/// A template of a class and a type with byte attributes.
fn template(
    class: CK_OBJECT_CLASS,
    key_type: CK_KEY_TYPE,
    values: &[(CK_ATTRIBUTE_TYPE, &[u8])],
) -> Template {
    let values = values.iter().map(|(kind, value)| Attribute { kind: *kind, value: Value::bytes(*value) });
    whole(&Template::new(), class, key_type, &values.collect())
}

/// The template with one byte attribute in place of another.
fn changed(template: &Template, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Template {
    template.clone().with(kind, Value::bytes(value))
}

/// The template without one attribute.
fn lacking(template: &Template, kind: CK_ATTRIBUTE_TYPE) -> Template {
    template.iter().filter(|attribute| attribute.kind != kind).cloned().collect()
}

/// What the vault would store: the template with everything that `complete` sets.
fn completed(template: &Template) -> Result<Template, Error> {
    let mut stored = template.clone();
    complete(template)?.0.into_iter().for_each(|attribute| stored.set(attribute.kind, attribute.value));
    Ok(stored)
}

struct Pair {
    public: Key,
    private: Key,
}

/// A new pair, as the vault would make it; the stored templates too.
fn new_pair(
    mechanism: Mechanism,
    key_type: CK_KEY_TYPE,
    asked: &Template,
) -> Result<(Pair, PairValues), Error> {
    let made = generate_pair(mechanism, asked, &Template::new(), &Repeatable::seeded(7))?;
    let public = whole(asked, CKO_PUBLIC_KEY, key_type, &made.public);
    let private = whole(&Template::new(), CKO_PRIVATE_KEY, key_type, &made.private);
    let pair = Pair { public: Key::parse(&public)?, private: Key::parse(&private)? };
    Ok((pair, PairValues { public, private }))
}

fn ec_pair(curve: super::ec::Curve) -> Pair {
    let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(curve.oid()));
    new_pair(Mechanism::EcKeyPairGen, CKK_EC, &asked).unwrap().0
}

const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

fn edwards_pair() -> Pair {
    let asked = Template::new().with(CKA_EC_PARAMS, Value::bytes(ED25519));
    new_pair(Mechanism::EcEdwardsKeyPairGen, CKK_EC_EDWARDS, &asked).unwrap().0
}

/// The templates of the self-test's RSA key, which saves the time of making one.
fn rsa_templates() -> PairValues {
    let der = include_bytes!("../self_test_rsa.der");
    let values = rsa_key::private_values(&openssl::rsa::Rsa::private_key_from_der(der).unwrap()).unwrap();
    let public = [CKA_MODULUS, CKA_PUBLIC_EXPONENT].map(|kind| (kind, values.bytes(kind).unwrap()));
    PairValues {
        public: template(CKO_PUBLIC_KEY, CKK_RSA, &public),
        private: whole(&Template::new(), CKO_PRIVATE_KEY, CKK_RSA, &values),
    }
}

fn rsa_pair() -> Pair {
    let templates = rsa_templates();
    Pair { public: Key::parse(&templates.public).unwrap(), private: Key::parse(&templates.private).unwrap() }
}

fn secret(key_type: CK_KEY_TYPE, value: &[u8]) -> Key {
    Key::parse(&completed(&template(CKO_SECRET_KEY, key_type, &[(CKA_VALUE, value)])).unwrap()).unwrap()
}

fn hex(digits: &str) -> Vec<u8> {
    let digits = digits.split_whitespace().collect::<String>();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_self_test_passes_in_no_time() {
    let start = Instant::now();
    self_test().unwrap();
    assert!(start.elapsed().as_secs() < 3, "it delays every start: {:?}", start.elapsed());
}

#[test]
fn an_authority_is_good_for_its_own_act_only() {
    let key = secret(CKK_GENERIC_SECRET, &[1; 32]);
    let other = authority(Act::Verify, Mechanism::Sha256Hmac, &Params::None, b"text");
    assert!(matches!(sign(&key, other), Err(Error::Internal(_))));
}

#[test]
fn a_key_shows_no_secret() {
    let shown = format!("{:?}", secret(CKK_AES, &[0x2a; 32]));
    assert_eq!(shown, "[AES key of 256 bits]");
}

#[test]
fn a_key_is_shared_by_threads() {
    let pair = ec_pair(super::ec::Curve::P256);
    let by = By::plain(Mechanism::EcdsaSha256);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (pair, by) = (&pair, &by);
            scope.spawn(move || {
                let signature = by.sign(&pair.private, &[thread]).unwrap();
                by.verify(&pair.public, &[thread], &signature).unwrap();
            });
        }
    });
}
