//! The server's own certificate: the vault, which holds the CA's key, renews it before its end or when it is told to.
//!
//! The vault makes the key too and writes both into the files of `[tls]`; the front, which reads them, sees that
//! they changed. A certificate of another CA is its owner's to renew and is left alone.

use std::sync::atomic::Ordering;

use strongroom_shared::{
    fault::FaultCode,
    hex::Hex,
    message::{AuditRecord, Outcome, RenewServer, ServerRenewed},
    wire::{CallId, Handle},
};
use zeroize::Zeroizing;

use super::{Context, Error, Vault, clock::Step};
use crate::{
    certificates::{self, Life, pem},
    platform::{Platform, Time},
};

/// How often its end is looked at, in microseconds.
const LOOK: Time = 60 * 1_000_000;
/// How long to wait after it could not be renewed, in microseconds.
const AGAIN: Time = 3600 * 1_000_000;
/// How long a clock that was set forward, or that the machine started with, must stand before it is believed, in
/// microseconds: a certificate that is made in a future that never was is good for nobody, and the one before it is gone.
pub(super) const SETTLE: Time = 600 * 1_000_000;
/// How far from the last record the clock may be at the start without a word: new certificates begin this much in the
/// past.
const AHEAD: Time = certificates::SKEW * 1_000_000;

impl<P: Platform> Vault<P> {
    /// The clock was set: what was planned by the old one is thought over.
    pub(super) fn clock_was_set(&self, step: &Step, uptime: Time) {
        let wait = match step {
            Step::Back(_) => 0,
            Step::Forward(_) => SETTLE,
        };
        self.believed_from.store(uptime.saturating_add(wait), Ordering::Relaxed);
        self.next_look.store(0, Ordering::Relaxed);
        self.clients_changed();
        // A machine that was put back to an earlier moment must not go on with what it has said already.
        self.cluster.ceremonies.clear();
    }

    /// The vault starts, `off` from its last record by the clock.
    pub(super) fn clock_was_found(&self, off: Time, uptime: Time) {
        let wait = self.believed_in(uptime);
        if wait > 0 && off > AHEAD {
            tracing::warn!(
                "the machine was started lately and its clock is {} s from the last audit record: certificates are \
                 renewed in {wait} s; if that is not the time of day, set the clock",
                off / 1_000_000
            );
        }
    }

    /// In how many seconds certificates are made by this clock.
    pub(super) fn believed_in(&self, uptime: Time) -> u64 {
        self.believed_from.load(Ordering::Relaxed).saturating_sub(uptime).div_ceil(1_000_000)
    }

    /// Renews the server's certificate if a third or less of its life is left. Cheap when it is not time to look.
    pub(super) fn look_after_server(&self, now: Time, uptime: Time) {
        if uptime < self.next_look.load(Ordering::Relaxed) || self.believed_in(uptime) > 0 {
            return;
        }
        let _turn = self.administration_turn();
        let looked = self.present_server().and_then(|present| match present {
            Some(life) if life.renew_from() <= now / 1_000_000 => self.renew_by_itself(life, now),
            Some(_) | None => Ok(()),
        });
        let pause = if looked.is_ok() { LOOK } else { AGAIN };
        if let Err(error) = looked {
            tracing::warn!(
                %error,
                "the server's certificate is not renewed by itself; let the server write the files of [tls], or \
                 put a new certificate and key there before it ends (`hsmctl status` says when)"
            );
        }
        self.next_look.store(uptime.saturating_add(pause), Ordering::Relaxed);
    }

    /// The life of the certificate that the server shows; none if another CA made it.
    fn present_server(&self) -> Result<Option<Life>, Error> {
        let unreadable = |error| Error::caller(FaultCode::NotDurable, format!("{error}"));
        let certificate = self.platform.server_certificate().map_err(unreadable)?;
        match self.authority.made(&certificate)? {
            true => Ok(Some(certificates::life(&certificate)?)),
            false => Ok(None),
        }
    }

    /// On record before the files change: no certificate stands in the server's place that the log does not name.
    /// If they cannot be written, a second record says so.
    fn renew_by_itself(&self, present: Life, now: Time) -> Result<(), Error> {
        let record = |outcome, detail| {
            let position = self.log.append(AuditRecord {
                time: now,
                client: "-".into(),
                act: CallId::RenewServer.name().into(),
                outcome,
                detail,
                store_version: Some(self.store.version()),
                ..AuditRecord::default()
            })?;
            self.log.commit(position)
        };
        let renewed = self.successor(present.days(), now).and_then(|successor| {
            record(Outcome::Done, describe(&successor.told))?;
            self.replace_server(successor)
        });
        match renewed {
            Ok(renewed) => {
                tracing::info!(
                    until = certificates::day(renewed.not_after),
                    "the server's certificate was renewed"
                );
                Ok(())
            }
            Err(error) => {
                record(Outcome::Failed, error.to_string())?;
                Err(error)
            }
        }
    }

    /// A new key and a certificate for it, which are nowhere yet.
    fn successor(&self, days: u32, now: Time) -> Result<Successor, Error> {
        let (key, request) = certificates::request("server")?;
        let issued = self.authority.issue_server(&request, &self.settings.names, now / 1_000_000, days)?;
        let fingerprint = certificates::fingerprint(&issued.certificate).to_vec();
        Ok(Successor {
            certificate: pem("CERTIFICATE", &issued.certificate),
            key: pem("PRIVATE KEY", &key),
            told: ServerRenewed { not_after: issued.not_after, fingerprint },
        })
    }

    /// Puts it in the place of the present one.
    fn replace_server(&self, successor: Successor) -> Result<ServerRenewed, Error> {
        self.platform.replace_server(&successor.certificate, &successor.key).map_err(|error| {
            Error::caller(
                FaultCode::NotDurable,
                format!("{} is not in place: {error}", describe(&successor.told)),
            )
        })?;
        Ok(successor.told)
    }
}

/// The certificate that is to follow the present one, and its key, both in PEM.
struct Successor {
    certificate: Zeroizing<String>,
    key: Zeroizing<String>,
    told: ServerRenewed,
}

/// As it stands in the audit record.
fn describe(renewed: &ServerRenewed) -> String {
    let short = Hex(renewed.fingerprint.get(..8).unwrap_or_default());
    format!("certificate {short}, until {}", certificates::day(renewed.not_after))
}

impl<P: Platform> Handle<RenewServer> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: RenewServer) -> Result<ServerRenewed, Error> {
        let _turn = self.administration_turn();
        let present = self.present_server()?.ok_or_else(|| {
            let text = "another CA made the server's certificate: renew it there";
            Error::caller(FaultCode::ArgumentsBad, text)
        })?;
        let successor = self.successor(call.days.unwrap_or(present.days()), context.now)?;
        context.detail = describe(&successor.told);
        self.record_done(context)?;
        self.log.commit(self.log.last()?)?;
        // A failure is put on record besides.
        self.replace_server(successor).inspect_err(|_| context.recorded = false)
    }
}
