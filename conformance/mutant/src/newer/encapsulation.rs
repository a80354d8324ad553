//! Chapter 5.18 of 3.2, `C_EncapsulateKey` and `C_DecapsulateKey` by ECDH (6.3): the ciphertext is the point of a pair that is
//! made for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use super::known;
use crate::call::Template;
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// What the real module does not know of keys: whether they encapsulate or decapsulate.
static PERMITTED: Mutex<BTreeMap<usize, bool>> = Mutex::new(BTreeMap::new());

/// The two attributes.
const USES: [CK_ATTRIBUTE_TYPE; 2] = [CKA_ENCAPSULATE, CKA_DECAPSULATE];

/// Adds the flags to ECDH, and keeps the attributes of keys.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    match (function, words) {
        (F::C_GetMechanismInfo, [_, number, place]) if *number == CKM_ECDH1_DERIVE as usize => {
            let rv = real.call_as_it_is(function, words);
            if let Some(mut info) = memory::read::<CK_MECHANISM_INFO>(*place).filter(|_| rv == CKR_OK) {
                info.flags |= CKF_ENCAPSULATE | CKF_DECAPSULATE;
                memory::write(*place, info);
            }
            Some(rv)
        }
        (
            F::C_GenerateKeyPair,
            [session, mechanism, public, public_count, private, private_count, public_key, private_key],
        ) => {
            let mut halves = [(*public, *public_count), (*private, *private_count)]
                .map(|(place, count)| Template::of_list(memory::list(place, count)));
            if !halves.iter().any(|half| USES.iter().any(|kind| half.has(*kind))) {
                return None;
            }
            let permits = halves.each_ref().map(|half| USES.iter().any(|kind| half.is_true(*kind)));
            let mut stripped = halves.each_mut().map(|half| {
                let kept = std::mem::take(half);
                USES.iter().fold(kept, |half, kind| half.without(*kind))
            });
            // Who decapsulates derives.
            stripped[1] = std::mem::take(&mut stripped[1]).and(CKA_DERIVE, &[CK_TRUE]);
            let [public, private] = &mut stripped;
            let counts = (public.attributes.len(), private.attributes.len());
            let places = (
                memory::address(public.attributes.as_mut_slice()),
                memory::address(private.attributes.as_mut_slice()),
            );
            let rv = real.call_as_it_is(
                function,
                &[*session, *mechanism, places.0, counts.0, places.1, counts.1, *public_key, *private_key],
            );
            let mut permitted = PERMITTED.lock().unwrap_or_else(PoisonError::into_inner);
            for (place, is_permitted) in [*public_key, *private_key].into_iter().zip(permits) {
                permitted.extend(memory::read::<usize>(place).map(|key| (key, is_permitted)));
            }
            Some(rv)
        }
        (_, _) => None,
    }
}

/// Answers the two functions.
pub fn answer(real: &Real, function: F, words: &[usize]) -> CK_RV {
    let [session, mechanism, key, template, count, data, length, made] = words else {
        return CKR_ARGUMENTS_BAD;
    };
    let is_ecdh = |raw: &CK_MECHANISM| raw.mechanism == CKM_ECDH1_DERIVE;
    let rv = known(real, *session, CKR_OK);
    if rv != CKR_OK {
        return rv;
    }
    if memory::read(*mechanism).is_none_or(|raw| !is_ecdh(&raw)) {
        return CKR_MECHANISM_INVALID;
    }
    let permitted = PERMITTED.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
    match permitted {
        None => return CKR_KEY_HANDLE_INVALID,
        Some(false) => return CKR_KEY_FUNCTION_NOT_PERMITTED,
        Some(true) => {}
    }
    let product = (*template, *count, *made);
    match function {
        F::C_EncapsulateKey => encapsulate(real, *session, *key, product, (*data, *length)),
        _ => {
            let point: Vec<u8> = memory::list(*data, (*length).min(1 << 16));
            match derive(real, *session, *key, point, product) {
                CKR_OK => CKR_OK,
                _ => CKR_ENCRYPTED_DATA_INVALID,
            }
        }
    }
}

fn encapsulate(
    real: &Real,
    session: usize,
    peer: usize,
    product: (usize, usize, usize),
    (place, room): (usize, usize),
) -> CK_RV {
    let (Some(mut curve), Some(theirs)) =
        (attribute(real, session, peer, CKA_EC_PARAMS), attribute(real, session, peer, CKA_EC_POINT))
    else {
        return CKR_KEY_HANDLE_INVALID;
    };
    let needed = theirs.len();
    let given: usize = memory::read(room).unwrap_or(0);
    if place == 0 || given < needed {
        memory::write(room, needed);
        return if place == 0 { CKR_OK } else { CKR_BUFFER_TOO_SMALL };
    }
    let no = [CK_FALSE];
    let mut public = Template::default().and(CKA_TOKEN, &no).and(CKA_EC_PARAMS, &std::mem::take(&mut curve));
    let mut private = Template::default().and(CKA_TOKEN, &no).and(CKA_DERIVE, &[CK_TRUE]);
    let mut mechanism =
        CK_MECHANISM { mechanism: CKM_EC_KEY_PAIR_GEN, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let (mut own_public, mut own_private) = (0_usize, 0_usize);
    let counts = (public.attributes.len(), private.attributes.len());
    let words = [
        session,
        memory::address(&mut mechanism),
        memory::address(public.attributes.as_mut_slice()),
        counts.0,
        memory::address(private.attributes.as_mut_slice()),
        counts.1,
        memory::address(&mut own_public),
        memory::address(&mut own_private),
    ];
    let rv = real.call_as_it_is(F::C_GenerateKeyPair, &words);
    let Some(point) = attribute(real, session, own_public, CKA_EC_POINT).filter(|_| rv == CKR_OK) else {
        return rv;
    };
    let rv = derive(real, session, own_private, theirs, product);
    if rv == CKR_OK {
        memory::put(place, &point);
        memory::write(room, point.len());
    }
    for key in [own_public, own_private] {
        let _destroyed = real.call_as_it_is(F::C_DestroyObject, &[session, key]);
    }
    rv
}

/// `C_DeriveKey` by ECDH with this point.
fn derive(
    real: &Real,
    session: usize,
    key: usize,
    mut point: Vec<u8>,
    (template, count, made): (usize, usize, usize),
) -> CK_RV {
    let place = memory::address(point.as_mut_slice());
    let mut words = [CKD_NULL as usize, 0, 0, point.len(), place];
    let length = size_of_val(&words);
    let pParameter = std::ptr::with_exposed_provenance_mut(memory::address(words.as_mut_slice()));
    let mut mechanism =
        CK_MECHANISM { mechanism: CKM_ECDH1_DERIVE, pParameter, ulParameterLen: length as CK_ULONG };
    let words = [session, memory::address(&mut mechanism), key, template, count, made];
    real.call_as_it_is(F::C_DeriveKey, &words)
}

fn attribute(real: &Real, session: usize, object: usize, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
    let mut asked = Template::default().and(kind, &[0; 1024]);
    let words = [session, object, memory::address(asked.attributes.as_mut_slice()), 1];
    let rv = real.call_as_it_is(F::C_GetAttributeValue, &words);
    asked.value(kind).filter(|_| rv == CKR_OK)
}
