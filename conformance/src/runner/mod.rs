//! Makes the checks in child processes: a crash or a hang is a finding, not the end.
//!
//! The parent never loads the module. A child reads the ids of its checks from its standard input and prints one
//! line for each; when it dies or falls silent, the check whose line is missing takes the blame, and another child
//! goes on with the rest. What writes no more than session objects is made side by side, a chapter in each child; the
//! rest after it, one by one (`--jobs`; one job unless told, since not every token bears two logins at once).
//!
//! Before them all, one child sees whether the token can be checked: a wrong PIN costs one try, and a module that cannot
//! be initialised is one line. Behind them all, one clears away what checks of this run, or of one that died, left on
//! the token. When a module hangs, or shows its token no more, another looks whether it still does in a new process; if
//! not, or when the run is interrupted, the run ends with what is known so far.

pub mod again;
pub mod child;
mod errands;
mod findings;
pub mod orphans;
pub mod process;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Standing, another_pin};
use crate::check::{Check, Company, Outcome};
use crate::interrupt::Interrupt;
use crate::marks::Effect;
use crate::runner::child::{Line, Said};
pub use crate::runner::errands::{BadEnd, First};
use crate::runner::errands::{LEFT, Unclear};
use crate::runner::findings::Findings;
pub use crate::runner::findings::{Report, Results};
use crate::runner::process::{Heard, Process, Task, death, silence, unanswered};
use crate::secrets::Secrets;
use crate::trace::Trace;

/// How long the parent waits at most before it looks whether the run is interrupted.
const PULSE: Duration = Duration::from_millis(100);

/// Why the run ends when the token refuses the PIN.
const LOST_PIN: &str = "the user PIN, accepted before, is not accepted any more; no further try is made. \
     Look at the token: is the PIN locked, or did something else change it?";

/// What is said of a thread that panicked.
const FAILED_THREAD: &str = "a thread of the suite failed";

/// How many checks a child makes at most when others wait for work.
const BATCH: usize = 128;

/// Why a run ends before all checks are made.
enum Abort {
    /// It has to, and the token can be cleared.
    Early(String),
    /// The token cannot be used any more.
    Lost(String),
}

impl From<String> for Abort {
    fn from(why: String) -> Self {
        Self::Early(why)
    }
}

/// How checks are made.
pub struct Runner {
    /// How long a check may take.
    pub limit: Duration,
    /// How many children work side by side.
    pub jobs: usize,
    /// What random data comes from.
    pub seed: u64,
    /// Where children write their calls.
    pub folder: PathBuf,
    /// What no report may show.
    pub secrets: Secrets,
    /// How long the run may take.
    pub most: Duration,
    /// When it began.
    pub began: Instant,
    /// Whether the run is asked to end early.
    pub interrupt: Interrupt,
}

