//! What an object's attributes may be: who may give them, what they default to, how they may change.
//!
//! One table (PKCS#11 3.1, sections 4.4 to 4.10, and its footnotes on each attribute). The values of keys
//! are the cryptography room's business; their names stand here too, so that no template slips through.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::{KeyKind, Mechanism, flag_of},
    object::{
        Attribute, CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_EPOCH, CKA_STRONGROOM_MASTER,
        CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_PATH, CKA_STRONGROOM_THRESHOLD, Descent, ObjectId, ObjectInfo,
        Shares, Template, Usage, Value, attribute_name,
    },
};

use super::{error::Error, login::Role};
use crate::crypto;

const DATA: u8 = 1;
const CERTIFICATE: u8 = 1 << 1;
const PUBLIC: u8 = 1 << 2;
const PRIVATE: u8 = 1 << 3;
const SECRET: u8 = 1 << 4;
const KEY: u8 = PUBLIC | PRIVATE | SECRET;
const ALL: u8 = DATA | CERTIFICATE | KEY;

/// Whether a template may name an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    /// It may.
    Yes,
    /// The token alone sets it.
    No,
    /// It contradicts the act, such as the value of a key that is to be generated.
    Contradicts,
}

/// How an attribute may change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// At will.
    Free,
    /// Never.
    Never,
    /// From false to true only.
    ToTrue,
    /// From true to false only.
    ToFalse,
}

struct Rule {
    kind: CK_ATTRIBUTE_TYPE,
    classes: u8,
    create: Given,
    generate: Given,
    change: Change,
    copy: Change,
}

const fn rule(
    kind: CK_ATTRIBUTE_TYPE,
    classes: u8,
    create: Given,
    generate: Given,
    change: Change,
    copy: Change,
) -> Rule {
    Rule { kind, classes, create, generate, change, copy }
}

use Change::{Free, Never, ToFalse, ToTrue};
use Given::{Contradicts, No, Yes};

