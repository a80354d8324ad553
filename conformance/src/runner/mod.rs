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
pub mod process;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Pin, Standing, another_pin};
use crate::check::{Check, Company, Outcome, by_id};
use crate::checks::general::CLEAN_END;
use crate::interrupt::Interrupt;
use crate::marks::Effect;
use crate::observations::Observation;
use crate::performance::Figure;
use crate::progress::Progress;
use crate::runner::child::Line;
use crate::runner::process::{Task, death, end, last_words, read_lines, silence, spawn};
use crate::survey::Survey;
use crate::trace::{Answer, Trace};

/// How long the preflight may take at least: a check's time may be set to nothing.
const PREFLIGHT: Duration = Duration::from_secs(30);

/// How many times the limit of a check it may take to start the module and find the token.
const LOOKING: u32 = 2;

/// How long that may take at least: a check's time may be set to nothing.
const LEAST_LOOK: Duration = Duration::from_secs(5);

/// How long measuring the performance may take.
const MEASURING: Duration = Duration::from_secs(300);

/// How long the parent waits at most before it looks whether the run is interrupted.
const PULSE: Duration = Duration::from_millis(100);

/// Why the run ends when the token refuses the PIN.
const LOST_PIN: &str = "the user PIN, accepted before, is not accepted any more; no further try is made. \
     Look at the token: is the PIN locked, or did something else change it?";

/// What is known of a token that could not be looked at again.
const LEFT: &str = "objects with the label \"p11-conformance\" may be left on the token";

/// How many checks a child makes at most when others wait for work.
const BATCH: usize = 128;

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
}

/// What a child says.
enum Heard<T> {
    /// A line.
    Line(T),
    /// Nothing in its time.
    Silence,
    /// Nothing more: its output has ended.
    End,
}

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
    pub secrets: Vec<Pin>,
    /// Whether the run is asked to end early.
    pub interrupt: Interrupt,
}

/// What is found so far.
struct Findings {
    reports: Vec<Report>,
    answers: BTreeSet<Answer>,
    observations: Vec<Observation>,
    progress: Progress,
}

impl Runner {
    /// Sees in a child whether the module can be initialised, shows the token and takes the PINs that were given.
    ///
    /// # Errors
    /// A sentence, if no check should be made.
    pub fn preflight(&self) -> Result<Survey, String> {
        let limit = self.limit.max(PREFLIGHT);
        let mut child = spawn(Task::Preflight, self.seed, &self.calls_of(0), &[])?;
        let lines: Receiver<Result<Survey, String>> = read_lines(&mut child)?;
        // Not to be interrupted: it may have put an object on the token, and must not try a PIN again to look for it.
        let seen: Outcome = match listen(&lines, limit) {
            Heard::Line(verdict) => {
                end(&mut child, limit)?;
                return verdict.map_err(|reason| self.with_last_words(reason));
            }
            Heard::Silence => {
                end(&mut child, Duration::ZERO)?;
                silence(limit)
            }
            Heard::End => {
                end(&mut child, limit)?.map_or_else(|| silence(limit), |status| self.death(0, status, ""))
            }
        };
        let Outcome::Fail { seen, .. } = seen else { return Err("the module gave no answer".to_owned()) };
        let last = read_calls(&self.calls_of(0)).calls.pop();
        let during =
            last.map_or_else(|| "while it was loaded".to_owned(), |call| format!("in {}", call.function));
        Err(format!("no check was made, the module failed at once, {during}: {seen}"))
    }

