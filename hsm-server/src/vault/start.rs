//! Making a new server's store, and opening it again: what must hold between the store and the audit log.

use std::{
    collections::{BTreeMap, HashMap},
    hash::RandomState,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
};

use minicbor::bytes::ByteVec;
use strongroom_shared::{
    fault::FaultCode,
    message::{AuditRecord, Outcome, SecretBytes},
    object::ObjectId,
    secret::Secret,
    secret::Wiped,
};

use super::{
    Error, Vault,
    admin::hex,
    applications::{ApplicationId, Applications, short},
    clock::{Step, Watch, step},
    cluster::Cluster,
    identity::Identity,
    keyring::{Object, Owner},
    mandates::Admitted,
    partition::{Partition, Rules},
    readers::Readers,
    records::{
        AuthorityRecord, ClientRecord, NodeRecord, ObjectRecord, PartitionRecord, RolesRecord, decode, encode,
    },
    server::SETTLE,
    shared::{
        bans::SignedBan,
        children::ChildRecord,
        end::{destroyed::DestroyedRecord, promise::PromiseRecord},
        kept::{FormerRecord, ShareRecord, StandingRecord},
        keys::{Pending, SharedKey, SharedKeys},
        life::{traces::TracesRecord, waiting::WaitingOrders},
    },
    tickets::Tickets,
};
use crate::{
    audit::{self, Durability, Log, Recovered},
    certificates::{self, Authority, Issued},
    cluster::Document,
    crypto::Random,
    door::ClientId,
    platform::{Platform, Time},
    policy::Policy,
    store::{Batch, PartitionId, Path, SealedStore},
};

/// What the audit log's key is derived for.
const AUDIT: &str = "audit log";
/// The name of the first administrator.
const FIRST_ADMINISTRATOR: &str = "admin";
/// How far before the log's end the replay reaches, in microseconds: a limit's minute, and any resent request.
const REPLAY: Time = 120 * 1_000_000;

/// What the configuration fixes for a vault.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host names and addresses that stand in the server's certificate.
    pub names: Vec<String>,
    /// The greatest body of a frame, in bytes.
    pub frame_bytes: u32,
    /// For how long calls may be made with a ticket, in seconds.
    pub ticket_seconds: u64,
    /// For how long after that it may still be renewed, in seconds.
    pub idle_seconds: u64,
    /// When a record counts as written.
    pub durability: Durability,
    /// `process` or `thread`, for `hsmctl status`.
    pub isolation: String,
    /// After how many hours the shares of a key are refreshed; 0 for never.
    pub refresh_hours: u64,
}

/// What a new server wants certified: PKCS#10 requests in DER, and the server's names.
#[derive(Debug)]
pub struct Requests {
    /// The server's own.
    pub server: Vec<u8>,
    /// The host names and addresses that it is known by.
    pub names: Vec<String>,
    /// The first administrator's.
    pub administrator: Vec<u8>,
    /// For how many days both are good.
    pub days: u32,
}

/// The certificates of a new server, in DER.
#[derive(Debug)]
pub struct Initialised {
    /// The CA's.
    pub authority: Vec<u8>,
    /// The server's.
    pub server: Vec<u8>,
    /// The first administrator's.
    pub administrator: Vec<u8>,
    /// SHA-256 of the key by which the server proves who it is as a node.
    pub node: [u8; 32],
}

