//! This program once more, from within a child: a process that has not loaded the module yet, for what can be seen only
//! there.

use std::fmt::Display;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::check::Stop;
use crate::marks::Severity;

use super::process::{end, read_lines};

/// Runs this program with these options beside its own, and perhaps another environment variable, and gives what it tells.
///
/// # Errors
/// `Skipped`, if it cannot be started; a grave failure, if it dies or tells nothing in time.
pub fn run_again<T: DeserializeOwned + Send + 'static>(
    options: &[&str],
    variable: Option<(&str, &str)>,
    limit: Duration,
) -> Result<T, Stop> {
    let failed = |error: &dyn Display| Stop::Skipped(format!("cannot start a child process: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(|error| failed(&error))?)
        .args(std::env::args_os().skip(1))
        .args(options)
        .envs(variable)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let lines = read_lines::<T>(&mut child).map_err(|error| failed(&error))?;
    let heard = lines.recv_timeout(limit);
    let ended = end(&mut child, if heard.is_ok() { limit } else { Duration::ZERO });
    match (heard, ended) {
        (Ok(told), Ok(_)) => Ok(told),
        (Err(_), Ok(status)) => {
            let seen = status.map_or_else(|| "no answer".to_owned(), |status| format!("it ended: {status}"));
            Err(Stop::graded(Severity::High, "return values", format!("in another process, {seen}")))
        }
        (_, Err(reason)) => Err(failed(&reason)),
    }
}
