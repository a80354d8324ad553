//! Key management (PKCS#11 3.1, section 5.18): keys are made in the vault, and only their handles come here.

use pkcs11_sys::{CK_FLAGS, CK_OBJECT_HANDLE, CKF_GENERATE, CKF_GENERATE_KEY_PAIR};
use strongroom_shared::{
    message,
    object::{CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_THRESHOLD, Template, Usage},
};

use crate::{
    operation::{Chosen, Keyed},
    rv::Error,
    session::Context,
};

/// `C_GenerateKey`.
///
/// # Errors
/// `MechanismInvalid`, `MechanismParamInvalid`, `SessionReadOnly`; the server's word on the template.
pub fn generate(
    context: &Context<'_>,
    chosen: Chosen,
    template: Template,
) -> Result<CK_OBJECT_HANDLE, Error> {
    require(&chosen, CKF_GENERATE)?;
    context.may_make(&template)?;
    let Chosen { mechanism, params } = chosen;
    let info = context.call(&message::GenerateKey { mechanism: mechanism.row().number, params, template })?;
    Ok(context.adopt_new(&info))
}

/// `C_GenerateKeyPair`: the handles of the public and of the private key.
///
/// # Errors
/// As [`generate`].
pub fn generate_pair(
    context: &Context<'_>,
    chosen: Chosen,
    public: Template,
    private: Template,
) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE), Error> {
    require(&chosen, CKF_GENERATE_KEY_PAIR)?;
    context.may_make(&public)?;
    context.may_make(&private)?;
    let Chosen { mechanism, params } = chosen;
    let mechanism = mechanism.row().number;
    let shared =
        [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES].iter().any(|kind| private.value(*kind).is_some());
    let call = message::GenerateKeyPair { mechanism, params, public, private };
    let pair = if shared { context.generate_shared(&call)? } else { context.call(&call)? };
    Ok((context.adopt_new(&pair.public), context.adopt_new(&pair.private)))
}

/// `C_DeriveKey`: what there is to derive are the descendants of private keys of which several nodes hold shares.
///
/// # Errors
/// `KeyTypeInconsistent` for another key; what an operation's key and mechanism can be wrong in; `SessionReadOnly`; the
/// server's word on path and template.
pub fn derive(
    context: &Context<'_>,
    chosen: Chosen,
    base: CK_OBJECT_HANDLE,
    template: Template,
) -> Result<CK_OBJECT_HANDLE, Error> {
    context.may_make(&template)?;
    let known = context.module.object(context.slot.id, base).ok_or(Error::KeyHandleInvalid)?.info;
    if known.key_type.is_some() && known.shares.is_none() {
        return Err(Error::KeyTypeInconsistent);
    }
    let Keyed { key, mechanism, params } = Keyed::new(context, chosen, base, Usage::DERIVE)?;
    let seen = Some(context.seen(&key)?);
    let call = message::DeriveKey { mechanism: mechanism.row().number, params, base: key.id, template };
    let info = context.call_mandated(&call, seen, |mandated| message::DeriveShared { mandated })?;
    Ok(context.adopt_new(&info))
}

fn require(chosen: &Chosen, flag: CK_FLAGS) -> Result<(), Error> {
    let row = chosen.mechanism.row();
    if !row.supports(flag) {
        Err(Error::MechanismInvalid)
    } else if !row.takes(&chosen.params) {
        Err(Error::MechanismParamInvalid)
    } else {
        Ok(())
    }
}
