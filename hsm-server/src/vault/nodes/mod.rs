//! Talking to the other nodes: greetings, handing newer documents on, and the sealed sessions from vault to vault.
//!
//! Greetings and documents go in the open (mutual TLS between fronts): they hold no secret, and a document proves
//! itself. Everything else is sealed from vault to vault. A session ends with the process, with the membership
//! document, and after an hour. It stands only between vaults under the very same document: two that were signed for
//! one version are told, and nothing sealed passes between their nodes.

mod answering;
mod asking;
mod greeting;
mod links;
mod questions;

use std::time::Duration;

pub use links::Links;
pub use questions::{Answer, NodeError, Question};

/// How long a node may take to answer a greeting or a handshake.
const PATIENCE: Duration = Duration::from_millis(500);
