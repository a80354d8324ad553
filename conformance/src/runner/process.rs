//! Child processes: how they are started, heard and ended, and what their death is called. None outlives its parent, nor
//! does any process that the module started in one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::check::{Check, Outcome};
use crate::marks::Severity;
use crate::runner::orphans;
use crate::secrets::Secrets;
use crate::trace::Trace;

/// What a child's lines begin with, so that a module may print too.
const MARK: &str = "p11-conformance: ";

/// Bytes of a line that a child says at most. A longer one is the module's, and is not kept.
const LONGEST_LINE: u64 = 16 << 20;

/// Bytes of what a module says last that are kept.
const LAST_WORDS: usize = 4096;

/// Letters of them that are told.
const TOLD: usize = 200;

/// How long what an ended process has said may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// What a child is there for, as its command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// To see whether the token can be checked.
    Preflight,
    /// To see whether the module still starts and shows the token.
    Look,
    /// To make checks.
    Checks,
    /// To destroy what checks left on the token.
    Sweep,
    /// To measure how fast the module is.
    Measure,
}

impl Task {
    const fn option(self) -> &'static str {
        match self {
            Self::Preflight => "--preflight",
            Self::Look => "--look",
            Self::Checks => "--child",
            Self::Sweep => "--sweep",
            Self::Measure => "--measure",
        }
    }
}

/// The end of what a process said on its standard error.
#[derive(Default)]
struct Words {
    last: Vec<u8>,
    all: u64,
}

impl Words {
    /// Reads to the end, and keeps no more than the end.
    fn read(mut from: impl Read) -> Self {
        let mut words = Self::default();
        let mut part = [0; LAST_WORDS];
        while let Ok(length @ 1..) = from.read(&mut part) {
            words.all += length as u64;
            words.last.extend_from_slice(part.get(..length).unwrap_or_default());
            let surplus = words.last.len().saturating_sub(LAST_WORDS);
            words.last.drain(..surplus);
        }
        words
    }

    /// The last line, unless a secret is in what is kept.
    fn told(&self, secrets: &Secrets) -> Option<String> {
        let line = self.last.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?;
        if let Some(name) = secrets.within(&self.last) {
            return Some(format!("(not shown: {name} is in them)"));
        }
        let text = String::from_utf8_lossy(line);
        let shown: String = text.chars().filter(|letter| !letter.is_control()).take(TOLD).collect();
        let cut = if text.chars().count() > TOLD { " (cut)" } else { "" };
        let much = match self.all >> 20 {
            0 => String::new(),
            mebibytes => format!(" (the end of {mebibytes} MiB)"),
        };
        Some(format!("{shown}{cut}{much}"))
    }
}

/// A child process of the suite, in a group with those that the module starts in it.
pub struct Process {
    child: Child,
    words: Option<Receiver<Words>>,
}

impl Process {
    /// Starts a child with this process's own arguments, which writes its calls to a file.
    ///
    /// # Errors
    /// A sentence, when it cannot be started.
    pub fn spawn(task: Task, seed: u64, calls: &Path, checks: &[&'static Check]) -> Result<Self, String> {
        let start = || -> io::Result<Child> {
            let mut child = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .arg(task.option())
                .args(["--child-seed", &seed.to_string()])
                .arg("--calls")
                .arg(calls)
                .env(orphans::VARIABLE, orphans::mark())
                // Ctrl-C is for the parent, which ends its children when they have been heard.
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                for check in checks {
                    writeln!(input, "{}", check.id)?;
                }
            }
            Ok(child)
        };
        let mut child = std::fs::File::create(calls)
            .and_then(|_| start())
            .map_err(|error| format!("cannot start a child process: {error}"))?;
        let words = child.stderr.take().map(|errors| {
            let (sender, receiver) = channel();
            thread::spawn(move || sender.send(Words::read(errors)));
            receiver
        });
        Ok(Self { child, words })
    }

