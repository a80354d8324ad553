//! A partition's `policy.toml`: its text, its rules, and what they say of an intent.
//!
//! ```toml
//! default = "refuse"                      # for keys that no rule names; "allow" is the other choice
//!
//! [[rule]]
//! name = "desk"                           # stands in refusals and audit records
//! keys = ["desk-*"]                       # by CKA_LABEL; `*` is any text; every rule says which
//! mechanisms = ["CKM_EDDSA"]              # which mechanisms; all if absent
//! signatures_per_minute = 600             # per key, its copies included
//! hours = { days = ["Mon", "Tue"], from = "08:00", to = "17:30", utc_offset = "+01:00" }
//! ```
//! Every rule that names a key must allow its use.

use std::fmt;

use serde::Deserialize;
use strongroom_shared::mechanism::Mechanism;

use super::{Circumstances, Refusal, hours::Hours};
use crate::authority::Intent;

/// The rules of a partition.
#[derive(Clone, Debug)]
pub struct Policy {
    default: Default,
    rules: Vec<Rule>,
}

/// What happens to keys that no rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Default {
    Allow,
    Refuse,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    keys: Vec<String>,
    mechanisms: Option<Vec<Mechanism>>,
    signatures_per_minute: Option<u32>,
    hours: Option<Hours>,
}

/// The text's own shape.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    default: Option<Default>,
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    keys: Vec<String>,
    mechanisms: Option<Vec<String>>,
    signatures_per_minute: Option<u32>,
    hours: Option<Hours>,
}

/// Why a text is not a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(String);

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

/// The tightest limit that applies to a use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit<'a> {
    pub rule: &'a str,
    pub signatures: u32,
}

impl Policy {
    /// The policy of a partition that has none: keys' attributes alone decide.
    pub const fn open() -> Self {
        Self { default: Default::Allow, rules: Vec::new() }
    }

    /// Reads a policy's text. An empty text is no policy.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.trim().is_empty() {
            return Ok(Self::open());
        }
        let text: Text = toml::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        let rules = text.rule.into_iter().map(Rule::read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { default: text.default.unwrap_or(Default::Refuse), rules })
    }

    /// What the rules say of a use, limits aside; the tightest limit that is to be charged for it.
    pub(super) fn check(
        &self,
        intent: &Intent,
        about: Circumstances<'_>,
    ) -> Result<Option<Limit<'_>>, Refusal> {
        let mut named = false;
        let mut limit: Option<Limit<'_>> = None;
        for rule in self.rules.iter().filter(|rule| rule.names(about.label)) {
            named = true;
            rule.check(intent, about.now)?;
            if let Some(signatures) = rule.signatures_per_minute
                && limit.is_none_or(|tightest| signatures < tightest.signatures)
            {
                limit = Some(Limit { rule: &rule.name, signatures });
            }
        }
        match (named, self.default) {
            (true, _) | (false, Default::Allow) => Ok(limit),
            (false, Default::Refuse) => Err(Refusal {
                rule: "default".into(),
                reason: format!("no rule names the key's label \"{}\"", String::from_utf8_lossy(about.label)),
            }),
        }
    }

    /// Whether the same rules govern both labels. A key must not walk away from its rules by a new name.
    pub fn governs_alike(&self, one: &[u8], other: &[u8]) -> bool {
        self.rules.iter().all(|rule| rule.names(one) == rule.names(other))
    }
}

impl Rule {
    fn read(text: RuleText) -> Result<Self, PolicyError> {
        let wrong = |what: String| PolicyError(format!("rule \"{}\": {what}", text.name));
        if text.name.is_empty() || text.name == "default" {
            return Err(wrong("a rule needs a name of its own".into()));
        }
        let mechanisms = text.mechanisms.map(|names| {
            let mechanism = |name: &String| {
                Mechanism::from_name(name).ok_or_else(|| wrong(format!("unknown mechanism \"{name}\"")))
            };
            names.iter().map(mechanism).collect::<Result<Vec<_>, _>>()
        });
        if text.hours.as_ref().is_some_and(|hours| !hours.are_some()) {
            return Err(wrong("its hours end where they begin; write 00:00 to 24:00 for a whole day".into()));
        }
        Ok(Self {
            mechanisms: mechanisms.transpose()?,
            keys: text.keys,
            name: text.name,
            signatures_per_minute: text.signatures_per_minute,
            hours: text.hours,
        })
    }

    fn names(&self, label: &[u8]) -> bool {
        self.keys.iter().any(|pattern| matches(pattern.as_bytes(), label))
    }

