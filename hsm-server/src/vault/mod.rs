//! The vault: owns the keys, and decides, records and carries out what is asked of them.
//!
//! Its one door is [`Door::handle`]: a frame from a peer goes in, a frame comes out. It opens no socket and
//! reads no clock, randomness or file but through its [`Platform`], so the vault of the tests is this vault.
//! A family of calls per file; a row of `calls!` without its `Handle` here does not compile.

mod admin;
mod applications;
mod attributes;
mod clients;
mod clock;
mod cluster;
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
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::{AuditRecord, Caller, Hello, InstanceId, Outcome, Welcome},
    object::ObjectId,
    wire::{self, CallId, HEADER, Handle, Header, Kind, Permit, Retry, Service, Undone},
};

pub use error::Error;
pub use start::{Initialised, Requests, Settings, initialise};

use self::{
    applications::{Application, ApplicationId, Applications, Arrival, short},
    cluster::Cluster,
    login::Role,
    partition::Partition,
    readers::Readers,
    records::ClientRecord,
    tickets::{Purpose, Tickets},
};
use crate::{
    audit::Log,
    certificates::{self, Authority},
    cluster::Peers,
    door::{Admission, ClientId, Door, Pace, Peer, Verdict},
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

/// What the vault knows of a call while it carries it out.
pub struct Context<'a> {
    /// Who asks.
    pub peer: &'a Peer,
    /// For which application and session, with which ticket.
    caller: Caller,
    /// The request's number.
    request: u64,
    call: CallId,
    /// When it came.
    now: Time,
    /// As whom, by the ticket.
    role: Role,
    /// What the ticket says.
    login: Option<tickets::Login>,
    partition: Option<Arc<Partition>>,
    /// The partition that an administrator acts on, for the record.
    subject: String,
    /// What it is about, for the record.
    object: Option<ObjectId>,
    mechanism: Option<u64>,
    message_hash: Vec<u8>,
    detail: String,
    /// The ceremonies that this node has coordinated for it, for the record of a failure.
    tried: Vec<String>,
    /// Whether it is on record already.
    recorded: bool,
}

impl<'a> Context<'a> {
    /// A call about which nothing else is known yet.
    const fn new(peer: &'a Peer, caller: Caller, call: CallId, now: Time) -> Self {
        Self {
            peer,
            caller,
            request: 0,
            call,
            now,
            role: Role::Public,
            login: None,
            partition: None,
            subject: String::new(),
            object: None,
            mechanism: None,
            message_hash: Vec::new(),
            detail: String::new(),
            tried: Vec::new(),
            recorded: false,
        }
    }
}

