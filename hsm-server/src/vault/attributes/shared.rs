//! The attributes of keys of which several nodes hold shares, and of their descendants.

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mechanism::Mechanism,
    object::{
        CKA_STRONGROOM_EPOCH, CKA_STRONGROOM_MASTER, CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_PATH,
        CKA_STRONGROOM_THRESHOLD, Descent, ObjectId, Shares, Template, Value,
    },
};

use super::{Origin, check_shapes, complete};
use crate::vault::{error::Error, login::Role};

/// What each shared key is.
const SHARED: &[(CK_ATTRIBUTE_TYPE, bool)] = &[
    (CKA_TOKEN, true),
    (CKA_SENSITIVE, true),
    (CKA_EXTRACTABLE, false),
    (CKA_COPYABLE, false),
    (CKA_MODIFIABLE, false),
];

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
