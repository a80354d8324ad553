//! What a check is, what may come of it, and the table of all of them.
//!
//! # How to add a check
//!
//! Write a row and a function in the file of its chapter under `checks/`:
//!
//! ```text
//! table! {
//!     all sessions low;
//!     "sessions.close-twice" Token close_twice, "5.6.2 C_CloseSession", "a session closes once";
//!     "sessions.leak" User leak, "5.6.2 C_CloseSession", "a closed session shows nothing" => critical token_objects;
//! }
//!
//! fn close_twice(bench: &Bench) -> Verdict {
//!     let session = bench.session()?;
//!     session.close().ok()?;
//!     session.close().is(CKR_SESSION_HANDLE_INVALID)
//! }
//! ```
//!
//! The id says the chapter and what is checked and never changes; the stage is the state that the check finds; the
//! clause is what a vendor will look up; the title is a sentence about a module that does well. Words after `=>`, or
//! after `all` for a whole chapter, are the methods of [`Check`]: a severity (`medium` without one), an effect
//! (`session_objects` in stage `User`, `writes_nothing` before it), a group of abuse cases, `patience(60)`, `alone`.
//! Say the effect truly: `--read-only` and the runner, which makes checks side by side, believe it, and a call beyond it is
//! held back and ends the run (`gate.rs`).
//!
//! Many checks of one kind: `Chapter::Generated(cases)` in the list below, where `cases` makes a [`Check::case`] for each.
//! Data that should be random comes from [`Bench::random`], which `--seed` makes repeatable. Many vectors of one mechanism: one check with [`each`], which names the vectors that fail. Where the standard allows
//! a set of return values, so does the check; what the module need not have is [`Stop::NotOffered`]; what
//! cannot be known without more is [`Stop::Skipped`]. Nothing is left on the token: objects carry `bench::LABEL` and PINs are
//! set back. A new file is named in `checks/mod.rs`, and its table in `CHAPTERS`.
//! A finding on SoftHSM2 is entered, with its reason, in `tests/softhsm.rs`; on it and on other modules in `FINDINGS.md`.

mod verdict;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::bench::{Bench, Stage};
use crate::checks;
use crate::marks::{Effect, Severity, Tag};
pub use verdict::{Outcome, Stop, Verdict, each, ensure};

/// Whether other checks may be made at the same time, by other processes. What writes more than session objects is
/// made alone in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// They may.
    Any,
    /// They may not.
    Alone,
}

/// How a check is made.
pub enum Run {
    /// By a function, for a row of a table.
    Function(fn(&Bench) -> Verdict),
    /// By a closure over a case, for checks that are generated.
    Case(Box<dyn Fn(&Bench) -> Verdict + Send + Sync>),
}

/// A row of the table.
pub struct Check {
    /// Its name for ever, `chapter.what`.
    pub id: Cow<'static, str>,
    /// Section and title of PKCS#11 3.2, or another source.
    pub clause: Cow<'static, str>,
    /// What a module does, in one sentence.
    pub title: Cow<'static, str>,
    /// What it needs to begin with.
    pub stage: Stage,
    /// How bad it is when it fails. A wrong return code where a refusal is right is low, a refusal where success is right
    /// medium at most, a crash or a hang high in any case.
    pub severity: Severity,
    /// What it writes.
    pub effect: Effect,
    /// The group of abuse cases that it belongs to.
    pub tag: Option<Tag>,
    /// How long it may take at least, in seconds, where that is more than `--timeout`.
    pub patience: u64,
    /// Whether others may be made at the same time.
    pub company: Company,
    /// How it is made.
    pub run: Run,
}

impl Check {
    /// A check made by a function; medium, with session objects if it works in a logged-in session.
    pub const fn new(
        id: &'static str,
        stage: Stage,
        run: fn(&Bench) -> Verdict,
        clause: &'static str,
        title: &'static str,
    ) -> Self {
        Self {
            id: Cow::Borrowed(id),
            clause: Cow::Borrowed(clause),
            title: Cow::Borrowed(title),
            stage,
            severity: Severity::Medium,
            effect: usual_effect(stage),
            tag: None,
            patience: 0,
            company: Company::Any,
            run: Run::Function(run),
        }
    }

