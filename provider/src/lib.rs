//! The Strongroom PKCS#11 module: Cryptoki 3.0 on the outside, calls to the HSM on the inside.
//!
//! `ffi` is the C edge and the only place with `unsafe`. Behind it one safe file per chapter of the standard
//! works on a [`session::Context`]; `module` holds the state of the library; `hsm` carries calls to the server.
//! Sessions, active operations, find cursors and handles live here; objects live in the vault.
//!
//! The module starts no thread, installs no `atfork` handler and runs nothing at exit. A forked child goes on
//! with its parent's handles over connections of its own: see [`module::Module::forked`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod cipher;
pub mod config;
pub mod decrypt;
pub mod digest;
pub mod encrypt;
pub mod ffi;
pub mod hsm;
pub mod keys;
pub mod log;
pub mod mandate;
pub mod module;
pub mod object;
pub mod operation;
pub mod random;
mod renewal;
pub mod rv;
mod seen;
pub mod session;
pub mod sign;
pub mod slot;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod verify;