    /// The lines of the child, as they come.
    ///
    /// # Errors
    /// A sentence, when it has no output.
    pub fn lines<T: DeserializeOwned + Send + 'static>(&mut self) -> Result<Receiver<T>, String> {
        read_lines(&mut self.child)
    }

    /// The next line. A process that has ended says no more, also if others that the module started hold its output open.
    pub fn listen<T>(&self, lines: &Receiver<T>, limit: Duration) -> Heard<T> {
        let heard = |limit| match lines.recv_timeout(limit) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        };
        match heard(limit) {
            Heard::Silence if self.has_ended() => match heard(ON_ITS_WAY) {
                Heard::Silence => Heard::End,
                heard => heard,
            },
            heard => heard,
        }
    }

    /// Whether it has come to its end.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), options), Ok(Some(_)))
    }

    /// Waits for a child that should be at its end, and ends what the module started in it. `None` if it had to be killed.
    ///
    /// # Errors
    /// A sentence, when it cannot be waited for.
    pub fn end(&mut self, limit: Duration) -> Result<Option<ExitStatus>, String> {
        let deadline = Instant::now() + limit;
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let has_ended = self.has_ended();
        // While nobody has waited for it, no other process has its number.
        let _none_left = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let status = self.child.wait().map_err(|error| error.to_string())?;
        Ok(has_ended.then_some(status))
    }

    /// The last line that it said before its end, if it said any.
    pub fn last_words(&mut self, secrets: &Secrets) -> Option<String> {
        self.words.take()?.recv_timeout(ON_ITS_WAY).ok()?.told(secrets)
    }
}

/// The lines of a child, as they come.
///
/// # Errors
/// A sentence, when it has no output.
pub fn read_lines<T: DeserializeOwned + Send + 'static>(child: &mut Child) -> Result<Receiver<T>, String> {
    let output = child.stdout.take().ok_or("a child has no output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // A module may print anything, also what is no text and has no end.
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        let mut is_rest = false;
        while let Ok(1..) = output.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            let is_whole = line.last() == Some(&b'\n') && !is_rest;
            is_rest = line.last() != Some(&b'\n');
            let heard = is_whole.then(|| String::from_utf8_lossy(&line)).and_then(|line| {
                let (_, json) = line.split_once(MARK)?;
                serde_json::from_str(json).ok()
            });
            if heard.is_some_and(|heard| sender.send(heard).is_err()) {
                break;
            }
            line.clear();
        }
    });
    Ok(receiver)
}

/// What a child says.
pub enum Heard<T> {
    /// A line.
    Line(T),
    /// Nothing in its time.
    Silence,
    /// Nothing more.
    End,
}

/// Says a line to the parent.
///
/// # Errors
/// A sentence, when the parent does not listen.
pub fn tell(line: &impl Serialize) -> Result<(), String> {
    let json = serde_json::to_string(line).map_err(|error| error.to_string())?;
    let mut output = io::stdout().lock();
    writeln!(output, "\n{MARK}{json}").and_then(|()| output.flush()).map_err(|error| error.to_string())
}

/// Waits for a process of a check's own that should be at its end. `None` if it had to be killed.
///
/// # Errors
/// A sentence, when it cannot be waited for.
pub fn end(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, String> {
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

/// No answer, told with the call that was waited for.
pub fn silence(limit: Duration, calls: &Trace) -> Outcome {
    let seen = unanswered(limit, calls);
    Outcome::Fail { severity: Severity::High, expected: "an answer".to_owned(), seen }
}

/// That there was no answer, and which call did not return.
pub fn unanswered(limit: Duration, calls: &Trace) -> String {
    let during = calls.unreturned().map(|call| format!(": {} did not return", call.function));
    format!("no answer within {} s{}", limit.as_secs(), during.unwrap_or_default())
}

/// A process that came to its end too early, and what it said last.
pub fn death(status: ExitStatus, expected: &str, words: Option<String>) -> Outcome {
    let seen = match status.signal() {
        Some(6) => "SIGABRT: the process was aborted".to_owned(),
        Some(7) => "SIGBUS: the process crashed".to_owned(),
        Some(9) => "SIGKILL: the process was killed, as the system does when memory runs out".to_owned(),
        Some(11) => "SIGSEGV: the process crashed".to_owned(),
        Some(other) => format!("the process died of signal {other}"),
        None => format!("the process was ended ({status})"),
    };
    let seen = match words {
        Some(words) => format!("{seen}; its last words: {words}"),
        None => seen,
    };
    Outcome::Fail { severity: Severity::High, expected: expected.to_owned(), seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_endless_words_the_end_is_kept() {
        let secrets = Secrets::default();
        let much = io::repeat(b'x').take(3 << 20).chain(&b"\nthe end\n\n"[..]);
        let words = Words::read(much);
        assert!(words.last.len() <= LAST_WORDS);
        assert_eq!(words.told(&secrets).as_deref(), Some("the end (the end of 3 MiB)"));
        let line = Words::read(io::repeat(b'x').take(300));
        assert_eq!(line.told(&secrets), Some(format!("{} (cut)", "x".repeat(TOLD))));
        assert_eq!(Words::read(&b"\n \n"[..]).told(&secrets), None);
    }
}
