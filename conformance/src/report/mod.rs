//! What a run found, as one document that every report is written from, and that `compare` reads again.

pub mod calls;
mod causes;
pub mod html;
pub mod junit;
mod markup;
mod matrices;
mod performance;
pub mod sarif;
pub mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::Outcome;
use crate::coverage::{self, FunctionRow, MechanismRow};
use crate::files;
use crate::manifest::{Manifest, rounded_up};
use crate::marks::{Effect, Severity, Tag};
use crate::observations::Observation;
use crate::performance::Figure;
use crate::profiles::{Judgement, PROFILES};
use crate::reproducer::{self, Story};
use crate::runner::{Report, Results};
use crate::survey::Survey;
use crate::trace::Trace;

/// The format of the document: its version changes when a reader of the old one would go wrong.
pub const FORMAT: &str = "p11-conformance-report/3";

/// Bytes of a document that is read again: a full one has a few dozen MiB at most.
const LONGEST_REPORT: u64 = 256 << 20;

/// A number of things, by their name in the singular.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A document, whose form `report.schema.json` describes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// The version of the suite.
    pub suite: String,
    /// What was checked, when, and with which options.
    pub manifest: Manifest,
    /// What the module says of itself.
    pub survey: Survey,
    /// Why the run ended before all checks were made, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// What a reader has to know of the run beside its findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the options left out of what was chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How many checks came to what.
    pub tally: Tally,
    /// Every check that was made.
    pub checks: Vec<Row>,
    /// Every function and its return values.
    pub functions: Vec<FunctionRow>,
    /// Every mechanism and its uses.
    pub mechanisms: Vec<MechanismRow>,
    /// Every profile.
    pub profiles: Vec<Judgement>,
    /// What was measured beside the checks, and decides nothing.
    pub observations: Vec<Observation>,
    /// How fast the module is, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance: Vec<Figure>,
}

/// Checks that an option keeps from being made, or that need one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub why: String,
    /// How many.
    pub checks: usize,
}

/// A check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// Its chapter.
    pub group: String,
    /// Its group of abuse cases.
    pub tag: Option<Tag>,
    /// The clause.
    pub clause: String,
    /// What a module does.
    pub title: String,
    /// What it writes.
    pub effect: Effect,
    /// How long it took, rounded up.
    pub milliseconds: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Why its failure is no finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<String>,
    /// Its calls, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// A C program that makes these calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproducer: Option<String>,
}

impl Row {
    /// A check that was made, told of a module whose token is in this slot.
    pub fn of(report: &Report, slot: u64) -> Self {
        let Report { check, outcome, time, trace } = report;
        let program = |trace: &Trace| {
            let Outcome::Fail { expected, seen, .. } = outcome else { return None };
            let story = Story {
                heading: [&check.id, &check.clause, &check.title],
                expected_and_seen: [expected, seen],
                stage: check.stage,
                slot,
            };
            reproducer::program(&story, trace)
        };
        Self {
            id: check.id.to_string(),
            group: check.group().to_owned(),
            tag: check.tag,
            clause: check.clause.to_string(),
            title: check.title.to_string(),
            effect: check.effect,
            milliseconds: rounded_up(*time, Duration::from_millis(1)),
            outcome: outcome.clone(),
            waived: None,
            reproducer: trace.as_ref().and_then(program),
            trace: trace.clone(),
        }
    }

    /// Whether it failed and is not waived.
    pub fn is_finding(&self) -> bool {
        matches!(self.outcome, Outcome::Fail { .. }) && self.waived.is_none()
    }

    /// How bad its failure is.
    pub fn severity(&self) -> Option<Severity> {
        match &self.outcome {
            Outcome::Fail { severity, .. } => Some(*severity),
            Outcome::Pass | Outcome::Skipped { .. } | Outcome::NotOffered => None,
        }
    }
}

/// How many checks came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Failed, and waived.
    pub waived: usize,
    /// Not made.
    pub not_made: usize,
    /// About something that the module does not have.
    pub not_offered: usize,
}