    /// A check generated from a case, which the closure owns.
    pub fn case(
        id: impl Into<Cow<'static, str>>,
        stage: Stage,
        clause: impl Into<Cow<'static, str>>,
        title: impl Into<Cow<'static, str>>,
        run: impl Fn(&Bench) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            clause: clause.into(),
            title: title.into(),
            stage,
            severity: Severity::Medium,
            effect: usual_effect(stage),
            tag: None,
            patience: 0,
            company: Company::Any,
            run: Run::Case(Box::new(run)),
        }
    }

    /// The chapter that it belongs to: its id up to the dot.
    pub fn group(&self) -> &str {
        self.id.split_once('.').map_or(self.id.as_ref(), |(group, _)| group)
    }

    /// Makes it.
    ///
    /// # Errors
    /// Whatever keeps it from passing.
    pub fn make(&self, bench: &Bench) -> Verdict {
        match &self.run {
            Run::Function(run) => run(bench),
            Run::Case(run) => run(bench),
        }
    }

    /// Makes it while no other check is made, because it measures time or fills the token.
    pub const fn alone(mut self) -> Self {
        self.company = Company::Alone;
        self
    }

    /// Waits this many seconds before it counts as hanging.
    pub const fn patience(mut self, seconds: u64) -> Self {
        self.patience = seconds;
        self
    }
}

const fn usual_effect(stage: Stage) -> Effect {
    match stage {
        Stage::Loaded | Stage::Initialized | Stage::Token | Stage::Public => Effect::Nothing,
        Stage::User => Effect::SessionObjects,
    }
}

macro_rules! markers {
    ($field:ident: $( $mark:ident $value:expr; )*) => {
        #[allow(dead_code, reason = "the whole vocabulary exists, whichever words the tables use")]
        impl Check {
            $( #[doc = concat!("Marks it with `", stringify!($value), "`.")]
            pub const fn $mark(mut self) -> Self {
                self.$field = $value;
                self
            } )*
        }
    };
}

markers! { severity:
    critical Severity::Critical;
    high Severity::High;
    medium Severity::Medium;
    low Severity::Low;
    informational Severity::Informational;
}

markers! { effect:
    writes_nothing Effect::Nothing;
    session_objects Effect::SessionObjects;
    token_objects Effect::TokenObjects;
    pins Effect::Pins;
    lockout Effect::Lockout;
}

markers! { tag:
    key_separation Some(Tag::KeySeparation);
    derivation Some(Tag::Derivation);
    oracles Some(Tag::Oracles);
    randomness Some(Tag::Randomness);
    authentication Some(Tag::Authentication);
    sessions Some(Tag::Sessions);
    operations Some(Tag::Operations);
    arguments Some(Tag::Arguments);
    network Some(Tag::Network);
}

/// The table of a chapter: marks of all rows, then `id stage function, clause, title => marks of this row;`.
macro_rules! table {
    (
        $( all $( $common:ident )+; )?
        $(
            $id:literal $stage:ident $run:expr, $clause:literal, $title:literal
            $( => $( $mark:ident $( ( $value:expr ) )? )+ )?;
        )*
    ) => {
        /// The checks of this chapter.
        pub const CHECKS: &[$crate::check::Check] = $crate::check::table!(
            @rows [ $( $( $common )+ )? ]
            $( [ $id, $stage, $run, $clause, $title, [ $( $( $mark $( ( $value ) )? )+ )? ] ] )*
        );
    };
    (@rows $common:tt $( $row:tt )*) => { &[ $( $crate::check::table!(@row $common $row), )* ] };
    (
        @row [ $( $common:ident )* ]
        [ $id:literal, $stage:ident, $run:expr, $clause:literal, $title:literal,
            [ $( $mark:ident $( ( $value:expr ) )? )* ] ]
    ) => {
        $crate::check::Check::new($id, $crate::bench::Stage::$stage, $run, $clause, $title)
            $( .$common() )* $( .$mark($( $value )?) )*
    };
}
pub(crate) use table;

