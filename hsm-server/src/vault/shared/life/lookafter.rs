//! What a node does about the shares of its keys by itself, once a second, while others greet and sign: it finishes what
//! a crash or a silent node has left.

use std::{collections::BTreeMap, time::Duration};

use strongroom_shared::{message::Caller, object::ObjectId, wire::CallId};

use crate::{
    cluster::Member,
    door::{ClientId, Peer},
    platform::{Platform, Time},
    vault::{
        Context, Error, Vault,
        cluster::View,
        nodes::Answer,
        shared::{
            ceremony::ceremonies::Chore,
            generate::FIRST,
            keys::{KeyHere, SharedKey},
            life::activate::reached,
        },
    },
};

/// After how long the others are asked less often for the certificate of a share. It is never given up: whoever has it
/// may show it at any time, and this node has signed that it holds the share.
const LONG: Time = 3600 * 1_000_000;
/// How many keys with a share in use a node asks the others about in a second.
const ASKED: usize = 4;
/// How long a node may take to say what it has of a key's shares.
pub(in crate::vault::shared) const PATIENCE: Duration = Duration::from_millis(500);

impl<P: Platform> Vault<P> {
    /// Asks the others for the certificates of the shares that wait here, and whether they have gone on without this
    /// node; has new shares show that they sign, so that those before them can be erased.
    pub(in crate::vault) fn look_after_shares(&self) {
        let Some(view) = self.cluster.view().filter(|view| view.own.is_some()) else { return };
        let view = &*view;
        let partitions = self.all_partitions();
        let mut keys = BTreeMap::new();
        for (name, partition) in &partitions {
            let here = |id| KeyHere { name, partition, id };
            keys.extend(partition.shared.keys().into_iter().map(|(id, shared)| (id, (here(id), shared))));
        }
        let ids = keys.keys().copied().collect();
        for id in self.cluster.ceremonies.to_ask(&ids, ASKED, self.platform.uptime()) {
            if let Some((key, shared)) = keys.get(&id) {
                self.look_after_active(view, *key, shared);
            }
        }
        for (name, partition) in &partitions {
            let here = |id| KeyHere { name, partition, id };
            for ((id, epoch), pending) in partition.shared.pending() {
                if epoch == FIRST.0 && partition.shared.promises.of(id).is_some() {
                    continue;
                }
                if let Err(error) = self.look_after_pending(view, here(id), epoch, pending.made) {
                    tracing::warn!(key = %id, epoch, %error, "a share still waits for its certificate");
                }
            }
            for id in partition.shared.promises.keys() {
                if let Err(error) = self.look_after_promise(view, here(id)) {
                    tracing::warn!(key = %id, %error, "a share still waits for its certificate");
                }
            }
            for id in partition.shared.unproven() {
                if let Err(error) = self.look_after_unproven(view, here(id)) {
                    tracing::warn!(key = %id, %error, "its shares have not shown yet that they sign");
                }
            }
        }
        self.look_after_children(view);
        if let Err(error) = self.refresh_by_schedule(view) {
            tracing::warn!(%error, "a key was not refreshed by the schedule");
        }
    }

    /// What a node does about shares by itself.
    pub(in crate::vault::shared) fn about_shares<'a>(&self, peer: &'a Peer, call: CallId) -> Context<'a> {
        Context::new(peer, Caller::default(), call, self.platform.now())
    }

    /// Asks for no certificate of a key that this node has promised to take none of, but whether the promise has ended.
    fn look_after_promise(&self, view: &View, key: KeyHere<'_>) -> Result<(), Error> {
        let KeyHere { partition, id, .. } = key;
        let over =
            partition.shared.promises.of(id).is_some_and(|promise| promise.is_over(self.platform.now()));
        if !over || !self.cluster.ceremonies.is_turn(Chore::Promise, id, self.platform.uptime()) {
            return Ok(());
        }
        self.end_promise(view, key)
    }

    fn look_after_pending(&self, view: &View, key: KeyHere<'_>, epoch: u64, made: Time) -> Result<(), Error> {
        let KeyHere { name, id, .. } = key;
        let long = self.platform.now() >= made.saturating_add(LONG);
        if long && !self.cluster.ceremonies.is_turn(Chore::Wait, id, self.platform.uptime()) {
            return Ok(());
        }
        if long && self.cluster.ceremonies.is_turn(Chore::Remind, id, self.platform.uptime()) {
            tracing::warn!(
                key = %id,
                epoch,
                partition = name,
                "this share has waited for more than an hour for the word of all nodes that are to hold one: one of them was \
                 silent when it was made, or the node that had it made keeps their word to itself"
            );
        }
        let question = key.question();
        let is_due = |member: &&Member| !long || self.cluster.links.is_well(member.id);
        for member in view.others().filter(is_due) {
            let Ok(Answer::Certificate(account)) = self.consult(view, member, &question, PATIENCE) else {
                continue;
            };
            let later = reached(&account).filter(|(reached, _)| reached.0 >= epoch);
            let Some((_, warrant)) = later else { continue };
            let peer = peer(member);
            let mut context = self.about_shares(&peer, CallId::GenerateShared);
            match self.activate(&mut context, &warrant) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(key = %id, node = member.name, %error, "its certificate is not taken");
                    self.tell_of(&mut context, id, &error);
                }
            }
        }
        Ok(())
    }

    /// Asks those that are there how far they are: an order may have moved the shares on while this node was away; and
    /// whether those who may have something left of the key have it still.
    fn look_after_active(&self, view: &View, key: KeyHere<'_>, shared: &SharedKey) {
        let KeyHere { partition, id, .. } = key;
        let question = key.question();
        for member in view.others().filter(|member| self.cluster.links.is_well(member.id)) {
            let Ok(Answer::Certificate(account)) = self.consult(view, member, &question, PATIENCE) else {
                continue;
            };
            let heard = self.hear_of_traces(partition, id, (member, &account), view.document.membership());
            if let Err(error) = heard {
                tracing::warn!(key = %id, %error, "what other nodes have left of it could not be written down");
            }
            let later = reached(&account).filter(|(reached, _)| *reached > shared.epoch());
            let Some((epoch, warrant)) = later else { continue };
            let peer = peer(member);
            let mut context = self.about_shares(&peer, CallId::RenewShares);
            match self.activate_proven(&mut context, &warrant, &account.proofs) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(key = %id, node = member.name, epoch = epoch.0, %error, "its later shares are not taken");
                    self.tell_of(&mut context, id, &error);
                }
            }
        }
    }

    /// Puts on record what another node would have this one believe of a key, though not over and over.
    pub(super) fn tell_of(&self, context: &mut Context<'_>, id: ObjectId, error: &Error) {
        if self.cluster.ceremonies.is_turn(Chore::Tell, id, self.platform.uptime()) {
            self.record_failure(context, error);
        }
    }

    /// This node, as the one that does something by itself.
    pub(in crate::vault::shared) fn own_peer(&self, view: &View) -> Result<Peer, Error> {
        view.me().map(peer).ok_or_else(|| strongroom_shared::fault::FaultCode::Forbidden.into())
    }
}

/// A node that has brought something, for the record.
pub(in crate::vault::shared) fn peer(member: &Member) -> Peer {
    Peer {
        id: ClientId::of_node(&member.identity),
        client: format!("node {}", member.name),
        partition: None,
        fingerprint: member.id.0,
        address: member.neighbour().map_or_else(|_| ([0; 4], 0).into(), |neighbour| neighbour.address),
        connection: 0,
    }
}
