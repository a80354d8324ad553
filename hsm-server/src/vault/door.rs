//! The vault's one door: a frame from a peer comes in, and its answer goes out.

use std::{
    hash::BuildHasher,
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::{AuditRecord, InstanceId, Outcome},
    wire::{self, CallId, HEADER, Header, Kind, Retry, Undone},
};

use super::{
    Context, Vault,
    applications::{Application, Arrival, short},
    error::Error,
    sign,
};
use crate::{
    certificates,
    cluster::Peers,
    door::{Admission, ClientId, Door, Pace, Peer, Verdict},
    platform::{Platform, Time},
};

/// A frame of which at least the header is understood.
pub(super) struct Asked<'f> {
    pub header: Header,
    pub call: CallId,
    pub body: &'f [u8],
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
