//! The order of a key's use, as types: `Intent → Grant → Authorized`.
//!
//! Only `policy` can make a [`Grant`] and only `audit` can turn it into an [`Authorized`], because only they
//! can make the seals that it takes. `crypto` works with a private or secret key only for an `Authorized`,
//! which it consumes: one authority, one use. Acting without policy or without a record does not compile.

use std::fmt;

use strongroom_shared::{
    mechanism::{Mechanism, Params},
    object::ObjectId,
};
use zeroize::Zeroizing;

use crate::{audit, policy};

/// What is to be done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Make a signature or MAC.
    Sign,
    /// Check a signature or MAC.
    Verify,
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
}

/// What somebody wants to do with a key, understood as far as policy can read it.
pub struct Intent {
    /// What is to be done.
    pub act: Act,
    /// With which key.
    pub key: ObjectId,
    /// By which mechanism.
    pub mechanism: Mechanism,
    /// With which parameter.
    pub params: Params,
    /// To which bytes: what will be signed is what was read.
    pub input: Zeroizing<Vec<u8>>,
    /// SHA-256 of those bytes.
    pub message_hash: [u8; 32],
}

impl fmt::Debug for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {} by {:?}, {} bytes", self.act, self.key, self.mechanism, self.input.len())
    }
}

/// An intent that policy allows. Limits were charged for it.
#[derive(Debug)]
pub struct Grant {
    intent: Intent,
}

impl Grant {
    /// Policy's word. `_seal` shows that it is policy that speaks.
    pub fn new(intent: Intent, _seal: policy::Seal) -> Self {
        Self { intent }
    }

    /// What was allowed.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }
}

/// A grant that is in the audit log. Good for one use.
#[derive(Debug)]
pub struct Authorized {
    intent: Intent,
}

impl Authorized {
    /// The log's word. `_seal` shows that it is the log that speaks.
    pub fn new(grant: Grant, _seal: audit::Seal) -> Self {
        Self { intent: grant.intent }
    }

    /// Gives the authority away for the use that it is good for.
    pub fn into_intent(self) -> Intent {
        self.intent
    }

    /// An authority that nobody gave, for tests of the cryptography room.
    #[cfg(test)]
    pub(crate) fn for_test(intent: Intent) -> Self {
        Self { intent }
    }
}
