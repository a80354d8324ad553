//! The vault through its one door, on a made-up platform: who may do what, what is refused, what is on record,
//! and what survives the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod abuse;
mod cluster;
mod identity;
mod limits;
mod mandates;
mod net;
mod objects;
mod restart;
mod server;
mod shared;
mod token;
mod world;
