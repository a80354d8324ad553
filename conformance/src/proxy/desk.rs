//! How a check orders faults: lines of JSON over a socket in the run's folder, from the child that makes the check to
//! the first process, where the proxy and the restart command are.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::check::Stop;
use crate::proxy::Proxy;
use crate::proxy::fault::{Fault, Tally};

/// How long the restart command may take.
const RESTART: Duration = Duration::from_secs(60);

/// What a check may order.
#[derive(Serialize, Deserialize)]
enum Order {
    Set { fault: Fault, most: Duration },
    Tally,
    Record,
    HasPassed(Vec<u8>),
    Replay,
    Restart,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done,
    Tally(Tally),
    HasPassed(bool),
    Failed(String),
}

/// The socket in a run's folder.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("proxy")
}

/// Takes orders for a proxy, and for the command that restarts its server.
///
/// # Errors
/// When there can be no socket in the folder.
pub fn open(folder: &Path, proxy: Proxy, restart: Option<String>) -> io::Result<()> {
    let listener = UnixListener::bind(socket(folder))?;
    thread::spawn(move || {
        for child in listener.incoming().flatten() {
            let (proxy, restart) = (proxy.clone(), restart.clone());
            thread::spawn(move || {
                let _gone = serve(&child, &proxy, restart.as_deref());
            });
        }
    });
    Ok(())
}

/// A fault is over when the child that ordered it goes.
fn serve(mut child: &UnixStream, proxy: &Proxy, restart: Option<&str>) -> io::Result<()> {
    let mut has_set = false;
    for line in BufReader::new(child).lines() {
        let order: Order = serde_json::from_str(&line?)?;
        has_set |= matches!(order, Order::Set { .. });
        let answer = carry_out(order, proxy, restart);
        writeln!(child, "{}", serde_json::to_string(&answer)?)?;
    }
    if has_set {
        proxy.set(Fault::Nothing, Duration::ZERO);
    }
    Ok(())
}

fn carry_out(order: Order, proxy: &Proxy, restart: Option<&str>) -> Answer {
    match order {
        Order::Set { fault, most } => proxy.set(fault, most),
        Order::Record => proxy.record(),
        Order::Tally => return Answer::Tally(proxy.tally()),
        Order::HasPassed(bytes) => return Answer::HasPassed(proxy.has_passed(&bytes)),
        Order::Replay => {
            if let Err(error) = proxy.replay() {
                return Answer::Failed(format!("the server takes no connection: {error}"));
            }
        }
        Order::Restart => match restart.map(run) {
            Some(Ok(())) => {}
            Some(Err(reason)) => return Answer::Failed(reason),
            None => return Answer::Failed("no command was given (--restart-command)".to_owned()),
        },
    }
    Answer::Done
}

/// Runs the restart command, and waits until it has ended.
fn run(command: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("the restart command: {error}");
    let mut shell = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + RESTART;
    while Instant::now() < deadline {
        match shell.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the restart command failed ({status})")),
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
    shell.kill().and_then(|()| shell.wait()).map_err(failed)?;
    Err(format!("the restart command did not end within {} s", RESTART.as_secs()))
}

/// A check's side of the desk.
pub struct Desk {
    line: Mutex<BufReader<UnixStream>>,
    /// How long a call may take when the network is bad.
    pub limit: Duration,
}

impl Desk {
    /// Goes to the desk of a run.
    ///
    /// # Errors
    /// A sentence, when there is none.
    pub fn at(socket: &Path, limit: Duration) -> Result<Self, String> {
        let line = UnixStream::connect(socket).map_err(|error| format!("the suite's proxy: {error}"))?;
        Ok(Self { line: Mutex::new(BufReader::new(line)), limit })
    }

    fn order(&self, order: &Order) -> Result<Answer, Stop> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ask = || -> io::Result<Answer> {
            let order = serde_json::to_string(order)?;
            writeln!(line.get_mut(), "{order}")?;
            let mut answer = String::new();
            line.read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        match ask() {
            Ok(Answer::Failed(reason)) => Err(Stop::Skipped(reason)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Stop::Skipped(format!("the suite's proxy: {error}"))),
        }
    }

    /// The network does this from now on, until it is told otherwise or twice the limit of a call has passed.
    ///
    /// # Errors
    /// `Skipped`, when the proxy is gone; so of the others.
    pub fn set(&self, fault: Fault) -> Result<(), Stop> {
        self.order(&Order::Set { fault, most: self.limit * 2 }).map(drop)
    }

    /// The network is as good as new.
    ///
    /// # Errors
    /// See [`Desk::set`].
    pub fn heal(&self) -> Result<(), Stop> {
        self.set(Fault::Nothing)
    }

    /// What passed since the last [`Desk::set`].
    ///
    /// # Errors
    /// See [`Desk::set`].
    pub fn tally(&self) -> Result<Tally, Stop> {
        match self.order(&Order::Tally)? {
            Answer::Tally(tally) => Ok(tally),
            Answer::Done | Answer::HasPassed(_) | Answer::Failed(_) => Ok(Tally::default()),
        }
    }

    /// All connections end, and what passes on new ones is recorded.
    ///
    /// # Errors
    /// See [`Desk::set`].
    pub fn record(&self) -> Result<(), Stop> {
        self.order(&Order::Record).map(drop)
    }

    /// Whether these bytes passed since the recording began.
    ///
    /// # Errors
    /// See [`Desk::set`].
    pub fn has_passed(&self, bytes: &[u8]) -> Result<bool, Stop> {
        let answer = self.order(&Order::HasPassed(bytes.to_vec()))?;
        Ok(matches!(answer, Answer::HasPassed(true)))
    }

    /// The server hears once more what the module said since the recording began.
    ///
    /// # Errors
    /// See [`Desk::set`].
    pub fn replay(&self) -> Result<(), Stop> {
        self.order(&Order::Replay).map(drop)
    }

    /// The server restarts.
    ///
    /// # Errors
    /// `Skipped`, when there is no command for it, or it fails.
    pub fn restart(&self) -> Result<(), Stop> {
        self.order(&Order::Restart).map(drop)
    }
}
