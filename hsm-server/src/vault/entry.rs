//! Who makes a call, and whether they may: what the certificate makes of its holder, what the ticket says, and the
//! table's `who may ask`.

use std::sync::{Arc, PoisonError};

use strongroom_shared::{
    fault::FaultCode,
    wire::{self, CallId, Permit},
};

use super::{Context, Vault, door::Asked, error::Error, login::Role, partition::Partition, tickets::Purpose};
use crate::{door::Peer, platform::Platform};

/// What a certificate makes of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Application,
    Administrator,
    Node,
}

impl<P: Platform> Vault<P> {
    /// Who makes a call, if they may, and the call's own bytes.
    pub(super) fn receive<'a, 'f>(
        &self,
        peer: &'a Peer,
        asked: &Asked<'f>,
    ) -> Result<(Context<'a>, &'f [u8]), Error> {
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
}
