//! The checks, a file per chapter of the standard. Where the standard allows a set of return values, so does a check.

pub mod attributes;
pub mod ciphers;
pub mod client;
pub mod digest;
pub mod find;
pub mod forgeries;
pub mod fork;
pub mod general;
pub mod keys;
pub mod lengths;
pub mod login;
pub mod network;
pub mod nulls;
pub mod objects;
pub mod operations;
pub mod random;
pub mod sessions;
pub mod signatures;
pub mod slots;
pub mod statistics;
pub mod threads;
