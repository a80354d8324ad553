//! `CK_MECHANISM` and its parameters (PKCS#11 3.1, section 6) into a typed [`Chosen`].
//!
//! A parameter has exactly the size of its structure; a mechanism without one takes none. Inner pointers are
//! followed only for lengths that can be.

use pkcs11_sys::*;
use strongroom_shared::mechanism::{Hash, LONGEST_PATH, Mechanism, Params, ParamsKind, is_path};

use crate::{
    ffi::pointers::{self, Input},
    operation::Chosen,
    rv::Error,
};

/// The longest GCM initialisation vector, in bytes (PKCS#11 3.1, 6.13.3).
const LONGEST_GCM_IV: usize = 256;
/// The longest associated data or label: what fits into a frame with room to spare.
const LONGEST_DATA: usize = 1 << 19;
/// The longest PSS salt: a modulus of 4096 bits.
const LONGEST_SALT: CK_ULONG = 512;

/// What a caller chose for this use (`CKF_*`); none for a null pointer.
///
/// # Safety
/// `pointer` is null or points to a `CK_MECHANISM`, whose parameter is null or as long as it says, and valid for
/// the mechanism.
///
/// # Errors
/// `MechanismInvalid`, `MechanismParamInvalid`.
pub(super) unsafe fn read(pointer: *const CK_MECHANISM, purpose: CK_FLAGS) -> Result<Option<Chosen>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller vouched for it.
    let raw = unsafe { pointers::read(pointer) }?;
    // Whether it is for this use comes before its parameter.
    let mechanism = Mechanism::from_number(raw.mechanism)
        .filter(|mechanism| mechanism.row().supports(purpose))
        .ok_or(Error::MechanismInvalid)?;
    // SAFETY: the caller vouched for the parameter.
    let params = unsafe { params(&raw, mechanism) }?;
    Ok(Some(Chosen { mechanism, params }))
}

/// What a caller chose, where there is nothing to cancel.
///
/// # Safety
/// As [`read`].
///
/// # Errors
/// As [`read`]; `ArgumentsBad` for a null pointer.
pub(super) unsafe fn required(pointer: *const CK_MECHANISM, purpose: CK_FLAGS) -> Result<Chosen, Error> {
    // SAFETY: as the caller vouched.
    unsafe { read(pointer, purpose) }?.ok_or(Error::ArgumentsBad)
}

/// # Safety
/// As [`read`].
unsafe fn params(raw: &CK_MECHANISM, mechanism: Mechanism) -> Result<Params, Error> {
    if raw.ulParameterLen == 0 {
        return match mechanism.row().params {
            ParamsKind::None | ParamsKind::Eddsa => Ok(Params::None),
            ParamsKind::Iv
            | ParamsKind::Ctr
            | ParamsKind::Gcm
            | ParamsKind::Pss
            | ParamsKind::Oaep
            | ParamsKind::Path => Err(Error::MechanismParamInvalid),
        };
    }
    // SAFETY: the caller vouched for the parameter; `structure` checks its size before it reads it.
    unsafe {
        match mechanism.row().params {
            ParamsKind::None => Err(Error::MechanismParamInvalid),
            ParamsKind::Eddsa => eddsa(structure(raw)?),
            ParamsKind::Iv => Ok(Params::Iv(structure(raw)?)),
            ParamsKind::Ctr => ctr(structure(raw)?),
            ParamsKind::Gcm => gcm(structure(raw)?),
            ParamsKind::Pss => pss(structure(raw)?, mechanism),
            ParamsKind::Oaep => oaep(structure(raw)?),
            ParamsKind::Path => path(raw),
        }
    }
}

/// # Safety
/// The parameter is null or as long as it says.
unsafe fn structure<T: Copy>(raw: &CK_MECHANISM) -> Result<T, Error> {
    if raw.ulParameterLen != size_of::<T>() as CK_ULONG {
        return Err(Error::MechanismParamInvalid);
    }
    // SAFETY: the caller vouched for that many bytes; null is refused.
    unsafe { pointers::read(raw.pParameter.cast()) }.map_err(|_| Error::MechanismParamInvalid)
}