#[rustfmt::skip]
const RULES: &[Rule] = &[
    //   attribute                    of what                     create       generate     set      copy
    rule(CKA_CLASS,                   ALL,                        Yes,         Yes,         Never,   Never),
    rule(CKA_TOKEN,                   ALL,                        Yes,         Yes,         Never,   Free),
    rule(CKA_PRIVATE,                 ALL,                        Yes,         Yes,         Never,   ToTrue),
    rule(CKA_MODIFIABLE,              ALL,                        Yes,         Yes,         Never,   ToFalse),
    rule(CKA_COPYABLE,                ALL,                        Yes,         Yes,         ToFalse, ToFalse),
    rule(CKA_DESTROYABLE,             ALL,                        Yes,         Yes,         ToFalse, Free),
    rule(CKA_LABEL,                   ALL,                        Yes,         Yes,         Free,    Free),
    rule(CKA_UNIQUE_ID,               ALL,                        No,          No,          Never,   Never),

    rule(CKA_APPLICATION,             DATA,                       Yes,         No,          Free,    Free),
    rule(CKA_OBJECT_ID,               DATA,                       Yes,         No,          Free,    Free),
    rule(CKA_VALUE,                   DATA,                       Yes,         No,          Free,    Free),

    rule(CKA_CERTIFICATE_TYPE,        CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_CERTIFICATE_CATEGORY,    CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_ISSUER,                  CERTIFICATE,                Yes,         No,          Free,    Free),
    rule(CKA_SERIAL_NUMBER,           CERTIFICATE,                Yes,         No,          Free,    Free),
    rule(CKA_VALUE,                   CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_URL,                     CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, CERTIFICATE,             Yes,         No,          Never,   Never),
    rule(CKA_HASH_OF_ISSUER_PUBLIC_KEY,  CERTIFICATE,             Yes,         No,          Never,   Never),
    rule(CKA_NAME_HASH_ALGORITHM,     CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_JAVA_MIDP_SECURITY_DOMAIN, CERTIFICATE,              Yes,         No,          Never,   Never),
    rule(CKA_PUBLIC_KEY_INFO,         CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_CHECK_VALUE,             CERTIFICATE,                Yes,         No,          Never,   Never),

    rule(CKA_SUBJECT,                 CERTIFICATE,                Yes,         No,          Never,   Never),
    rule(CKA_SUBJECT,                 PUBLIC | PRIVATE,           Yes,         Yes,         Free,    Free),
    rule(CKA_ID,                      CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_START_DATE,              CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_END_DATE,                CERTIFICATE | KEY,          Yes,         Yes,         Free,    Free),
    rule(CKA_TRUSTED,                 CERTIFICATE | PUBLIC | SECRET, Yes,      Yes,         Free,    Never),

    rule(CKA_KEY_TYPE,                KEY,                        Yes,         Yes,         Never,   Never),
    rule(CKA_DERIVE,                  KEY,                        Yes,         Yes,         Free,    Free),
    rule(CKA_LOCAL,                   KEY,                        No,          No,          Never,   Never),
    rule(CKA_KEY_GEN_MECHANISM,       KEY,                        No,          No,          Never,   Never),
    rule(CKA_ALLOWED_MECHANISMS,      KEY,                        Yes,         Yes,         Never,   Never),
    rule(CKA_ENCRYPT,                 PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_VERIFY,                  PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_VERIFY_RECOVER,          PUBLIC,                     Yes,         Yes,         Free,    Free),
    rule(CKA_WRAP,                    PUBLIC | SECRET,            Yes,         Yes,         Free,    Free),
    rule(CKA_DECRYPT,                 PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SIGN,                    PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SIGN_RECOVER,            PRIVATE,                    Yes,         Yes,         Free,    Free),
    rule(CKA_UNWRAP,                  PRIVATE | SECRET,           Yes,         Yes,         Free,    Free),
    rule(CKA_SENSITIVE,               PRIVATE | SECRET,           Yes,         Yes,         ToTrue,  ToTrue),
    rule(CKA_EXTRACTABLE,             PRIVATE | SECRET,           Yes,         Yes,         ToFalse, ToFalse),
    rule(CKA_WRAP_WITH_TRUSTED,       PRIVATE | SECRET,           Yes,         Yes,         ToTrue,  ToTrue),
    rule(CKA_ALWAYS_SENSITIVE,        PRIVATE | SECRET,           No,          No,          Never,   Never),
    rule(CKA_NEVER_EXTRACTABLE,       PRIVATE | SECRET,           No,          No,          Never,   Never),
    rule(CKA_ALWAYS_AUTHENTICATE,     PRIVATE,                    Yes,         Yes,         Never,   Never),
    rule(CKA_STRONGROOM_THRESHOLD,    PRIVATE,                    No,          Yes,         Never,   Never),
    rule(CKA_STRONGROOM_PARTIES,      PRIVATE,                    No,          Yes,         Never,   Never),
    rule(CKA_STRONGROOM_EPOCH,        PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_CHAIN_CODE,   PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_MASTER,       PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_STRONGROOM_PATH,         PRIVATE,                    No,          No,          Never,   Never),
    rule(CKA_CHECK_VALUE,             SECRET,                     Yes,         Yes,         Never,   Never),
    rule(CKA_PUBLIC_KEY_INFO,         PUBLIC | PRIVATE,           No,          No,          Never,   Never),

    rule(CKA_VALUE,                   PRIVATE | SECRET,           Yes,         Contradicts, Never,   Never),
    rule(CKA_VALUE_LEN,               SECRET,                     No,          Yes,         Never,   Never),
    rule(CKA_MODULUS,                 PUBLIC | PRIVATE,           Yes,         Contradicts, Never,   Never),
    rule(CKA_MODULUS_BITS,            PUBLIC,                     No,          Yes,         Never,   Never),
    rule(CKA_PUBLIC_EXPONENT,         PUBLIC,                     Yes,         Yes,         Never,   Never),
    rule(CKA_PUBLIC_EXPONENT,         PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIVATE_EXPONENT,        PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIME_1,                 PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_PRIME_2,                 PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EXPONENT_1,              PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EXPONENT_2,              PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_COEFFICIENT,             PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EC_PARAMS,               PUBLIC,                     Yes,         Yes,         Never,   Never),
    rule(CKA_EC_PARAMS,               PRIVATE,                    Yes,         Contradicts, Never,   Never),
    rule(CKA_EC_POINT,                PUBLIC | PRIVATE,           Yes,         Contradicts, Never,   Never),
];

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

