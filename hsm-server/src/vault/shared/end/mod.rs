//! The end of shares: a key that its application destroys, and one that never came about and is abandoned.

pub mod abandon;
mod destroy;
pub mod destroyed;

pub use self::destroy::Destruction;
