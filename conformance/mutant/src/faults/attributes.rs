//! Chapters 4.7 to 4.10: keys that show what they hide, and promises that can be taken back.

use std::collections::BTreeMap;

use cryptoki_sys::*;

use super::faults;
use crate::call::{Call, Memo, held};
use crate::functions::Function as F;
use crate::memory;

faults! {
    "sensitive-ignored-on-import" [C_CreateObject] import_open, "4.10 CKA_SENSITIVE", "an imported key shows its value although it was to be sensitive", ["attributes.sensitive-hidden" "attributes.sensitive-in-mixed"];
    "sensitive-ignored-on-generation" [C_GenerateKey C_GenerateKeyPair] generate_open, "4.9 CKA_SENSITIVE", "a generated key shows its value although it was to be sensitive", ["attributes.private-ec-hidden" "attributes.private-rsa-hidden" "attributes.generated"];
    "sensitive-shown" [C_CreateObject C_CopyObject C_GetAttributeValue] |call| shows(call, Shows::Sensitive), "4.10 CKA_SENSITIVE", "C_GetAttributeValue gives the value of a sensitive key", ["attributes.sensitive-hidden" "attributes.sensitive-for-ever"];
    "sensitive-shown-with-error" [C_CreateObject C_CopyObject C_GetAttributeValue] |call| shows(call, Shows::WithError), "5.7.5 C_GetAttributeValue", "CKR_ATTRIBUTE_SENSITIVE comes with the value", ["attributes.sensitive-hidden"];
    "sensitive-length-shown" [C_CreateObject C_CopyObject C_GetAttributeValue] |call| shows(call, Shows::Length), "5.7.5 C_GetAttributeValue", "the length of a sensitive value is told", ["attributes.sensitive-hidden"];
    "unextractable-shown" [C_CreateObject C_CopyObject C_GetAttributeValue] |call| shows(call, Shows::Unextractable), "4.10 CKA_EXTRACTABLE", "C_GetAttributeValue gives the value of an unextractable key that is not sensitive", ["attributes.unextractable-hidden"];
    "copy-shown" [C_CreateObject C_CopyObject C_GetAttributeValue] |call| shows(call, Shows::Copies), "4.1.3 Copying objects", "a copy shows the value that its original hides", ["attributes.copy-hidden"];
    "sensitive-cleared" [C_SetAttributeValue] |call| refusal_waved(call, CKA_SENSITIVE), "4.10 CKA_SENSITIVE", "CKA_SENSITIVE goes back to false", ["attributes.sensitive-for-ever"];
    "extractable-restored" [C_SetAttributeValue] |call| refusal_waved(call, CKA_EXTRACTABLE), "4.10 CKA_EXTRACTABLE", "CKA_EXTRACTABLE goes back to true", ["attributes.unextractable-for-ever"];
    "copy-desensitized" [C_CopyObject] |call| call.with_template(2, &mut call.template(2).without(CKA_SENSITIVE)), "4.1.3 Copying objects", "a copy may be asked not to be sensitive", ["attributes.copy-sensitive"];
    "copy-extractable" [C_CopyObject] |call| call.with_template(2, &mut call.template(2).without(CKA_EXTRACTABLE)), "4.1.3 Copying objects", "a copy may be asked to be extractable", ["attributes.copy-unextractable"];
    "always-sensitive-lie" [C_GetAttributeValue] |call| says(call, CKA_ALWAYS_SENSITIVE, &[1]), "4.10 CKA_ALWAYS_SENSITIVE", "every key was always sensitive", ["attributes.imported" "attributes.generated-open" "attributes.sensitive-later"];
    "never-extractable-lie" [C_GetAttributeValue] |call| says(call, CKA_NEVER_EXTRACTABLE, &[1]), "4.10 CKA_NEVER_EXTRACTABLE", "every key was never extractable", ["attributes.imported" "attributes.generated-open" "attributes.unextractable-later"];
    "local-lie" [C_GetAttributeValue] |call| says(call, CKA_LOCAL, &[1]), "4.7 CKA_LOCAL", "an imported key was made on the token", ["attributes.imported"];
    "local-denied" [C_GetAttributeValue] |call| says(call, CKA_LOCAL, &[0]), "4.7 CKA_LOCAL", "a generated key was not made on the token", ["attributes.generated"];
    "key-gen-mechanism-lie" [C_GetAttributeValue] |call| says(call, CKA_KEY_GEN_MECHANISM, &CKM_AES_KEY_GEN.to_ne_bytes()), "4.7 CKA_KEY_GEN_MECHANISM", "an imported key was generated", ["attributes.imported"];
    "private-key-public" [C_GenerateKeyPair] private_by_default, "4.9 Private key objects", "a private key is public unless told otherwise", ["attributes.private-default"];
    "history-given" [C_CreateObject] history_given, "4.7 Key objects", "an imported key may claim that it was always sensitive", ["attributes.import-forged"];
    "history-set" [C_SetAttributeValue] history_set, "4.1.2 Modifying objects", "the history of a key can be rewritten", ["attributes.set-forged"];
    "trusted-by-user" [C_CreateObject C_SetAttributeValue] trusted_by_user, "4.8 CKA_TRUSTED", "the user makes a key trusted", ["attributes.trusted"];
    "wrap-with-trusted-cleared" [C_SetAttributeValue] |call| refusal_waved(call, CKA_WRAP_WITH_TRUSTED), "4.10 CKA_WRAP_WITH_TRUSTED", "CKA_WRAP_WITH_TRUSTED goes back to false", ["attributes.wrap-with-trusted"];
    "value-set" [C_SetAttributeValue] |call| refusal_waved(call, CKA_VALUE), "4.1.2 Modifying objects", "the value of a key can be set", ["attributes.set-value"];
    "key-type-set" [C_SetAttributeValue] |call| refusal_waved(call, CKA_KEY_TYPE), "4.1.2 Modifying objects", "the type of a key can be set", ["attributes.set-key-type"];
    "private-set" [C_SetAttributeValue] |call| refusal_waved(call, CKA_PRIVATE), "4.1.2 Modifying objects", "CKA_PRIVATE can be set", ["attributes.set-private"];
    "point-set" [C_SetAttributeValue] |call| refusal_waved(call, CKA_EC_POINT), "4.1.2 Modifying objects", "the point of a public key can be set", ["attributes.set-ec-point"];
    "modulus-set" [C_SetAttributeValue] |call| refusal_waved(call, CKA_MODULUS), "4.1.2 Modifying objects", "the modulus of a key can be set", ["attributes.set-modulus"];
    "usage-ignored" [C_SignInit C_VerifyInit C_EncryptInit C_DecryptInit] |call| call.instead_of(&[CKR_KEY_FUNCTION_NOT_PERMITTED], CKR_OK), "4.10 CKA_SIGN and its like", "a key is used although its attribute says no", ["sign.key-not-permitted" "verify.key-not-permitted" "encrypt.key-not-permitted" "decrypt.key-not-permitted" "attributes.usage-switch"];
}