/// How an object comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `C_CreateObject`: somebody else may know it.
    Created,
    /// `C_GenerateKey`, `C_GenerateKeyPair`: only this token has ever known it.
    Generated(Mechanism),
    /// `C_DeriveKey`: what is known of it, and since when, is the base key's matter.
    Derived,
}

/// The whole attributes of a new object, its values aside: what the template gives and what it leaves open.
///
/// # Errors
/// `TemplateInconsistent`, `TemplateIncomplete`, `AttributeTypeInvalid`, `AttributeValueInvalid`,
/// `AttributeReadOnly`, naming the attribute.
pub fn complete(mut template: Template, id: ObjectId, origin: Origin, role: Role) -> Result<Template, Error> {
    let class = class_bit(&template)?;
    check_shapes(&template)?;
    for attribute in template.iter() {
        let rule = rule_for(attribute, class)?;
        let given = match origin {
            Origin::Created => rule.create,
            Origin::Generated(_) | Origin::Derived => rule.generate,
        };
        match given {
            Given::Yes => {}
            Given::No => return Err(Error::attribute(FaultCode::AttributeReadOnly, attribute.kind)),
            Given::Contradicts => {
                return Err(Error::attribute(FaultCode::TemplateInconsistent, attribute.kind));
            }
        }
        check_trust(attribute, role)?;
    }
    if template.bool(CKA_ALWAYS_AUTHENTICATE) == Some(true) {
        return Err(Error::attribute(FaultCode::AttributeValueInvalid, CKA_ALWAYS_AUTHENTICATE));
    }
    set_defaults(&mut template, class, origin)?;
    template.set(CKA_UNIQUE_ID, Value::bytes(id.to_string()));
    Ok(template)
}

/// The whole attributes of a new private key of which each of `members` nodes is to hold a share. It exists nowhere
/// as a whole, so it cannot be shown, copied or changed, and it outlives sessions.
///
/// # Errors
/// As [`complete`]; `AttributeValueInvalid` if not each member is to hold a share, or too few or too many make a
/// signature; `TemplateInconsistent` for what a shared key cannot be.
pub fn complete_shared(
    mut template: Template,
    id: ObjectId,
    mechanism: Mechanism,
    role: Role,
    members: usize,
) -> Result<(Template, Shares), Error> {
    check_shapes(&template)?;
    let shares = shares(&template).ok_or_else(|| {
        let kind = match template.value(CKA_STRONGROOM_THRESHOLD) {
            Some(_) => CKA_STRONGROOM_PARTIES,
            None => CKA_STRONGROOM_THRESHOLD,
        };
        Error::attribute(FaultCode::TemplateIncomplete, kind)
    })?;
    if usize::from(shares.parties) != members {
        let text = format!(
            "CKA_STRONGROOM_PARTIES is {}, and the cluster has {members} members: each holds a share",
            shares.parties
        );
        return Err(Error::caller(FaultCode::AttributeValueInvalid, text));
    }
    if !(2..=shares.parties).contains(&shares.threshold) {
        let text = format!("CKA_STRONGROOM_THRESHOLD is {}: 2 to {members}", shares.threshold);
        return Err(Error::caller(FaultCode::AttributeValueInvalid, text));
    }
    set_shared(&mut template)?;
    let mut attributes = complete(template, id, Origin::Generated(mechanism), role)?;
    attributes.set(CKA_STRONGROOM_EPOCH, Value::Ulong(0));
    Ok((attributes, shares))
}

