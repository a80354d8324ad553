//! `server.toml`: everything an operator may set, each with a working default.
//!
//! An unknown key is an error, because a misspelt limit is no limit. Relative paths start at the folder of the
//! file. [`TEMPLATE`] is the documented file that `hsmctl init` writes; a test keeps it equal to the defaults.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use strongroom_shared::wire;

/// Where a server looks for its configuration when it is not told.
pub const DEFAULT_PATH: &str = "/etc/strongroom/server.toml";

/// The most lanes: as many sockets as one message hands over comfortably.
pub const MAX_LANES: usize = 64;

/// The longest time between two refreshes, in hours: a year.
pub const MAX_REFRESH_HOURS: u64 = 366 * 24;

/// The documented configuration file, with every default written out.
pub const TEMPLATE: &str = include_str!("server.toml");

/// A server's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The names and addresses by which clients know the server; they stand in its certificate.
    pub names: Vec<String>,
    /// The folder that holds everything the vault keeps.
    pub state: PathBuf,
    /// Whether the vault has a process of its own.
    pub isolation: Isolation,
    /// What "written" means.
    pub commit: Commit,
    /// How many lanes carry connections; 0 for one per processor.
    pub lanes: usize,
    /// Whether the vault refuses to start if its memory cannot be locked.
    pub require_locked_memory: bool,
    /// What opens the store.
    pub root_key: RootKey,
    /// The files of the server's TLS identity.
    pub tls: Tls,
    /// What the server lets one client, or all of them, use up.
    pub limits: Limits,
    /// How it reaches the other nodes of a cluster.
    pub cluster: Cluster,
    /// What is logged, and how.
    pub log: Log,
}

/// Whether the vault has a process of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Front and vault are two processes; only the vault ever holds a key.
    #[default]
    Process,
    /// The vault runs in the front's process: lower latency, one wall less.
    Thread,
}

/// What "written" means, before a reply leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Commit {
    /// In the kernel, and on the disk within 50 ms: survives the end of every process.
    #[default]
    Process,
    /// On the disk: survives the loss of power too.
    Power,
}

/// What opens the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKey {
    /// A file of 32 random bytes that only the server may read.
    pub file: PathBuf,
}

/// The files of the server's TLS identity, in PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The server's certificate, and any intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA that makes client certificates.
    pub authority: PathBuf,
}

/// What the server lets one client, or all of them, use up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// The greatest body of a frame, in bytes.
    pub frame_bytes: u32,
    /// How long a connection may be silent.
    pub idle_seconds: u64,
    /// How long a TLS handshake may take.
    pub handshake_seconds: u64,
    /// How long a frame may take to arrive once it has begun, and a reply to be taken.
    pub frame_seconds: u64,
    /// How long a stopping server waits for what is in flight.
    pub stop_seconds: u64,
}