/// Where the checks of a chapter come from.
pub enum Chapter {
    /// A table.
    Table(&'static [Check]),
    /// A function that makes them, called once.
    Generated(fn() -> Vec<Check>),
}
use Chapter::{Generated, Table};

/// Every check, chapter by chapter.
const CHAPTERS: &[Chapter] = &[
    Table(checks::general::CHECKS),
    Table(checks::slots::CHECKS),
    Table(checks::sessions::CHECKS),
    Table(checks::saved_states::CHECKS),
    Table(checks::login::CHECKS),
    Table(checks::pins::CHECKS),
    Table(checks::objects::CHECKS),
    Table(checks::lifetimes::CHECKS),
    Table(checks::find::CHECKS),
    Table(checks::attributes::CHECKS),
    Table(checks::keys::CHECKS),
    Table(checks::operations::ENCRYPT),
    Table(checks::operations::DECRYPT),
    Table(checks::ciphers::CHECKS),
    Table(checks::rsa_ciphers::CHECKS),
    Table(checks::forgeries::CHECKS),
    Table(checks::messages::CHECKS),
    Table(checks::operations::SIGN),
    Table(checks::operations::VERIFY),
    Table(checks::verify_signature::CHECKS),
    Table(checks::signatures::ECDSA),
    Table(checks::signatures::ECDSA_SHA256),
    Table(checks::signatures::EDDSA),
    Table(checks::signatures::RSA_PKCS),
    Table(checks::signatures::SHA256_RSA_PKCS),
    Table(checks::signatures::PSS),
    Table(checks::signatures::HMAC),
    Table(checks::signatures::CHECKS),
    Table(checks::operations::DIGEST),
    Table(checks::digest::CHECKS),
    Table(checks::random::CHECKS),
    Table(checks::statistics::CHECKS),
    Table(checks::wrapping::CHECKS),
    Table(checks::faulty_keys::CHECKS),
    Table(checks::wrap_parameters::CHECKS),
    Table(checks::derivation::CHECKS),
    Table(checks::counter_kdf::CHECKS),
    Table(checks::encapsulation::CHECKS),
    Table(checks::edwards::CHECKS),
    Table(checks::stateful::CHECKS),
    Table(checks::paths::CHECKS),
    Table(checks::fork::CHECKS),
    Generated(checks::mechanisms::checks),
    Generated(checks::vectors::checks),
    Generated(checks::interop::checks),
    Generated(checks::nulls::checks),
    Table(checks::lengths::CHECKS),
    Table(checks::threads::CHECKS),
    Table(checks::client::CHECKS),
    Generated(checks::network::checks),
    Table(checks::network::wire::CHECKS),
    Table(checks::network::restart::CHECKS),
    Table(checks::network::certificates::CHECKS),
    Generated(checks::functions::checks),
    Generated(checks::conditions::checks),
    Generated(checks::profiles::checks),
    Table(checks::slots::last::CHECKS),
    Generated(checks::nulls::last),
];

static GENERATED: LazyLock<Vec<Vec<Check>>> = LazyLock::new(|| {
    let generated = CHAPTERS.iter().filter_map(|chapter| match chapter {
        Table(_) => None,
        Generated(make) => Some(make()),
    });
    generated.collect()
});

static BY_ID: LazyLock<HashMap<&'static str, &'static Check>> =
    LazyLock::new(|| all().map(|check| (check.id.as_ref(), check)).collect());

/// Every check, in the order in which they are made.
pub fn all() -> impl Iterator<Item = &'static Check> {
    let mut generated = GENERATED.iter();
    let next = move |chapter: &'static Chapter| match chapter {
        Table(checks) => *checks,
        Generated(_) => generated.next().map(Vec::as_slice).unwrap_or_default(),
    };
    CHAPTERS.iter().flat_map(next)
}

/// The check of this name.
pub fn by_id(id: &str) -> Option<&'static Check> {
    BY_ID.get(id).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_rows_complete() {
        let mut seen = BTreeSet::new();
        for check in all() {
            assert!(seen.insert(check.id.as_ref()), "{} stands twice in the table", check.id);
            assert!(check.id.contains('.') && !check.clause.is_empty() && !check.title.is_empty());
            assert!(by_id(&check.id).is_some_and(|found| std::ptr::eq(found, check)));
        }
        assert!(seen.len() >= 120, "only {} checks", seen.len());
    }
}
