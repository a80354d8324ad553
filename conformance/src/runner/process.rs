//! Child processes: how they are started, heard and ended, and what their death is called. None outlives its parent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bench::Pin;
use crate::check::{Check, Outcome};
use crate::marks::Severity;

/// What a child's lines begin with, so that a module may print too.
const MARK: &str = "p11-conformance: ";

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

/// Starts a child with this process's own arguments, which writes its calls to a file.
///
/// # Errors
/// A sentence, when it cannot be started.
pub fn spawn(task: Task, seed: u64, calls: &Path, checks: &[&'static Check]) -> Result<Child, String> {
    let start = || -> io::Result<Child> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(task.option())
            .args(["--child-seed", &seed.to_string()])
            .arg("--calls")
            .arg(calls)
            // Ctrl-C is for the parent, which ends its children when they have been heard.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(words_of(calls))?)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            for check in checks {
                writeln!(input, "{}", check.id)?;
            }
        }
        Ok(child)
    };
    File::create(calls)
        .and_then(|_| start())
        .map_err(|error| format!("cannot start a child process: {error}"))
}

/// The file beside a file of calls that holds what the module says on its standard error.
fn words_of(calls: &Path) -> PathBuf {
    calls.with_extension("words")
}

/// The last line that a child said before its end, unless a secret is in it.
pub fn last_words(calls: &Path, secrets: &[Pin]) -> Option<String> {
    let words = std::fs::read(words_of(calls)).ok()?;
    let line = words.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?;
    let tells = |pin: &Pin| !pin.is_empty() && line.windows(pin.len()).any(|part| part == pin.as_slice());
    let text = String::from_utf8_lossy(line);
    let shown = text.chars().filter(|letter| !letter.is_control()).take(200).collect();
    (!secrets.iter().any(tells)).then_some(shown)
}

/// The lines of a child, as they come.
///
/// # Errors
/// A sentence, when it has no output.
pub fn read_lines<T: DeserializeOwned + Send + 'static>(child: &mut Child) -> Result<Receiver<T>, String> {
    let output = child.stdout.take().ok_or("a child has no output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // A module may print anything, also what is no text.
        let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        let heard = lines.by_ref().filter_map(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.split_once(MARK).and_then(|(_, json)| serde_json::from_str(json).ok())
        });
        for line in heard {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
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

/// Waits for a child that should be at its end. `None` if it had to be killed.
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

/// No answer.
pub fn silence(limit: Duration) -> Outcome {
    let seen = format!("no answer within {} s", limit.as_secs());
    Outcome::Fail { severity: Severity::High, expected: "an answer".to_owned(), seen }
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
