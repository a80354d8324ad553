//! The vault: owns the keys, and decides, records and carries out what is asked of them.
//!
//! Its one door is [`Door::handle`](crate::door::Door::handle): a frame from a peer goes in, a frame comes out. It
//! opens no socket and reads no clock, randomness or file but through its [`Platform`], so the vault of the tests is
//! this vault. A call comes in at `door.rs` and is let in at `entry.rs`; then a family of calls per file: a row of
//! `calls!` without its `Handle` here does not compile.

mod admin;
mod applications;
mod attributes;
mod clients;
mod clock;
mod cluster;
mod context;
mod door;
mod entry;
mod error;
mod identity;
mod keyring;
mod keys;
mod login;
mod mandates;
mod nodes;
mod object;
mod partition;
mod profiles;
mod random;
mod readers;
mod record;
mod records;
mod server;
mod shared;
mod sign;
mod start;
mod status;
mod tickets;

use std::{
    collections::{BTreeMap, HashMap},
    hash::RandomState,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
};

use strongroom_shared::{
    message::{Hello, Welcome},
    wire::{self, Handle, Service},
};

pub use context::Context;
pub use error::Error;
pub use start::{Initialised, Requests, Settings, initialise};

use self::{
    applications::Applications, cluster::Cluster, partition::Partition, readers::Readers,
    records::ClientRecord, tickets::Tickets,
};
use crate::{
    audit::Log,
    certificates::Authority,
    door::ClientId,
    platform::{Platform, Time},
    store::SealedStore,
};

/// The server's name and version, as it tells them.
pub const SERVER: &str = concat!("strongroom ", env!("CARGO_PKG_VERSION"));

/// Every key and everything that guards them.
pub struct Vault<P: Platform> {
    platform: Arc<P>,
    settings: Settings,
    store: SealedStore<P::Store>,
    log: Log<P::Sink>,
    /// Held from a change of the store to its audit record, so that the log has them in the store's order.
    changes: Mutex<()>,
    /// Held while partitions or clients are added or removed.
    administration: Mutex<()>,
    partitions: RwLock<BTreeMap<String, Arc<Partition>>>,
    clients: RwLock<HashMap<[u8; 32], ClientRecord>>,
    admissions: AtomicU64,
    /// When the next certificate of a client ends, in seconds since 1970; 0 if that is to be found out.
    next_end: AtomicU64,
    /// When to look at the server's certificate, by the uptime.
    next_look: AtomicU64,
    /// From when on certificates are made by the clock, by the uptime.
    believed_from: AtomicU64,
    /// When certificates were renewed lately, by client.
    renewals: Mutex<HashMap<ClientId, Vec<Time>>>,
    authority: Authority,
    cluster: Cluster,
    applications: Applications,
    readers: Readers,
    tickets: Tickets,
    connections: AtomicU64,
    /// Tells a resent request from another one with its number.
    digests: RandomState,
    started: Time,
    clock: clock::Watch,
}

impl<P: Platform> std::fmt::Debug for Vault<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl<P: Platform> Service for Vault<P> {
    type Context<'a> = Context<'a>;
    type Error = Error;
}

impl<P: Platform> Handle<Hello> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Hello) -> Result<Welcome, Error> {
        tracing::debug!(client = context.peer.client, address = %context.peer.address, software = call.client, "hello");
        let renew_in = self.first_shown(context);
        Ok(Welcome {
            renew_in,
            cluster: self.cluster.own_cluster().map(Into::into),
            minor: wire::MINOR,
            limit: self.settings.frame_bytes,
            server: SERVER.into(),
            partition: context.peer.partition.clone(),
        })
    }
}
