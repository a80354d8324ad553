//! What a template leaves open.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{KeyKind, Mechanism, flag_of},
    object::{Template, Usage, Value},
};

use super::{
    Origin,
    rules::{CERTIFICATE, DATA, PRIVATE, PUBLIC, RULES, SECRET},
};
use crate::vault::error::Error;

/// Gives a new object of this class the attributes that its template does not name.
///
/// # Errors
/// `TemplateIncomplete` or `AttributeValueInvalid`, naming an attribute that has no default.
pub(super) fn set_defaults(template: &mut Template, class: u8, origin: Origin) -> Result<(), Error> {
    let secret = class & (PRIVATE | SECRET) != 0;
    for (kind, value) in [
        (CKA_TOKEN, false),
        (CKA_PRIVATE, secret),
        (CKA_MODIFIABLE, true),
        (CKA_COPYABLE, true),
        (CKA_DESTROYABLE, true),
    ] {
        template.set_default(kind, Value::Bool(value));
    }
    template.set_default(CKA_LABEL, Value::bytes([]));
    if class & CERTIFICATE != 0 {
        return certificate_defaults(template);
    }
    if class & DATA != 0 {
        for kind in [CKA_APPLICATION, CKA_OBJECT_ID, CKA_VALUE] {
            template.set_default(kind, Value::bytes([]));
        }
        return Ok(());
    }
    key_defaults(template, class, origin)
}

fn certificate_defaults(template: &mut Template) -> Result<(), Error> {
    match template.ulong(CKA_CERTIFICATE_TYPE) {
        Some(CKC_X_509) => {}
        Some(_) => return Err(Error::attribute(FaultCode::AttributeValueInvalid, CKA_CERTIFICATE_TYPE)),
        None => return Err(Error::attribute(FaultCode::TemplateIncomplete, CKA_CERTIFICATE_TYPE)),
    }
    for kind in [CKA_SUBJECT, CKA_VALUE] {
        if template.value(kind).is_none() {
            return Err(Error::attribute(FaultCode::TemplateIncomplete, kind));
        }
    }
    for kind in [CKA_ID, CKA_ISSUER, CKA_SERIAL_NUMBER, CKA_START_DATE, CKA_END_DATE] {
        template.set_default(kind, Value::bytes([]));
    }
    template.set_default(CKA_TRUSTED, Value::Bool(false));
    template.set_default(CKA_CERTIFICATE_CATEGORY, Value::Ulong(CK_CERTIFICATE_CATEGORY_UNSPECIFIED));
    Ok(())
}

fn key_defaults(template: &mut Template, class: u8, origin: Origin) -> Result<(), Error> {
    let key_type = template
        .ulong(CKA_KEY_TYPE)
        .ok_or_else(|| Error::attribute(FaultCode::TemplateIncomplete, CKA_KEY_TYPE))?;
    for kind in [CKA_ID, CKA_START_DATE, CKA_END_DATE] {
        template.set_default(kind, Value::bytes([]));
    }
    if class & (PUBLIC | PRIVATE) != 0 {
        template.set_default(CKA_SUBJECT, Value::bytes([]));
    }
    template.set_default(CKA_DERIVE, Value::Bool(false));
    for (usage, kind) in Usage::ATTRIBUTES {
        let applies = RULES.iter().any(|rule| rule.kind == *kind && rule.classes & class != 0);
        if applies {
            template.set_default(*kind, Value::Bool(can(key_type, *usage)));
        }
    }
    if class & PRIVATE != 0 {
        template.set_default(CKA_SIGN_RECOVER, Value::Bool(false));
        template.set_default(CKA_ALWAYS_AUTHENTICATE, Value::Bool(false));
    }
    if class & PUBLIC != 0 {
        template.set_default(CKA_VERIFY_RECOVER, Value::Bool(false));
    }
    if class & (PUBLIC | SECRET) != 0 {
        template.set_default(CKA_TRUSTED, Value::Bool(false));
    }
    if class & (PRIVATE | SECRET) != 0 {
        let generated = matches!(origin, Origin::Generated(_));
        template.set_default(CKA_SENSITIVE, Value::Bool(true));
        template.set_default(CKA_EXTRACTABLE, Value::Bool(false));
        template.set_default(CKA_WRAP_WITH_TRUSTED, Value::Bool(false));
        let sensitive = template.bool(CKA_SENSITIVE) == Some(true);
        let extractable = template.bool(CKA_EXTRACTABLE) == Some(true);
        template.set(CKA_ALWAYS_SENSITIVE, Value::Bool(generated && sensitive));
        template.set(CKA_NEVER_EXTRACTABLE, Value::Bool(generated && !extractable));
    }
    let (local, mechanism) = match origin {
        Origin::Created | Origin::Derived => (false, CK_UNAVAILABLE_INFORMATION),
        Origin::Generated(mechanism) => (true, mechanism.row().number),
    };
    template.set(CKA_LOCAL, Value::Bool(local));
    template.set(CKA_KEY_GEN_MECHANISM, Value::Ulong(mechanism));
    template.set_default(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(mechanisms_of(key_type)));
    Ok(())
}

/// The default of a usage flag: a key may do what some mechanism of the token can do with its type.
fn can(key_type: CK_KEY_TYPE, usage: Usage) -> bool {
    using(key_type).any(|mechanism| mechanism.row().supports(flag_of(usage)))
}

/// The mechanisms that use, and do not make, keys of this type. BIP340 is for keys that are made for it: a key that
/// signs by two schemes is weaker than one that signs by one.
pub fn mechanisms_of(key_type: CK_KEY_TYPE) -> Vec<u64> {
    let mechanisms = using(key_type).filter(|mechanism| *mechanism != Mechanism::Bip340);
    mechanisms.map(|mechanism| mechanism.row().number).collect()
}

/// The mechanisms that use, and do not make, keys of this type.
pub(super) fn using(key_type: CK_KEY_TYPE) -> impl Iterator<Item = Mechanism> {
    Mechanism::ALL.iter().copied().filter(move |mechanism| {
        let row = mechanism.row();
        let makes_keys = row.flags & (CKF_GENERATE | CKF_GENERATE_KEY_PAIR | CKF_DERIVE) != 0;
        row.key != KeyKind::None && row.key.accepts(key_type) && !makes_keys
    })
}
