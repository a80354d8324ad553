//! Tests of the rooms behind the C edge, over a scripted vault in process, and of the links, over real TLS.

pub(crate) mod server;
pub(crate) mod vault;

mod cipher;
mod links;
mod mandates;
mod objects;
mod renewal;
mod resend;
mod sessions;
mod signing;

use std::{sync::Arc, time::Duration};

use pkcs11_sys::*;
use strongroom_shared::object::{Template, Value};

use crate::{
    config::Deadlines,
    module::{Module, Way},
    operation::Chosen,
    session,
};
use strongroom_shared::mechanism::{Mechanism, Params};
use vault::{InProcess, ScriptedVault};

pub(crate) const DEADLINES: Deadlines =
    Deadlines { call: Duration::from_secs(2), generation: Duration::from_secs(5) };
pub(crate) const RW: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
pub(crate) const RO: CK_FLAGS = CKF_SERIAL_SESSION;

/// A module with one slot, whose token is `vault`.
pub(crate) fn module(vault: &Arc<ScriptedVault>) -> Module {
    let transport = Box::new(InProcess(vault.clone())) as _;
    Module::over([Way::new("in process", transport)], DEADLINES).unwrap()
}

/// A module, and a read-write session on it.
pub(crate) fn opened() -> (Arc<ScriptedVault>, Module, CK_SESSION_HANDLE) {
    let vault = Arc::new(ScriptedVault::default());
    let module = module(&vault);
    let session = session::open(&module, 0, RW).unwrap();
    vault.forget_calls();
    (vault, module, session)
}

pub(crate) fn chosen(mechanism: Mechanism, params: Params) -> Option<Chosen> {
    Some(Chosen { mechanism, params })
}

/// A secret session key with this value, permitted everything.
pub(crate) fn secret_key(key_type: CK_KEY_TYPE, value: &[u8]) -> Template {
    Template::new()
        .with(CKA_CLASS, Value::Ulong(CKO_SECRET_KEY))
        .with(CKA_KEY_TYPE, Value::Ulong(key_type))
        .with(CKA_VALUE, Value::bytes(value))
        .with(CKA_SIGN, Value::Bool(true))
        .with(CKA_VERIFY, Value::Bool(true))
        .with(CKA_ENCRYPT, Value::Bool(true))
        .with(CKA_DECRYPT, Value::Bool(true))
}
