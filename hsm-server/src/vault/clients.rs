//! Certificates of clients: renewed by whoever holds the present one, and ended when their time is over.
//!
//! A client asks for another certificate over the connection that its present one opened, with the name, the
//! partition and the length of life that this one has; the request is signed by the new key. Both are good until
//! the new one is first shown; then the present one ends a little later, so that other processes of the client
//! can take the new one up. What a client holds (logins, session objects, kept answers) hangs on the client.

use std::{collections::HashMap, sync::PoisonError, sync::atomic::Ordering};

use strongroom_shared::{
    fault::FaultCode,
    hex::Hex,
    message::{Certificate, RenewCertificate},
    wire::Handle,
};

use super::{
    Context, Error, Vault, applications::short, record::Change, records::ClientRecord, start::client_record,
};
use crate::{
    certificates::{self, Issued},
    door::{ClientId, Peer},
    platform::{Platform, Time},
    store::Path,
};

/// For how long a certificate is still good after the one that renews it was first shown, in seconds.
const OVERLAP: u64 = 900;
/// How long after its end a certificate is remembered, in seconds: longer than audit records of it are replayed.
const MEMORY: u64 = 3600;
/// How many certificates a client has made in an hour: more than every process of it that tries again needs.
const RENEWALS: usize = 8;
const HOUR: Time = 3600 * 1_000_000;

type Clients = HashMap<[u8; 32], ClientRecord>;

impl<P: Platform> Vault<P> {
    /// In how many seconds the caller should renew its certificate. If it is shown for the first time, the one
    /// that it renews ends soon.
    pub(super) fn first_shown(&self, context: &Context<'_>) -> Option<u64> {
        let fingerprint = &context.peer.fingerprint;
        let shown = self.clients().get(fingerprint).cloned()?;
        if shown.replaces.is_some()
            && let Err(error) = self.end_replaced(fingerprint, context.now / 1_000_000)
        {
            // Nothing is lost but the early end.
            tracing::warn!(client = shown.name, %error, "the renewed certificate is good until its own end");
        }
        let wait = self.believed_in(self.platform.uptime());
        Some(shown.renew_in(context.now / 1_000_000).max(wait))
    }

    /// Whether the peer's certificate renews one that is to end when it is shown.
    pub(super) fn is_first_shown(&self, peer: &Peer) -> bool {
        self.clients().get(&peer.fingerprint).is_some_and(|client| client.replaces.is_some())
    }

    /// Counts a renewal, if the clock is believed and the client has not had too many.
    fn check_renewal(&self, client: ClientId) -> Result<(), Error> {
        let uptime = self.platform.uptime();
        let wait = self.believed_in(uptime);
        if wait > 0 {
            let text = format!("the server's clock was set forward lately; ask again in {wait} s");
            return Err(Error::caller(FaultCode::Unavailable, text));
        }
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        renewals.retain(|_, times| {
            times.retain(|then| uptime < then.saturating_add(HOUR));
            !times.is_empty()
        });
        let lately = renewals.entry(client).or_default();
        if lately.len() >= RENEWALS {
            let text = format!("this client had {RENEWALS} certificates made within an hour: wait");
            return Err(Error::caller(FaultCode::PolicyRefused, text));
        }
        lately.push(uptime);
        Ok(())
    }

    /// Ends the certificate that this one renews: the last step of an act that has its record.
    fn end_replaced(&self, fingerprint: &[u8; 32], now: u64) -> Result<(), Error> {
        let _turn = self.administration_turn();
        let (shown, replaced) = {
            let clients = self.clients();
            let Some(shown) = clients.get(fingerprint).cloned() else { return Ok(()) };
            let replaced = shown.replaces.and_then(|replaced| clients.get(&replaced).cloned());
            (shown, replaced)
        };
        let replaced = replaced
            .map(|replaced| ClientRecord { not_after: replaced.not_after.min(now + OVERLAP), ..replaced });
        let changed: Vec<_> =
            [ClientRecord { replaces: None, ..shown }].into_iter().chain(replaced).collect();
        let put =
            |change: Change, client: &ClientRecord| change.put(Path::Client(client.fingerprint), client);
        self.change_silently(changed.iter().fold(Change::new(), put))?;
        self.clients_to_change().extend(changed.into_iter().map(|client| (client.fingerprint, client)));
        self.clients_changed();
        Ok(())
    }

