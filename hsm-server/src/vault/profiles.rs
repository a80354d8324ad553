//! The profiles that every token claims, as objects that are always there (PKCS#11 3.1, section 4.13; PKCS#11 Profiles
//! 3.2): built in, for everybody to read, and for nobody to change, copy or destroy.
//!
//! A claim stands here only while the module meets every requirement of its profile, which the conformance suite checks.

use pkcs11_sys::*;
use strongroom_shared::object::{ObjectId, Template, Value};

use super::keyring::{Object, Owner};

/// What is claimed.
const CLAIMED: [CK_PROFILE_ID; 3] = [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER, CKP_AUTHENTICATION_TOKEN];

/// What the names of these objects begin with. Those of all others are random.
const NAME: [u8; 8] = *b"profile\0";

/// An object for each profile.
pub fn objects() -> impl Iterator<Item = Object> {
    CLAIMED.into_iter().map(|profile| {
        let id = name(profile);
        let attributes = Template::new()
            .with(CKA_CLASS, Value::Ulong(CKO_PROFILE))
            .with(CKA_PROFILE_ID, Value::Ulong(profile))
            .with(CKA_TOKEN, Value::Bool(true))
            .with(CKA_PRIVATE, Value::Bool(false))
            .with(CKA_MODIFIABLE, Value::Bool(false))
            .with(CKA_COPYABLE, Value::Bool(false))
            .with(CKA_DESTROYABLE, Value::Bool(false))
            .with(CKA_LABEL, Value::bytes([]))
            .with(CKA_UNIQUE_ID, Value::bytes(id.to_string()));
        Object::new(id, attributes, Owner::BuiltIn, id)
    })
}

fn name(profile: CK_PROFILE_ID) -> ObjectId {
    let mut id = [0; 16];
    let (front, back) = id.split_at_mut(NAME.len());
    front.copy_from_slice(&NAME);
    back.copy_from_slice(&profile.to_be_bytes());
    ObjectId(id)
}
