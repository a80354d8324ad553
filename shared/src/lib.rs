//! What the provider and the server must agree on: the wire, the calls, the objects, the mechanisms.
//!
//! Data only: no I/O, no async, no cryptography, and no dependency on any other room of the house.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod fault;
pub mod hex;
pub mod mandate;
pub mod mechanism;
pub mod message;
pub mod object;
pub mod plain;
pub mod secret;
pub mod shares;
pub mod wire;
