//! `strongroom.toml`: which servers the module talks to.
//!
//! It is the file that `STRONGROOM_CONFIG` names, else `$XDG_CONFIG_HOME/strongroom/strongroom.toml` (by default in
//! `~/.config`), else `/etc/strongroom/strongroom.toml`. `hsmctl client add` writes one. Paths in it are relative to it.
//! A set-user-ID program looks in `/etc` only: its user must not choose who is told the PIN.
//!
//! ```toml
//! deadline_ms = 2000               # a call that takes longer fails with CKR_DEVICE_ERROR
//! generation_deadline_ms = 60000   # the same for calls that make keys or check PINs
//! log = "warn"                     # off, error, warn, info, debug; STRONGROOM_LOG overrides it
//! log_file = "strongroom.log"      # default: standard error
//!
//! [[token]]                        # one slot per table, in this order, from slot 0
//! server = "hsm.example:7411"
//! server_name = "strongroom"       # the name in the server's certificate; default: the host
//! ca = "ca.pem"
//! certificate = "client.pem"
//! key = "client.key"
//! mandate_key = "mandate.key"      # signs what is wanted of keys that several nodes share; optional
//! cluster_nodes = "cluster.nodes"  # the nodes whose word is taken for such keys when they are made; optional
//! ```

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{getegid, geteuid, getgid, getuid};
use serde::Deserialize;

use crate::log::{self, Level};

/// The environment variable that names the file.
pub const PATH_VARIABLE: &str = "STRONGROOM_CONFIG";
/// The environment variable that sets the log level.
pub const LOG_VARIABLE: &str = "STRONGROOM_LOG";

/// The module's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// One per slot.
    pub tokens: Vec<Token>,
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// How much is logged.
    pub log: Level,
    /// Where, if not to standard error.
    pub log_file: Option<PathBuf>,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To connect, and for the answer to an ordinary call.
    pub call: Duration,
    /// For the answer to a call that makes keys or checks PINs.
    pub generation: Duration,
}

/// A token: one partition of one server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// `host:port`.
    pub server: String,
    /// The name in the server's certificate.
    #[serde(default)]
    pub server_name: String,
    /// The server's certificate authority, PEM.
    pub ca: PathBuf,
    /// The client's certificate chain, PEM.
    pub certificate: PathBuf,
    /// The client's private key, PEM.
    pub key: PathBuf,
    /// The client's key for mandates, PEM.
    pub mandate_key: Option<PathBuf>,
    /// The nodes whose word is taken for keys that they make together.
    pub cluster_nodes: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Token>,
    deadline_ms: Option<u64>,
    generation_deadline_ms: Option<u64>,
    log: Option<Level>,
    log_file: Option<PathBuf>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the file that applies to this process.
    ///
    /// # Errors
    /// There is none, or it cannot be understood; the text says what to do.
    pub fn load() -> Result<Self, ConfigError> {
        let (path, named) = find()?;
        let text = fs::read_to_string(&path).map_err(|error| {
            let by = if named { format!(", which {PATH_VARIABLE} names") } else { String::new() };
            ConfigError(format!("cannot read {}{by}: {error}", path.display()))
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut config = Self::parse(&text, folder)
            .map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        if let Some(name) = variable(LOG_VARIABLE) {
            match name.to_str().and_then(Level::from_name) {
                Some(level) => config.log = level,
                None => log::write(
                    Level::Warn,
                    format_args!("{LOG_VARIABLE} = {name:?} is none of off, error, warn, info, debug"),
                ),
            }
        }
        Ok(config)
    }

    /// Reads a configuration whose paths are relative to `folder`.
    ///
    /// # Errors
    /// The text is not one, names no token, holds an unknown key, or an address without a port.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        if file.token.is_empty() {
            return Err(ConfigError("no [[token]] table; `hsmctl client add` writes one".to_owned()));
        }
        let tokens = file.token.into_iter().map(|token| token.resolved(folder)).collect::<Result<_, _>>()?;
        let milliseconds = |set: Option<u64>, default| Duration::from_millis(set.unwrap_or(default).max(1));
        let call = milliseconds(file.deadline_ms, 2_000);
        let generation = milliseconds(file.generation_deadline_ms, 60_000).max(call);
        Ok(Self {
            tokens,
            deadlines: Deadlines { call, generation },
            log: file.log.unwrap_or(Level::Warn),
            log_file: file.log_file.map(|path| folder.join(path)),
        })
    }
}

impl Token {
    fn resolved(mut self, folder: &Path) -> Result<Self, ConfigError> {
        let (host, port) = self.server.rsplit_once(':').unwrap_or((&self.server, ""));
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(ConfigError(format!("server = {:?} is not host:port", self.server)));
        }
        if self.server_name.is_empty() {
            self.server_name = host.trim_matches(['[', ']']).to_owned();
        }
        let paths = [&mut self.ca, &mut self.certificate, &mut self.key];
        for path in paths.into_iter().chain(&mut self.mandate_key).chain(&mut self.cluster_nodes) {
            *path = folder.join(&*path);
        }
        Ok(self)
    }
}

/// An environment variable that is set and not empty, in a process whose user is who started it.
fn variable(name: &str) -> Option<OsString> {
    let trusted = getuid() == geteuid() && getgid() == getegid();
    env::var_os(name).filter(|value| trusted && !value.is_empty())
}

/// The file, and whether the environment names it.
fn find() -> Result<(PathBuf, bool), ConfigError> {
    if let Some(path) = variable(PATH_VARIABLE) {
        return Ok((path.into(), true));
    }
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let user = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let candidates = user
        .into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|folder| folder.join("strongroom/strongroom.toml"));
    let mut looked = Vec::new();
    for path in candidates {
        if path.is_file() {
            return Ok((path, false));
        }
        looked.push(path.display().to_string());
    }
    Err(ConfigError(format!(
        "no configuration: set {PATH_VARIABLE} to a strongroom.toml (`hsmctl client add` writes one); looked for {}",
        looked.join(" and ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str =
        "[[token]]\nserver = \"[::1]:7411\"\nca = \"ca.pem\"\ncertificate = \"/c.pem\"\nkey = \"k\"\n";

    #[test]
    fn paths_are_relative_to_the_file_and_the_name_defaults_to_the_host() {
        let config = Config::parse(TOKEN, Path::new("/conf")).unwrap();
        let [token] = &config.tokens[..] else { panic!("one token") };
        assert_eq!(token.server_name, "::1");
        assert_eq!(
            (token.ca.as_path(), token.certificate.as_path()),
            (Path::new("/conf/ca.pem"), Path::new("/c.pem"))
        );
        assert_eq!(config.deadlines.call, Duration::from_secs(2));
        assert_eq!(config.log, Level::Warn);
    }

    #[test]
    fn unknown_keys_and_addresses_without_port_are_errors() {
        for text in [
            "dead_line = 1\n".to_owned() + TOKEN,
            TOKEN.to_owned() + "pin = \"1234\"\n",
            TOKEN.replace("[::1]:7411", "localhost"),
            "log = \"loud\"\n".to_owned() + TOKEN,
        ] {
            assert!(Config::parse(&text, Path::new("/")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_an_error_that_says_what_writes_one() {
        let error = Config::parse("log = \"warn\"\n", Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "no [[token]] table; `hsmctl client add` writes one");
    }
}