    fn check(&self, intent: &Intent, now: u64) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal { rule: self.name.clone(), reason });
        if self.mechanisms.as_ref().is_some_and(|allowed| !allowed.contains(&intent.mechanism)) {
            return refuse(format!("{} is not among its mechanisms", intent.mechanism.row().name));
        }
        if let Some(hours) = self.hours.as_ref().filter(|hours| !hours.contain(now)) {
            return refuse(format!("outside its hours, {hours}"));
        }
        Ok(())
    }
}

/// Whether a label fits a pattern in which `*` is any text. Linear in pattern × label at worst.
fn matches(pattern: &[u8], label: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| label.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let found = if part.is_empty() {
            Some(0)
        } else {
            rest.windows(part.len()).position(|window| window == part)
        };
        let Some(at) = found else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use strongroom_shared::{mechanism::Params, object::ObjectId};

    use super::*;
    use crate::{
        authority::Act,
        policy::{Ledger, read},
    };

    const KEY: ObjectId = ObjectId([7; 16]);

    fn decide(
        policy: &str,
        ledger: &Ledger,
        label: &str,
        mechanism: Mechanism,
        now: u64,
    ) -> Result<bool, Refusal> {
        let intent = read(Act::Sign, KEY, mechanism, Params::None, b"message".to_vec());
        let about = Circumstances { label: label.as_bytes(), lineage: KEY, now, uptime: now };
        Policy::parse(policy)
            .unwrap()
            .decide(intent, about, ledger)
            .map(|decision| decision.charged.is_some())
    }

    #[test]
    fn patterns() {
        for (pattern, label, fits) in [
            ("*", "", true),
            ("desk", "desk", true),
            ("desk", "desk1", false),
            ("desk-*", "desk-1", true),
            ("desk-*", "des", false),
            ("*-hot", "eth-hot", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), label.as_bytes()), fits, "{pattern} {label}");
        }
    }

    #[test]
    fn without_a_policy_everything_is_allowed_and_with_one_only_what_it_names() {
        let ledger = Ledger::default();
        assert_eq!(decide("", &ledger, "x", Mechanism::Ecdsa, 0), Ok(false));
        let policy = "[[rule]]\nname = \"desk\"\nkeys = [\"desk-*\"]\nmechanisms = [\"CKM_EDDSA\"]";
        assert_eq!(decide(policy, &ledger, "desk-1", Mechanism::Eddsa, 0), Ok(false));
        assert_eq!(decide(policy, &ledger, "desk-1", Mechanism::Ecdsa, 0).unwrap_err().rule, "desk");
        assert_eq!(decide(policy, &ledger, "cold", Mechanism::Eddsa, 0).unwrap_err().rule, "default");
    }

    #[test]
    fn the_tightest_limit_counts() {
        let ledger = Ledger::default();
        let policy = "[[rule]]\nname = \"wide\"\nkeys = [\"*\"]\nsignatures_per_minute = 5\n\
                      [[rule]]\nname = \"tight\"\nkeys = [\"*\"]\nsignatures_per_minute = 2";
        assert_eq!(decide(policy, &ledger, "x", Mechanism::Ecdsa, 0), Ok(true));
        assert_eq!(decide(policy, &ledger, "x", Mechanism::Ecdsa, 0), Ok(true));
        assert_eq!(decide(policy, &ledger, "x", Mechanism::Ecdsa, 0).unwrap_err().rule, "tight");
    }

    #[test]
    fn a_wrong_text_says_where() {
        assert!(
            Policy::parse("[[rule]]\nname = \"a\"\nkeys = [\"*\"]\nmechanisms = [\"CKM_NONE\"]")
                .unwrap_err()
                .0
                .contains("CKM_NONE")
        );
        assert!(
            Policy::parse("[[rule]]\nname = \"a\"\nkeys = [\"*\"]\nlimit = 3")
                .unwrap_err()
                .0
                .contains("limit")
        );
        assert!(Policy::parse("[[rule]]\nname = \"\"\nkeys = [\"*\"]").is_err());
        assert!(Policy::parse("[[rule]]\nname = \"a\"").unwrap_err().0.contains("keys"));
        let empty = "[[rule]]\nname = \"a\"\nkeys = [\"*\"]\nhours = { from = \"08:00\", to = \"08:00\" }";
        assert!(Policy::parse(empty).unwrap_err().0.contains("hours"));
    }

    #[test]
    fn a_new_label_must_not_change_the_rules() {
        let policy = Policy::parse("[[rule]]\nname = \"desk\"\nkeys = [\"desk-*\"]").unwrap();
        assert!(policy.governs_alike(b"desk-1", b"desk-2"));
        assert!(!policy.governs_alike(b"desk-1", b"free"));
    }
}
