//! What a node does about the shares of its keys by itself, when it greets the others: it finishes what a crash or a
//! silent node has left.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use strongroom_shared::{message::Caller, object::ObjectId, wire::CallId};

use super::{
    super::{
        Context, Error, Vault,
        cluster::View,
        nodes::{Answer, Question},
        partition::Partition,
        record::Change,
    },
    activate::reached,
};
use crate::{
    cluster::Member,
    door::{ClientId, Peer},
    platform::{Platform, Time},
    store::Path,
};

/// After how long a share is given up that no node has a certificate for.
const GIVEN_UP: Time = 3600 * 1_000_000;
/// How long a node may take to say what it has of a key's shares.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

impl<P: Platform> Vault<P> {
    /// Asks the others for the certificates of the shares that wait here, gives up those that nobody can have, and has
    /// new shares show that they sign, so that those before them can be erased.
    pub(in super::super) fn look_after_shares(&self, view: &View) {
        if view.own.is_none() {
            return;
        }
        let partitions: Vec<_> = {
            let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
            partitions.iter().map(|(name, partition)| (name.clone(), Arc::clone(partition))).collect()
        };
        for (name, partition) in partitions {
            for ((id, epoch), pending) in partition.shared.pending() {
                if let Err(error) =
                    self.look_after_pending(view, &name, &partition, (id, epoch), pending.made)
                {
                    tracing::warn!(key = %id, epoch, %error, "a share still waits for its certificate");
                }
            }
            for id in partition.shared.all_former().into_keys() {
                if let Err(error) = self.look_after_former(view, &name, &partition, id) {
                    tracing::warn!(key = %id, %error, "a share that was replaced is kept still");
                }
            }
        }
        if let Err(error) = self.refresh_by_schedule(view) {
            tracing::warn!(%error, "a key was not refreshed by the schedule");
        }
    }

    /// What a node does about shares by itself.
    pub(super) fn about_shares<'a>(&self, peer: &'a Peer, call: CallId) -> Context<'a> {
        Context::new(peer, Caller::default(), call, self.platform.now())
    }

    fn look_after_pending(
        &self,
        view: &View,
        name: &str,
        partition: &Partition,
        (id, epoch): (ObjectId, u64),
        made: Time,
    ) -> Result<(), Error> {
        let question = Question::Certificate { partition: name.into(), key: id };
        let mut denied = 0;
        for member in view.others() {
            match self.consult(view, member, &question, PATIENCE) {
                Ok(Answer::Certificate(account)) => {
                    match reached(&account).filter(|(reached, _)| reached.0 >= epoch) {
                        Some((_, warrant)) => {
                            let peer = peer(member);
                            let call = CallId::GenerateShared;
                            return self.activate(&mut self.about_shares(&peer, call), &warrant);
                        }
                        None => denied += 1,
                    }
                }
                Ok(
                    Answer::Vouched(..)
                    | Answer::Done
                    | Answer::Progress(_)
                    | Answer::Agreed(_)
                    | Answer::Descendant(_),
                )
                | Err(_) => {}
            }
        }
        // Only when nobody can have it: whoever does not answer may be using its own share.
        let late = self.platform.now() >= made.saturating_add(GIVEN_UP);
        if !late || denied < view.others().count() {
            return Ok(());
        }
        let _turn = partition.object_turn();
        if partition.shared.waiting(id).contains(&epoch) {
            tracing::warn!(key = %id, epoch, "no node has a certificate for this share: it is dropped");
            let peer = self.own_peer(view)?;
            let call = if epoch == 0 { CallId::GenerateShared } else { CallId::RenewShares };
            let mut context = self.about_shares(&peer, call);
            (context.subject, context.object) = (name.into(), Some(id));
            context.detail = "no node has a certificate for this share: it was dropped".into();
            self.change(&mut context, Change::new().delete(Path::Pending(partition.id, id, epoch)))?;
            partition.shared.drop_pending(id, epoch);
        }
        Ok(())
    }

    /// This node, as the one that does something by itself.
    pub(super) fn own_peer(&self, view: &View) -> Result<Peer, Error> {
        view.me().map(peer).ok_or_else(|| strongroom_shared::fault::FaultCode::Forbidden.into())
    }
}

/// A node that has brought something, for the record.
pub(super) fn peer(member: &Member) -> Peer {
    Peer {
        id: ClientId::of_node(&member.identity),
        client: format!("node {}", member.name),
        partition: None,
        fingerprint: member.id.0,
        address: member.neighbour().map_or_else(|_| ([0; 4], 0).into(), |neighbour| neighbour.address),
        connection: 0,
    }
}
