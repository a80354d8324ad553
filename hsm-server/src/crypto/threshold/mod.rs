//! Threshold keys: ceremonies in which several parties make, keep and use a key that none of them has.
//!
//! This is the cryptographic core, pure and synchronous: no network, no clock, no store, no policy. Whoever stands
//! outside carries the messages over confidential, authenticated channels, sets deadlines, writes the audit
//! record before it releases the last message of a signature, signs [`Ready`] and keeps the certificates. Randomness is
//! the operating system's: DKLs23 takes its own and cannot be given another.
//!
//! Every ceremony is a [`Ceremony`]: it begins with what to send, takes messages by [`Ceremony::step`], and ends with
//! [`Step::Done`] or [`Step::Abort`].
//!
//! | ceremony | begins with | ends with |
//! |---|---|---|
//! | generation | [`generate_key`] | [`Outcome`] |
//! | refresh, reshare, repair, import | [`refresh`], [`reshare`], [`import`] | [`Outcome`] |
//! | signing, at each signer | [`sign`] | [`Held`], to be released |
//! | combining, at the coordinator | [`combine`] | the verified signature |
//!
//! Schemes ([`SchemeId`]): ECDSA by DKLs23 (ePrint 2023/765), Ed25519 and BIP340 by FROST (RFC 9591).
//! Both libraries are behind one trait, `Scheme`, and are treated as hostile: inputs are bounded and checked, panics
//! end in `ceremony.rs`, and nothing of theirs is seen outside.

mod blame;
mod ceremony;
mod deal;
mod dkls;
mod envelope;
mod exchange;
mod frost;
mod group;
mod lifecycle;
mod party;
mod scheme;
mod share;
mod sign;
#[cfg(test)]
mod tests;

pub use self::{
    blame::{Abort, Blame, Refusal, Reject, Rejected},
    ceremony::{Ceremony, Started, Step},
    envelope::{Incoming, MAX_LENGTH, Outgoing, To},
    lifecycle::{
        Importing, Resharing, generate_key, import, public_key_of, refresh, reshare, shown_public_key,
    },
    party::{CeremonyId, Committee, Epoch, KeyId, Party, Setup},
    scheme::SchemeId,
    share::{Outcome, PublicShares, Ready, Share},
    sign::{Held, Signing, combine, sign},
};