/// How a server reaches the other nodes of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The ports at which other nodes listen. The front may connect to these and to no others; with none it never
    /// connects to anybody, and the server cannot be a node.
    pub ports: Vec<u16>,
    /// After how many hours the nodes make other shares of each key that they share; 0 for never.
    pub refresh_hours: u64,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,strongroom_server::front=debug`.
    pub level: String,
    /// For whom.
    pub format: LogFormat,
}

/// For whom the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// People.
    #[default]
    Human,
    /// Machines: one JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7373)),
            names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()],
            state: PathBuf::from("."),
            isolation: Isolation::default(),
            commit: Commit::default(),
            lanes: 0,
            require_locked_memory: false,
            root_key: RootKey::default(),
            tls: Tls::default(),
            limits: Limits::default(),
            cluster: Cluster::default(),
            log: Log::default(),
        }
    }
}

impl Default for RootKey {
    fn default() -> Self {
        Self { file: PathBuf::from("root.key") }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::from("tls/server.pem"),
            key: PathBuf::from("tls/server.key"),
            authority: PathBuf::from("tls/ca.pem"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            frame_bytes: wire::DEFAULT_LIMIT,
            idle_seconds: 3600,
            handshake_seconds: 5,
            frame_seconds: 10,
            stop_seconds: 10,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::default() }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or says something that it may not: the error names the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |reason: String| ConfigError { path: path.to_path_buf(), reason };
        let text = fs::read_to_string(path)
            .map_err(|error| fail(format!("{error}; name one by --config; `hsmctl init` makes one")))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| fail(error.to_string()))?;
        config.check().map_err(fail)?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Makes relative paths start at `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        let paths = [
            &mut self.state,
            &mut self.root_key.file,
            &mut self.tls.certificate,
            &mut self.tls.key,
            &mut self.tls.authority,
        ];
        for path in paths {
            // By its components, because they leave `/./` out.
            *path = folder.join(&*path).components().collect();
        }
    }

    /// How many lanes there are to be.
    pub fn lane_count(&self) -> usize {
        match self.lanes {
            0 => thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_LANES),
            lanes => lanes,
        }
    }

    fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        if self.lanes > MAX_LANES {
            return Err(format!("lanes = {}: at most {MAX_LANES}", self.lanes));
        }
        if self.names.is_empty() {
            return Err("names: a server certificate needs at least one".into());
        }
        if !(1024..=1 << 26).contains(&limits.frame_bytes) {
            return Err(format!("limits.frame_bytes = {}: from 1024 to 67108864", limits.frame_bytes));
        }
        if self.cluster.ports.contains(&0) {
            return Err("cluster.ports: 0 is no port".into());
        }
        if self.cluster.refresh_hours > MAX_REFRESH_HOURS {
            return Err(format!("cluster.refresh_hours: at most {MAX_REFRESH_HOURS}"));
        }
        if limits.connections == 0 {
            return Err("limits.connections = 0 lets nobody in".into());
        }
        let times = [
            ("idle_seconds", limits.idle_seconds),
            ("handshake_seconds", limits.handshake_seconds),
            ("frame_seconds", limits.frame_seconds),
        ];
        match times.iter().find(|(_, seconds)| *seconds == 0) {
            Some((name, _)) => Err(format!("limits.{name} = 0: at least 1")),
            None => Ok(()),
        }
    }
}

impl Limits {
    /// How long a connection may be silent.
    pub const fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    /// How long a TLS handshake may take.
    pub const fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    /// How long a frame may take to arrive, and a reply to be taken.
    pub const fn frame(&self) -> Duration {
        Duration::from_secs(self.frame_seconds)
    }

    /// How long a stopping server waits for what is in flight.
    pub const fn stop(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}

/// A configuration file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason.trim_end())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_defaults() {
        let written: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(written, Config::default());
        // Every setting stands in the template, so that nobody has to read this source.
        let all = toml::Value::try_from(Config::default()).unwrap();
        let said: toml::Value = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(all, said);
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn misspelt_keys_and_impossible_values_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        for (text, hint) in [
            ("lisen = \"127.0.0.1:1\"", "lisen"),
            ("[limits]\nframe = 1", "frame"),
            ("isolation = \"none\"", "isolation"),
            ("[limits]\nframe_bytes = 10", "frame_bytes"),
            ("[limits]\nhandshake_seconds = 0", "handshake_seconds"),
            ("[limits]\nconnections = 0", "connections"),
            ("lanes = 1000", "lanes"),
            ("names = []", "names"),
            ("[cluster]\nports = [0]", "cluster.ports"),
            ("[cluster]\nrefresh_hours = 100000", "cluster.refresh_hours"),
            ("[root_key]\nfile = \"a\"\nkey = \"b\"", "key"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains("server.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn paths_start_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        fs::write(
            &path,
            "state = \"vault\"\n[root_key]\nfile = \"/run/key\"\n[tls]\nkey = \"./tls/server.key\"",
        )
        .unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(config.state, folder.path().join("vault"));
        assert_eq!(config.root_key.file, Path::new("/run/key"));
        assert_eq!(config.tls.key.as_os_str(), folder.path().join("tls/server.key").as_os_str());
        let error = Config::load(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("--config"), "{error}");
    }
}
