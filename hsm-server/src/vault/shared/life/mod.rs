//! The life of a shared key's shares: administrators order that they are made anew, or a schedule does; every node
//! consents, the new ones become active by a certificate of all, and the former go when the new ones have signed.

pub mod activate;
mod case;
pub mod consent;
pub mod import;
pub mod lookafter;
pub mod moves;
pub mod orders;
pub mod proof;
mod proving;
pub mod renew;
mod schedule;
pub mod traces;
pub mod waiting;
