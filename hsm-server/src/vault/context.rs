//! One call, while the vault carries it out.

use std::sync::Arc;

use strongroom_shared::{fault::FaultCode, message::Caller, object::ObjectId, wire::CallId};

use super::{applications::ApplicationId, error::Error, login::Role, partition::Partition, tickets};
use crate::{door::Peer, platform::Time};

/// What the vault knows of a call while it carries it out.
pub struct Context<'a> {
    /// Who asks.
    pub peer: &'a Peer,
    /// For which application and session, with which ticket.
    pub(super) caller: Caller,
    /// The request's number.
    pub(super) request: u64,
    pub(super) call: CallId,
    /// When it came.
    pub(super) now: Time,
    /// As whom, by the ticket.
    pub(super) role: Role,
    /// What the ticket says.
    pub(super) login: Option<tickets::Login>,
    pub(super) partition: Option<Arc<Partition>>,
    /// The partition that an administrator acts on, for the record.
    pub(super) subject: String,
    /// What it is about, for the record.
    pub(super) object: Option<ObjectId>,
    pub(super) mechanism: Option<u64>,
    pub(super) message_hash: Vec<u8>,
    pub(super) detail: String,
    /// The ceremonies that this node has coordinated for it, for the record of a failure.
    pub(super) tried: Vec<String>,
    /// Whether it is on record already.
    pub(super) recorded: bool,
}

impl<'a> Context<'a> {
    /// A call about which nothing else is known yet.
    pub(super) const fn new(peer: &'a Peer, caller: Caller, call: CallId, now: Time) -> Self {
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
    pub(super) fn partition(&self) -> Result<Arc<Partition>, Error> {
        self.partition.clone().ok_or_else(|| FaultCode::Forbidden.into())
    }

    /// Whether the login still holds, for acts that waited for their turn.
    pub(super) fn check_login(&self, partition: &Partition) -> Result<(), Error> {
        match &self.login {
            Some(login) if !partition.accepts(login.role, login.epoch) => {
                Err(FaultCode::TicketExpired.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn application_id(&self) -> ApplicationId {
        ApplicationId::of(self.peer, self.caller.instance)
    }
}