/// The whole attributes of a BIP-32 descendant of a shared key, its values aside. It is what its master is: it signs by
/// no other mechanisms, and was never less secret.
///
/// # Errors
/// As [`complete_shared`]; `TemplateInconsistent` for a mechanism that its base key does not allow.
pub fn complete_descendant(
    mut template: Template,
    id: ObjectId,
    role: Role,
    base: &Template,
    descent: &Descent,
) -> Result<Template, Error> {
    check_shapes(&template)?;
    for kind in [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES] {
        if template.value(kind).is_some() {
            return Err(Error::attribute(FaultCode::AttributeReadOnly, kind));
        }
    }
    set_shared(&mut template)?;
    let allowed = |template: &Template| match template.value(CKA_ALLOWED_MECHANISMS) {
        Some(Value::Mechanisms(allowed)) => Some(allowed.clone()),
        Some(_) | None => None,
    };
    let of_base = allowed(base).unwrap_or_default();
    match allowed(&template) {
        Some(wanted) if !wanted.iter().all(|mechanism| of_base.contains(mechanism)) => {
            return Err(Error::attribute(FaultCode::TemplateInconsistent, CKA_ALLOWED_MECHANISMS));
        }
        Some(_) => {}
        None => template.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(of_base)),
    }
    let mut attributes = complete(template, id, Origin::Derived, role)?;
    for kind in [CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
        attributes.set(kind, Value::Bool(base.bool(kind) == Some(true)));
    }
    // Not the epoch, which only its master has.
    for kind in [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES] {
        if let Some(value) = base.value(kind) {
            attributes.set(kind, value.clone());
        }
    }
    attributes.set(CKA_STRONGROOM_MASTER, Value::bytes(descent.master.to_string()));
    attributes.set(CKA_STRONGROOM_PATH, Value::bytes(descent.path_bytes()));
    Ok(attributes)
}

/// What each shared key is, said in a template that may repeat it and must not deny it.
fn set_shared(template: &mut Template) -> Result<(), Error> {
    for (kind, value) in SHARED {
        match template.bool(*kind) {
            Some(given) if given != *value => {
                return Err(Error::attribute(FaultCode::TemplateInconsistent, *kind));
            }
            None if *kind == CKA_TOKEN => {
                return Err(Error::attribute(FaultCode::TemplateInconsistent, CKA_TOKEN));
            }
            Some(_) | None => template.set(*kind, Value::Bool(*value)),
        }
    }
    Ok(())
}

/// What each shared key is.
const SHARED: &[(CK_ATTRIBUTE_TYPE, bool)] = &[
    (CKA_TOKEN, true),
    (CKA_SENSITIVE, true),
    (CKA_EXTRACTABLE, false),
    (CKA_COPYABLE, false),
    (CKA_MODIFIABLE, false),
];

/// How a private key is shared, if it is.
pub fn shares(attributes: &Template) -> Option<Shares> {
    let number = |kind| u8::try_from(attributes.ulong(kind)?).ok();
    Some(Shares { threshold: number(CKA_STRONGROOM_THRESHOLD)?, parties: number(CKA_STRONGROOM_PARTIES)? })
}

/// The attributes of a private key that is shared so from now on.
pub fn with_shares(attributes: Template, shares: Shares) -> Template {
    let attributes = attributes.with(CKA_STRONGROOM_THRESHOLD, Value::Ulong(shares.threshold.into()));
    attributes.with(CKA_STRONGROOM_PARTIES, Value::Ulong(shares.parties.into()))
}

/// The attributes of a copy (`C_CopyObject`).
///
/// # Errors
/// As [`complete`], and `ActionProhibited` if the object is not `CKA_COPYABLE`.
pub fn copied(original: &Template, changes: &Template, id: ObjectId, role: Role) -> Result<Template, Error> {
    if original.bool(CKA_COPYABLE) == Some(false) {
        return Err(Error::attribute(FaultCode::ActionProhibited, CKA_COPYABLE));
    }
    let mut copy = changed_by(original, changes, role, |rule| rule.copy)?;
    copy.set(CKA_UNIQUE_ID, Value::bytes(id.to_string()));
    Ok(copy)
}

