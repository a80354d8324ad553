//! A log of a few lines, for a library in a stranger's process.
//!
//! Each line is one `write`, with no lock that a fork could leave held and no subscriber to collide with the
//! host's. It goes to standard error or to a file; PINs, keys, tickets and data never do.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use arc_swap::ArcSwapOption;
use serde::Deserialize;

/// How much a line matters, and from where on lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Write nothing.
    Off,
    /// The module cannot work.
    Error,
    /// The HSM could not be reached, failed, or refused by policy.
    Warn,
    /// What the HSM answered otherwise.
    Info,
    /// Every failed call.
    Debug,
}

impl Level {
    /// The level of this name, as in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

struct Log {
    level: Level,
    file: Option<File>,
}

static LOG: ArcSwapOption<Log> = ArcSwapOption::const_empty();

/// Opens the log.
///
/// # Errors
/// The file cannot be opened for appending.
pub fn open(level: Level, file: Option<&Path>) -> io::Result<()> {
    let file = match file {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            Some(File::from(above_standard_streams(file.into())?))
        }
        None => None,
    };
    LOG.store(Some(Log { level, file }.into()));
    Ok(())
}

/// Closes the log's file; what is written after it goes to standard error.
pub fn close() {
    LOG.store(None);
}

/// Moves a descriptor out of the numbers 0 to 2, which a daemon may have closed: what it later prints would
/// go into ours.
pub(crate) fn above_standard_streams(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > 2 {
        Ok(descriptor)
    } else {
        Ok(rustix::io::fcntl_dupfd_cloexec(&descriptor, 3)?)
    }
}

/// Writes one line, if the log is that talkative.
pub fn write(level: Level, line: fmt::Arguments<'_>) {
    let log = LOG.load();
    let threshold = log.as_ref().map_or(Level::Warn, |log| log.level);
    if level > threshold {
        return;
    }
    let line = format!("strongroom[{}] {}: {line}\n", std::process::id(), level.name());
    let _lost = match log.as_ref().and_then(|log| log.file.as_ref()) {
        Some(file) => rustix::io::write(file, line.as_bytes()),
        None => rustix::io::write(io::stderr().as_fd(), line.as_bytes()),
    };
}
