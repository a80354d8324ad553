//! Runs commands in the workspace's folder, and prints them as a reader would type them.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{Outcome, workspace};

/// Whether the reader sees what is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Every command, before it runs.
    Commands,
    /// Nothing; what failed is in the error.
    Nothing,
}

/// Where commands run and with which variables.
#[derive(Clone, Debug)]
pub struct Shell {
    echo: Echo,
    variables: Vec<(String, String)>,
    /// What is printed for long words that a reader would not type.
    short: Vec<(String, String)>,
}

impl Shell {
    /// A shell in the workspace's folder.
    pub fn new(echo: Echo) -> Self {
        let cargo = workspace::cargo().to_string_lossy().into_owned();
        Self { echo, variables: Vec::new(), short: vec![("cargo".into(), cargo)] }
    }

    /// The same shell with one more variable exported.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut shell = self.clone();
        shell.variables.push((name.into(), value.into()));
        shell
    }

    /// The same shell, whose commands nobody sees.
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { echo: Echo::Nothing, ..self.clone() }
    }

    /// Exports a variable and says so.
    pub fn export(&mut self, name: &str, value: &str) {
        self.say(&format!("export {name}={}", quoted(value)));
        self.variables.push((name.into(), value.into()));
    }

    /// Prints a word as `$name` from here on, and says so.
    pub fn shorten(&mut self, name: &str, word: &str) {
        self.say(&format!("{name}={}", quoted(word)));
        self.short.push((format!("${name}"), word.into()));
    }

    /// The words as they are printed: what a reader types to have the same.
    fn shown(&self, words: &[&str]) -> String {
        let short =
            |word: &str| self.short.iter().find(|(_, long)| long == word).map(|(name, _)| name.clone());
        words.iter().map(|word| short(word).unwrap_or_else(|| quoted(word))).collect::<Vec<_>>().join(" ")
    }

    fn say(&self, line: &str) {
        if self.echo == Echo::Commands {
            println!("  {} {line}", dim("$"));
        }
    }

    fn command(&self, words: &[&str]) -> Outcome<Command> {
        let [program, arguments @ ..] = words else { return Err("an empty command".into()) };
        let mut command = Command::new(program);
        // A path relative to the workspace, as it is printed.
        if program.contains('/') && !program.starts_with('/') {
            command = Command::new(workspace::root().join(program));
        }
        command.args(arguments).current_dir(workspace::root()).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs a command to its end and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// It could not be started or did not succeed; the message holds all that it wrote.
    pub fn run(&self, words: &[&str]) -> Outcome<String> {
        self.say(&self.shown(words));
        let output = self.command(words)?.output().map_err(|error| format!("{}: {error}", line(words)))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(out.into_owned())
        } else {
            Err(format!("{}\n{out}{err}{}", line(words), output.status).into())
        }
    }

    /// Runs a command whose output is for the reader, and gives each line of it to `read` as well.
    ///
    /// # Errors
    /// It could not be started or did not succeed.
    pub fn stream(&self, words: &[&str], mut read: impl FnMut(&str)) -> Outcome {
        self.say(&self.shown(words));
        let mut child = self.command(words)?.stdout(Stdio::piped()).spawn()?;
        if let Some(out) = child.stdout.take() {
            for line in BufReader::new(out).lines() {
                let line = line?;
                println!("{line}");
                read(&line);
            }
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", line(words)).into()) }
    }

    /// Starts a command that stays, in a process group of its own, writing to a log file.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(&self, words: &[&str], log: &Path) -> Outcome<Child> {
        use std::os::unix::process::CommandExt;
        self.say(&format!("{} > {} 2>&1 &", self.shown(words), quoted(&workspace::shown(log))));
        let file = File::create(log)?;
        let mut command = self.command(words)?;
        command.process_group(0).stdout(file.try_clone()?).stderr(file);
        Ok(command.spawn().map_err(|error| format!("{}: {error}", line(words)))?)
    }
}

/// A command line that a shell reads back as the same words.
fn line(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints the title of what comes next.
pub fn heading(title: &str) {
    println!("\n{}", styled("1", title));
}

/// Prints a remark under a command.
pub fn note(text: &str) {
    for line in text.lines() {
        println!("    {}", dim(line));
    }
    let flushed = io::stdout().flush();
    debug_assert!(flushed.is_ok(), "standard output is closed");
}

/// Prints a result that the reader came for.
pub fn result(text: &str) {
    println!("    {}", styled("32", text));
}

fn dim(text: &str) -> String {
    styled("2", text)
}

fn styled(code: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| value != OsStr::new(""));
    if io::stdout().is_terminal() && !plain { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_line_reads_back_as_the_same_words() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME", "", "plain/path.so"];
        let printed = Shell::new(Echo::Nothing).run(&["sh", "-c", &line(&words)]).unwrap();
        assert_eq!(printed, "a b|it's|$HOME||plain/path.so|");
    }

    #[test]
    fn a_failure_tells_the_command_and_what_it_wrote() {
        let error = Shell::new(Echo::Nothing).run(&["sh", "-c", "echo why >&2; exit 3"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit 3") && text.contains("why"), "{text}");
    }
}
