//! Verification (PKCS#11 3.1, section 5.15). The server does it, with the message that it would sign.

use pkcs11_sys::CK_OBJECT_HANDLE;
use strongroom_shared::{message, object::Usage};

use crate::{
    ffi::pointers::Input,
    operation::{After, Chosen, Keyed, Signing, begin, step, whole_message},
    rv::Error,
    session::Context,
};

/// No signature is longer; a longer one is not read.
const LONGEST_SIGNATURE: usize = 1 << 16;

/// `C_VerifyInit`.
///
/// # Errors
/// `OperationActive`, and what an operation's key and mechanism can be wrong in.
pub fn init(context: &Context<'_>, chosen: Option<Chosen>, key: CK_OBJECT_HANDLE) -> Result<(), Error> {
    begin(&mut context.session.operations().verify, chosen, |chosen| {
        Ok(Signing::new(Keyed::new(context, chosen, key, Usage::VERIFY)?))
    })
}

/// `C_Verify`.
///
/// # Errors
/// `OperationNotInitialized`, `SignatureLenRange`, `DataLenRange`, the fault `SignatureInvalid`: it ends the operation.
pub fn verify(context: &Context<'_>, data: &Input<'_>, signature: &Input<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().verify, |verifying| {
        verifying.require_whole()?;
        let input = whole_message(data, 0, context.slot.hsm.input_limit())?.to_vec();
        request(context, verifying, input, signature)
    })
}

/// `C_VerifyUpdate`.
///
/// # Errors
/// `OperationNotInitialized`, `DataLenRange` when the message no longer fits into one call.
pub fn update(context: &Context<'_>, part: &Input<'_>) -> Result<(), Error> {
    let limit = context.slot.hsm.input_limit();
    step(&mut context.session.operations().verify, |verifying| verifying.update(part, limit))
}

/// `C_VerifyFinal`.
///
/// # Errors
/// As [`verify`].
pub fn finish(context: &Context<'_>, signature: &Input<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().verify, |verifying| {
        let input = verifying.parts.take().map(|mut parts| std::mem::take(&mut *parts)).unwrap_or_default();
        request(context, verifying, input, signature)
    })
}

fn request(
    context: &Context<'_>,
    verifying: &Signing,
    input: Vec<u8>,
    signature: &Input<'_>,
) -> Result<After, Error> {
    let signature = match signature.slice(LONGEST_SIGNATURE) {
        Ok(signature) if signature.len() == verifying.signature_length() => signature.to_vec(),
        Ok(_) | Err(Error::DataLenRange) => return Err(Error::SignatureLenRange),
        Err(error) => return Err(error),
    };
    let keyed = &verifying.keyed;
    let params = keyed.params.clone();
    let call = message::Verify { key: keyed.key.id, mechanism: keyed.number(), params, input, signature };
    context.call(&call)?;
    Ok(After::Over)
}
