//! Who a program is to the other end of TLS: a certificate and its key on disk, read, asked for and replaced. And
//! the key that a client signs its mandates with.
//!
//! Provider, `hsmctl` and server do this alike. `strongroom-shared`, on which alone it depends of ours, is without
//! I/O and cryptography; this package beside it is not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod mandate_key;
mod nodes;
mod pair;
mod replace_lock;
mod request;
mod successor;

pub use mandate_key::MandateKey;
pub use nodes::{Nodes, Shown, is_whole};
pub use pair::{PairError, load, read_certificates, replace, replace_file};
pub use replace_lock::ReplaceLock;
pub use request::{Request, RequestError, request};
pub use successor::Renewed;
