//! Changes and their records: nothing of the store changes without an audit record, and neither outlives the other.
//!
//! The record goes into the store's own transaction (its outbox) and then into the log. If the process dies
//! in between, `start.rs` finds it in the outbox and writes it.

use std::sync::{MutexGuard, PoisonError};

use minicbor::Encode;
use strongroom_shared::{
    fault::FaultCode,
    message::{AuditRecord, Outcome},
    plain::plain,
    wire::{Permit, Trace},
};

use super::{Context, Error, Vault, applications::short, records::encode};
use crate::{
    platform::Platform,
    store::{Batch, PartitionId, Path},
};

/// Rows to be written and removed in one transaction.
#[derive(Debug, Default)]
pub struct Change {
    batch: Batch,
}

impl Change {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record.
    #[must_use]
    pub fn put<T: Encode<()>>(mut self, path: Path, record: &T) -> Self {
        self.batch.put(path, encode(record));
        self
    }

    /// Removes a record.
    #[must_use]
    pub fn delete(mut self, path: Path) -> Self {
        self.batch.delete(path);
        self
    }

    /// Removes a record, or does nothing if there is none.
    #[must_use]
    pub fn delete_if_there(mut self, path: Path) -> Self {
        self.batch.delete_if_there(path);
        self
    }

    /// Makes a partition's key, under which its records are sealed.
    #[must_use]
    pub fn create_partition(mut self, id: PartitionId) -> Self {
        self.batch.create_partition(id);
        self
    }

    /// Destroys a partition's key and all of its records.
    #[must_use]
    pub fn delete_partition(mut self, id: PartitionId) -> Self {
        self.batch.delete_partition(id);
        self
    }
}

