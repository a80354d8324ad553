//! Makes the checks, each chapter in a child process: a crash or a hang is a finding, not the end.
//!
//! The parent never loads the module. A child reads the ids of its checks from its standard input and prints one
//! line for each; when it dies or falls silent, the check whose line is missing takes the blame, and another child
//! goes on with the rest. Before them all, one child sees whether the token can be checked: a wrong PIN costs one
//! try, and a module that cannot be initialised is one line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Stage, Target};
use crate::check::{Check, Outcome, by_id};
use crate::marks::Severity;

/// What a child's lines begin with, so that a module may print too.
const MARK: &str = "p11-conformance: ";

/// How long the preflight may take at least: a check's time may be set to nothing.
const PREFLIGHT: Duration = Duration::from_secs(30);

/// What a child has to say of a check.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A check and its result.
pub struct Report {
    /// The check.
    pub check: &'static Check,
    /// Its result.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
}

/// Sees in a child whether the module can be initialised, shows the token and takes the PINs that were given.
///
/// # Errors
/// A sentence, if no check should be made.
pub fn preflight(limit: Duration) -> Result<(), String> {
    let limit = limit.max(PREFLIGHT);
    let mut child =
        spawn("--preflight", []).map_err(|error| format!("cannot start a child process: {error}"))?;
    let lines = read_lines(&mut child)?;
    let seen: Outcome = match lines.recv_timeout(limit) {
        Ok(verdict) => {
            end(&mut child, limit)?;
            return verdict;
        }
        Err(RecvTimeoutError::Timeout) => {
            end(&mut child, Duration::ZERO)?;
            silence(limit)
        }
        Err(RecvTimeoutError::Disconnected) => {
            end(&mut child, limit)?.map_or_else(|| silence(limit), |status| death(status, ""))
        }
    };
    match seen {
        Outcome::Fail { seen, .. } => Err(format!("no check was made, the module failed at once: {seen}")),
        Outcome::Pass | Outcome::Skipped { .. } | Outcome::NotOffered => Ok(()),
    }
}

/// Makes these checks.
///
/// # Errors
/// A sentence, when a child cannot be started or cannot load the module.
pub fn run(checks: &[&'static Check], limit: Duration) -> Result<Vec<Report>, String> {
    let mut reports = Vec::with_capacity(checks.len());
    for chapter in checks.chunk_by(|one, other| one.group() == other.group()) {
        let mut pending: VecDeque<&'static Check> = chapter.iter().copied().collect();
        while !pending.is_empty() {
            run_child(&mut pending, limit, &mut reports)?;
        }
    }
    Ok(reports)
}

/// Runs one child until it has made all pending checks, or died of one.
fn run_child(
    pending: &mut VecDeque<&'static Check>,
    limit: Duration,
    reports: &mut Vec<Report>,
) -> Result<(), String> {
    let mut child = spawn("--child", pending.iter().copied())
        .map_err(|error| format!("cannot start a child process: {error}"))?;
    let lines: Receiver<Line> = read_lines(&mut child)?;
    let before = reports.len();
    let mut since = Instant::now();
    while let Some(check) = pending.front().copied() {
        let limit = limit.max(Duration::from_secs(check.patience));
        let outcome = match lines.recv_timeout(limit) {
            Ok(line) if line.id == check.id => line.outcome,
            Ok(line) => return Err(format!("a child answered {} where {} was due", line.id, check.id)),
            Err(RecvTimeoutError::Timeout) => {
                reports.push(Report { check, outcome: silence(limit), time: since.elapsed() });
                pending.pop_front();
                return end(&mut child, Duration::ZERO).map(drop);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        reports.push(Report { check, outcome, time: since.elapsed() });
        pending.pop_front();
        since = Instant::now();
    }
    let status = end(&mut child, limit)?;
    if reports.len() == before && status.and_then(|status| status.code()) == Some(2) {
        return Err("the module cannot be loaded".to_owned());
    }
    let expected = if pending.is_empty() { "a clean end of the process" } else { "a return value" };
    if pending.is_empty() && status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let outcome = status.map_or_else(|| silence(limit), |status| death(status, expected));
    let last = reports.last().map(|report| report.check);
    if let Some(check) = pending.pop_front().or(last) {
        reports.push(Report { check, outcome, time: since.elapsed() });
    }
    Ok(())
}

fn silence(limit: Duration) -> Outcome {
    let seen = format!("no answer within {} s", limit.as_secs());
    Outcome::Fail { severity: Severity::High, expected: "an answer".to_owned(), seen }
}

/// Waits for a child that should be at its end. `None` if it had to be killed.
fn end(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, String> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    Ok(None)
}

fn death(status: ExitStatus, expected: &str) -> Outcome {
    let seen = match status.signal() {
        Some(6) => "SIGABRT: the process was aborted".to_owned(),
        Some(7) => "SIGBUS: the process crashed".to_owned(),
        Some(11) => "SIGSEGV: the process crashed".to_owned(),
        Some(other) => format!("the process died of signal {other}"),
        None => format!("the process was ended ({status})"),
    };
    Outcome::Fail { severity: Severity::High, expected: expected.to_owned(), seen }
}

fn spawn(task: &str, pending: impl IntoIterator<Item = &'static Check>) -> io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg(task)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        for check in pending {
            writeln!(input, "{}", check.id)?;
        }
    }
    Ok(child)
}

fn read_lines<T: DeserializeOwned + Send + 'static>(child: &mut Child) -> Result<Receiver<T>, String> {
    let output = child.stdout.take().ok_or("a child has no output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        for line in lines {
            let Some((_, json)) = line.split_once(MARK) else { continue };
            let Ok(line) = serde_json::from_str(json) else { continue };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// The child's side: makes the checks that its input names.
///
/// # Errors
/// A sentence, when the module cannot be loaded.
pub fn child(target: Target) -> Result<(), String> {
    let bench = Bench::new(target)?;
    let names: Vec<String> = io::stdin().lines().map_while(Result::ok).collect();
    for name in names {
        let Some(check) = by_id(&name) else { continue };
        let outcome = Outcome::of(check, bench.prepare(check.stage).and_then(|()| check.make(&bench)));
        bench.conclude();
        tell(&Line { id: name, outcome })?;
    }
    bench.leave();
    Ok(())
}

/// The child's side of the preflight. A module that cannot be loaded is its answer, too.
///
/// # Errors
/// A sentence, when the parent does not listen.
pub fn preflight_child(target: Target) -> Result<(), String> {
    let bench = Bench::new(target);
    let verdict = bench.as_ref().map_err(String::clone).and_then(Bench::preflight);
    tell(&verdict)?;
    if let Ok(bench) = bench {
        bench.reset(Stage::Loaded);
    }
    Ok(())
}

/// Says a line to the parent.
fn tell(line: &impl Serialize) -> Result<(), String> {
    let json = serde_json::to_string(line).map_err(|error| error.to_string())?;
    let mut output = io::stdout().lock();
    writeln!(output, "\n{MARK}{json}").and_then(|()| output.flush()).map_err(|error| error.to_string())
}
