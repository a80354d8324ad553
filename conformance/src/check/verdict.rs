//! What comes of a check: why it did not pass, and how bad that is.

use serde::{Deserialize, Serialize};

use crate::marks::Severity;
use crate::secrets::Secrets;

use super::Check;

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
        /// How bad that is.
        grade: Grade,
    },
    /// The check could not be made.
    Skipped(String),
    /// The module does not have what the check is about, and need not.
    NotOffered,
}

/// How bad a failure is, beside what its check is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As bad as the mark.
    AsMarked,
    /// As bad as the mark, and no worse than this.
    AtMost(Severity),
    /// As bad as this.
    Exactly(Severity),
}

impl Grade {
    /// For a check that is marked with this.
    pub fn of(self, marked: Severity) -> Severity {
        match self {
            Self::AsMarked => marked,
            Self::AtMost(most) => marked.min(most),
            Self::Exactly(severity) => severity,
        }
    }
}

impl Stop {
    /// A failure.
    pub fn fail(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Fail { expected: expected.into(), seen: seen.into(), grade: Grade::AsMarked }
    }

    /// A failure that is as bad as this, whatever its check is marked with.
    pub fn graded(severity: Severity, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Fail { expected: expected.into(), seen: seen.into(), grade: Grade::Exactly(severity) }
    }

    /// The same, and as bad as this if it is a failure.
    pub fn regraded(self, severity: Severity) -> Self {
        match self {
            Self::Fail { expected, seen, .. } => Self::graded(severity, expected, seen),
            Self::Skipped(_) | Self::NotOffered => self,
        }
    }

    /// A failure that is no worse than this, whatever its check is marked with.
    pub fn at_most(severity: Severity, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Fail { expected: expected.into(), seen: seen.into(), grade: Grade::AtMost(severity) }
    }
}

/// # Errors
/// A failure, unless this holds.
pub fn ensure(holds: bool, expected: impl Into<String>, seen: impl Into<String>) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::fail(expected, seen)) }
}

/// How many failing cases of one check are told.
const TOLD: usize = 8;

/// Makes one check of many cases, such as test vectors, and tells which of them fail.
///
/// # Errors
/// A failure that names the cases, as grave as the gravest of them; else the first `Skipped`; else `NotOffered` if no
/// case is offered.
pub fn each<C>(
    cases: impl IntoIterator<Item = C>,
    name: impl Fn(&C) -> String,
    mut run: impl FnMut(&C) -> Verdict,
) -> Verdict {
    let (mut made, mut failed, mut skipped) = (0_usize, Vec::new(), None);
    for case in cases {
        match run(&case) {
            Ok(()) => made += 1,
            Err(Stop::Fail { expected, seen, grade }) => failed.push((name(&case), expected, seen, grade)),
            Err(Stop::Skipped(why)) => skipped = skipped.or(Some(why)),
            Err(Stop::NotOffered) => {}
        }
    }
    if failed.is_empty() {
        return match (skipped, made) {
            (Some(why), _) => Err(Stop::Skipped(why)),
            (None, 0) => Err(Stop::NotOffered),
            (None, _) => Ok(()),
        };
    }
    let mut told: Vec<String> = failed
        .iter()
        .take(TOLD)
        .map(|(name, expected, seen, _)| {
            // What was seen may begin with the function that the case is called by.
            let seen = seen.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(seen);
            format!("{name}: {seen}, not {expected}")
        })
        .collect();
    if failed.len() > TOLD {
        told.push(format!("and {} more", failed.len() - TOLD));
    }
    let grade = failed.iter().map(|(.., grade)| *grade).max_by_key(|grade| grade.of(Severity::High));
    let grade = grade.unwrap_or(Grade::AsMarked);
    let expected = format!("what the clause says, in each case that was tried ({})", made + failed.len());
    Err(Stop::Fail { expected, seen: format!("not in {} of them: {}", failed.len(), told.join("; ")), grade })
}

/// A check's result, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The module does what the clause says.
    Pass,
    /// It does not.
    Fail {
        /// How bad that is.
        severity: Severity,
        /// What the clause asks for.
        expected: String,
        /// What the module did.
        seen: String,
    },
    /// The check could not be made.
    #[serde(rename = "not-made")]
    Skipped {
        /// Why.
        why: String,
    },
    /// The module does not have what the check is about, and need not.
    NotOffered,
}

impl Outcome {
    /// The result of a check.
    pub fn of(check: &Check, verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Pass,
            Err(Stop::Fail { expected, seen, grade }) => {
                Self::Fail { severity: grade.of(check.severity), expected, seen }
            }
            Err(Stop::Skipped(why)) => Self::Skipped { why },
            Err(Stop::NotOffered) => Self::NotOffered,
        }
    }

    /// The same without PINs that the module put into what was seen.
    pub fn hiding(self, secrets: &Secrets) -> Self {
        match self {
            Self::Fail { severity, expected, seen } => {
                Self::Fail { severity, expected: secrets.hidden(expected), seen: secrets.hidden(seen) }
            }
            Self::Skipped { why } => Self::Skipped { why: secrets.hidden(why) },
            Self::Pass | Self::NotOffered => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_that_fail_are_named() {
        let odd = |case: &u32| match case {
            case if case % 2 == 1 => Err(Stop::graded(Severity::Low, "even", "odd")),
            _ => Ok(()),
        };
        let found = each(0..40, |case| format!("tcId {case}"), odd);
        let named = |seen: &str| {
            seen.starts_with("not in 20 of them: tcId 1: odd, not even; tcId 3")
                && seen.ends_with("and 12 more")
        };
        let is_right = matches!(&found, Err(Stop::Fail { seen, grade: Grade::Exactly(Severity::Low), .. }) if named(seen));
        assert!(is_right, "{found:?}");
        let refused = |_: &u32| Err(Stop::fail("a refusal", "C_SignInit: CKR_OK"));
        let found = each([1_u32], |_| "C_SignInit".to_owned(), refused);
        assert!(
            matches!(&found, Err(Stop::Fail { seen, .. }) if seen == "not in 1 of them: C_SignInit: CKR_OK, not a refusal")
        );
        assert_eq!(each([0, 2], |_| String::new(), odd), Ok(()));
        assert_eq!(each([1], |_| String::new(), |_| Err(Stop::NotOffered)), Err(Stop::NotOffered));
    }
}