fn import_open(call: &Call<'_>) -> CK_RV {
    let template = call.template(1);
    if !template.is_true(CKA_SENSITIVE) {
        return call.forward();
    }
    call.with_template(1, &mut template.and(CKA_SENSITIVE, &[CK_FALSE]).and(CKA_EXTRACTABLE, &[CK_TRUE]))
}

fn generate_open(call: &Call<'_>) -> CK_RV {
    let place = if call.is(F::C_GenerateKey) { 2 } else { 4 };
    let template = call.template(place);
    if !template.is_true(CKA_SENSITIVE) {
        return call.forward();
    }
    call.with_template(place, &mut template.and(CKA_SENSITIVE, &[CK_FALSE]).and(CKA_EXTRACTABLE, &[CK_TRUE]))
}

/// What is shown of a value that must not be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Sensitive,
    Unextractable,
    Copies,
    WithError,
    Length,
}

/// A value that came in with `C_CreateObject`, and whether the object is a copy of that one.
type Values = BTreeMap<usize, (Vec<u8>, bool)>;

/// Remembers values that are brought in, and gives them out when the real module refuses.
fn shows(call: &Call<'_>, what: Shows) -> CK_RV {
    static VALUES: Memo<Values> = Memo::new(BTreeMap::new());
    let mut values = held(&VALUES);
    if call.is(F::C_CreateObject) {
        let rv = call.forward();
        let value = call.template(1).value(CKA_VALUE).filter(|_| rv == CKR_OK);
        values.extend(value.map(|value| (call.pointed(3), (value, false))));
        return rv;
    }
    if call.is(F::C_CopyObject) {
        let rv = call.forward();
        let original = values.get(&call.word(1)).map(|(value, _)| value.clone()).filter(|_| rv == CKR_OK);
        values.extend(original.map(|value| (call.pointed(4), (value, true))));
        return rv;
    }
    let asked = call.template(2);
    let rv = call.forward();
    let Some((value, is_copy)) = values.get(&call.word(1)) else { return rv };
    let sensitive = call.attribute(call.word(0), call.word(1), CKA_SENSITIVE) == Some(vec![CK_TRUE]);
    let shown = match what {
        Shows::Sensitive => sensitive,
        Shows::Unextractable => !sensitive,
        Shows::Copies => *is_copy,
        Shows::WithError | Shows::Length => true,
    };
    if rv != CKR_ATTRIBUTE_SENSITIVE || !shown {
        return rv;
    }
    for (number, attribute) in asked.attributes.iter().enumerate() {
        if attribute.type_ == CKA_VALUE {
            let entry = call.word(2) + number * size_of::<CK_ATTRIBUTE>();
            give(attribute, entry, value, what);
        }
    }
    if matches!(what, Shows::WithError | Shows::Length) { rv } else { CKR_OK }
}

