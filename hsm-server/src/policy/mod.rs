//! The policy room: what a request means, whether it is allowed, and what it costs.
//!
//! A partition without a policy allows whatever its keys' attributes allow. A partition with one refuses
//! every key that no rule names. The vault asks [`read`] for an [`Intent`] and [`Policy::decide`] for a
//! [`Grant`]; nobody else can make one.

mod hours;
mod ledger;
mod rules;

use std::fmt;

use aws_lc_rs::digest;
use strongroom_shared::{
    mechanism::{Mechanism, Params},
    object::ObjectId,
};
use zeroize::Zeroizing;

pub use ledger::Ledger;
pub use rules::{Policy, PolicyError};

use crate::authority::{Act, Grant, Intent};

/// Only this room can make one.
#[derive(Debug)]
pub struct Seal(());

/// Reads what a request means. No decoder claims these bytes yet, so the meaning is the bytes themselves.
pub fn read(act: Act, key: ObjectId, mechanism: Mechanism, params: Params, input: Vec<u8>) -> Intent {
    let hash = digest::digest(&digest::SHA256, &input);
    let mut message_hash = [0; 32];
    for (to, from) in message_hash.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    Intent { act, key, mechanism, params, input: Zeroizing::new(input), message_hash }
}

/// What policy looks at beside the intent.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// `CKA_LABEL` of the key.
    pub label: &'a [u8],
    /// The first of the key's copies: what limits are charged to.
    pub lineage: ObjectId,
    /// Microseconds since 1970: opening hours.
    pub now: u64,
    /// Microseconds that nobody sets: limits.
    pub uptime: u64,
}

/// Policy's yes, and whose limit it was charged to.
#[derive(Debug)]
pub struct Decision {
    /// To be put on record.
    pub grant: Grant,
    /// The key whose limit was charged, if a limit applies.
    pub charged: Option<ObjectId>,
}

/// Policy's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the rule that refused, or `default`.
    pub rule: String,
    /// What it found wrong.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule \"{}\": {}", self.rule, self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Policy {
    /// Decides once more over what was charged before: limits aside.
    ///
    /// # Errors
    /// `Refusal` with the rule's name.
    pub fn decide_again(&self, intent: Intent, about: Circumstances<'_>) -> Result<Decision, Refusal> {
        self.check(&intent, about)?;
        Ok(Decision { grant: Grant::new(intent, Seal(())), charged: None })
    }

    /// Decides, and charges the limits of a signature that is allowed.
    ///
    /// # Errors
    /// `Refusal` with the rule's name; nothing was charged then.
    pub fn decide(
        &self,
        intent: Intent,
        about: Circumstances<'_>,
        ledger: &Ledger,
    ) -> Result<Decision, Refusal> {
        let limit = self.check(&intent, about)?;
        let charged = match (intent.act, limit) {
            (Act::Sign, Some(limit)) => {
                ledger.charge(about.lineage, limit.signatures, about.uptime).map_err(|count| Refusal {
                    rule: limit.rule.to_owned(),
                    reason: format!("{count} signatures within a minute, the limit is {}", limit.signatures),
                })?;
                Some(about.lineage)
            }
            (Act::Sign | Act::Verify | Act::Encrypt | Act::Decrypt, _) => None,
        };
        Ok(Decision { grant: Grant::new(intent, Seal(())), charged })
    }
}
