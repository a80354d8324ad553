//! The end of shares: a key that its application destroys, when all nodes agree, and one that never came about and is abandoned.

pub mod abandon;
mod agreement;
mod destroy;
pub mod destroyed;
pub mod promise;

use std::time::Duration;

pub use self::destroy::Destruction;

/// How long a node may take to destroy what it has of a key, or to say whether it would.
const PATIENCE: Duration = Duration::from_millis(800);