/// Makes a new store with its own CA and a first administrator.
///
/// # Errors
/// The store or the log cannot be written, is not empty, or a request is malformed.
pub fn initialise<P: Platform>(
    platform: &Arc<P>,
    store: P::Store,
    sink: P::Sink,
    root_key: Secret<[u8; 32]>,
    requests: &Requests,
) -> Result<Initialised, Error> {
    let now = platform.now();
    let seconds = now / 1_000_000;
    let pair = Authority::create("Strongroom CA", seconds, certificates::MAX_DAYS)?;
    let authority = Authority::load(&pair.certificate, &pair.key)?;
    let server = authority.issue_server(&requests.server, &requests.names, seconds, requests.days)?;
    let administrator =
        authority.issue_client(&requests.administrator, FIRST_ADMINISTRATOR, None, seconds, requests.days)?;

    let store = SealedStore::create(store, root_key, randomness(platform))?;
    let id = new_client(&**platform);
    let client = client_record(id, FIRST_ADMINISTRATOR, None, &administrator, requests.days);
    let record = AuthorityRecord { certificate: pair.certificate.clone(), key: SecretBytes(pair.key.into()) };
    let node = NodeRecord::new(&authority, &**platform, now)?;
    let mut batch = Batch::new();
    batch
        .put(Path::Authority, encode(&record))
        .put(Path::Client(client.fingerprint), encode(&client))
        .put(Path::Node, encode(&node));
    let mut first =
        AuditRecord { time: now, client: "-".into(), act: "Initialise".into(), ..AuditRecord::default() };
    first.store_version = Some(store.commit(batch, &encode(&first))?);

    let log = Log::create(sink, &store.subkey(AUDIT), log_settings(Durability::Power))?;
    let position = log.append(first)?;
    log.commit(position)?;
    Ok(Initialised {
        authority: pair.certificate,
        server: server.certificate,
        administrator: administrator.certificate,
        node: Identity::open(node)?.fingerprint(),
    })
}

/// A client that there has not been before.
pub(super) fn new_client(random: &impl Random) -> ClientId {
    let mut id = ClientId([0; 16]);
    random.fill(&mut id.0);
    id
}

/// A certificate of a client as it is kept.
pub(super) fn client_record(
    id: ClientId,
    name: &str,
    partition: Option<String>,
    issued: &Issued,
    days: u32,
) -> ClientRecord {
    ClientRecord {
        id: id.0,
        fingerprint: certificates::fingerprint(&issued.certificate),
        name: name.into(),
        partition,
        not_after: issued.not_after,
        revoked: false,
        days,
        replaces: None,
    }
}

const fn log_settings(durability: Durability) -> audit::Settings {
    audit::Settings { durability, segment_limit: audit::Settings::SEGMENT_LIMIT }
}

fn randomness<P: Platform>(platform: &Arc<P>) -> crate::store::Random {
    let platform = Arc::clone(platform);
    Box::new(move |bytes| platform.fill(bytes))
}

/// The records of a store, sorted.
#[derive(Default)]
struct Contents {
    authority: Option<AuthorityRecord>,
    node: Option<NodeRecord>,
    membership: Option<Document>,
    orders: BTreeMap<[u8; 32], Wiped>,
    clients: HashMap<[u8; 32], ClientRecord>,
    partitions: BTreeMap<PartitionId, Parts>,
}

#[derive(Default)]
struct Parts {
    record: Option<PartitionRecord>,
    roles: RolesRecord,
    policy: String,
    objects: Vec<Object>,
    admitted: Admitted,
    shares: BTreeMap<ObjectId, ShareRecord>,
    standings: BTreeMap<ObjectId, StandingRecord>,
    pending: Pending,
    former: BTreeMap<ObjectId, Arc<FormerRecord>>,
    bans: BTreeMap<ObjectId, Vec<SignedBan>>,
    children: BTreeMap<ObjectId, Arc<ChildRecord>>,
    destroyed: BTreeMap<ObjectId, DestroyedRecord>,
    traces: BTreeMap<ObjectId, TracesRecord>,
    promises: BTreeMap<ObjectId, PromiseRecord>,
}