impl<P: Platform> Vault<P> {
    fn change_turn(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store and puts the act on record, both on disk when it returns.
    pub(super) fn change(&self, context: &mut Context<'_>, change: Change) -> Result<(), Error> {
        let _turn = self.change_turn();
        let mut record = self.record_of(context, Outcome::Done);
        record.store_version = Some(self.write(change, record.clone())?);
        context.recorded = true;
        let position = self.log.append(record)?;
        // On disk before the next change takes the outbox.
        Ok(self.log.harden(position)?)
    }

    /// Changes the store without a record, for the steps of an act that has its record at the end.
    pub(super) fn change_silently(&self, change: Change) -> Result<(), Error> {
        let _turn = self.change_turn();
        self.write(change, AuditRecord::default()).map(drop)
    }

    /// One transaction, whose outbox holds the record that is to follow (none if its act is empty) and how far
    /// the log was on disk: a log that is shorter at the next start is older than the store.
    fn write(&self, change: Change, mut outbox: AuditRecord) -> Result<u64, Error> {
        // A log that cannot be written must stop the change before it is made.
        self.log.commit(self.log.last()?)?;
        outbox.sequence = self.log.durable().0;
        self.store.commit(change.batch, &encode(&outbox)).map_err(|error| {
            let error = Error::from(error);
            if matches!(error, Error::Store(_)) {
                tracing::error!(%error, "the store cannot be written");
            }
            error
        })
    }

    /// Puts an act on record that changed nothing in the store.
    pub(super) fn record_done(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let _turn = self.change_turn();
        let mut record = self.record_of(context, Outcome::Done);
        record.store_version = Some(self.store.version());
        context.recorded = true;
        self.log.append(record)?;
        Ok(())
    }

    /// Puts an administrator's question on record that was answered: whatever an administrator asks for is an act.
    pub(super) fn record_answered(&self, context: &mut Context<'_>) -> Result<(), Error> {
        match context.call.permit() {
            Permit::Administrator if !context.recorded => {
                context.recorded = true;
                self.log.append(self.record_of(context, Outcome::Done))?;
                Ok(())
            }
            Permit::Anyone
            | Permit::Application
            | Permit::LoggedIn
            | Permit::SecurityOfficer
            | Permit::Administrator
            | Permit::Node => Ok(()),
        }
    }

    /// Puts an act on record that was refused or that failed, unless it is there already.
    pub(super) fn record_failure(&self, context: &mut Context<'_>, error: &Error) {
        if context.recorded {
            return;
        }
        context.recorded = true;
        let detail = match error {
            Error::Policy(refusal) => refusal.to_string(),
            Error::Caller(..)
            | Error::Hindered(..)
            | Error::Crypto(_)
            | Error::Certificate(_)
            | Error::Store(_)
            | Error::Audit(_) => error.to_string(),
        };
        let detail = match context.tried.as_slice() {
            [] => plain(&detail),
            tried => plain(&format!("{detail}; ceremonies tried: {}", tried.join(", "))),
        };
        tracing::warn!(
            client = context.peer.client,
            partition = context.peer.partition.as_deref().unwrap_or_default(),
            act = context.call.name(),
            error = detail,
            "not done"
        );
        if context.call.trace() == Trace::Silent {
            return;
        }
        let record = AuditRecord { detail, ..self.record_of(context, outcome(error)) };
        if let Err(error) = self.log.append(record) {
            tracing::error!(%error, "a refusal could not be put on record");
        }
    }

    /// What is known of a call, as a record.
    pub(super) fn record_of(&self, context: &Context<'_>, outcome: Outcome) -> AuditRecord {
        AuditRecord {
            sequence: 0,
            time: context.now,
            partition: context.peer.partition.clone().unwrap_or_else(|| plain(&context.subject)),
            client: context.peer.client.clone(),
            certificate: short(&context.peer.fingerprint).to_vec(),
            instance: context.caller.instance,
            session: context.caller.session,
            request: context.request,
            act: context.call.name().into(),
            object: context.object,
            mechanism: context.mechanism,
            message_hash: context.message_hash.clone(),
            outcome,
            detail: plain(&context.detail),
            store_version: None,
            charged: None,
        }
    }
}

/// Whether it was refused, or allowed and impossible.
fn outcome(error: &Error) -> Outcome {
    match error {
        Error::Policy(_) => Outcome::Refused,
        Error::Caller(code, _) => match code {
            FaultCode::Forbidden
            | FaultCode::PinIncorrect
            | FaultCode::PinLocked
            | FaultCode::NotLoggedIn
            | FaultCode::TicketExpired
            | FaultCode::ObjectHandleInvalid
            | FaultCode::KeyHandleInvalid
            | FaultCode::ActionProhibited
            | FaultCode::AttributeReadOnly
            | FaultCode::AttributeSensitive
            | FaultCode::KeyFunctionNotPermitted
            | FaultCode::MembershipRefused
            | FaultCode::PolicyRefused
            | FaultCode::Frozen => Outcome::Refused,
            FaultCode::Internal
            | FaultCode::Malformed
            | FaultCode::Unavailable
            | FaultCode::AnswerLost
            | FaultCode::ArgumentsBad
            | FaultCode::NotDurable
            | FaultCode::Full
            | FaultCode::TokenNotInitialized
            | FaultCode::TokenBusy
            | FaultCode::PinLength
            | FaultCode::PinInvalid
            | FaultCode::UserPinNotInitialized
            | FaultCode::AttributeTypeInvalid
            | FaultCode::AttributeValueInvalid
            | FaultCode::TemplateIncomplete
            | FaultCode::TemplateInconsistent
            | FaultCode::SessionReadOnly
            | FaultCode::CurveNotSupported
            | FaultCode::MechanismInvalid
            | FaultCode::MechanismParamInvalid
            | FaultCode::KeyTypeInconsistent
            | FaultCode::KeySizeRange
            | FaultCode::DataLengthRange
            | FaultCode::DataInvalid
            | FaultCode::EncryptedDataInvalid
            | FaultCode::EncryptedDataLengthRange
            | FaultCode::SignatureInvalid
            | FaultCode::SignatureLengthRange
            | FaultCode::QuorumMissing
            | FaultCode::AlreadyExists
            | FaultCode::NotFound
            | FaultCode::ConfigurationInvalid
            | FaultCode::IntegrityViolated => Outcome::Failed,
        },
        Error::Hindered(..)
        | Error::Crypto(_)
        | Error::Certificate(_)
        | Error::Store(_)
        | Error::Audit(_) => Outcome::Failed,
    }
}
