//! The C edge: the exported symbols, the function lists, and every raw pointer. The only place with `unsafe`.
//!
//! A function here does four things: it enters ([`enter`]), finds its session, turns pointers into safe values,
//! and calls the chapter that does the work. Nothing that a caller passes is kept after the function returns.
#![allow(unsafe_code)]
#![allow(non_snake_case, reason = "the standard names the functions")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use pkcs11_sys::{CK_RV, CKR_GENERAL_ERROR, CKR_OK};

use crate::{
    log::{self, Level},
    rv::Error,
};

mod library;
mod mechanism;
mod objects;
mod operations;
pub mod pointers;
mod sessions;
pub mod tables;
mod template;
#[cfg(test)]
mod tests;
mod unsupported;

/// Runs a function of the module: no panic passes, one line goes to the log, and an error becomes a `CK_RV`.
fn enter(name: &'static str, function: impl FnOnce() -> Result<(), Error>) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(function)) {
        Ok(Ok(())) => CKR_OK,
        Ok(Err(error)) => {
            log::write(error.level(), format_args!("{name}: {error}"));
            error.rv()
        }
        Err(_) => {
            log::write(Level::Error, format_args!("{name}: panicked; this is a defect of the module"));
            CKR_GENERAL_ERROR
        }
    }
}

/// Exports functions of the standard.
macro_rules! cryptoki {
    ($( $(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block )*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[allow(unused_unsafe, reason = "not every function is given a pointer")]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> pkcs11_sys::CK_RV {
            crate::ffi::enter(stringify!($name), || {
                // SAFETY: the standard makes the caller vouch that each pointer is null or points to as much
                // memory as the length beside it says, until the function returns. None is kept beyond that.
                unsafe { $body }
            })
        }
    )* };
}
use cryptoki;
