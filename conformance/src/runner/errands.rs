//! What children do beside checks: look before them all, look again when the module hung, measure, and clear the token.
//! Each has a limit that follows from that of a check, and one that hangs or dies is told with the call in which it did.

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::bench::{FirstLook, Swept};
use crate::check::Outcome;
use crate::marks::Severity;
use crate::performance::Figure;
use crate::runner::process::{Heard, Process, Task, silence, unanswered};
use crate::runner::{Abort, Runner};
use crate::survey::Survey;
use crate::trace::{Answer, Call, Trace};

/// How many times the limit of a check it may take to start the module and see the token, or to clear it.
const PREPARING: u32 = 3;

/// How long measuring the performance may take.
const MEASURING: Duration = Duration::from_secs(300);

/// What is known of a token that could not be looked at again.
pub const LEFT: &str = "objects with the label \"p11-conformance: to be destroyed\" may be left on the token";

/// Why it is not known whether the token is clear.
pub enum Unclear {
    /// The module refused a call, or is not asked any more.
    Refused(String),
    /// The process that clears it died or hung.
    Failed(String),
}

/// How a process came to its end that should have ended well, and its calls.
pub struct BadEnd {
    /// What is wrong with it.
    pub outcome: Outcome,
    /// Its calls, to the one in which it hung or died.
    pub trace: Trace,
}

/// What was seen before any check.
pub struct First {
    /// What the module says of itself, if it got so far.
    pub survey: Survey,
    /// What became of the objects that an earlier run had left, or why no check can be made.
    pub verdict: Result<Swept, String>,
    /// What functions answered.
    pub answers: BTreeSet<Answer>,
    /// How the process ended that looked, if not well.
    pub end: Option<BadEnd>,
}

impl Runner {
    /// How long it may take to start the module and see the token, or to clear it.
    pub(super) const fn preparing(&self) -> Duration {
        self.limit.saturating_mul(PREPARING)
    }

    /// Sees in a child whether the module can be initialised, shows the token and takes the PINs that were given.
    ///
    /// # Errors
    /// A sentence, if no child can be started.
    pub fn preflight(&self) -> Result<First, String> {
        let limit = self.preparing();
        let deadline = Instant::now() + limit;
        let mut child = Process::spawn(Task::Preflight, self.seed, &self.calls_of(0), &[])?;
        let lines: Receiver<FirstLook> = child.lines()?;
        let mut survey = Survey::default();
        // Not to be interrupted: it may have put an object on the token, and must not try a PIN again to look for it.
        let (verdict, end) = loop {
            match child.listen(&lines, deadline.saturating_duration_since(Instant::now())) {
                Heard::Line(FirstLook::Survey(told)) => survey = *told,
                Heard::Line(FirstLook::Verdict(verdict)) => {
                    let end = self.finish(&mut child, 0, "a clean end of the process that looked first")?;
                    let with_words = |reason| match child.last_words(&self.secrets) {
                        Some(words) => format!("{reason}; the module's last words: {words}"),
                        None => reason,
                    };
                    break (verdict.map_err(with_words), end);
                }
                Heard::Silence => {
                    child.end(Duration::ZERO)?;
                    break (Err(self.failed_at_once(&silence(limit, &Trace::default()))), None);
                }
                Heard::End => {
                    let outcome = match child.end(self.limit)? {
                        Some(status) => self.death(&mut child, status, ""),
                        None => silence(self.limit, &Trace::default()),
                    };
                    break (Err(self.failed_at_once(&outcome)), None);
                }
            }
        };
        Ok(First { survey, verdict, answers: self.read_calls(0).answers().into_iter().collect(), end })
    }

    /// What is in the way of all checks, and the call in which it came.
    fn failed_at_once(&self, outcome: &Outcome) -> String {
        let seen = match outcome {
            Outcome::Fail { seen, .. } => seen.as_str(),
            Outcome::Pass | Outcome::Skipped { .. } | Outcome::NotOffered => "the module gave no answer",
        };
        let last = self.read_calls(0).calls.pop();
        let during =
            last.map_or_else(|| "while it was loaded".to_owned(), |call| format!("in {}", call.function));
        format!("no check was made, the module failed at once, {during}: {seen}")
    }

