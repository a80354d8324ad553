//! What a run has found so far, and what it comes to in the end.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::bench::Swept;
use crate::check::{Check, Outcome, by_id};
use crate::checks::general::CLEAN_END;
use crate::observations::Observation;
use crate::progress::Progress;
use crate::runner::BadEnd;
use crate::runner::child::Line;
use crate::runner::errands::Unclear;
use crate::trace::{Answer, Trace};
use crate::tries;

/// A check and its result.
pub struct Report {
    /// The check.
    pub check: &'static Check,
    /// Its result.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
    /// Its calls, if it failed.
    pub trace: Option<Trace>,
}

/// All results.
pub struct Results {
    /// In the order of the checks.
    pub reports: Vec<Report>,
    /// What functions answered.
    pub answers: BTreeSet<Answer>,
    /// What was measured beside the checks.
    pub observations: Vec<Observation>,
    /// Why the run ended before all checks were made, if it did.
    pub incomplete: Option<String>,
    /// Why it is not known whether the token is clear, if it is not and the run is complete.
    pub unclear: Option<String>,
}

impl Results {
    /// Of a run that ended before its first check, with what was answered until then.
    pub const fn of_none(why: String, answers: BTreeSet<Answer>) -> Self {
        Self { reports: Vec::new(), answers, observations: Vec::new(), incomplete: Some(why), unclear: None }
    }
}

/// What is found so far.
pub struct Findings {
    reports: Vec<Report>,
    answers: BTreeSet<Answer>,
    observations: Vec<Observation>,
    progress: Progress,
}

impl Findings {
    /// Nothing yet, of so many checks.
    pub fn of(checks: usize) -> Self {
        Self {
            reports: Vec::with_capacity(checks),
            answers: BTreeSet::new(),
            observations: Vec::new(),
            progress: Progress::new(checks),
        }
    }

    /// Adds a result, unless it is that the end was clean where an end was not.
    pub fn note(&mut self, check: &'static Check, line: Line, time: Duration) {
        self.answers.extend(line.answers);
        self.observations.extend(line.observations);
        self.progress.step(&line.outcome, check);
        if check.id != CLEAN_END || self.reports.iter().all(|report| report.check.id != CLEAN_END) {
            self.reports.push(Report { check, outcome: line.outcome, time, trace: line.trace });
        }
    }

    /// A process died or hung after its last check, or where it looked or cleared the token: that is the failure of a check of its own, once in a run.
    ///
    /// # Errors
    /// A sentence, if there is no such check.
    pub fn note_end(&mut self, end: BadEnd) -> Result<(), String> {
        let BadEnd { outcome, trace } = end;
        let check = by_id(CLEAN_END).ok_or("there is no check of the end")?;
        let is_known = |report: &Report| report.check.id == check.id;
        if !self.reports.iter().any(|report| is_known(report) && report.is_failure()) {
            self.reports.retain(|report| !is_known(report));
            self.reports.push(Report { check, outcome, time: Duration::ZERO, trace: Some(trace) });
        }
        Ok(())
    }

    /// What it comes to, in the order of the checks: why it ended early, if it did, and whether the token is clear.
    pub fn results(
        self,
        checks: &[&'static Check],
        ended: Option<String>,
        swept: Result<Swept, Unclear>,
    ) -> Results {
        self.progress.clear();
        let so_far =
            ended.map(|why| format!("{why}; {} of {} checks were made", self.reports.len(), checks.len()));
        // A token that refuses a login in the middle of a run hides what the checks behind it would have found.
        let early = so_far.or_else(|| no_login(&self.reports));
        // What is left, and a process that could not clear, make a run incomplete; what else may be left is told.
        let (left, unclear) = match swept {
            Ok(Swept { left, .. }) if left.is_empty() => (None, None),
            Ok(Swept { left, .. }) => (Some(told_left(&left)), None),
            Err(Unclear::Failed(why)) => (Some(why), None),
            Err(Unclear::Refused(why)) if early.is_some() => (Some(why), None),
            Err(Unclear::Refused(why)) => (None, Some(why)),
        };
        let why: Vec<String> = early.into_iter().chain(left).collect();
        let incomplete = (!why.is_empty()).then(|| why.join("; "));
        let order: HashMap<&str, usize> =
            checks.iter().enumerate().map(|(place, check)| (check.id.as_ref(), place)).collect();
        let mut reports = self.reports;
        reports.sort_by_key(|report| order.get(report.check.id.as_ref()).copied());
        let mut observations = self.observations;
        observations.sort_by_key(|observation| order.get(observation.check.as_str()).copied());
        Results { reports, answers: self.answers, observations, incomplete, unclear }
    }
}

/// What was destroyed, and is found again.
fn told_left(left: &[String]) -> String {
    let objects = if left.len() == 1 { "object is" } else { "objects are" };
    format!(
        "{} {objects} left on the token, which C_DestroyObject does not take away: {}",
        left.len(),
        left.join(", ")
    )
}

/// Whether checks were not made because somebody, whose PIN was taken before, could not be logged in.
fn no_login(reports: &[Report]) -> Option<String> {
    let whys: Vec<&str> = reports
        .iter()
        .filter_map(|report| match &report.outcome {
            Outcome::Skipped { why } => Some(why.as_str()),
            Outcome::Pass | Outcome::Fail { .. } | Outcome::NotOffered => None,
        })
        .filter(|why| why.starts_with("C_Login: ") || why.ends_with(tries::REFUSED))
        .collect();
    let why = whys.first()?;
    Some(format!("{} checks were not made, because a login failed: {why}", whys.len()))
}

impl Report {
    fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Fail { .. })
    }
}
