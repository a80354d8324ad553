//! The audit room.

/// Only this room can make one.
#[derive(Debug)]
pub struct Seal(());
