//! A party's rounds in a ceremony that it takes part in, and how one ends.

use std::{collections::BTreeSet, sync::Arc};

use strongroom_shared::{fault::FaultCode, message::Outcome};

use crate::{
    crypto::threshold::{Abort, Blame, CeremonyId, Step},
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        shared::{
            ceremony::ceremonies::{Coordinator, Going, Work},
            keys::SharedKey,
            words::{End, Parcel, Progress, Verdict},
        },
    },
};

impl<P: Platform> Vault<P> {
    /// Takes part in the next round.
    pub(in crate::vault) fn step_ceremony(
        &self,
        context: &mut Context<'_>,
        coordinator: &Coordinator,
        id: CeremonyId,
        parcels: Vec<Parcel>,
    ) -> Result<Progress, Error> {
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let letters = parcels.iter().map(Parcel::length).sum();
        let ceremonies = &self.cluster.ceremonies;
        let mut going = ceremonies.take(id, coordinator, letters, self.platform.uptime())?;
        going.about.tell(context);
        if let Err(error) = self.advance(context, &view, id, &mut going, parcels) {
            match error {
                // What it had to say is lost, or what it was told.
                Error::Hindered(..) | Error::Caller(FaultCode::Unavailable, _) => {
                    ceremonies.end(id, coordinator.node);
                }
                // What was refused changed nothing: the ceremony may go on without it until its time is over.
                _ => ceremonies.put(id, going),
            }
            return Err(error);
        }
        Ok(self.report(id, going))
    }

    /// Hands a ceremony what others said.
    pub(super) fn advance(
        &self,
        context: &mut Context<'_>,
        view: &View,
        id: CeremonyId,
        going: &mut Going,
        parcels: Vec<Parcel>,
    ) -> Result<(), Error> {
        if parcels.is_empty() {
            return Ok(());
        }
        let incoming = parcels
            .into_iter()
            .map(|parcel| self.open_parcel(view, id, going, parcel))
            .collect::<Result<Vec<_>, _>>()?;
        let outgoing = match going.work.take() {
            // It has ended, and hands out the rest.
            None => Vec::new(),
            Some(Work::Signing(ceremony, family, purpose)) => match ceremony.step(incoming) {
                Step::Continue(ceremony, outgoing) => {
                    going.work = Some(Work::Signing(ceremony, family, purpose));
                    outgoing
                }
                Step::Done(held, mut outgoing) => {
                    // The record of the signature, before its last part is given away.
                    self.log.commit(self.log.last()?)?;
                    going.end = Some(self.end_of_signing(&purpose)?);
                    outgoing.push(held.release());
                    outgoing
                }
                Step::Abort(abort) => {
                    self.abort(context, view, going, abort, Some(&family))?;
                    Vec::new()
                }
                Step::Refused(ceremony, rejected) => {
                    going.work = Some(Work::Signing(ceremony, family, purpose));
                    return Err(Error::caller(FaultCode::Malformed, rejected.to_string()));
                }
            },
            Some(Work::Making(ceremony, plan)) => match ceremony.step(incoming) {
                Step::Continue(ceremony, outgoing) => {
                    going.work = Some(Work::Making(ceremony, plan));
                    outgoing
                }
                Step::Done(outcome, outgoing) => {
                    going.end = Some(self.keep_pending(
                        context,
                        (&going.about, going.coordinator.node),
                        *plan,
                        outcome,
                    )?);
                    outgoing
                }
                Step::Abort(abort) => {
                    self.abort(context, view, going, abort, None)?;
                    Vec::new()
                }
                Step::Refused(ceremony, rejected) => {
                    going.work = Some(Work::Making(ceremony, plan));
                    return Err(Error::caller(FaultCode::Malformed, rejected.to_string()));
                }
            },
        };
        self.post(view, id, going, outgoing)
    }

    /// Puts on record who broke a ceremony, and bans a pair for good where that is called for: where shares `sign`. Those
    /// that were to be made and are not give nothing away, so whoever spoilt them is only to be blamed.
    fn abort(
        &self,
        context: &mut Context<'_>,
        view: &View,
        going: &mut Going,
        abort: Abort,
        sign: Option<&Arc<SharedKey>>,
    ) -> Result<(), Error> {
        let reason = abort.to_string();
        tracing::warn!(ceremony = going.about.detail, reason, "a ceremony was broken off");
        let mut verdict = Verdict::of(reason.clone());
        match (abort.blame, sign) {
            (Blame::Culprits(parties), _) => verdict.culprits = parties,
            (Blame::Suspect(parties), _) => verdict.suspects = parties,
            (Blame::Recoverable, _) => {}
            // Kept before anybody is told.
            (Blame::Ban(against), Some(shared)) => {
                verdict.ban = Some(self.declare_ban(context, view, (going, shared), against)?);
            }
            (Blame::Ban(against), None) => verdict.suspects = BTreeSet::from([against]),
        }
        context.detail = format!("{}: {reason}", going.about.detail);
        // On disk before anybody is told.
        self.log.commit(self.log.append(self.record_of(context, Outcome::Failed))?)?;
        context.recorded = true;
        going.end = Some(End::Aborted(verdict));
        Ok(())
    }

    /// Hands out as much as fits into a frame, and keeps the ceremony if it is not over.
    pub(super) fn report(&self, id: CeremonyId, mut going: Box<Going>) -> Progress {
        let mut room = self.portion();
        let mut parcels = Vec::new();
        while let Some(next) = going.outbox.front()
            && (parcels.is_empty() || next.length() <= room)
        {
            room = room.saturating_sub(next.length());
            parcels.extend(going.outbox.pop_front());
        }
        let more = !going.outbox.is_empty();
        let end = if more { None } else { going.end.take() };
        if end.is_some() {
            self.cluster.ceremonies.end(id, going.coordinator.node);
        } else {
            self.cluster.ceremonies.put(id, going);
        }
        Progress { parcels, more, end }
    }

    /// How many bytes of letters go into one frame: half of it, because one letter more may follow.
    pub(in crate::vault::shared) const fn portion(&self) -> usize {
        self.settings.frame_bytes as usize / 2
    }
}
