//! The real module behind the mutant.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use cryptoki_sys::*;
use libloading::Library;

use crate::functions::{Function, count};
use crate::memory;
use crate::newer;

/// A loaded module with the largest function list that it has. It stays loaded until the process ends.
pub struct Real {
    library: Library,
    /// The version and the address of the list of `C_GetFunctionList`.
    pub classic: usize,
    functions: Vec<usize>,
}

/// The module that `MUTANT_MODULE` names, or why there is none.
pub fn real() -> &'static Result<Real, String> {
    static REAL: OnceLock<Result<Real, String>> = OnceLock::new();
    REAL.get_or_init(|| {
        let file = std::env::var_os("MUTANT_MODULE").ok_or("MUTANT_MODULE names no module")?;
        // SAFETY: loading runs the library's initialisers; the test names it in order to run it.
        let library = unsafe { Library::new(&file) }.map_err(|error| format!("MUTANT_MODULE: {error}"))?;
        Real::of(library)
    })
}

impl Real {
    fn of(library: Library) -> Result<Self, String> {
        let mut real = Self { library, classic: 0, functions: Vec::new() };
        let place = memory::address(&mut real.classic);
        let code = real.exported("C_GetFunctionList", &[place]);
        if code != Some(CKR_OK) || real.classic == 0 {
            return Err(format!("MUTANT_MODULE: C_GetFunctionList answers {code:?}"));
        }
        let mut best = real.classic;
        for minor in [0, 2] {
            best = real.newer(minor).unwrap_or(best);
        }
        let version: CK_VERSION = memory::read(best).unwrap_or_default();
        let first = best + size_of::<usize>();
        real.functions = memory::list(first, count(version.major, version.minor));
        Ok(real)
    }

    /// The list of version 3.x, if the module has one.
    fn newer(&self, minor: u8) -> Option<usize> {
        let (mut version, mut found) = (CK_VERSION { major: 3, minor }, 0_usize);
        let mut name = *b"PKCS 11\0";
        let words =
            [memory::address(&mut name), memory::address(&mut version), memory::address(&mut found), 0];
        let rv = self.exported("C_GetInterface", &words);
        let interface: CK_INTERFACE = memory::read(found).filter(|_| rv == Some(CKR_OK))?;
        Some(interface.pFunctionList.expose_provenance())
    }

    /// Calls a function that the library exports by name, if it does.
    pub fn exported(&self, name: &str, words: &[usize]) -> Option<CK_RV> {
        // SAFETY: only the address is taken here.
        let symbol = unsafe { self.library.get::<*const ()>(name.as_bytes()) }.ok()?;
        // SAFETY: the symbols of the standard's names have that many words (5.4).
        Some(unsafe { invoke(symbol.expose_provenance(), words) })
    }

    /// Calls a function of the list.
    pub fn call(&self, function: Function, words: &[usize]) -> CK_RV {
        let instead = if newer::is_on() { newer::instead(self, function, words) } else { None };
        instead.unwrap_or_else(|| self.call_as_it_is(function, words))
    }

    /// Calls a function of the list without what the mutant adds to it.
    pub fn call_as_it_is(&self, function: Function, words: &[usize]) -> CK_RV {
        match self.functions.get(function as usize).filter(|address| **address != 0) {
            // SAFETY: the words are those of a call of this function, from our caller or from a fault.
            Some(address) => unsafe { invoke(*address, words) },
            None if newer::is_on() => newer::answer(self, function, words),
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    }
}

/// Calls a C function whose arguments are all machine words.
///
/// # Safety
/// There is such a function at the address, with that many arguments.
unsafe fn invoke(address: usize, words: &[usize]) -> CK_RV {
    macro_rules! with {
        ($( $word:ident )*) => {{
            let address = std::ptr::with_exposed_provenance::<()>(address);
            // SAFETY: the caller's promise; function pointers are as wide as data pointers.
            unsafe {
                let function: unsafe extern "C" fn($( with!(@word $word) ),*) -> CK_RV = std::mem::transmute(address);
                function($( *$word ),*)
            }
        }};
        (@word $word:ident) => { usize };
    }
    match words {
        [] => with!(),
        [a] => with!(a),
        [a, b] => with!(a b),
        [a, b, c] => with!(a b c),
        [a, b, c, d] => with!(a b c d),
        [a, b, c, d, e] => with!(a b c d e),
        [a, b, c, d, e, f] => with!(a b c d e f),
        [a, b, c, d, e, f, g] => with!(a b c d e f g),
        [a, b, c, d, e, f, g, h] => with!(a b c d e f g h),
        [a, b, c, d, e, f, g, h, i] => with!(a b c d e f g h i),
        [a, b, c, d, e, f, g, h, i, j] => with!(a b c d e f g h i j),
        _ => CKR_FUNCTION_NOT_SUPPORTED,
    }
}