impl Tally {
    /// Counts.
    pub fn of(rows: &[Row]) -> Self {
        let mut tally = Self::default();
        for row in rows {
            match (&row.outcome, &row.waived) {
                (Outcome::Pass, _) => tally.passed += 1,
                (Outcome::Fail { .. }, None) => tally.failed += 1,
                (Outcome::Fail { .. }, Some(_)) => tally.waived += 1,
                (Outcome::Skipped { .. }, _) => tally.not_made += 1,
                (Outcome::NotOffered, _) => tally.not_offered += 1,
            }
        }
        tally
    }
}

impl Document {
    /// The document of a run.
    pub fn new(manifest: Manifest, survey: Survey, results: &Results, checks: Vec<Row>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            suite: env!("CARGO_PKG_VERSION").to_owned(),
            manifest,
            incomplete: results.incomplete.clone(),
            notes: Vec::new(),
            left_out: Vec::new(),
            tally: Tally::of(&checks),
            functions: coverage::functions(&survey, &results.answers),
            mechanisms: coverage::mechanisms(&survey, &results.answers),
            profiles: PROFILES.iter().map(|profile| profile.judge(&checks)).collect(),
            survey,
            checks,
            observations: results.observations.clone(),
            performance: Vec::new(),
        }
    }

    /// The verdict in a few words.
    pub const fn verdict(&self) -> &'static str {
        match (self.tally.failed, self.tally.passed + self.tally.waived) {
            _ if self.incomplete.is_some() => "incomplete",
            (0, 0) => "nothing was checked",
            (0, _) => "no findings",
            (_, _) => "findings",
        }
    }

    /// The verdict as a person reads it: with how many findings there are.
    pub fn headline(&self) -> String {
        match (self.tally.failed, &self.incomplete) {
            (count @ 1.., None) => counted(count, "finding"),
            (_, _) => self.verdict().to_owned(),
        }
    }

    /// Its JSON.
    ///
    /// # Errors
    /// None that a document of this program meets.
    pub fn json(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(self).map_err(|error| error.to_string())
    }

    /// The document of an earlier run.
    ///
    /// # Errors
    /// A sentence, when the file cannot be read, or is none or of another format.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = files::read(file, LONGEST_REPORT)?;
        let document: Self = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: no report of this program: {error}", file.display()))?;
        match document.format.as_str() {
            FORMAT => Ok(document),
            other => Err(format!("{}: a report of format {other:?}, not {FORMAT:?}", file.display())),
        }
    }

    /// The findings, the gravest first.
    pub fn findings(&self) -> Vec<&Row> {
        let mut findings: Vec<&Row> = self.checks.iter().filter(|row| row.is_finding()).collect();
        findings.sort_by_key(|row| std::cmp::Reverse(row.severity()));
        findings
    }

    /// How many findings are as bad as each severity, the gravest first.
    pub fn by_severity(&self) -> Vec<(Severity, usize)> {
        let count = |severity: &Severity| {
            let findings = self.checks.iter().filter(|row| row.is_finding());
            (*severity, findings.filter(|row| row.severity() == Some(*severity)).count())
        };
        Severity::ALL.iter().rev().map(count).collect()
    }

    /// Why checks were not made, and how many for each reason, in the order in which the reasons came up.
    pub fn not_made(&self) -> Vec<(&str, usize)> {
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for row in &self.checks {
            let Outcome::Skipped { why } = &row.outcome else { continue };
            match reasons.iter_mut().find(|(known, _)| known == why) {
                Some((_, count)) => *count += 1,
                None => reasons.push((why, 1)),
            }
        }
        reasons
    }

    /// The mechanisms that some check used with success.
    pub fn working_mechanisms(&self) -> usize {
        let works = |row: &&MechanismRow| row.uses.iter().any(|each| each.state == coverage::UseState::Works);
        self.mechanisms.iter().filter(works).count()
    }

    /// Return values that are listed for offered functions, and how many of them were seen.
    pub fn codes_seen(&self) -> (usize, usize) {
        let codes = || self.functions.iter().filter(|row| row.offered).flat_map(|row| &row.codes);
        let seen = codes().filter(|code| code.state == coverage::State::Seen).count();
        (seen, codes().filter(|code| code.state != coverage::State::Unlisted).count())
    }

    /// The chapters, in their order.
    pub fn chapters(&self) -> Vec<&str> {
        let mut known = BTreeSet::new();
        self.checks.iter().map(|row| row.group.as_str()).filter(|group| known.insert(*group)).collect()
    }
}