    /// The next line of a child.
    ///
    /// # Errors
    /// A sentence, when the run is interrupted. The child is ended then.
    fn hear<T>(&self, child: &mut Child, lines: &Receiver<T>, limit: Duration) -> Result<Heard<T>, String> {
        let deadline = Instant::now() + limit;
        loop {
            if self.interrupt.is_asked() {
                end(child, Duration::ZERO)?;
                return Err("interrupted".to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match listen(lines, left.min(PULSE)) {
                Heard::Silence if left > PULSE => {}
                heard => return Ok(heard),
            }
        }
    }

    /// Sees in a child whether the module still starts and shows the token.
    ///
    /// # Errors
    /// A sentence, if it does not.
    fn look(&self, worker: usize) -> Result<(), Abort> {
        let limit = self.limit.saturating_mul(LOOKING).max(LEAST_LOOK);
        let mut child = spawn(Task::Look, self.seed, &self.calls_of(worker), &[])?;
        let lines: Receiver<Result<(), String>> = read_lines(&mut child)?;
        let heard = self.hear(&mut child, &lines, limit)?;
        end(&mut child, Duration::ZERO)?;
        let why = match heard {
            Heard::Line(Ok(())) => return Ok(()),
            Heard::Line(Err(reason)) => reason,
            Heard::Silence => format!("no answer within {} s", limit.as_secs()),
            Heard::End => "the process died".to_owned(),
        };
        Err(Abort::Lost(format!("the module does not start any more, or does not show the token: {why}")))
    }

    /// What is in the way, and what the module says of it.
    fn with_last_words(&self, reason: String) -> String {
        match last_words(&self.calls_of(0), &self.secrets) {
            Some(words) => format!("{reason}; the module's last words: {words}"),
            None => reason,
        }
    }

    /// Makes these checks, as far as it gets: to the end, or until it is interrupted, a child cannot be started or cannot
    /// load the module, the token is gone, or the PIN is no longer accepted.
    ///
    /// # Errors
    /// A sentence, when nothing is known.
    pub fn run(&self, checks: &[&'static Check]) -> Result<Results, String> {
        let (together, alone): (Vec<&'static Check>, _) = checks.iter().partition(|check| {
            check.effect <= Effect::SessionObjects && matches!(check.company, Company::Any)
        });
        let findings = Mutex::new(Findings {
            reports: Vec::with_capacity(checks.len()),
            answers: BTreeSet::new(),
            observations: Vec::new(),
            progress: Progress::new(checks.len()),
        });
        let done = self.side_by_side(batches(&together), self.jobs, &findings);
        let rest = alone.chunks(BATCH).map(|batch| batch.iter().copied().collect()).collect();
        let done = done.and_then(|()| self.side_by_side(rest, 1, &findings));
        let swept = match &done {
            Ok(()) | Err(Abort::Early(_)) => self.sweep(),
            Err(Abort::Lost(_)) => Err(LEFT.to_owned()),
        };
        let findings = findings.into_inner().map_err(|_| "a thread of the suite failed")?;
        findings.progress.clear();
        let incomplete = done.err().map(|(Abort::Early(why) | Abort::Lost(why))| {
            let so_far = format!("{why}; {} of {} checks were made", findings.reports.len(), checks.len());
            so_far
        });
        // A token that refuses a login in the middle of a run hides what the checks behind it would have found.
        let incomplete = incomplete.or_else(|| no_login(&findings.reports));
        let incomplete = incomplete
            .map(|why| [Some(why), swept.err()].into_iter().flatten().collect::<Vec<_>>().join("; "));
        let other_pin = another_pin::left_behind(&self.folder).map(str::to_owned);
        let incomplete =
            [incomplete, other_pin].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
        let order: HashMap<&str, usize> =
            checks.iter().enumerate().map(|(place, check)| (check.id.as_ref(), place)).collect();
        let mut reports = findings.reports;
        reports.sort_by_key(|report| order.get(report.check.id.as_ref()).copied());
        let mut observations = findings.observations;
        observations.sort_by_key(|observation| order.get(observation.check.as_str()).copied());
        Ok(Results { reports, answers: findings.answers, observations, incomplete })
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
            ends.try_for_each(|one| {
                one.unwrap_or_else(|_| Err(Abort::Early("a thread of the suite failed".to_owned())))
            })
        })
    }

