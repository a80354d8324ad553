//! Generic secrets and HMAC (FIPS 198-1), by AWS-LC.

use aws_lc_rs::{digest, hmac};
use pkcs11_sys::*;
use strongroom_shared::{
    mechanism::Hash,
    object::{Template, Value},
};
use zeroize::Zeroizing;

use super::{Algorithm, Error, Random, Task, hash, need};

/// The lengths of a generic secret in bytes. One below the mechanisms' least size can be kept, but not used.
const LENGTHS: std::ops::RangeInclusive<usize> = 1..=512;
/// The lengths that can be generated, in bytes: those that the mechanisms can use.
const GENERATED: std::ops::RangeInclusive<usize> = 14..=512;

/// The hash functions that HMAC is offered with.
const HASHES: [Hash; 4] = [Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512];

/// A generic secret: the HMAC key of every hash function that its type allows, with its padding absorbed.
pub struct Key(Vec<(Hash, hmac::Key)>);

impl Key {
    /// `only` is the hash function of a `CKK_SHA*_HMAC` key, which is good for that mechanism alone.
    pub fn parse(attributes: &Template, only: Option<Hash>) -> Result<Self, Error> {
        let value = value(attributes)?;
        // Room for all from the start: a list that grows would leave copies of keys behind.
        let mut keys = Vec::with_capacity(HASHES.len());
        let allowed = HASHES.into_iter().filter(|hash| only.is_none_or(|only| only == *hash));
        keys.extend(allowed.map(|hash| (hash, hmac::Key::new(hash::hmac(hash), value))));
        Ok(Self(keys))
    }

    fn for_task(&self, task: &Task<'_>) -> Result<&hmac::Key, Error> {
        let wanted = task.mechanism.hash().ok_or(Error::MechanismInvalid)?;
        let key = self.0.iter().find(|(hash, _)| *hash == wanted);
        key.map(|(_, key)| key).ok_or(Error::KeyTypeInconsistent)
    }
}

impl Algorithm for Key {
    fn sign(&self, task: &Task<'_>) -> Result<Vec<u8>, Error> {
        Ok(hmac::sign(self.for_task(task)?, task.input).as_ref().to_vec())
    }

    fn verify(&self, task: &Task<'_>, signature: &[u8]) -> Result<(), Error> {
        let key = self.for_task(task)?;
        if signature.len() != key.algorithm().tag_len() {
            return Err(Error::SignatureLengthRange);
        }
        hmac::verify(key, task.input, signature).map_err(|_| Error::SignatureInvalid)
    }
}

/// A new secret of `CKA_VALUE_LEN` bytes.
pub fn generate(template: &Template, random: &dyn Random) -> Result<Template, Error> {
    let length = super::value_length(template, |length| GENERATED.contains(&length))?;
    let mut value = Zeroizing::new(vec![0; length]);
    random.fill(&mut value);
    let check_value = check_value(&value);
    Ok(Template::new().with(CKA_VALUE, Value::Bytes(value)).with(CKA_CHECK_VALUE, check_value))
}

pub fn complete(template: &Template) -> Result<Template, Error> {
    let value = value(template)?;
    Ok(Template::new()
        .with(CKA_VALUE_LEN, Value::Ulong(value.len() as u64))
        .with(CKA_CHECK_VALUE, check_value(value)))
}

fn value(attributes: &Template) -> Result<&[u8], Error> {
    let value = need(attributes, CKA_VALUE)?;
    LENGTHS.contains(&value.len()).then_some(value).ok_or(Error::AttributeValueInvalid(CKA_VALUE))
}

/// The first three bytes of the SHA-1 of the value (PKCS#11 3.1, 4.10.1).
fn check_value(value: &[u8]) -> Value {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, value);
    Value::bytes(digest.as_ref().iter().copied().take(3).collect::<Vec<_>>())
}
