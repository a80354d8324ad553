//! Chapter 6.13 of 3.2, keys wrapped by AES-GCM with `CK_GCM_WRAP_PARAMS`, made of `C_Encrypt` and `C_Decrypt` with a copy of the
//! wrapping key.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;

use crate::call::Template;
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// The nonces that are made.
static MADE: AtomicU64 = AtomicU64::new(1);

/// Adds the flags to AES-GCM, and wraps and unwraps with it.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    match (function, words) {
        (F::C_GetMechanismInfo, [_, number, place]) if *number == CKM_AES_GCM as usize => {
            let rv = real.call_as_it_is(function, words);
            if let Some(mut info) = memory::read::<CK_MECHANISM_INFO>(*place).filter(|_| rv == CKR_OK) {
                info.flags |= CKF_WRAP | CKF_UNWRAP;
                memory::write(*place, info);
            }
            Some(rv)
        }
        (F::C_WrapKey, [session, mechanism, wrapping, key, place, room]) => {
            let parameter = parameter(*mechanism)?;
            let aad = memory::list(parameter.pAAD.expose_provenance(), parameter.ulAADLen as usize);
            Some(wrap(real, *session, parameter, *wrapping, *key, aad, (*place, *room)))
        }
        (F::C_UnwrapKey, [session, mechanism, wrapping, blob, length, template, count, made]) => {
            let parameter = parameter(*mechanism)?;
            let aad = memory::list(parameter.pAAD.expose_provenance(), parameter.ulAADLen as usize);
            let blob = memory::list(*blob, *length);
            Some(unwrap(real, *session, parameter, *wrapping, blob, aad, (*template, *count, *made)))
        }
        (_, _) => None,
    }
}

