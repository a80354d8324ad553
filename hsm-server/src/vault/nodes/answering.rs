//! Answering other vaults.

use std::sync::Arc;

use strongroom_shared::{
    fault::{Fault, FaultCode},
    message::{AuditRecord, HandsShaken, Outcome, SealedCall, SealedReply, ShakeHands},
    wire::{CallId, Handle, decode_body},
};

use super::{
    super::{
        Context, Error, Vault,
        applications::short,
        records::encode,
        shared::{
            Destruction,
            ceremony::ceremonies::Coordinator,
            words::{Progress, Warrant},
        },
    },
    Answer, Question,
    links::SessionFrom,
};
use crate::{
    cluster::{Member, noise},
    platform::{Platform, Time},
};

impl<P: Platform> Vault<P> {
    /// The node that calls.
    fn calling(&self, context: &Context<'_>) -> Result<Member, Error> {
        self.cluster.neighbour(&context.peer.fingerprint).ok_or_else(|| FaultCode::Forbidden.into())
    }

    /// Answers what another vault asked.
    fn consider(
        &self,
        context: &mut Context<'_>,
        member: &Member,
        session: u64,
        question: Question,
    ) -> Result<Answer, Error> {
        let coordinator = || Coordinator { node: member.id, session, name: member.name.clone() };
        match question {
            Question::Begin(begin) => {
                self.begin_ceremony(context, coordinator(), begin, None).map(Answer::Progress)
            }
            Question::Step { id, parcels } => {
                self.step_ceremony(context, &coordinator(), id, parcels).map(Answer::Progress)
            }
            Question::Cancel(id) => {
                self.cluster.ceremonies.end(id, member.id);
                Ok(Answer::Done)
            }
            Question::Certificate { partition, key } => {
                Ok(Answer::Certificate(self.account_of(&partition, key)))
            }
            Question::Activate { certificate, order } => {
                self.activate(context, &Warrant { certificate, order }).map(|()| Answer::Done)
            }
            Question::Proven { partition, key, proofs } => {
                self.take_proofs(context, &partition, key, &proofs).map(|()| Answer::Done)
            }
            Question::MayDestroy(mandated) => {
                self.agree_to_destroy(context, &mandated).map(Answer::WouldDestroy)
            }
            Question::Destroy { mandated, agreements } => {
                self.destroy_share(context, &mandated, Destruction::Do(&agreements)).map(|_| Answer::Done)
            }
            Question::Bans(after) => Ok(Answer::Bans(self.bans_after(after))),
            Question::MayDerive(mandated) => {
                self.agree_to_child(context, &member.name, &mandated).map(Answer::Agreed)
            }
            Question::Derive(certificate) => self.take_child(context, &certificate).map(|()| Answer::Done),
            Question::Inherit { attributes, certificate } => {
                self.inherit_child(context, attributes, &certificate).map(|()| Answer::Done)
            }
            Question::MayAbandon(order) => self.promise_to_abandon(context, &order).map(Answer::Promised),
            Question::Abandon { order, promises } => {
                self.abandon_share(context, &order, &promises).map(|()| Answer::Done)
            }
            Question::Descendant { partition, key } => {
                Ok(Answer::Descendant(self.child_certificate(&partition, key).map(Into::into)))
            }
            Question::Ended(session) => {
                self.cluster.links.drop_outgoing(member.id, session);
                Ok(Answer::Done)
            }
            Question::Vouch => {
                let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
                let version = view.document.membership().version;
                Ok(Answer::Vouched { version, bans: self.count_bans() })
            }
        }
    }
}

impl<P: Platform> Vault<P> {
    /// Puts on record how many refusals of other nodes' questions are not, of the minutes that had ended at `now`
    /// (uptime).
    pub(in super::super) fn record_left_out(&self, now: Time) {
        for (member, count) in self.cluster.links.left_out(now) {
            let record = AuditRecord {
                time: self.platform.now(),
                client: format!("node {}", member.name),
                certificate: short(&member.id.0).to_vec(),
                act: CallId::SealedCall.name().into(),
                outcome: Outcome::Refused,
                detail: format!(
                    "{count} more refusals of what it asked within a minute are not on record one by one"
                ),
                ..AuditRecord::default()
            };
            if let Err(error) = self.log.append(record) {
                tracing::error!(%error, "a refusal could not be put on record");
            }
        }
    }
}

/// Whoever tampers is not told more than that it was noticed.
impl<P: Platform> Handle<ShakeHands> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ShakeHands) -> Result<HandsShaken, Error> {
        let member = self.calling(context)?;
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let document = *view.document.digest();
        let pair = noise::Pair { document: &document, own: &identity.sealing, other: &member.sealing };
        let (session, message) = pair.respond(self.randomness(), &call.message).map_err(Error::forbidden)?;
        let mut number = [0; 8];
        self.platform.fill(&mut number);
        let number = u64::from_be_bytes(number);
        let session = Arc::new(session);
        let link = SessionFrom { from: member.id, session, made: self.platform.uptime(), document };
        let ended = self.cluster.links.admit(number, link);
        self.cluster.ceremonies.end_sessions(&ended);
        Ok(HandsShaken { session: number, message })
    }
}

impl<P: Platform> Handle<SealedCall> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SealedCall) -> Result<SealedReply, Error> {
        let member = self.calling(context)?;
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let now = self.platform.uptime();
        let Some(session) = self.cluster.links.incoming(call.session, member.id, view.document.digest(), now)
        else {
            return Ok(SealedReply { sealed: Vec::new() });
        };
        let text = session.open(call.counter, &call.sealed).map_err(Error::forbidden)?;
        let question: Question =
            decode_body(&text).map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let answer = self.consider(context, &member, call.session, question).unwrap_or_else(|error| {
            self.record_left_out(now);
            // Of what an application has signed a mandate for, each refusal counts; what a node says by itself costs it
            // nothing.
            let counts = matches!(error, Error::Policy(_)) || self.cluster.links.may_record(&member, now);
            context.recorded |= !counts;
            self.record_failure(context, &error);
            // Sealed, so that no front can put words into a vault's mouth.
            match Progress::hindered(error) {
                Ok(progress) => Answer::Progress(progress),
                Err(error) => Answer::Refused(Fault::from(&error)),
            }
        });
        let sealed = session.seal(call.counter, &encode(&answer)).map_err(Error::forbidden)?;
        Ok(SealedReply { sealed })
    }
}