impl Runner {
    /// The next line of a child.
    ///
    /// # Errors
    /// A sentence, when the run is interrupted or takes too long. The child is ended then.
    fn hear<T>(&self, child: &mut Process, lines: &Receiver<T>, limit: Duration) -> Result<Heard<T>, String> {
        let deadline = Instant::now() + limit;
        loop {
            let why = match (self.interrupt.is_asked(), self.began.elapsed() > self.most) {
                (true, _) => Some("interrupted".to_owned()),
                (false, true) => {
                    Some(format!("it took longer than {} s (--run-timeout)", self.most.as_secs()))
                }
                (false, false) => None,
            };
            if let Some(why) = why {
                child.end(Duration::ZERO)?;
                return Err(why);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match child.listen(lines, left.min(PULSE)) {
                Heard::Silence if left > PULSE => {}
                heard => return Ok(heard),
            }
        }
    }

    /// Makes these checks, as far as it gets: to the end, or until it is interrupted, a child cannot be started or cannot
    /// load the module, the token is gone, or the PIN is no longer accepted. `first` is how the process ended badly that
    /// looked before them, if it did.
    ///
    /// # Errors
    /// A sentence, when nothing is known.
    pub fn run(&self, checks: &[&'static Check], first: Option<BadEnd>) -> Result<Results, String> {
        let (together, alone): (Vec<&'static Check>, _) = checks.iter().partition(|check| {
            check.effect <= Effect::SessionObjects && matches!(check.company, Company::Any)
        });
        let findings = Mutex::new(Findings::of(checks.len()));
        let done = self.side_by_side(batches(&together), self.jobs, &findings);
        let rest = alone.chunks(BATCH).map(|batch| batch.iter().copied().collect()).collect();
        let done = done.and_then(|()| self.side_by_side(rest, 1, &findings));
        let (swept, last) = match &done {
            Ok(()) | Err(Abort::Early(_)) => {
                self.sweep().unwrap_or_else(|why| (Err(Unclear::Failed(format!("{LEFT}: {why}"))), None))
            }
            Err(Abort::Lost(_)) => (Err(Unclear::Refused(LEFT.to_owned())), None),
        };
        let mut findings = findings.into_inner().map_err(|_| FAILED_THREAD)?;
        for end in [first, last].into_iter().flatten() {
            findings.note_end(end)?;
        }
        let ended = done.err().map(|(Abort::Early(why) | Abort::Lost(why))| why);
        let mut results = findings.results(checks, ended, swept);
        // Said whatever else came of the run.
        let other_pin = another_pin::left_behind(&self.folder).map(str::to_owned);
        results.incomplete = [results.incomplete, other_pin]
            .into_iter()
            .flatten()
            .reduce(|one, other| format!("{one}; {other}"));
        Ok(results)
    }

    /// Works through batches with this many children at once.
    fn side_by_side(
        &self,
        batches: VecDeque<VecDeque<&'static Check>>,
        jobs: usize,
        findings: &Mutex<Findings>,
    ) -> Result<(), Abort> {
        let batches = Mutex::new(batches);
        let next = || batches.lock().ok().and_then(|mut batches| batches.pop_front());
        let work = |worker: usize| {
            while let Some(mut pending) = next() {
                while !pending.is_empty() {
                    if let Err(reason) = self.run_child(worker, &mut pending, findings) {
                        if let Ok(mut batches) = batches.lock() {
                            batches.clear();
                        }
                        return Err(reason);
                    }
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (1..=jobs.max(1)).map(|worker| scope.spawn(move || work(worker))).collect();
            let mut ends = workers.into_iter().map(|worker| worker.join());
            ends.try_for_each(|one| one.unwrap_or_else(|_| Err(Abort::Early(FAILED_THREAD.to_owned()))))
        })
    }

    /// Runs one child until it has made all pending checks, or died of one.
    fn run_child(
        &self,
        worker: usize,
        pending: &mut VecDeque<&'static Check>,
        findings: &Mutex<Findings>,
    ) -> Result<(), Abort> {
        let pending_now = pending.make_contiguous();
        let mut child = Process::spawn(Task::Checks, self.seed, &self.calls_of(worker), pending_now)?;
        let lines: Receiver<Said> = child.lines()?;
        self.hear_loaded(&mut child, &lines, worker)?;
        let mut last = None;
        let mut is_doubtful = false;
        let mut since = Instant::now();
        while let Some(check) = pending.front().copied() {
            let limit = self.limit.max(Duration::from_secs(check.patience));
            match self.hear(&mut child, &lines, limit)? {
                Heard::Line(Said::Made(line)) if line.id == check.id => {
                    let standing = line.standing;
                    self.note(findings, check, *line, since)?;
                    match standing {
                        Standing::Accepted => {}
                        Standing::Away if is_doubtful => {}
                        // Of a child that is in trouble itself, once is enough.
                        Standing::Away => {
                            is_doubtful = true;
                            self.look(worker)?;
                        }
                        Standing::Refused => return Err(Abort::Lost(LOST_PIN.to_owned())),
                    }
                }
                Heard::Line(Said::Fault(fault)) => {
                    child.end(self.limit)?;
                    return Err(fault.into());
                }
                Heard::Line(Said::Made(_) | Said::Loaded(_)) => {
                    child.end(Duration::ZERO)?;
                    return Err(format!("a child did not answer {} where it was due", check.id).into());
                }
                Heard::Silence => {
                    child.end(Duration::ZERO)?;
                    pending.pop_front();
                    let trace = self.read_calls(worker);
                    let line = Line::of_the_dead(check, silence(limit, &trace), trace);
                    self.note(findings, check, line, since)?;
                    return self.look(worker);
                }
                Heard::End => break,
            }
            last = pending.pop_front();
            since = Instant::now();
        }
        let Some(check) = pending.pop_front() else {
            let after = last.map_or("none", |check| check.id.as_ref());
            let expected = format!("a clean end of the process whose last check was {after}");
            return match self.finish(&mut child, worker, &expected)? {
                Some(end) => Ok(findings.lock().map_err(|_| FAILED_THREAD.to_owned())?.note_end(end)?),
                None => Ok(()),
            };
        };
        let status = child.end(self.limit)?;
        let BadEnd { outcome, trace } = self.judge(&mut child, worker, status, "a return value");
        Ok(self.note(findings, check, Line::of_the_dead(check, outcome, trace), since)?)
    }

    /// Waits until a child has loaded the module, so that what ends it later is the fault of a check.
    ///
    /// # Errors
    /// A sentence, when it does not.
    fn hear_loaded(&self, child: &mut Process, lines: &Receiver<Said>, worker: usize) -> Result<(), String> {
        let limit = self.preparing();
        let heard = self.hear(child, lines, limit)?;
        let why = match heard {
            Heard::Line(Said::Loaded(Ok(()))) => return Ok(()),
            Heard::Line(Said::Loaded(Err(reason))) => reason,
            Heard::Line(Said::Made(_) | Said::Fault(_)) => "a child answered too early".to_owned(),
            Heard::Silence => unanswered(limit, &self.read_calls(worker)),
            Heard::End => match child.end(self.limit)?.map(|status| self.death(child, status, "")) {
                Some(Outcome::Fail { seen, .. }) => seen,
                _ => "the process died".to_owned(),
            },
        };
        child.end(Duration::ZERO)?;
        Err(format!("the module cannot be loaded any more: {why}"))
    }

    fn note(
        &self,
        findings: &Mutex<Findings>,
        check: &'static Check,
        line: Line,
        since: Instant,
    ) -> Result<(), String> {
        let time = since.elapsed();
        findings.lock().map_err(|_| FAILED_THREAD)?.note(check, line, time);
        Ok(())
    }

    fn death(&self, child: &mut Process, status: ExitStatus, expected: &str) -> Outcome {
        death(status, expected, child.last_words(&self.secrets))
    }

    fn calls_of(&self, worker: usize) -> PathBuf {
        self.folder.join(format!("calls-{worker}"))
    }

    /// What a child has written of its calls.
    fn read_calls(&self, worker: usize) -> Trace {
        Trace::of_lines(&String::from_utf8_lossy(&fs::read(self.calls_of(worker)).unwrap_or_default()))
    }
}

fn batches(checks: &[&'static Check]) -> VecDeque<VecDeque<&'static Check>> {
    let chapters = checks.chunk_by(|one, other| one.group() == other.group());
    chapters.flat_map(|chapter| chapter.chunks(BATCH)).map(|batch| batch.iter().copied().collect()).collect()
}

impl Line {
    fn of_the_dead(check: &Check, outcome: Outcome, trace: Trace) -> Self {
        let answers = trace.answers();
        let standing = Standing::Accepted;
        let observations = Vec::new();
        Self { id: check.id.to_string(), outcome, trace: Some(trace), answers, standing, observations }
    }
}
