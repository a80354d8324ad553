//! The vault on a real machine: its files in the state folder, its settings from `server.toml`.

use std::{path::PathBuf, sync::Arc};

use strongroom_shared::secret::Secret;

use crate::{
    audit::{Durability, FileSink},
    config::{Commit, Config, Isolation},
    crypto,
    door::Door,
    platform::Host,
    process::Failure,
    store::{root_key, sqlite::Sqlite},
    vault::{self, Initialised, Requests, Settings, Vault},
};

/// How long a login is good, in seconds. It survives restarts, so it is longer than any window between two deployments.
const TICKET_SECONDS: u64 = 30 * 86_400;

fn store_file(config: &Config) -> PathBuf {
    config.state.join("store.db")
}

fn audit_folder(config: &Config) -> PathBuf {
    config.state.join("audit")
}

/// Makes the store and the audit log of a new server.
///
/// # Errors
/// There are some already, or they cannot be written.
pub fn initialise(
    config: &Config,
    root_key: Secret<[u8; 32]>,
    requests: &Requests,
) -> Result<Initialised, Failure> {
    let store = Sqlite::create(&store_file(config))?;
    let sink = FileSink::create(&audit_folder(config))?;
    Ok(vault::initialise(&Arc::new(Host::new()?), store, sink, root_key, requests)?)
}

/// Opens the vault of a server, after the self-test of its cryptography.
///
/// # Errors
/// The self-test, the root key, the store or the log; the message says what and where.
pub fn open(config: &Config) -> Result<Arc<dyn Door>, Failure> {
    crypto::self_test()?;
    let root_key = root_key::read(&config.root_key.file)?;
    let store = Sqlite::open(&store_file(config))?;
    let sink = FileSink::open(&audit_folder(config))?;
    let settings = Settings {
        frame_bytes: config.limits.frame_bytes,
        ticket_seconds: TICKET_SECONDS,
        durability: match config.commit {
            Commit::Process => Durability::Process,
            Commit::Power => Durability::Power,
        },
        isolation: match config.isolation {
            Isolation::Process => "process".into(),
            Isolation::Thread => "thread".into(),
        },
    };
    Ok(Arc::new(Vault::open(Arc::new(Host::new()?), store, sink, root_key, settings)?))
}