    /// Has the front close the connections of certificates whose time is over, `now` in seconds since 1970.
    pub(super) fn look_after_clients(&self, now: u64) {
        let next = self.next_end.load(Ordering::Relaxed);
        if now < next {
            return;
        }
        let ends = |client: &ClientRecord| (!client.has_ended(now)).then_some(client.not_after);
        let next_end = self.clients().values().filter_map(ends).min().unwrap_or(u64::MAX);
        // Unless a change of the clients came in between: then it is found out again.
        let exchanged =
            self.next_end.compare_exchange(next, next_end, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if next > 0 && exchanged {
            self.admissions.fetch_add(1, Ordering::Release);
        }
    }

    /// Has the front told which certificates it may let in.
    pub(super) fn clients_changed(&self) {
        self.next_end.store(0, Ordering::Relaxed);
        self.admissions.fetch_add(1, Ordering::Release);
    }

    /// A new certificate and the CA's, as they are told to whoever asked.
    pub(super) fn certificate(&self, issued: &Issued) -> Certificate {
        let pem = |der: &[u8]| certificates::pem("CERTIFICATE", der).to_string();
        Certificate { certificate: pem(&issued.certificate), authority: pem(self.authority.certificate()) }
    }

    fn clients(&self) -> std::sync::RwLockReadGuard<'_, Clients> {
        self.clients.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients_to_change(&self) -> std::sync::RwLockWriteGuard<'_, Clients> {
        self.clients.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Certificates of the client that may be forgotten when `present` is renewed: those whose end is long past,
    /// and those that were made for it before and never shown, because whoever asked did not live to keep them.
    fn outlived(&self, present: &ClientRecord, now: u64) -> Vec<[u8; 32]> {
        let outlived = |client: &&ClientRecord| {
            let never_shown = client.replaces == Some(present.fingerprint);
            client.id == present.id && (never_shown || client.not_after + MEMORY < now)
        };
        self.clients().values().filter(outlived).map(|client| client.fingerprint).collect()
    }
}

impl<P: Platform> Handle<RenewCertificate> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: RenewCertificate) -> Result<Certificate, Error> {
        let _turn = self.administration_turn();
        let now = context.now / 1_000_000;
        let present = self.clients().get(&context.peer.fingerprint).cloned();
        let present = present.filter(|client| !client.has_ended(now)).ok_or(FaultCode::Forbidden)?;
        if present.partition.is_some() {
            let partition = context.partition()?;
            let rules = partition.rules();
            if rules.record.frozen {
                let text = format!("partition {} is frozen", rules.record.name);
                return Err(Error::caller(FaultCode::Frozen, text));
            }
        }
        self.check_renewal(present.id())?;
        let partition = present.partition.as_deref();
        let issued =
            self.authority.issue_client(&call.request, &present.name, partition, now, present.days)?;
        let renewed =
            client_record(present.id(), &present.name, present.partition.clone(), &issued, present.days);
        let renewed = ClientRecord { replaces: Some(present.fingerprint), ..renewed };
        context.detail = describe(&renewed);

        let outlived = self.outlived(&present, now);
        let forget = |change: Change, fingerprint: &[u8; 32]| change.delete(Path::Client(*fingerprint));
        let change = outlived.iter().fold(Change::new(), forget);
        self.change(context, change.put(Path::Client(renewed.fingerprint), &renewed))?;
        let mut clients = self.clients_to_change();
        clients.retain(|fingerprint, _| !outlived.contains(fingerprint));
        clients.insert(renewed.fingerprint, renewed);
        drop(clients);
        self.clients_changed();
        Ok(self.certificate(&issued))
    }
}

/// As it stands in the audit record.
fn describe(client: &ClientRecord) -> String {
    let until = certificates::day(client.not_after);
    format!("certificate {}, until {until}", Hex(&short(&client.fingerprint)))
}