    /// Sees in a child whether the module still starts and shows the token.
    ///
    /// # Errors
    /// A sentence, if it does not.
    pub(super) fn look(&self, worker: usize) -> Result<(), Abort> {
        let limit = self.preparing();
        let mut child = Process::spawn(Task::Look, self.seed, &self.calls_of(worker), &[])?;
        let lines: Receiver<Result<(), String>> = child.lines()?;
        let heard = self.hear(&mut child, &lines, limit)?;
        child.end(Duration::ZERO)?;
        let why = match heard {
            Heard::Line(Ok(())) => return Ok(()),
            Heard::Line(Err(reason)) => reason,
            Heard::Silence => unanswered(limit, &self.read_calls(worker)),
            Heard::End => "the process died".to_owned(),
        };
        Err(Abort::Lost(format!("the module does not start any more, or does not show the token: {why}")))
    }

    /// Measures in a child how fast the module is.
    ///
    /// # Errors
    /// A sentence, when the child dies or takes too long.
    pub fn measure(&self) -> Result<Vec<Figure>, String> {
        let mut child = Process::spawn(Task::Measure, self.seed, &self.calls_of(0), &[])?;
        let lines = child.lines()?;
        let heard = self.hear(&mut child, &lines, MEASURING)?;
        let (figures, patience) = match heard {
            Heard::Line(figures) => (Ok(figures), self.limit),
            Heard::Silence | Heard::End => {
                (Err("the performance could not be measured: the process died or hung"), Duration::ZERO)
            }
        };
        child.end(patience)?;
        figures.map_err(str::to_owned)
    }

    /// Destroys in a child what checks left on the token. Also says how that child ends, if not well.
    ///
    /// # Errors
    /// A sentence, when the child cannot be started or waited for.
    pub(super) fn sweep(&self) -> Result<(Result<Swept, Unclear>, Option<BadEnd>), String> {
        let expected = "a clean end of the process that cleared the token";
        let limit = self.preparing();
        let mut child = Process::spawn(Task::Sweep, self.seed, &self.calls_of(0), &[])?;
        let lines: Receiver<Result<Swept, String>> = child.lines()?;
        let end = match child.listen(&lines, limit) {
            Heard::Line(swept) => {
                let end = self.finish(&mut child, 0, expected)?;
                return Ok((swept.map_err(|why| Unclear::Refused(format!("{LEFT}: {why}"))), end));
            }
            Heard::Silence => {
                child.end(Duration::ZERO)?;
                let trace = self.read_calls(0);
                BadEnd { outcome: silence(limit, &trace), trace }
            }
            Heard::End => {
                let status = child.end(self.limit)?;
                self.judge(&mut child, 0, status, expected)
            }
        };
        let during = end.trace.unreturned().map(|call| format!(" in {}", call.function)).unwrap_or_default();
        let why = format!("{LEFT}: the process that clears the token died or hung{during}");
        Ok((Err(Unclear::Failed(why)), Some(end)))
    }

    /// Waits for the end of a child that has nothing more to say but that it finalised the module, and tells one that is not
    /// as it should be. Its record of calls is its last word: `C_Finalize`, which returned.
    ///
    /// # Errors
    /// A sentence, when it cannot be waited for.
    pub(super) fn finish(
        &self,
        child: &mut Process,
        worker: usize,
        expected: &str,
    ) -> Result<Option<BadEnd>, String> {
        let status = child.end(self.limit)?;
        if !status.is_some_and(|status| status.success()) {
            return Ok(Some(self.judge(child, worker, status, expected)));
        }
        let trace = self.read_calls(worker);
        // Where nothing could be recorded, nothing speaks against it.
        if trace.calls.last().is_none_or(Call::is_finalized) {
            return Ok(None);
        }
        let seen = "the process was ended as if all were well, before C_Finalize returned".to_owned();
        let outcome = Outcome::Fail { severity: Severity::High, expected: expected.to_owned(), seen };
        Ok(Some(BadEnd { outcome, trace }))
    }

    /// What to say of a child that has ended, or was killed because it did not.
    pub(super) fn judge(
        &self,
        child: &mut Process,
        worker: usize,
        status: Option<ExitStatus>,
        expected: &str,
    ) -> BadEnd {
        let trace = self.read_calls(worker);
        let outcome = match status {
            Some(status) => self.death(child, status, expected),
            None => silence(self.limit, &trace),
        };
        BadEnd { outcome, trace }
    }
}
