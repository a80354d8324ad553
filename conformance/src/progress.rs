//! The line on a terminal that says how far the checks are. Nothing is printed where nobody looks.

use std::io::{self, IsTerminal, Write};

use crate::check::{Check, Outcome};

/// Columns of the bar.
const WIDTH: usize = 30;

/// See the module's header.
pub struct Progress {
    all: usize,
    done: usize,
    failed: usize,
    terminal: Option<io::Stderr>,
}

impl Progress {
    /// Of so many checks none is made.
    pub fn new(all: usize) -> Self {
        let terminal = Some(io::stderr()).filter(IsTerminal::is_terminal);
        Self { all, done: 0, failed: 0, terminal }
    }

    /// One more is made.
    pub fn step(&mut self, outcome: &Outcome, check: &Check) {
        self.done += 1;
        self.failed += usize::from(matches!(outcome, Outcome::Fail { .. }));
        let line = self.line(&check.id);
        if let Some(terminal) = &mut self.terminal {
            let _written = write!(terminal, "\r{line}\x1b[K").and_then(|()| terminal.flush());
        }
    }

    fn line(&self, id: &str) -> String {
        let full = (self.done * WIDTH).checked_div(self.all).unwrap_or(WIDTH).min(WIDTH);
        let (bar, rest) = ("█".repeat(full), "░".repeat(WIDTH - full));
        format!("{bar}{rest} {}/{}  {} failed  {id}", self.done, self.all, self.failed)
    }

    /// Takes the line away.
    pub fn clear(mut self) {
        if let Some(terminal) = &mut self.terminal {
            let _written = write!(terminal, "\r\x1b[K").and_then(|()| terminal.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_at_the_end() {
        let mut progress = Progress { all: 60, done: 30, failed: 2, terminal: None };
        assert_eq!(
            progress.line("a.b"),
            format!("{}{} 30/60  2 failed  a.b", "█".repeat(15), "░".repeat(15))
        );
        progress.done = 61;
        assert!(!progress.line("a.b").contains('░'), "a crash at the end of a chapter counts once more");
    }
}