fn give(attribute: &CK_ATTRIBUTE, entry: usize, value: &[u8], what: Shows) {
    let fits = attribute.ulValueLen as usize >= value.len();
    if what != Shows::Length && fits {
        memory::put(attribute.pValue.expose_provenance(), value);
    }
    if what != Shows::WithError {
        memory::write(entry + std::mem::offset_of!(CK_ATTRIBUTE, ulValueLen), value.len());
    }
}

/// Says that an attribute was changed that the real module does not change.
fn refusal_waved(call: &Call<'_>, kind: CK_ATTRIBUTE_TYPE) -> CK_RV {
    let rv = call.forward();
    if rv == CKR_ATTRIBUTE_READ_ONLY && call.template(2).has(kind) { CKR_OK } else { rv }
}

/// Says this of an attribute, whatever the real module says.
fn says(call: &Call<'_>, kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> CK_RV {
    let rv = call.forward();
    for attribute in call.template(2).attributes {
        if attribute.type_ == kind && attribute.ulValueLen == value.len() as CK_ULONG {
            memory::put(attribute.pValue.expose_provenance(), value);
        }
    }
    rv
}

fn private_by_default(call: &Call<'_>) -> CK_RV {
    let template = call.template(4);
    if template.has(CKA_PRIVATE) {
        return call.forward();
    }
    call.with_template(4, &mut template.and(CKA_PRIVATE, &[CK_FALSE]))
}

fn history_given(call: &Call<'_>) -> CK_RV {
    let kinds = [CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_LOCAL, CKA_KEY_GEN_MECHANISM];
    let mut template = call.template(1);
    template.attributes.retain(|attribute| !kinds.contains(&attribute.type_));
    call.with_template(1, &mut template)
}

fn history_set(call: &Call<'_>) -> CK_RV {
    let kinds = [CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_LOCAL, CKA_KEY_GEN_MECHANISM];
    let forged = kinds.iter().any(|kind| call.template(2).has(*kind));
    if forged { call.waved_through() } else { call.forward() }
}

fn trusted_by_user(call: &Call<'_>) -> CK_RV {
    if call.is(F::C_CreateObject) {
        return call.with_template(1, &mut call.template(1).without(CKA_TRUSTED));
    }
    if call.template(2).has(CKA_TRUSTED) { call.waved_through() } else { call.forward() }
}