/// Answers the two functions of 3.2.
pub fn answer(real: &Real, function: F, words: &[usize]) -> CK_RV {
    let Some(session) = words.first() else { return CKR_ARGUMENTS_BAD };
    let rv = super::known(real, *session, CKR_OK);
    if rv != CKR_OK {
        return rv;
    }
    match (function, words) {
        (F::C_WrapKeyAuthenticated, [session, mechanism, wrapping, key, aad, length, place, room]) => {
            let Some(parameter) = parameter(*mechanism) else { return CKR_MECHANISM_INVALID };
            let aad = memory::list(*aad, *length);
            wrap(real, *session, parameter, *wrapping, *key, aad, (*place, *room))
        }
        (
            F::C_UnwrapKeyAuthenticated,
            [session, mechanism, wrapping, blob, length, template, count, aad, aad_length, made],
        ) => {
            let Some(parameter) = parameter(*mechanism) else { return CKR_MECHANISM_INVALID };
            let (blob, aad) = (memory::list(*blob, *length), memory::list(*aad, *aad_length));
            unwrap(real, *session, parameter, *wrapping, blob, aad, (*template, *count, *made))
        }
        (_, _) => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

/// The parameter of AES-GCM in a mechanism that wraps.
fn parameter(mechanism: usize) -> Option<CK_GCM_WRAP_PARAMS> {
    let raw: CK_MECHANISM = memory::read(mechanism)?;
    let fits = raw.mechanism == CKM_AES_GCM && raw.ulParameterLen as usize == size_of::<CK_GCM_WRAP_PARAMS>();
    memory::read(raw.pParameter.expose_provenance()).filter(|_| fits)
}

/// Whether nonce, tag and generator are good; a nonce that is to be made is.
fn is_good(parameter: &CK_GCM_WRAP_PARAMS) -> bool {
    if parameter.pIv.is_null() || parameter.ulIvLen != 12 || !(96..=128).contains(&parameter.ulTagBits) {
        return false;
    }
    match parameter.ivGenerator {
        CKG_NO_GENERATE => true,
        CKG_GENERATE => {
            let count = MADE.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            memory::put(parameter.pIv.expose_provenance(), &[&[0; 4][..], &count].concat());
            true
        }
        _ => false,
    }
}

fn wrap(
    real: &Real,
    session: usize,
    parameter: CK_GCM_WRAP_PARAMS,
    wrapping: usize,
    key: usize,
    aad: Vec<u8>,
    (place, room): (usize, usize),
) -> CK_RV {
    let mut asked = Template::default().and(CKA_VALUE, &[0; 1024]);
    let words = [session, key, memory::address(asked.attributes.as_mut_slice()), 1];
    let rv = real.call_as_it_is(F::C_GetAttributeValue, &words);
    let Some(value) = asked.value(CKA_VALUE).filter(|_| rv == CKR_OK) else { return CKR_KEY_NOT_WRAPPABLE };
    if !is_good(&parameter) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    cipher(real, session, &parameter, wrapping, [F::C_EncryptInit, F::C_Encrypt], value, aad, (place, room))
}

fn unwrap(
    real: &Real,
    session: usize,
    parameter: CK_GCM_WRAP_PARAMS,
    wrapping: usize,
    blob: Vec<u8>,
    aad: Vec<u8>,
    (template, count, made): (usize, usize, usize),
) -> CK_RV {
    if !is_good(&parameter) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    let (mut value, mut length) = (vec![0_u8; blob.len()], blob.len());
    let place = (memory::address(value.as_mut_slice()), memory::address(&mut length));
    let rv = cipher(real, session, &parameter, wrapping, [F::C_DecryptInit, F::C_Decrypt], blob, aad, place);
    if rv != CKR_OK {
        return CKR_WRAPPED_KEY_INVALID;
    }
    value.truncate(length);
    let mut template = Template::of_list(memory::list(template, count)).and(CKA_VALUE, &value);
    let count = template.attributes.len();
    let words = [session, memory::address(template.attributes.as_mut_slice()), count, made];
    real.call_as_it_is(F::C_CreateObject, &words)
}

/// Encrypts or decrypts by AES-GCM with a copy of the key that may.
#[allow(clippy::too_many_arguments, reason = "what a call of two functions takes")]
fn cipher(
    real: &Real,
    session: usize,
    parameter: &CK_GCM_WRAP_PARAMS,
    key: usize,
    [init, single]: [F; 2],
    mut data: Vec<u8>,
    mut aad: Vec<u8>,
    (place, room): (usize, usize),
) -> CK_RV {
    let allowed = [CK_TRUE];
    let mut more =
        Template::default().and(CKA_TOKEN, &[CK_FALSE]).and(CKA_ENCRYPT, &allowed).and(CKA_DECRYPT, &allowed);
    let (mut copy, count) = (0_usize, more.attributes.len());
    let words =
        [session, key, memory::address(more.attributes.as_mut_slice()), count, memory::address(&mut copy)];
    let rv = real.call_as_it_is(F::C_CopyObject, &words);
    if rv != CKR_OK {
        return rv;
    }
    let mut gcm = CK_GCM_PARAMS {
        pIv: parameter.pIv,
        ulIvLen: parameter.ulIvLen,
        ulIvBits: parameter.ulIvLen * 8,
        pAAD: aad.as_mut_ptr(),
        ulAADLen: aad.len() as CK_ULONG,
        ulTagBits: parameter.ulTagBits,
    };
    let mut mechanism = CK_MECHANISM {
        mechanism: CKM_AES_GCM,
        pParameter: std::ptr::with_exposed_provenance_mut(memory::address(&mut gcm)),
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
    };
    let mut rv = real.call_as_it_is(init, &[session, memory::address(&mut mechanism), copy]);
    if rv == CKR_OK {
        let length = data.len();
        rv =
            real.call_as_it_is(single, &[session, memory::address(data.as_mut_slice()), length, place, room]);
    }
    let _destroyed = real.call_as_it_is(F::C_DestroyObject, &[session, copy]);
    rv
}