impl Contents {
    fn read(records: Vec<(Path, Wiped)>) -> Result<Self, Error> {
        let mut contents = Self::default();
        for (path, bytes) in records {
            let partitions = &mut contents.partitions;
            match path {
                Path::Authority => contents.authority = Some(decode(&bytes)?),
                Path::Node => contents.node = Some(decode(&bytes)?),
                Path::Membership => contents.membership = Some(kept(&bytes)?),
                Path::Order(digest) => drop(contents.orders.insert(digest, bytes)),
                Path::Client(fingerprint) => drop(contents.clients.insert(fingerprint, decode(&bytes)?)),
                Path::Partition(id) => partitions.entry(id).or_default().record = Some(decode(&bytes)?),
                Path::Roles(id) => partitions.entry(id).or_default().roles = decode(&bytes)?,
                Path::Policy(id) => partitions.entry(id).or_default().policy = decode(&bytes)?,
                Path::Object(id, object) => {
                    let record: ObjectRecord = decode(&bytes)?;
                    let object = Object::new(object, record.attributes, Owner::Token, record.lineage);
                    partitions.entry(id).or_default().objects.push(object);
                }
                Path::Share(id, key) => {
                    drop(partitions.entry(id).or_default().shares.insert(key, decode(&bytes)?));
                }
                Path::Pending(id, key, epoch) => {
                    let record = Arc::new(decode(&bytes)?);
                    drop(partitions.entry(id).or_default().pending.insert((key, epoch), record));
                }
                Path::Former(id, key) => {
                    let former: Arc<FormerRecord> = Arc::new(decode(&bytes)?);
                    drop(partitions.entry(id).or_default().former.insert(key, former));
                }
                Path::Standing(id, key) => {
                    drop(partitions.entry(id).or_default().standings.insert(key, decode(&bytes)?));
                }
                Path::Bans(id, key) => {
                    drop(partitions.entry(id).or_default().bans.insert(key, decode(&bytes)?));
                }
                Path::Child(id, child) => {
                    let record = Arc::new(decode(&bytes)?);
                    drop(partitions.entry(id).or_default().children.insert(child, record));
                }
                Path::Destroyed(id, key) => {
                    partitions.entry(id).or_default().destroyed.insert(key, decode(&bytes)?);
                }
                Path::Traces(id, key) => {
                    partitions.entry(id).or_default().traces.insert(key, decode(&bytes)?);
                }
                Path::Promise(id, key) => {
                    partitions.entry(id).or_default().promises.insert(key, decode(&bytes)?);
                }
                Path::Admission(id, key) => {
                    partitions.entry(id).or_default().admitted.insert(key, decode(&bytes)?);
                }
            }
        }
        Ok(contents)
    }
}

/// The membership document as it was put in force.
fn kept(bytes: &[u8]) -> Result<Document, Error> {
    let document: ByteVec = decode(bytes)?;
    Document::read(&document).map_err(|error| Error::caller(FaultCode::IntegrityViolated, error.to_string()))
}

impl Parts {
    fn partition(mut self, id: PartitionId) -> Result<(String, Arc<Partition>), Error> {
        let broken =
            |what: String| Error::caller(FaultCode::IntegrityViolated, format!("partition {id}: {what}"));
        let record = self.record.ok_or_else(|| broken("it has no record".into()))?;
        let policy = Policy::parse(&self.policy).map_err(|error| broken(error.to_string()))?;
        let name = record.name.clone();
        let shared = self.shares.into_iter().map(|(key, share)| {
            let bans = self.bans.remove(&key).unwrap_or_default();
            let standing = self.standings.remove(&key).unwrap_or_default();
            Ok((key, Arc::new(SharedKey::open(share, standing, bans)?)))
        });
        let shared = SharedKeys::new(shared.collect::<Result<_, Error>>()?, self.pending, self.former);
        shared.children.load(self.children);
        shared.destroyed.load(self.destroyed);
        shared.traces.load(self.traces);
        shared.promises.load(self.promises);
        let rules = Rules { record, policy_text: self.policy, policy };
        let partition = Partition::new(id, rules, self.roles, shared);
        partition.keyring.put(self.objects);
        *partition.admitted_to_change() = self.admitted;
        Ok((name, Arc::new(partition)))
    }
}

