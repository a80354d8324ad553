//! What a check is, what may come of it, and the table of all of them.

use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Stage};
use crate::checks;

/// What a check comes to, with `?` for the first thing that is not as it should be.
pub type Verdict = Result<(), Stop>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The module does not do what the clause says.
    Fail {
        /// What the clause asks for.
        expected: String,
        /// What the module did.
        seen: String,
    },
    /// The check could not be made.
    Skipped(String),
    /// The module does not have what the check is about, and need not.
    NotOffered,
}

impl Stop {
    /// A failure.
    pub fn fail(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Fail { expected: expected.into(), seen: seen.into() }
    }
}

/// # Errors
/// A failure, unless this holds.
pub fn ensure(holds: bool, expected: impl Into<String>, seen: impl Into<String>) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::fail(expected, seen)) }
}

/// A check's result, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The module does what the clause says.
    Pass,
    /// It does not.
    Fail {
        /// What the clause asks for.
        expected: String,
        /// What the module did.
        seen: String,
    },
    /// The check could not be made.
    Skipped {
        /// Why.
        why: String,
    },
    /// The module does not have what the check is about, and need not.
    NotOffered,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Pass,
            Err(Stop::Fail { expected, seen }) => Self::Fail { expected, seen },
            Err(Stop::Skipped(why)) => Self::Skipped { why },
            Err(Stop::NotOffered) => Self::NotOffered,
        }
    }
}

/// A row of the table.
pub struct Check {
    /// Its name for ever, `group.what`.
    pub id: &'static str,
    /// Section and title of PKCS#11 3.1, or another source.
    pub clause: &'static str,
    /// What a module does, in one sentence.
    pub title: &'static str,
    /// What it needs to begin with.
    pub stage: Stage,
    /// How it is made.
    pub run: fn(&Bench) -> Verdict,
}

impl Check {
    /// The chapter that it belongs to: its id up to the dot.
    pub fn group(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(group, _)| group)
    }
}

/// The table of a chapter: `id stage function, clause, title;`.
macro_rules! table {
    ($( $id:literal $stage:ident $run:expr, $clause:literal, $title:literal; )*) => {
        /// The checks of this chapter.
        pub const CHECKS: &[$crate::check::Check] = &[ $( $crate::check::Check {
            id: $id,
            clause: $clause,
            title: $title,
            stage: $crate::bench::Stage::$stage,
            run: $run,
        }, )* ];
    };
}
pub(crate) use table;

/// Every check, chapter by chapter.
pub const CHECKS: &[&[Check]] = &[
    checks::general::CHECKS,
    checks::slots::CHECKS,
    checks::sessions::CHECKS,
    checks::login::CHECKS,
    checks::objects::CHECKS,
    checks::find::CHECKS,
    checks::attributes::CHECKS,
    checks::keys::CHECKS,
    checks::operations::ENCRYPT,
    checks::operations::DECRYPT,
    checks::ciphers::CHECKS,
    checks::forgeries::CHECKS,
    checks::operations::SIGN,
    checks::operations::VERIFY,
    checks::signatures::ECDSA,
    checks::signatures::ECDSA_SHA256,
    checks::signatures::EDDSA,
    checks::signatures::RSA_PKCS,
    checks::signatures::SHA256_RSA_PKCS,
    checks::signatures::PSS,
    checks::signatures::HMAC,
    checks::signatures::CHECKS,
    checks::operations::DIGEST,
    checks::digest::CHECKS,
    checks::random::CHECKS,
    checks::statistics::CHECKS,
    checks::fork::CHECKS,
    checks::nulls::CHECKS,
    checks::lengths::CHECKS,
    checks::threads::CHECKS,
    checks::client::CHECKS,
];

/// Every check, in the order in which they are made.
pub fn all() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_rows_complete() {
        let mut seen = BTreeSet::new();
        for check in all() {
            assert!(seen.insert(check.id), "{} stands twice in the table", check.id);
            assert!(check.id.contains('.') && !check.clause.is_empty() && !check.title.is_empty());
        }
        assert!(seen.len() >= 120, "only {} checks", seen.len());
    }
}