    /// Runs one child until it has made all pending checks, or died of one.
    fn run_child(
        &self,
        worker: usize,
        pending: &mut VecDeque<&'static Check>,
        findings: &Mutex<Findings>,
    ) -> Result<(), Abort> {
        let calls = self.calls_of(worker);
        let mut child = spawn(Task::Checks, self.seed, &calls, pending.make_contiguous())?;
        let lines: Receiver<Line> = read_lines(&mut child)?;
        let mut last = None;
        let mut is_doubtful = false;
        let mut since = Instant::now();
        while let Some(check) = pending.front().copied() {
            let limit = self.limit.max(Duration::from_secs(check.patience));
            match self.hear(&mut child, &lines, limit)? {
                Heard::Line(line) if line.id == check.id => {
                    let standing = line.standing;
                    note(findings, check, line, since.elapsed())?;
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
                Heard::Line(line) => {
                    return Err(format!("a child answered {} where {} was due", line.id, check.id).into());
                }
                Heard::Silence => {
                    end(&mut child, Duration::ZERO)?;
                    pending.pop_front();
                    let line = Line::of_the_dead(check, silence(limit), read_calls(&calls));
                    note(findings, check, line, since.elapsed())?;
                    return self.look(worker);
                }
                Heard::End => break,
            }
            last = pending.pop_front();
            since = Instant::now();
        }
        let status = end(&mut child, self.limit)?;
        if last.is_none() && status.and_then(|status| status.code()) == Some(2) {
            return Err("the module cannot be loaded".to_owned().into());
        }
        let judge = |expected: &str| {
            status.map_or_else(|| silence(self.limit), |status| self.death(worker, status, expected))
        };
        match (pending.pop_front(), status) {
            (None, Some(status)) if status.success() => Ok(()),
            (None, _) => {
                let after = last.map_or("none", |check| check.id.as_ref());
                let outcome = judge(&format!("a clean end of the process whose last check was {after}"));
                Ok(note_end(findings, outcome, read_calls(&calls))?)
            }
            (Some(check), _) => {
                let line = Line::of_the_dead(check, judge("a return value"), read_calls(&calls));
                Ok(note(findings, check, line, since.elapsed())?)
            }
        }
    }

    /// Measures in a child how fast the module is.
    ///
    /// # Errors
    /// A sentence, when the child dies or takes too long.
    pub fn measure(&self) -> Result<Vec<Figure>, String> {
        let mut child = spawn(Task::Measure, self.seed, &self.calls_of(0), &[])?;
        let lines = read_lines(&mut child)?;
        let heard = self.hear(&mut child, &lines, MEASURING)?;
        let (figures, patience) = match heard {
            Heard::Line(figures) => (Ok(figures), self.limit),
            Heard::Silence | Heard::End => {
                (Err("the performance could not be measured: the process died or hung"), Duration::ZERO)
            }
        };
        end(&mut child, patience)?;
        figures.map_err(str::to_owned)
    }

    fn death(&self, worker: usize, status: ExitStatus, expected: &str) -> Outcome {
        death(status, expected, last_words(&self.calls_of(worker), &self.secrets))
    }

    /// Destroys in a child what checks left on the token.
    ///
    /// # Errors
    /// A sentence, when something may be left.
    fn sweep(&self) -> Result<(), String> {
        let mut child = spawn(Task::Sweep, self.seed, &self.calls_of(0), &[])?;
        match end(&mut child, self.limit.max(PREFLIGHT))? {
            Some(status) if status.success() => Ok(()),
            Some(_) | None => Err(LEFT.to_owned()),
        }
    }

    fn calls_of(&self, worker: usize) -> PathBuf {
        self.folder.join(format!("calls-{worker}"))
    }
}

/// Whether checks were not made because the user, whose PIN was taken before, could not be logged in.
fn no_login(reports: &[Report]) -> Option<String> {
    let whys: Vec<&str> = reports
        .iter()
        .filter_map(|report| match &report.outcome {
            Outcome::Skipped { why } => Some(why.as_str()),
            Outcome::Pass | Outcome::Fail { .. } | Outcome::NotOffered => None,
        })
        .filter(|why| why.starts_with("C_Login: "))
        .collect();
    let why = whys.first()?;
    Some(format!("{} checks were not made, because the user could not be logged in: {why}", whys.len()))
}

fn listen<T>(lines: &Receiver<T>, limit: Duration) -> Heard<T> {
    match lines.recv_timeout(limit) {
        Ok(line) => Heard::Line(line),
        Err(RecvTimeoutError::Timeout) => Heard::Silence,
        Err(RecvTimeoutError::Disconnected) => Heard::End,
    }
}

fn batches(checks: &[&'static Check]) -> VecDeque<VecDeque<&'static Check>> {
    let chapters = checks.chunk_by(|one, other| one.group() == other.group());
    chapters.flat_map(|chapter| chapter.chunks(BATCH)).map(|batch| batch.iter().copied().collect()).collect()
}

/// A process died after its last check: that is the failure of a check of its own, once in a run.
fn note_end(findings: &Mutex<Findings>, outcome: Outcome, trace: Trace) -> Result<(), String> {
    let check = by_id(CLEAN_END).ok_or("there is no check of the end")?;
    let mut findings = findings.lock().map_err(|_| "a thread of the suite failed")?;
    let is_known = |report: &Report| report.check.id == check.id;
    if !findings.reports.iter().any(|report| is_known(report) && report.is_failure()) {
        findings.reports.retain(|report| !is_known(report));
        findings.reports.push(Report { check, outcome, time: Duration::ZERO, trace: Some(trace) });
    }
    Ok(())
}

impl Report {
    fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Fail { .. })
    }
}

/// Adds a result, unless it is that the end was clean where an end was not.
fn note(findings: &Mutex<Findings>, check: &'static Check, line: Line, time: Duration) -> Result<(), String> {
    let mut findings = findings.lock().map_err(|_| "a thread of the suite failed")?;
    findings.answers.extend(line.answers);
    findings.observations.extend(line.observations);
    findings.progress.step(&line.outcome, check);
    if check.id != CLEAN_END || findings.reports.iter().all(|report| report.check.id != CLEAN_END) {
        findings.reports.push(Report { check, outcome: line.outcome, time, trace: line.trace });
    }
    Ok(())
}

fn read_calls(file: &Path) -> Trace {
    Trace::of_lines(&String::from_utf8_lossy(&fs::read(file).unwrap_or_default()))
}

impl Line {
    fn of_the_dead(check: &Check, outcome: Outcome, trace: Trace) -> Self {
        let answers = trace.answers();
        let standing = Standing::Accepted;
        let observations = Vec::new();
        Self { id: check.id.to_string(), outcome, trace: Some(trace), answers, standing, observations }
    }
}
