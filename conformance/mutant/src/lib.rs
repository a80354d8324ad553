//! A faulty module: it forwards every call to a real one and misbehaves in exactly one way, so that the tests of the
//! conformance suite can show that its checks can fail.
//!
//! `MUTANT_MODULE` names the real module's file, `MUTANT_FAULT` a row of [`faults::all`]; without a fault the mutant
//! is as good as the module behind it, or has more functions (`newer.rs`). `MUTANT_PINS` names a file for the PINs that it
//! is shown. It is never shipped.
//!
//! A call comes in at `functions.rs`, passes the fault if it is about that function (`faults/`), and goes on to the
//! real module (`real.rs`) with what [`call::Call`] carries. All faults are safe code over `memory.rs`.

#![allow(non_snake_case, reason = "names of the standard's functions and fields")]

pub mod call;
pub mod faults;
pub mod functions;
mod lists;
mod memory;
mod newer;
mod real;
mod witness;

use std::io::{self, Write};
use std::sync::OnceLock;

use cryptoki_sys::{CK_RV, CKR_GENERAL_ERROR};

use crate::call::Call;
use crate::faults::Fault;
use crate::functions::Function;

/// Which fault was chosen, or why the mutant cannot work.
fn chosen() -> &'static Result<Option<&'static Fault>, String> {
    static CHOSEN: OnceLock<Result<Option<&'static Fault>, String>> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let chosen = choose();
        if let Err(reason) = &chosen {
            let _written = writeln!(io::stderr(), "mutant: {reason}");
        }
        chosen
    })
}

fn choose() -> Result<Option<&'static Fault>, String> {
    real::real().as_ref().map_err(String::clone)?;
    match std::env::var("MUTANT_FAULT") {
        Err(_) => Ok(None),
        Ok(name) => match faults::all().find(|fault| fault.name == name) {
            Some(fault) => Ok(Some(fault)),
            None => Err(format!("MUTANT_FAULT={name}: there is no such fault")),
        },
    }
}

/// Where every call comes in.
fn enter(function: Function, words: &[usize]) -> CK_RV {
    let call = Call::new(function, words);
    witness::shown(&call);
    let rv = match chosen() {
        Ok(Some(fault)) if fault.on.contains(&function) => (fault.act)(&call),
        Ok(_) => call.forward(),
        Err(_) => CKR_GENERAL_ERROR,
    };
    witness::answered(&call, rv);
    rv
}
