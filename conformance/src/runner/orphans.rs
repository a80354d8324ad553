//! Processes that the module started and that left their group: they come to this process when their parents end, know it
//! by a mark in their environment, and are ended with the run. Others that come, such as a server that the restart command
//! put into the background, have no mark and are left alone.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// The variable that holds the mark.
pub const VARIABLE: &str = "P11_CONFORMANCE_RUN";

/// How often is looked: what is ended may leave children of its own.
const ROUNDS: usize = 16;

/// The mark of this run.
pub fn mark() -> String {
    getpid().as_raw_nonzero().to_string()
}

/// While it exists, this process takes the place of parents that have ended; at its end it ends who came.
pub struct Orphans(());

impl Orphans {
    /// Takes them in.
    ///
    /// # Errors
    /// A sentence, when the system refuses.
    pub fn take_in() -> Result<Self, String> {
        set_child_subreaper(Some(getpid())).map_err(|error| format!("cannot take in processes: {error}"))?;
        Ok(Self(()))
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        for _ in 0..ROUNDS {
            let mut all = ours().peekable();
            if all.peek().is_none() {
                return;
            }
            for process in all {
                let _gone = kill_process(process, Signal::KILL);
                let _reaped = waitpid(Some(process), WaitOptions::empty());
            }
        }
    }
}

/// The processes whose parent is this one and that have its mark.
fn ours() -> impl Iterator<Item = Pid> {
    let parent = getpid().as_raw_nonzero().get();
    let marked = format!("{VARIABLE}={}", mark());
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = move |number: &i32| {
        let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        parent_of(*number) == Some(parent)
            && environment.split(|byte| *byte == 0).any(|entry| entry == marked.as_bytes())
    };
    numbers.filter(is_ours).filter_map(Pid::from_raw)
}

fn parent_of(process: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
