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

/// For how long calls may be made with a ticket, in seconds. A program in use renews it after half of that, without
/// the PIN; so a trading engine that signs all day never notices, and each of its renewals is on record. A ticket
/// that was stolen together with its certificate is of use for hours, or has to show itself in the log.
const TICKET_SECONDS: u64 = 8 * 3600;
/// For how long after that a login may lie idle, in seconds: the first call then renews its ticket. Longer than any
/// weekend, and than the longest holidays of an exchange.
const IDLE_SECONDS: u64 = 14 * 86_400;

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
    Ok(vault::initialise(&Arc::new(Host::new(&config.tls)?), store, sink, root_key, requests)?)
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
        names: config.names.clone(),
        frame_bytes: config.limits.frame_bytes,
        ticket_seconds: TICKET_SECONDS,
        idle_seconds: IDLE_SECONDS,
        durability: match config.commit {
            Commit::Process => Durability::Process,
            Commit::Power => Durability::Power,
        },
        isolation: match config.isolation {
            Isolation::Process => "process".into(),
            Isolation::Thread => "thread".into(),
        },
        refresh_hours: config.cluster.refresh_hours,
    };
    Ok(Arc::new(Vault::open(Arc::new(Host::new(&config.tls)?), store, sink, root_key, settings)?))
}
