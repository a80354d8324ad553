//! Chapter 6.13 of 3.2, keys wrapped by AES-GCM with `CK_GCM_WRAP_PARAMS`, made of `C_Encrypt` and `C_Decrypt` with a copy of the
//! wrapping key; and by AES-CCM with `CK_CCM_WRAP_PARAMS`, which the real module does not have, of OpenSSL and the value that the
//! wrapping key was brought with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::*;

use super::ccm;
use crate::call::{Memo, Template, held};
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// The nonces that are made.
static MADE: AtomicU64 = AtomicU64::new(1);

/// The values of keys that wrap or unwrap, by handle.
static VALUES: Memo<BTreeMap<usize, Vec<u8>>> = Memo::new(BTreeMap::new());

/// `CK_GCM_WRAP_PARAMS` or `CK_CCM_WRAP_PARAMS`.
#[derive(Clone, Copy)]
struct Parameter {
    mechanism: CK_MECHANISM_TYPE,
    /// Its address and length.
    nonce: (usize, usize),
    generator: CK_GENERATOR_FUNCTION,
    /// Its address and length.
    aad: (usize, usize),
    tag_bits: usize,
    /// The length of the key, where the parameter tells it.
    data: Option<usize>,
}

/// Adds the flags to AES-GCM and AES-CCM, and wraps and unwraps with them.
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
        (F::C_GetMechanismInfo, [_, number, place]) if *number == CKM_AES_CCM as usize => {
            let flags = CKF_WRAP | CKF_UNWRAP;
            memory::write(*place, CK_MECHANISM_INFO { ulMinKeySize: 16, ulMaxKeySize: 32, flags });
            Some(CKR_OK)
        }
        (F::C_CreateObject, [_, template, count, made]) => {
            let rv = real.call_as_it_is(function, words);
            let told = Template::of_list(memory::list(*template, *count));
            let wraps = told.is_true(CKA_WRAP) || told.is_true(CKA_UNWRAP);
            if let (Some(value), Some(key), true) =
                (told.value(CKA_VALUE), memory::read(*made), rv == CKR_OK && wraps)
            {
                held(&VALUES).insert(key, value);
            }
            Some(rv)
        }
        (F::C_WrapKey, [session, mechanism, wrapping, key, place, room]) => {
            let parameter = parameter(*mechanism)?;
            let aad = memory::list(parameter.aad.0, parameter.aad.1);
            Some(wrap(real, *session, parameter, *wrapping, *key, aad, (*place, *room)))
        }
        (F::C_UnwrapKey, [session, mechanism, wrapping, blob, length, template, count, made]) => {
            let parameter = parameter(*mechanism)?;
            let aad = memory::list(parameter.aad.0, parameter.aad.1);
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

/// The parameter of a mechanism that wraps.
fn parameter(mechanism: usize) -> Option<Parameter> {
    let raw: CK_MECHANISM = memory::read(mechanism)?;
    let (place, length) = (raw.pParameter.expose_provenance(), raw.ulParameterLen as usize);
    match raw.mechanism {
        CKM_AES_GCM if length == size_of::<CK_GCM_WRAP_PARAMS>() => {
            let gcm: CK_GCM_WRAP_PARAMS = memory::read(place)?;
            Some(Parameter {
                mechanism: raw.mechanism,
                nonce: (gcm.pIv.expose_provenance(), gcm.ulIvLen as usize),
                generator: gcm.ivGenerator,
                aad: (gcm.pAAD.expose_provenance(), gcm.ulAADLen as usize),
                tag_bits: gcm.ulTagBits as usize,
                data: None,
            })
        }
        CKM_AES_CCM if length == size_of::<CK_CCM_WRAP_PARAMS>() => {
            let ccm: CK_CCM_WRAP_PARAMS = memory::read(place)?;
            Some(Parameter {
                mechanism: raw.mechanism,
                nonce: (ccm.pNonce.expose_provenance(), ccm.ulNonceLen as usize),
                generator: ccm.nonceGenerator,
                aad: (ccm.pAAD.expose_provenance(), ccm.ulAADLen as usize),
                tag_bits: (ccm.ulMACLen as usize).saturating_mul(8),
                data: Some(ccm.ulDataLen as usize),
            })
        }
        _ => None,
    }
}

/// Whether nonce, tag and generator are good; a nonce that is to be made is.
fn is_good(parameter: &Parameter) -> bool {
    let (place, length) = parameter.nonce;
    let fits = match parameter.mechanism {
        CKM_AES_CCM => (7..=13).contains(&length) && ccm::TAG_BITS.contains(&parameter.tag_bits),
        _ => length == 12 && (96..=128).contains(&parameter.tag_bits),
    };
    if place == 0 || !fits {
        return false;
    }
    match parameter.generator {
        CKG_NO_GENERATE => true,
        CKG_GENERATE => {
            let count = MADE.fetch_add(1, Ordering::SeqCst).to_be_bytes();
            let mut nonce = vec![0_u8; length];
            nonce.iter_mut().rev().zip(count.iter().rev()).for_each(|(to, from)| *to = *from);
            memory::put(place, &nonce);
            true
        }
        _ => false,
    }
}

fn wrap(
    real: &Real,
    session: usize,
    parameter: Parameter,
    wrapping: usize,
    key: usize,
    aad: Vec<u8>,
    (place, room): (usize, usize),
) -> CK_RV {
    let mut asked = Template::default().and(CKA_VALUE, &[0; 1024]);
    let words = [session, key, memory::address(asked.attributes.as_mut_slice()), 1];
    let rv = real.call_as_it_is(F::C_GetAttributeValue, &words);
    let Some(value) = asked.value(CKA_VALUE).filter(|_| rv == CKR_OK) else { return CKR_KEY_NOT_WRAPPABLE };
    if !is_good(&parameter) || parameter.data.is_some_and(|length| length != value.len()) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    if parameter.mechanism == CKM_AES_CCM {
        let Some(blob) = by_ccm(ccm::seal, &parameter, wrapping, &value, &aad) else {
            return CKR_WRAPPING_KEY_TYPE_INCONSISTENT;
        };
        return put_out(&blob, place, room);
    }
    cipher(real, session, &parameter, wrapping, [F::C_EncryptInit, F::C_Encrypt], value, aad, (place, room))
}

fn unwrap(
    real: &Real,
    session: usize,
    parameter: Parameter,
    wrapping: usize,
    blob: Vec<u8>,
    aad: Vec<u8>,
    (template, count, made): (usize, usize, usize),
) -> CK_RV {
    if !is_good(&parameter) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    let value = match parameter.mechanism {
        CKM_AES_CCM => by_ccm(ccm::open, &parameter, wrapping, &blob, &aad),
        _ => by_gcm(real, session, &parameter, wrapping, blob, aad),
    };
    let Some(value) = value.filter(|value| parameter.data.is_none_or(|length| length == value.len())) else {
        return CKR_WRAPPED_KEY_INVALID;
    };
    let mut template = Template::of_list(memory::list(template, count)).and(CKA_VALUE, &value);
    let count = template.attributes.len();
    let words = [session, memory::address(template.attributes.as_mut_slice()), count, made];
    real.call_as_it_is(F::C_CreateObject, &words)
}

/// Seals or opens by AES-CCM.
fn by_ccm(
    act: impl FnOnce(&[u8], &[u8], &[u8], &[u8], usize) -> Option<Vec<u8>>,
    parameter: &Parameter,
    key: usize,
    data: &[u8],
    aad: &[u8],
) -> Option<Vec<u8>> {
    let key = held(&VALUES).get(&key).cloned()?;
    let nonce: Vec<u8> = memory::list(parameter.nonce.0, parameter.nonce.1);
    act(&key, &nonce, aad, data, parameter.tag_bits / 8)
}

/// Opens by AES-GCM.
fn by_gcm(
    real: &Real,
    session: usize,
    parameter: &Parameter,
    key: usize,
    blob: Vec<u8>,
    aad: Vec<u8>,
) -> Option<Vec<u8>> {
    let (mut value, mut length) = (vec![0_u8; blob.len()], blob.len());
    let place = (memory::address(value.as_mut_slice()), memory::address(&mut length));
    let rv = cipher(real, session, parameter, key, [F::C_DecryptInit, F::C_Decrypt], blob, aad, place);
    value.truncate(length);
    Some(value).filter(|_| rv == CKR_OK)
}

/// Puts a wrapped key where the caller has room for it.
fn put_out(blob: &[u8], place: usize, room: usize) -> CK_RV {
    let given: usize = memory::read(room).unwrap_or(0);
    memory::write(room, blob.len());
    if place != 0 && given < blob.len() {
        return CKR_BUFFER_TOO_SMALL;
    }
    memory::put(place, blob);
    CKR_OK
}

/// Encrypts or decrypts by AES-GCM with a copy of the key that may.
#[allow(clippy::too_many_arguments, reason = "what a call of two functions takes")]
fn cipher(
    real: &Real,
    session: usize,
    parameter: &Parameter,
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
        pIv: std::ptr::with_exposed_provenance_mut(parameter.nonce.0),
        ulIvLen: parameter.nonce.1 as CK_ULONG,
        ulIvBits: parameter.nonce.1 as CK_ULONG * 8,
        pAAD: aad.as_mut_ptr(),
        ulAADLen: aad.len() as CK_ULONG,
        ulTagBits: parameter.tag_bits as CK_ULONG,
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
