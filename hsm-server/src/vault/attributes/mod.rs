//! What an object's attributes may be: who may give them, what they default to, how they may change.

mod defaults;
mod rules;
mod shared;
mod shown;

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::Mechanism,
    object::{Attribute, ObjectId, Template, Value},
};

pub use self::{
    defaults::mechanisms_of,
    shared::{complete_descendant, complete_shared, shares, with_shares},
    shown::{describe, holds_no_secret, is_hidden, is_secret},
};
use self::{
    defaults::set_defaults,
    rules::{Given, Mutability, Rule, class_bit, rule_for},
};
use super::{error::Error, login::Role};

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

fn check_shapes(template: &Template) -> Result<(), Error> {
    if let Some(kind) = template.duplicate() {
        return Err(Error::attribute(FaultCode::TemplateInconsistent, kind));
    }
    match template.iter().find(|attribute| !attribute.has_its_shape()) {
        Some(attribute) => Err(Error::attribute(FaultCode::AttributeValueInvalid, attribute.kind)),
        None => Ok(()),
    }
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
    column: impl Fn(&Rule) -> Mutability,
) -> Result<Template, Error> {
    let class = class_bit(original)?;
    check_shapes(changes)?;
    let mut result = original.clone();
    for attribute in changes.iter() {
        check_trust(attribute, role)?;
        let allowed = match (column(rule_for(attribute, class)?), &attribute.value) {
            (Mutability::Free, _) => true,
            (Mutability::Never, _) => false,
            (Mutability::ToTrue, value) => *value == Value::Bool(true),
            (Mutability::ToFalse, value) => *value == Value::Bool(false),
        };
        if !allowed && original.value(attribute.kind) != Some(&attribute.value) {
            return Err(Error::attribute(FaultCode::AttributeReadOnly, attribute.kind));
        }
        result.set(attribute.kind, attribute.value.clone());
    }
    Ok(result)
}
