//! The Strongroom HSM server: a front that terminates mutual TLS, and a vault that owns the keys.
//!
//! `front` → `hop` → `vault` → `policy`, `crypto`, `audit`, `store`. No arrow points back, and the last
//! four do not know one another: what passes between them stands in `authority`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod audit;
pub mod authority;
pub mod certificates;
pub mod cluster;
pub mod config;
pub mod control;
pub mod crypto;
pub mod door;
mod fault;
pub mod front;
pub mod hop;
pub mod host;
pub mod hsmctl;
pub mod lane;
pub mod platform;
pub mod policy;
pub mod process;
pub mod sandbox;
pub mod store;
pub mod supervisor;
pub mod vault;
