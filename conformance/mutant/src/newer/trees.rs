//! Chapter 6.66, HSS keys of one tree with 32 leaves, as far as their indices go: the rest of a signature is zeros.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;

use crate::call::Template;
use crate::functions::Function as F;
use crate::memory;
use crate::real::Real;

/// How many signatures a tree has.
const LEAVES: u32 = 32;

/// The length of a signature of one level with SHA-256 and a width of 8 bits (RFC 8554, 5.4).
const LENGTH: usize = 1296;

/// The object identifier of P-256, for the pair that stands for a tree.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

#[derive(Default)]
struct Trees {
    /// The next index of each private key.
    next: BTreeMap<usize, u32>,
    /// The keys that sign, by session.
    signing: BTreeMap<usize, usize>,
}

static TREES: Mutex<Trees> = Mutex::new(Trees { next: BTreeMap::new(), signing: BTreeMap::new() });

/// Says what the two mechanisms are, and does what they are for.
pub fn instead(real: &Real, function: F, words: &[usize]) -> Option<CK_RV> {
    let mut trees = TREES.lock().unwrap_or_else(PoisonError::into_inner);
    match (function, words) {
        (F::C_GetMechanismInfo, [_, number, place]) => {
            let flags = match *number as CK_MECHANISM_TYPE {
                CKM_HSS_KEY_PAIR_GEN => CKF_GENERATE_KEY_PAIR,
                CKM_HSS => CKF_SIGN,
                _ => return None,
            };
            memory::write(*place, CK_MECHANISM_INFO { ulMinKeySize: 0, ulMaxKeySize: 0, flags });
            Some(CKR_OK)
        }
        (F::C_GenerateKeyPair, [_, mechanism, ..]) if is(*mechanism, CKM_HSS_KEY_PAIR_GEN) => {
            Some(generate(real, &mut trees, words))
        }
        (F::C_CopyObject, [_, key, ..]) if trees.next.contains_key(key) => Some(CKR_ACTION_PROHIBITED),
        (F::C_SignInit, [session, mechanism, key]) if is(*mechanism, CKM_HSS) => {
            Some(match trees.next.get(key) {
                None => CKR_KEY_TYPE_INCONSISTENT,
                Some(next) if *next >= LEAVES => CKR_KEY_EXHAUSTED,
                Some(_) => {
                    trees.signing.insert(*session, *key);
                    CKR_OK
                }
            })
        }
        (F::C_Sign, [session, _, _, place, room]) => {
            let key = trees.signing.get(session).copied()?;
            let given: usize = memory::read(*room)?;
            memory::write(*room, LENGTH);
            if *place == 0 {
                return Some(CKR_OK);
            }
            if given < LENGTH {
                return Some(CKR_BUFFER_TOO_SMALL);
            }
            trees.signing.remove(session);
            let next = trees.next.get_mut(&key)?;
            let mut signature = vec![0_u8; 4];
            signature.extend(next.to_be_bytes());
            signature.resize(LENGTH, 0);
            *next += 1;
            memory::put(*place, &signature);
            Some(CKR_OK)
        }
        (_, _) => None,
    }
}

fn is(mechanism: usize, number: CK_MECHANISM_TYPE) -> bool {
    memory::read::<CK_MECHANISM>(mechanism).is_some_and(|raw| raw.mechanism == number)
}

/// A pair of another kind stands for the tree. No tree is extractable (6.66).
fn generate(real: &Real, trees: &mut Trees, words: &[usize]) -> CK_RV {
    let [session, _, _, _, private, count, public_key, private_key] = words else { return CKR_ARGUMENTS_BAD };
    let asked = Template::of_list(memory::list(*private, *count));
    if asked.is_true(CKA_EXTRACTABLE) {
        return CKR_TEMPLATE_INCONSISTENT;
    }
    let no = [CK_FALSE];
    let mut public = Template::default().and(CKA_TOKEN, &no).and(CKA_EC_PARAMS, P256);
    let mut private = Template::default()
        .and(CKA_TOKEN, &no)
        .and(CKA_SENSITIVE, &[CK_TRUE])
        .and(CKA_EXTRACTABLE, &no)
        .and(CKA_SIGN, &[CK_TRUE]);
    let mut mechanism =
        CK_MECHANISM { mechanism: CKM_EC_KEY_PAIR_GEN, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let lengths = (public.attributes.len(), private.attributes.len());
    let rv = real.call_as_it_is(
        F::C_GenerateKeyPair,
        &[
            *session,
            memory::address(&mut mechanism),
            memory::address(public.attributes.as_mut_slice()),
            lengths.0,
            memory::address(private.attributes.as_mut_slice()),
            lengths.1,
            *public_key,
            *private_key,
        ],
    );
    if let Some(key) = memory::read::<usize>(*private_key).filter(|_| rv == CKR_OK) {
        trees.next.insert(key, 0);
    }
    rv
}