/// # Safety
/// `data` is null or points to `length` bytes.
unsafe fn bytes(data: *const u8, length: CK_ULONG, most: usize) -> Result<Vec<u8>, Error> {
    // SAFETY: as the caller vouched.
    let bytes = unsafe { Input::new(data, length) };
    Ok(bytes.slice(most).map_err(|_| Error::MechanismParamInvalid)?.to_vec())
}

/// Ed25519 has no parameter; one that asks for neither prehashing nor a context asks for the same.
fn eddsa(raw: CK_EDDSA_PARAMS) -> Result<Params, Error> {
    if raw.phFlag == CK_FALSE && raw.ulContextDataLen == 0 {
        Ok(Params::None)
    } else {
        Err(Error::MechanismParamInvalid)
    }
}

fn ctr(raw: CK_AES_CTR_PARAMS) -> Result<Params, Error> {
    match u32::try_from(raw.ulCounterBits) {
        Ok(bits @ 1..=128) => Ok(Params::Ctr { bits, block: raw.cb }),
        Ok(_) | Err(_) => Err(Error::MechanismParamInvalid),
    }
}

/// # Safety
/// Its pointers are null or point to as much as their lengths say.
unsafe fn gcm(raw: CK_GCM_PARAMS) -> Result<Params, Error> {
    // SAFETY: as the caller vouched.
    let iv = unsafe { bytes(raw.pIv, raw.ulIvLen, LONGEST_GCM_IV) }?;
    // SAFETY: as the caller vouched.
    let aad = unsafe { bytes(raw.pAAD, raw.ulAADLen, LONGEST_DATA) }?;
    match u32::try_from(raw.ulTagBits) {
        // SP 800-38D, 5.2.1.2.
        Ok(tag_bits @ (32 | 64 | 96 | 104 | 112 | 120 | 128)) if !iv.is_empty() => {
            Ok(Params::Gcm { iv, aad, tag_bits })
        }
        Ok(_) | Err(_) => Err(Error::MechanismParamInvalid),
    }
}

fn pss(raw: CK_RSA_PKCS_PSS_PARAMS, mechanism: Mechanism) -> Result<Params, Error> {
    let hash = Hash::from_mechanism(raw.hashAlg).ok_or(Error::MechanismParamInvalid)?;
    let mgf = Hash::from_mgf(raw.mgf).ok_or(Error::MechanismParamInvalid)?;
    let salt_length = u32::try_from(raw.sLen).map_err(|_| Error::MechanismParamInvalid)?;
    let another_hash = mechanism.hash().is_some_and(|its_own| its_own != hash);
    if another_hash || raw.sLen > LONGEST_SALT {
        return Err(Error::MechanismParamInvalid);
    }
    Ok(Params::Pss { hash, mgf, salt_length })
}

/// # Safety
/// Its pointer is null or points to as much as its length says.
unsafe fn oaep(raw: CK_RSA_PKCS_OAEP_PARAMS) -> Result<Params, Error> {
    let hash = Hash::from_mechanism(raw.hashAlg).ok_or(Error::MechanismParamInvalid)?;
    let mgf = Hash::from_mgf(raw.mgf).ok_or(Error::MechanismParamInvalid)?;
    // SAFETY: as the caller vouched.
    let label = unsafe { bytes(raw.pSourceData.cast(), raw.ulSourceDataLen, LONGEST_DATA) }?;
    match raw.source {
        CKZ_DATA_SPECIFIED => Ok(Params::Oaep { hash, mgf, label }),
        // Many callers leave the source empty when they have no label.
        0 if label.is_empty() => Ok(Params::Oaep { hash, mgf, label }),
        _ => Err(Error::MechanismParamInvalid),
    }
}

/// The indices of a BIP-32 path, each a `uint32_t`, whatever a `CK_ULONG` is.
///
/// # Safety
/// The parameter is null or as long as it says.
unsafe fn path(raw: &CK_MECHANISM) -> Result<Params, Error> {
    // SAFETY: as the caller vouched.
    let bytes = unsafe { bytes(raw.pParameter.cast(), raw.ulParameterLen, LONGEST_PATH * size_of::<u32>()) }?;
    let (indices, rest) = bytes.as_chunks();
    let indices: Vec<u32> = indices.iter().map(|index| u32::from_ne_bytes(*index)).collect();
    if rest.is_empty() && is_path(&indices) {
        Ok(Params::Path(indices))
    } else {
        Err(Error::MechanismParamInvalid)
    }
}
