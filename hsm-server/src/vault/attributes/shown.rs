//! What an object shows of itself.

use pkcs11_sys::*;
use strongroom_shared::object::{ObjectId, ObjectInfo, Template, Usage, Value};

use super::{defaults::using, shares};
use crate::crypto;

/// The attributes of private and secret keys that are the key.
const SECRETS: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_VALUE,
    CKA_PRIVATE_EXPONENT,
    CKA_PRIME_1,
    CKA_PRIME_2,
    CKA_EXPONENT_1,
    CKA_EXPONENT_2,
    CKA_COEFFICIENT,
];

/// Whether the object shows this attribute's value to anybody.
pub fn is_hidden(object: &Template, kind: CK_ATTRIBUTE_TYPE) -> bool {
    let guarded = object.bool(CKA_SENSITIVE) != Some(false) || object.bool(CKA_EXTRACTABLE) != Some(true);
    guarded && is_secret(object, kind)
}

/// Whether this attribute is the key itself, or gives it away.
pub fn is_secret(object: &Template, kind: CK_ATTRIBUTE_TYPE) -> bool {
    let is_secret_key = matches!(object.ulong(CKA_CLASS), Some(CKO_PRIVATE_KEY | CKO_SECRET_KEY));
    is_secret_key && SECRETS.contains(&kind)
}

/// Whether no value of a private or secret key stands here.
pub fn holds_no_secret(object: &Template) -> bool {
    !object.iter().any(|attribute| is_secret(object, attribute.kind))
}

/// What the provider keeps of an object.
pub fn describe(id: ObjectId, attributes: &Template) -> ObjectInfo {
    let size: usize = attributes.iter().map(|attribute| attribute.value.length() + size_of::<u64>()).sum();
    ObjectInfo {
        id,
        class: attributes.ulong(CKA_CLASS).unwrap_or(CKO_VENDOR_DEFINED),
        key_type: attributes.ulong(CKA_KEY_TYPE),
        bits: crypto::bits(attributes),
        usage: Usage::of(attributes),
        token: attributes.bool(CKA_TOKEN) == Some(true),
        private: attributes.bool(CKA_PRIVATE) == Some(true),
        size: u32::try_from(size).unwrap_or(u32::MAX),
        shares: shares(attributes),
        kept_from: kept_from(attributes),
    }
}

/// The mechanisms of its type that the key is not for, if there are any.
fn kept_from(attributes: &Template) -> Option<Vec<u64>> {
    let Some(Value::Mechanisms(allowed)) = attributes.value(CKA_ALLOWED_MECHANISMS) else { return None };
    let numbers = using(attributes.ulong(CKA_KEY_TYPE)?).map(|mechanism| mechanism.row().number);
    let others: Vec<u64> = numbers.filter(|number| !allowed.contains(number)).collect();
    Some(others).filter(|others| !others.is_empty())
}