impl Context<'_> {
    /// The partition that the certificate names.
    fn partition(&self) -> Result<Arc<Partition>, Error> {
        self.partition.clone().ok_or_else(|| FaultCode::Forbidden.into())
    }

    /// Whether the login still holds, for acts that waited for their turn.
    fn check_login(&self, partition: &Partition) -> Result<(), Error> {
        match &self.login {
            Some(login) if !partition.accepts(login.role, login.epoch) => {
                Err(FaultCode::TicketExpired.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn application_id(&self) -> ApplicationId {
        ApplicationId::of(self.peer, self.caller.instance)
    }
}

/// What a certificate makes of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Application,
    Administrator,
    Node,
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

/// A frame of which at least the header is understood.
struct Asked<'f> {
    header: Header,
    call: CallId,
    body: &'f [u8],
}

impl<'f> Asked<'f> {
    /// What a frame asks for.
    ///
    /// # Errors
    /// Why its sender does not speak this protocol: nothing that it sends is to be trusted to be a frame.
    fn read(frame: &'f [u8], limit: u32) -> Result<Self, String> {
        let (head, body) = frame.split_first_chunk::<HEADER>().ok_or("a frame without a header")?;
        let header = Header::decode(head, limit).map_err(|error| error.to_string())?;
        if header.kind != Kind::Request || body.len() != header.length as usize {
            return Err("not a whole request".into());
        }
        let call = CallId::from_number(header.call).ok_or_else(|| {
            format!("call {:#06x} is unknown: a client newer than the server?", header.call)
        })?;
        Ok(Self { header, call, body })
    }
}

impl<P: Platform> Vault<P> {
    /// Who makes a call, if they may, and the call's own bytes.
    fn receive<'a, 'f>(&self, peer: &'a Peer, asked: &Asked<'f>) -> Result<(Context<'a>, &'f [u8]), Error> {
        let (caller, rest) = wire::decode_caller(asked.body)
            .map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let mut context = Context::new(peer, caller, asked.call, self.platform.now());
        context.request = asked.header.id;
        context.partition = self.partition_of(peer);
        let entered = self.enter(&mut context);
        if let Err(error) = entered {
            self.record_failure(&mut context, &error);
            return Err(error);
        }
        Ok((context, rest))
    }

    fn partition_of(&self, peer: &Peer) -> Option<Arc<Partition>> {
        self.partition_named(peer.partition.as_ref()?)
    }

    /// What the caller's certificate makes of it; none if it was revoked or has expired under an open connection.
    fn standing(&self, context: &Context<'_>) -> Option<Standing> {
        let peer = context.peer;
        if self.cluster.is_neighbour(&peer.fingerprint) {
            return Some(Standing::Node);
        }
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let client = clients.get(&peer.fingerprint)?;
        let good = !client.has_ended(context.now / 1_000_000);
        good.then_some(match peer.partition {
            Some(_) => Standing::Application,
            None => Standing::Administrator,
        })
    }

    /// Opens the ticket and holds the call against the table's `who may ask`.
    fn enter(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let standing = self
            .standing(context)
            .ok_or_else(|| Error::forbidden("the certificate was revoked or has expired"))?;
        // A ticket that has ended does not stand in the way of what needs none, least of all of a new login.
        let needs_none = matches!(
            context.call,
            CallId::Hello
                | CallId::RenewCertificate
                | CallId::Login
                | CallId::ReadToken
                | CallId::CloseSession
                | CallId::EndInstance
        );
        if let (Some(ticket), Some(partition)) = (&context.caller.ticket, &context.partition)
            && !needs_none
        {
            let purpose = match context.call {
                CallId::RenewTicket | CallId::Logout => Purpose::Keep,
                _ => Purpose::Use,
            };
            let login = self.tickets.open(ticket, purpose, context.peer, context.now)?;
            if login.partition != partition.id || !partition.accepts(login.role, login.epoch) {
                return Err(FaultCode::TicketExpired.into());
            }
            context.role = login.role;
            context.login = Some(login);
        }
        let refused = |text: &str| Err(Error::forbidden(text));
        match (context.call.permit(), standing) {
            (Permit::Anyone, _) => Ok(()),
            (
                Permit::Application | Permit::LoggedIn | Permit::SecurityOfficer,
                Standing::Administrator | Standing::Node,
            ) => refused("an administrator's or a node's certificate uses no partition"),
            // The partition may have been deleted under an open connection.
            (Permit::Application, Standing::Application) => context.partition().map(drop),
            (Permit::LoggedIn, Standing::Application) if context.role == Role::Public => {
                Err(FaultCode::NotLoggedIn.into())
            }
            (Permit::SecurityOfficer, Standing::Application) if context.role != Role::SecurityOfficer => {
                Err(FaultCode::NotLoggedIn.into())
            }
            (Permit::LoggedIn | Permit::SecurityOfficer, Standing::Application) => {
                context.partition().map(drop)
            }
            (Permit::Administrator, Standing::Administrator) => Ok(()),
            (Permit::Administrator, Standing::Application | Standing::Node) => {
                refused("only an administrator's certificate may do this")
            }
            (Permit::Node, Standing::Node) => Ok(()),
            (Permit::Node, Standing::Application | Standing::Administrator) => {
                refused("only another node of the cluster may do this")
            }
        }
    }

    /// Carries out a call whose caller may make it, and appends the reply or fault frame.
    fn carry_out(&self, context: &mut Context<'_>, body: &[u8], out: &mut Vec<u8>) {
        let (call, request) = (context.call, context.request);
        let start = out.len();
        let answered = match wire::dispatch(self, context, call, request, body, out) {
            Ok(()) => self.record_answered(context),
            Err(Undone::Malformed(error)) => Err(Error::caller(FaultCode::Malformed, error.to_string())),
            Err(Undone::Refused(error)) => Err(error),
        };
        let Err(error) = answered else { return };
        out.truncate(start);
        self.record_failure(context, &error);
        wire::encode_fault(out, request, call as u16, &Fault::from(&error));
    }

    /// A reply that is longer than the limit that `Welcome` told is not sent.
    fn bound(&self, context: &Context<'_>, start: usize, out: &mut Vec<u8>) {
        if out.len() - start > self.settings.frame_bytes as usize + HEADER {
            out.truncate(start);
            let fault = Fault::new(FaultCode::ArgumentsBad, "the answer is longer than a frame may be");
            wire::encode_fault(out, context.request, context.call as u16, &fault);
        }
    }

    /// As [`Self::carry_out`], but a request that came before is not carried out again.
    fn carry_out_once(
        &self,
        application: &Application,
        context: &mut Context<'_>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        let refuse = |out: &mut Vec<u8>, code, detail| {
            wire::encode_fault(out, context.request, context.call as u16, &Fault::new(code, detail));
        };
        let digest = self.digests.hash_one((context.call as u16, body));
        match application.arrive(context.request, digest) {
            Arrival::Answered(frame) => out.extend_from_slice(&frame),
            Arrival::Lost => {
                refuse(out, FaultCode::AnswerLost, "carried out before the server was started again")
            }
            Arrival::Pending => {
                refuse(out, FaultCode::Unavailable, "an earlier copy is still being carried out")
            }
            Arrival::Full => refuse(out, FaultCode::Full, "too many requests whose end was not confirmed"),
            Arrival::Reused => refuse(out, FaultCode::Malformed, "this number was another request's"),
            Arrival::New => {
                let start = out.len();
                self.carry_out(context, body, out);
                application.answer(context.request, digest, out.get(start..).unwrap_or_default());
            }
        }
    }
}

impl<P: Platform> Door for Vault<P> {
    fn admit(&self, certificate: &[u8], address: SocketAddr) -> Result<Arc<Peer>, Fault> {
        let fingerprint = certificates::fingerprint(certificate);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(node) = self.cluster.neighbour(&fingerprint) {
            let client = format!("node {}", node.name);
            let id = ClientId::of_node(&node.identity);
            return Ok(Arc::new(Peer { id, client, partition: None, fingerprint, address, connection }));
        }
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let client = clients
            .get(&fingerprint)
            .filter(|client| !client.has_ended(self.platform.now() / 1_000_000))
            .ok_or_else(|| {
                Fault::new(FaultCode::Forbidden, "the certificate is unknown, revoked or has ended")
            })?;
        Ok(Arc::new(Peer {
            id: client.id(),
            client: client.name.clone(),
            partition: client.partition.clone(),
            fingerprint,
            address,
            connection,
        }))
    }

    fn pace(&self, peer: &Peer, frame: &[u8]) -> Pace {
        let head = frame.first_chunk::<HEADER>().and_then(|head| Header::decode(head, u32::MAX).ok());
        let call = head.and_then(|header| CallId::from_number(header.call));
        match call.map(CallId::pace) {
            Some(wire::Pace::Slow | wire::Pace::Patient | wire::Pace::Together)
                if self.cluster.is_neighbour(&peer.fingerprint) =>
            {
                Pace::Node
            }
            Some(wire::Pace::Slow | wire::Pace::Patient) => Pace::Slow,
            Some(wire::Pace::Together) => Pace::Together,
            Some(wire::Pace::ByKey) => sign::pace(frame),
            // It waits for the disk then.
            Some(wire::Pace::Quick) if call == Some(CallId::Hello) && self.is_first_shown(peer) => Pace::Slow,
            Some(wire::Pace::Quick) | None => Pace::Quick,
        }
    }

    fn handle(&self, peer: &Peer, frame: &[u8], out: &mut Vec<u8>) -> Verdict {
        let asked = match Asked::read(frame, self.settings.frame_bytes) {
            Ok(asked) => asked,
            Err(reason) => return Verdict::Close(reason),
        };
        let (mut context, body) = match self.receive(peer, &asked) {
            Ok(received) => received,
            Err(error) => {
                wire::encode_fault(out, asked.header.id, asked.header.call, &Fault::from(&error));
                return Verdict::Answered;
            }
        };
        let start = out.len();
        match (self.applications.enter(context.application_id(), peer.connection), context.call.retry()) {
            (None, _) => {
                let fault = Fault::new(FaultCode::Full, "this client runs too many applications at once");
                wire::encode_fault(out, context.request, context.call as u16, &fault);
            }
            (Some(application), retry) => {
                application.confirm(&context.caller.ended);
                match retry {
                    // Nobody would ever say that the request of no application is over, or send it again.
                    Retry::Once if context.caller.instance != InstanceId::default() => {
                        self.carry_out_once(&application, &mut context, body, out);
                    }
                    Retry::Safe | Retry::Once => self.carry_out(&mut context, body, out),
                }
            }
        }
        self.bound(&context, start, out);
        Verdict::Answered
    }

    fn commit(&self) -> Result<(), Fault> {
        let written = self.log.last().and_then(|last| self.log.commit(last));
        written.map_err(|error| Fault::from(&Error::Audit(error)))
    }

    fn disconnect(&self, peer: &Peer) {
        self.applications.leave(peer.id, peer.connection, self.platform.uptime());
        self.readers.leave(peer.connection);
    }

    fn refused(&self, address: SocketAddr, certificate: Option<&[u8]>, reason: &str) {
        let identity = certificate.and_then(|certificate| certificates::identity(certificate).ok());
        let record = AuditRecord {
            time: self.platform.now(),
            client: identity.as_ref().map_or_else(|| "-".into(), |identity| identity.client.clone()),
            partition: identity.and_then(|identity| identity.partition).unwrap_or_default(),
            certificate: certificate
                .map(|der| short(&certificates::fingerprint(der)).to_vec())
                .unwrap_or_default(),
            act: "Handshake".into(),
            outcome: Outcome::Refused,
            detail: format!("{address}: {reason}"),
            ..AuditRecord::default()
        };
        if let Err(error) = self.log.append(record).and_then(|position| self.log.commit(position)) {
            tracing::error!(%error, "a refused handshake could not be put on record");
        }
    }

    fn admissions(&self) -> (u64, Vec<Admission>) {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let now = self.platform.now() / 1_000_000;
        (self.admissions_version(), clients.values().map(|client| client.admission(now)).collect())
    }

    fn admissions_version(&self) -> u64 {
        self.admissions.load(Ordering::Acquire)
    }

    fn tick(&self) -> Result<(), Fault> {
        let stuck = |error: String| {
            let todo =
                "make room on its disk or mend it; until then the server answers nothing and tries again";
            Fault::new(FaultCode::NotDurable, format!("{error}: {todo}"))
        };
        self.log.sync().map_err(|error| stuck(error.to_string()))?;
        self.store.check().map_err(|error| stuck(error.to_string()))?;
        let uptime = self.platform.uptime();
        if let Some(step) = self.clock.look(self.platform.now(), uptime) {
            tracing::warn!(
                "the clock was set {step}: opening hours, tickets, certificates and the times of audit records \
                 follow it, limits per minute do not; if that is not the time of day, set the clock again"
            );
            self.clock_was_set(&step, uptime);
        }
        let now = self.platform.now();
        self.look_after_clients(now / 1_000_000);
        self.look_after_server(now, uptime);
        for partition in self.partitions.read().unwrap_or_else(PoisonError::into_inner).values() {
            partition.ledger.prune(uptime);
        }
        self.cluster.ceremonies.expire(uptime);
        self.record_left_out(uptime);
        self.look_after_bans();
        let gone = self.applications.expire(uptime);
        if !gone.is_empty() {
            for partition in self.partitions.read().unwrap_or_else(PoisonError::into_inner).values() {
                partition.keyring.remove_session_objects(|owner, _, _| gone.contains(&owner));
            }
        }
        Ok(())
    }

    fn reach(&self, peers: Arc<dyn Peers>) {
        self.cluster.reach(peers);
    }

    fn beat(&self) {
        self.greet_all();
    }

    fn tend(&self) {
        self.look_after_orders();
        self.look_after_shares();
    }

    fn close(&self) {
        self.record_left_out(Time::MAX);
        let record = AuditRecord {
            time: self.platform.now(),
            client: "-".into(),
            act: "Stop".into(),
            store_version: Some(self.store.version()),
            ..AuditRecord::default()
        };
        let written = self.log.append(record).and_then(|position| self.log.commit(position));
        if let Err(error) = written.and_then(|()| self.log.sync()) {
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}
