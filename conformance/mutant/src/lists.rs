//! The mutant's function lists and interfaces: those of the real module, with the mutant's functions in them.
//!
//! A module of 2.40 has no interfaces. One is made of its function list, which is version 2.40 by name as 3.0 wants
//! it, so that faults of interfaces can be shown with such a module, too.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use cryptoki_sys::*;

use crate::functions::{Function, count, entries};
use crate::memory;
use crate::newer;
use crate::real::{Real, real};

/// A function list: the version, and the functions in order.
#[repr(C)]
struct List {
    version: CK_VERSION,
    functions: [*const (); 104],
}

/// The mutant's lists by the address of the real one, so that asked twice the address is the same.
static LISTS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// The mutant's interfaces by the address of the real list.
static INTERFACES: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// The name of the standard's interfaces, with its zero byte.
const NAME: &[u8; 8] = b"PKCS 11\0";

/// Answers the three functions that give tables.
pub fn answer(function: Function, words: &[usize]) -> CK_RV {
    let Ok(real) = real() else { return CKR_GENERAL_ERROR };
    match (function, words) {
        (Function::C_GetFunctionList, [place]) => function_list(real, *place),
        (Function::C_GetInterfaceList, [place, count]) => interface_list(real, *place, *count),
        (_, [name, version, place, flags]) => interface(real, *name, *version, *place, *flags),
        (_, _) => CKR_FUNCTION_NOT_SUPPORTED,
    }
}

fn function_list(real: &Real, place: usize) -> CK_RV {
    if place == 0 {
        return CKR_ARGUMENTS_BAD;
    }
    memory::write(place, list_like(real.classic));
    CKR_OK
}

/// A list of the mutant's functions, as long as that of the real module and with the same gaps.
pub fn list_like(theirs: usize) -> usize {
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    *lists.entry(theirs).or_insert_with(|| fresh_list(theirs, None))
}

/// Another list like that of the real module, with one gap more if one is asked for.
pub fn fresh_list(theirs: usize, gap: Option<Function>) -> usize {
    let version: CK_VERSION = memory::read(theirs).unwrap_or_default();
    let length = count(version.major, version.minor);
    let real: Vec<usize> = memory::list(theirs + size_of::<usize>(), length);
    let mut functions = entries();
    for (number, function) in functions.iter_mut().enumerate() {
        let missing = real.get(number).is_none_or(|address| *address == 0);
        if missing || gap.is_some_and(|gap| gap as usize == number) {
            *function = std::ptr::null();
        }
    }
    memory::address(Box::leak(Box::new(List { version, functions })))
}

/// A list of 3.2 of all functions.
fn newest_list() -> usize {
    static LIST: OnceLock<usize> = OnceLock::new();
    *LIST.get_or_init(|| {
        let list = List { version: CK_VERSION { major: 3, minor: 2 }, functions: entries() };
        memory::address(Box::leak(Box::new(list)))
    })
}

/// The real module's interfaces.
fn theirs(real: &Real) -> Result<Vec<CK_INTERFACE>, CK_RV> {
    let mut count: CK_ULONG = 0;
    match real.exported("C_GetInterfaceList", &[0, memory::address(&mut count)]) {
        None => {
            let of_list = |list: usize| CK_INTERFACE {
                pInterfaceName: NAME.as_ptr().cast_mut(),
                pFunctionList: std::ptr::with_exposed_provenance_mut(list),
                flags: 0,
            };
            let added = newer::is_on().then(|| of_list(newest_list()));
            Ok(std::iter::once(of_list(real.classic)).chain(added).collect())
        }
        Some(CKR_OK) => {
            let mut all = vec![
                CK_INTERFACE {
                    pInterfaceName: std::ptr::null_mut(),
                    pFunctionList: std::ptr::null_mut(),
                    flags: 0
                };
                usize::try_from(count).unwrap_or(0)
            ];
            let words = [memory::address(all.as_mut_slice()), memory::address(&mut count)];
            match real.exported("C_GetInterfaceList", &words) {
                Some(CKR_OK) => Ok(all),
                other => Err(other.unwrap_or(CKR_GENERAL_ERROR)),
            }
        }
        Some(other) => Err(other),
    }
}

/// The mutant's interface over one of the real module's. One that is not the standard's is left as it is.
fn ours(theirs: &CK_INTERFACE) -> CK_INTERFACE {
    let name: [u8; 8] = memory::read(theirs.pInterfaceName.expose_provenance()).unwrap_or_default();
    if name != *NAME {
        return *theirs;
    }
    let list = list_like(theirs.pFunctionList.expose_provenance());
    CK_INTERFACE { pFunctionList: std::ptr::with_exposed_provenance_mut(list), ..*theirs }
}

fn interface_list(real: &Real, place: usize, room: usize) -> CK_RV {
    let all = match theirs(real) {
        Ok(all) => all,
        Err(rv) => return rv,
    };
    let Some(given) = memory::read::<CK_ULONG>(room) else { return CKR_ARGUMENTS_BAD };
    memory::write(room, all.len() as CK_ULONG);
    if place == 0 {
        return CKR_OK;
    }
    if given < all.len() as CK_ULONG {
        return CKR_BUFFER_TOO_SMALL;
    }
    memory::put(place, &all.iter().map(ours).collect::<Vec<_>>());
    CKR_OK
}

fn interface(real: &Real, name: usize, version: usize, place: usize, flags: usize) -> CK_RV {
    if place == 0 {
        return CKR_ARGUMENTS_BAD;
    }
    let mut found = 0_usize;
    let found = match real.exported("C_GetInterface", &[name, version, memory::address(&mut found), flags]) {
        Some(CKR_OK) => memory::read::<CK_INTERFACE>(found),
        Some(refusal) => return refusal,
        None => made(real, name, version, flags),
    };
    let Some(found) = found else { return CKR_FUNCTION_FAILED };
    let mut interfaces = INTERFACES.lock().unwrap_or_else(PoisonError::into_inner);
    let address = interfaces
        .entry(found.pFunctionList.expose_provenance())
        .or_insert_with(|| memory::address(Box::leak(Box::new(ours(&found)))));
    memory::write(place, *address);
    CKR_OK
}

/// The interface made of a function list, if that is what is asked for; of 2.40, if no version is.
fn made(real: &Real, name: usize, version: usize, flags: usize) -> Option<CK_INTERFACE> {
    let asked_name = memory::read::<[u8; 8]>(name).is_none_or(|name| name == *NAME);
    let asked = memory::read::<CK_VERSION>(version);
    let is_asked = |interface: &CK_INTERFACE| {
        let own: CK_VERSION = memory::read(interface.pFunctionList.expose_provenance()).unwrap_or_default();
        asked.is_none_or(|asked| (asked.major, asked.minor) == (own.major, own.minor))
    };
    let all = theirs(real).ok()?;
    all.into_iter().find(is_asked).filter(|_| asked_name && flags == 0)
}
