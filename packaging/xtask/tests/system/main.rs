//! The built server and the built module against the world: processes that are killed, stopped and forked,
//! networks that go silent, files that somebody edited.
//!
//! Every test is an application of its own: it runs in a process of its own ([`support::alone`]), with a server of
//! its own in a temporary folder, and one at a time, because deadlines are measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
// What a test saw is worth reading when it fails.
#![allow(clippy::print_stdout)]

mod abandoned;
mod administrators;
mod chaos;
mod ecdsa;
mod kept;
mod outage;
mod process;
mod renewal;
mod shares;
mod support;
mod tampering;
mod threshold;