/// The attributes after a change (`C_SetAttributeValue`).
///
/// # Errors
/// As [`complete`], and `ActionProhibited` if the object is not `CKA_MODIFIABLE`.
pub fn changed(original: &Template, changes: &Template, role: Role) -> Result<Template, Error> {
    if original.bool(CKA_MODIFIABLE) == Some(false) {
        return Err(Error::attribute(FaultCode::ActionProhibited, CKA_MODIFIABLE));
    }
    changed_by(original, changes, role, |rule| rule.change)
}

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

fn class_bit(template: &Template) -> Result<u8, Error> {
    match template.ulong(CKA_CLASS) {
        Some(CKO_DATA) => Ok(DATA),
        Some(CKO_CERTIFICATE) => Ok(CERTIFICATE),
        Some(CKO_PUBLIC_KEY) => Ok(PUBLIC),
        Some(CKO_PRIVATE_KEY) => Ok(PRIVATE),
        Some(CKO_SECRET_KEY) => Ok(SECRET),
        Some(_) => Err(Error::attribute(FaultCode::AttributeValueInvalid, CKA_CLASS)),
        None => Err(Error::attribute(FaultCode::TemplateIncomplete, CKA_CLASS)),
    }
}

fn check_shapes(template: &Template) -> Result<(), Error> {
    if let Some(kind) = template.duplicate() {
        return Err(Error::attribute(FaultCode::TemplateInconsistent, kind));
    }
    match template.iter().find(|attribute| !attribute.has_its_shape()) {
        Some(attribute) => Err(Error::attribute(FaultCode::AttributeValueInvalid, attribute.kind)),
        None => Ok(()),
    }
}

/// The rule for an attribute of this class.
fn rule_for(attribute: &Attribute, class: u8) -> Result<&'static Rule, Error> {
    let known = RULES.iter().find(|rule| rule.kind == attribute.kind && rule.classes & class != 0);
    known.ok_or_else(|| match attribute_name(attribute.kind) {
        Some(_) => Error::attribute(FaultCode::TemplateInconsistent, attribute.kind),
        None => Error::attribute(FaultCode::AttributeTypeInvalid, attribute.kind),
    })
}

/// `CKA_TRUSTED` is the security officer's word.
fn check_trust(attribute: &Attribute, role: Role) -> Result<(), Error> {
    let claims = attribute.kind == CKA_TRUSTED && attribute.value == Value::Bool(true);
    match role {
        Role::SecurityOfficer => Ok(()),
        Role::Public | Role::User if claims => {
            Err(Error::attribute(FaultCode::AttributeReadOnly, CKA_TRUSTED))
        }
        Role::Public | Role::User => Ok(()),
    }
}

fn changed_by(
    original: &Template,
    changes: &Template,
    role: Role,
    column: impl Fn(&Rule) -> Change,
) -> Result<Template, Error> {
    let class = class_bit(original)?;
    check_shapes(changes)?;
    let mut result = original.clone();
    for attribute in changes.iter() {
        check_trust(attribute, role)?;
        let allowed = match (column(rule_for(attribute, class)?), &attribute.value) {
            (Change::Free, _) => true,
            (Change::Never, _) => false,
            (Change::ToTrue, value) => *value == Value::Bool(true),
            (Change::ToFalse, value) => *value == Value::Bool(false),
        };
        if !allowed && original.value(attribute.kind) != Some(&attribute.value) {
            return Err(Error::attribute(FaultCode::AttributeReadOnly, attribute.kind));
        }
        result.set(attribute.kind, attribute.value.clone());
    }
    Ok(result)
}

fn set_defaults(template: &mut Template, class: u8, origin: Origin) -> Result<(), Error> {
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

fn using(key_type: CK_KEY_TYPE) -> impl Iterator<Item = Mechanism> {
    Mechanism::ALL.iter().copied().filter(move |mechanism| {
        let row = mechanism.row();
        let makes_keys = row.flags & (CKF_GENERATE | CKF_GENERATE_KEY_PAIR | CKF_DERIVE) != 0;
        row.key != KeyKind::None && row.key.accepts(key_type) && !makes_keys
    })
}
