//! Signing (PKCS#11 3.1, section 5.13). The whole message travels, in one call; a length query never does.

use pkcs11_sys::CK_OBJECT_HANDLE;
use strongroom_shared::{message, object::Usage};

use crate::{
    ffi::pointers::{Input, Output},
    operation::{After, Chosen, Keyed, Signing, begin, step, whole_message},
    rv::Error,
    session::Context,
};

/// `C_SignInit`.
///
/// # Errors
/// `OperationActive`, and what an operation's key and mechanism can be wrong in.
pub fn init(context: &Context<'_>, chosen: Option<Chosen>, key: CK_OBJECT_HANDLE) -> Result<(), Error> {
    begin(&mut context.session.operations().sign, chosen, |chosen| {
        Ok(Signing::new(Keyed::new(context, chosen, key, Usage::SIGN)?))
    })
}

/// `C_Sign`.
///
/// # Errors
/// `OperationNotInitialized`, `BufferTooSmall` (the operation stays active), `DataLenRange`, any fault (it ends).
pub fn sign(context: &Context<'_>, data: &Input<'_>, signature: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().sign, |signing| {
        signing.require_whole()?;
        let input = whole_message(data, 0, context.slot.hsm.input_limit())?;
        let Some(place) = signature.reserve(signing.signature_length())? else { return Ok(After::Active) };
        place.write(&request(context, &signing.keyed, input.to_vec())?)?;
        Ok(After::Over)
    })
}

/// `C_SignUpdate`.
///
/// # Errors
/// `OperationNotInitialized`, `DataLenRange` when the message no longer fits into one call.
pub fn update(context: &Context<'_>, part: &Input<'_>) -> Result<(), Error> {
    let limit = context.slot.hsm.input_limit();
    step(&mut context.session.operations().sign, |signing| signing.update(part, limit))
}

/// `C_SignFinal`.
///
/// # Errors
/// As [`sign`].
pub fn finish(context: &Context<'_>, signature: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().sign, |signing| {
        let Some(place) = signature.reserve(signing.signature_length())? else { return Ok(After::Active) };
        let input = signing.parts.take().map(|mut parts| std::mem::take(&mut *parts)).unwrap_or_default();
        place.write(&request(context, &signing.keyed, input)?)?;
        Ok(After::Over)
    })
}

fn request(context: &Context<'_>, keyed: &Keyed, input: Vec<u8>) -> Result<Vec<u8>, Error> {
    let params = keyed.params.clone();
    let call = message::Sign { key: keyed.key.id, mechanism: keyed.number(), params, input };
    let signature = match keyed.key.shares {
        Some(_) => {
            let seen = Some(context.seen(&keyed.key)?);
            context.call_mandated(&call, seen, |mandated| message::SignShared { mandated })?
        }
        None => context.call(&call)?,
    };
    Ok(signature.bytes)
}
