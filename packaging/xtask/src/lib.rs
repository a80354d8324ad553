//! Strongroom's chores, and the helpers that its tests with other people's clients share with them.
//!
//! `demo` and `test` are built from std and one small crate, so that the first command a newcomer types
//! is not spent on compiling the tool that runs it. `src/bench/` is a binary of its own.
// A tool for the terminal: printing is its work.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod cluster;
pub mod demo;
pub mod house;
pub mod packages;
pub mod server;
pub mod shell;
pub mod test;
pub mod token;
pub mod workspace;

/// What a chore comes to: a value, or a sentence that says what went wrong.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