impl<P: Platform> Vault<P> {
    /// Opens the store and the log of a server, proves that they are whole and belong together, and goes on
    /// where the last process stopped: a record that it did not get to write is written now.
    ///
    /// # Errors
    /// Anything that was edited, swapped, dropped or put back to an earlier time, saying what and where.
    pub fn open(
        platform: Arc<P>,
        store: P::Store,
        sink: P::Sink,
        root_key: Secret<[u8; 32]>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let (store, records) = SealedStore::open(store, root_key, randomness(&platform))?;
        let contents = Contents::read(records)?;
        let (log, recovered) = Log::open(sink, &store.subkey(AUDIT), log_settings(settings.durability))?;
        reconcile(&store, &log, &recovered)?;

        let broken = || Error::caller(FaultCode::IntegrityViolated, "the store has no CA");
        let authority = contents.authority.ok_or_else(broken)?;
        let partitions = contents.partitions.into_iter().map(|(id, parts)| parts.partition(id));
        let now = platform.now();
        let vault = Self {
            authority: Authority::load(&authority.certificate, &authority.key.0)?,
            cluster: Cluster::open(contents.node, contents.membership, WaitingOrders::load(contents.orders))?,
            tickets: Tickets::new(&store.subkey("tickets")),
            changes: Mutex::default(),
            administration: Mutex::default(),
            partitions: RwLock::new(partitions.collect::<Result<_, _>>()?),
            clients: RwLock::new(contents.clients),
            admissions: AtomicU64::new(1),
            next_end: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            believed_from: AtomicU64::new(SETTLE),
            renewals: Mutex::default(),
            applications: Applications::default(),
            readers: Readers::default(),
            connections: AtomicU64::new(1),
            digests: RandomState::new(),
            started: now,
            clock: Watch::new(now, platform.uptime()),
            platform,
            settings,
            store,
            log,
        };
        if let Some(identity) = vault.cluster.identity() {
            tracing::info!(fingerprint = hex(&identity.fingerprint()), "this server as a node of a cluster");
        }
        vault.replay()?;
        vault.log.append(AuditRecord {
            time: now,
            client: "-".into(),
            act: "Start".into(),
            store_version: Some(vault.store.version()),
            ..AuditRecord::default()
        })?;
        vault.log.commit(vault.log.last()?)?;
        Ok(vault)
    }

    /// Takes from the log's last minutes what memory lost: charges, and which requests were carried out.
    fn replay(&self) -> Result<(), Error> {
        let partitions = self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Records name a certificate; what they tell is the client's.
        let clients = self.clients.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let clients: HashMap<_, _> =
            clients.values().map(|client| (short(&client.fingerprint), client.id())).collect();
        let last = self.log.tail(1, None)?.first().map_or(0, |record| record.time);
        if let Some(step @ Step::Back(_)) = step(last, self.started) {
            tracing::warn!(
                "the clock is set {step} of the last audit record: opening hours, tickets and certificates follow \
                 it; if that is not the time of day, set the clock"
            );
        }
        let since = last.saturating_sub(REPLAY);
        let uptime = self.platform.uptime();
        self.clock_was_found(self.started.abs_diff(last), uptime);
        self.log.replay(since, |record: AuditRecord| {
            if let (Some(key), Some(partition)) = (record.charged, partitions.get(&record.partition)) {
                // What the clock says of the time since the last record is not relied on: as if it were none.
                partition.ledger.remember(key, uptime, last.saturating_sub(record.time));
            }
            if let (Outcome::Done, Some(client)) =
                (record.outcome, clients.get(record.certificate.as_slice()))
            {
                let id = ApplicationId { client: *client, instance: record.instance };
                self.applications.remember_lost(id, record.request, uptime);
            }
        })?;
        Ok(())
    }
}

/// Holds the store against the log (`record.rs` says how they are written).
fn reconcile<P: crate::store::Store, S: crate::audit::AuditSink>(
    store: &SealedStore<P>,
    log: &Log<S>,
    recovered: &Recovered,
) -> Result<(), Error> {
    if let Some(lost) = &recovered.lost {
        tracing::warn!(?lost, "a power failure took audit records that were not yet on disk");
    }
    let violated = |text: String| Err(Error::caller(FaultCode::IntegrityViolated, text));
    let version = store.version();
    let recorded = recovered.store_version;
    if recorded > version {
        return violated(format!(
            "the store is older than its audit log: it is at version {version}, record {} speaks of version \
             {recorded}; restore the store that belongs to the log",
            recovered.last
        ));
    }
    let Some((version, outbox)) = store.pending() else { return Ok(()) };
    let pending: AuditRecord = decode(&outbox)?;
    if pending.sequence > recovered.last {
        return violated(format!(
            "the audit log is older than its store: it ends at record {}, the store saw record {}; restore the \
             log that belongs to the store",
            recovered.last, pending.sequence
        ));
    }
    if !pending.act.is_empty() && recorded < version {
        tracing::warn!(
            act = pending.act,
            "the last process stopped before it put this act on record; it is now"
        );
        let position = log.append(AuditRecord { store_version: Some(version), ..pending })?;
        log.commit(position)?;
    }
    Ok(())
}
