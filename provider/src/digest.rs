//! Message digests (PKCS#11 3.1, section 5.12): without a key, so without the server.

use aws_lc_rs::digest;
use strongroom_shared::mechanism::{Hash, Params};

use crate::{
    ffi::pointers::{Input, Output},
    operation::{After, Chosen, begin, step},
    rv::Error,
    session::Context,
};

/// The most that one function digests at once: a length from here on is taken for a mistake.
const MOST: usize = (1 << 31) - 1;

/// An active digest.
pub struct Digest {
    context: digest::Context,
    length: usize,
    /// Whether an update came, after which the one-shot function is not for it.
    updated: Updated,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Updated {
    No,
    Yes,
}

impl Digest {
    fn new(chosen: &Chosen) -> Result<Self, Error> {
        let hash = Hash::from_mechanism(chosen.mechanism.row().number).ok_or(Error::MechanismInvalid)?;
        if chosen.params != Params::None {
            return Err(Error::MechanismParamInvalid);
        }
        let algorithm = match hash {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => &digest::SHA224,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        };
        Ok(Self { context: digest::Context::new(algorithm), length: hash.length(), updated: Updated::No })
    }
}

/// `C_DigestInit`.
///
/// # Errors
/// `OperationActive`, `MechanismInvalid`.
pub fn init(context: &Context<'_>, chosen: Option<Chosen>) -> Result<(), Error> {
    begin(&mut context.session.operations().digest, chosen, |chosen| Digest::new(&chosen))
}

/// `C_Digest`.
///
/// # Errors
/// `OperationNotInitialized`, `BufferTooSmall` (the operation stays active), `DataLenRange` from 2 GiB on.
pub fn digest(context: &Context<'_>, data: &Input<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().digest, |active| {
        if active.updated == Updated::Yes {
            return Err(Error::OperationActive);
        }
        let data = data.slice(MOST)?;
        let Some(place) = out.reserve(active.length)? else { return Ok(After::Active) };
        active.context.update(data);
        place.write(active.context.clone().finish().as_ref())?;
        Ok(After::Over)
    })
}

/// `C_DigestUpdate`.
///
/// # Errors
/// `OperationNotInitialized`, `DataLenRange` from 2 GiB on.
pub fn update(context: &Context<'_>, part: &Input<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().digest, |active| {
        active.context.update(part.slice(MOST)?);
        active.updated = Updated::Yes;
        Ok(After::Active)
    })
}

/// `C_DigestKey`: no key's value is here to be digested.
///
/// # Errors
/// `OperationNotInitialized`, `KeyHandleInvalid`, else `KeyIndigestible`: it ends the operation.
pub fn key(context: &Context<'_>, key: pkcs11_sys::CK_OBJECT_HANDLE) -> Result<(), Error> {
    step(&mut context.session.operations().digest, |_| {
        context.object(key).map_err(|_| Error::KeyHandleInvalid)?;
        Err(Error::KeyIndigestible)
    })
}

/// `C_DigestFinal`.
///
/// # Errors
/// `OperationNotInitialized`, `BufferTooSmall` (the operation stays active).
pub fn finish(context: &Context<'_>, out: &Output<'_>) -> Result<(), Error> {
    step(&mut context.session.operations().digest, |active| {
        let Some(place) = out.reserve(active.length)? else { return Ok(After::Active) };
        place.write(active.context.clone().finish().as_ref())?;
        Ok(After::Over)
    })
}
