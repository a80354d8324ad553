//! Chapters 5.6.6 and 5.6.7, operations whose state is saved: a digest, or a signature without a parameter. What was put in is
//! kept here and put in again; the state is only its name.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use super::known;
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// What an operation was given so far.
#[derive(Clone)]
struct Transcript {
    begun_by: F,
    mechanism: CK_MECHANISM_TYPE,
    key: usize,
    data: Vec<u8>,
}

/// By session.
static ACTIVE: Mutex<BTreeMap<usize, Transcript>> = Mutex::new(BTreeMap::new());

/// Those that were saved, in order.
static SAVED: Mutex<Vec<Transcript>> = Mutex::new(Vec::new());

/// Keeps what operations are given, and answers the two functions.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    let mut active = ACTIVE.lock().unwrap_or_else(PoisonError::into_inner);
    match (function, words) {
        (F::C_DigestInit | F::C_SignInit, [session, mechanism, key @ ..]) => {
            let raw = memory::read::<CK_MECHANISM>(*mechanism).filter(|raw| raw.pParameter.is_null())?;
            let rv = real.call_as_it_is(function, words);
            if rv == CKR_OK {
                let key = key.first().copied().unwrap_or(0);
                let (begun_by, mechanism) = (function, raw.mechanism);
                active.insert(*session, Transcript { begun_by, mechanism, key, data: Vec::new() });
            }
            Some(rv)
        }
        (F::C_DigestUpdate | F::C_SignUpdate, [session, part, length]) => {
            let rv = real.call_as_it_is(function, words);
            if let Some(transcript) = active.get_mut(session).filter(|_| rv == CKR_OK) {
                transcript.data.extend(memory::list::<u8>(*part, *length));
            }
            Some(rv)
        }
        (F::C_Digest | F::C_DigestFinal | F::C_Sign | F::C_SignFinal | F::C_CloseSession, [session, ..]) => {
            let rv = real.call_as_it_is(function, words);
            if rv != CKR_BUFFER_TOO_SMALL {
                active.remove(session);
            }
            Some(rv)
        }
        (F::C_CloseAllSessions | F::C_Finalize, _) => {
            active.clear();
            None
        }
        (F::C_GetOperationState, [session, place, room]) => {
            let Some(transcript) = active.get(session) else {
                return Some(known(real, *session, CKR_OPERATION_NOT_INITIALIZED));
            };
            let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
            let state = name(saved.len());
            let given: usize = memory::read(*room)?;
            memory::write(*room, state.len());
            if *place == 0 {
                return Some(CKR_OK);
            }
            if given < state.len() {
                return Some(CKR_BUFFER_TOO_SMALL);
            }
            saved.push(transcript.clone());
            memory::put(*place, &state);
            Some(CKR_OK)
        }
        (F::C_SetOperationState, [session, state, length, cipher_key, key]) => {
            let rv = known(real, *session, CKR_OK);
            if rv != CKR_OK {
                return Some(rv);
            }
            let state: Vec<u8> = memory::list(*state, *length);
            Some(restore(real, &mut active, *session, &state, *cipher_key, *key))
        }
        (_, _) => None,
    }
}

/// A number and what shows that it was not changed.
fn name(number: usize) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    ("state", number).hash(&mut hasher);
    [number.to_ne_bytes(), hasher.finish().to_ne_bytes()].concat()
}

fn restore(
    real: &Real,
    active: &mut BTreeMap<usize, Transcript>,
    session: usize,
    state: &[u8],
    cipher_key: usize,
    key: usize,
) -> CK_RV {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    let number = (0..saved.len()).find(|number| name(*number) == state);
    let Some(mut transcript) = number.and_then(|number| saved.get(number)).cloned() else {
        return CKR_SAVED_STATE_INVALID;
    };
    match (transcript.key, key) {
        _ if cipher_key != 0 => return CKR_KEY_NOT_NEEDED,
        (0, given) if given != 0 => return CKR_KEY_NOT_NEEDED,
        (needed, 0) if needed != 0 => return CKR_KEY_NEEDED,
        (needed, given) if needed != given => return CKR_KEY_CHANGED,
        (_, _) => {}
    }
    let mut mechanism =
        CK_MECHANISM { mechanism: transcript.mechanism, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let place = memory::address(&mut mechanism);
    let (begin, update) = match transcript.begun_by {
        F::C_DigestInit => (real.call_as_it_is(F::C_DigestInit, &[session, place]), F::C_DigestUpdate),
        begun_by => (real.call_as_it_is(begun_by, &[session, place, key]), F::C_SignUpdate),
    };
    if begin != CKR_OK {
        return begin;
    }
    let length = transcript.data.len();
    let rv = real.call_as_it_is(update, &[session, memory::address(transcript.data.as_mut_slice()), length]);
    active.insert(session, transcript);
    rv
}
