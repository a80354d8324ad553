//! Refreshes by the schedule: nobody orders them, so every node holds them against its own clock and its own setting,
//! and a bad one cannot have the others make shares all day.

use std::sync::Arc;

use strongroom_shared::{object::ObjectId, wire::CallId};

use crate::{
    cluster::order::OrderedAct,
    platform::{Platform, Time},
    vault::{
        Error, Vault,
        cluster::View,
        partition::Partition,
        shared::{
            ceremony::ceremonies::Chore,
            certificate::sha256,
            keys::{KeyHere, SharedKey},
        },
    },
};

const HOUR: Time = 3600 * 1_000_000;

/// When a node begins the refresh of shares that became active at `made`: after as many hours as are set, and up to a
/// quarter more, another time at each node and for each key.
fn due_at(made: Time, hours: u64, node: &[u8; 32], key: ObjectId, epoch: u64) -> Time {
    let period = HOUR.saturating_mul(hours);
    let mix = sha256(&[&node[..], &key.0, &epoch.to_be_bytes()].concat());
    let share = u64::from(u16::from_be_bytes([mix[0], mix[1]]));
    let late = u128::from(period) * u128::from(share) / (4 * u128::from(u16::MAX));
    made.saturating_add(period).saturating_add(Time::try_from(late).unwrap_or_default())
}

impl<P: Platform> Vault<P> {
    /// Whether this node lets its share be refreshed without an order.
    ///
    /// # Errors
    /// `Forbidden`, saying why not.
    pub(super) fn check_schedule(&self, shared: &SharedKey, banned: bool) -> Result<(), Error> {
        let hours = self.settings.refresh_hours;
        if hours == 0 {
            return Err(Error::forbidden(
                "no refresh by the schedule is set at this node: set `refresh_hours` under [cluster] in server.toml \
                 alike at all nodes",
            ));
        }
        if banned {
            return Err(Error::forbidden("a refresh that ends a ban is ordered by two administrators"));
        }
        // The clocks and the settings of nodes may differ a little.
        let young = HOUR.saturating_mul(hours) / 4 * 3;
        if self.platform.now() < shared.made.saturating_add(young) {
            return Err(Error::forbidden(
                "the share here is younger than the schedule of this node asks for",
            ));
        }
        Ok(())
    }

    /// Refreshes the key whose turn it is, one at a time.
    pub(super) fn refresh_by_schedule(&self, view: &View) -> Result<(), Error> {
        let hours = self.settings.refresh_hours;
        let (Some(identity), true) = (self.cluster.identity(), hours > 0) else { return Ok(()) };
        let (node, now) = (identity.public(), self.platform.now());
        let partitions = self.all_partitions();
        let of_partition = |(name, partition): (String, Arc<Partition>)| {
            let keys = partition.shared.keys().into_iter();
            keys.map(|(id, shared)| (id, shared, name.clone(), Arc::clone(&partition))).collect::<Vec<_>>()
        };
        let mut due: Vec<_> = partitions.into_iter().flat_map(of_partition).collect();
        for (id, ..) in due.iter().filter(|(_, shared, ..)| shared.made > now.saturating_add(HOUR)) {
            if self.cluster.ceremonies.is_turn(Chore::Remind, *id, self.platform.uptime()) {
                tracing::warn!(
                    key = %id,
                    "its share was made later than this node's clock says it is now: not refreshed by the schedule before \
                     then; set the clock right"
                );
            }
        }
        due.retain(|(id, shared, ..)| now >= due_at(shared.made, hours, &node, *id, shared.epoch().0));
        // Each in its turn: one that never comes about keeps no other one waiting.
        let last = self.cluster.ceremonies.refreshed();
        due.sort_by_key(|(id, ..)| (Some(*id) <= last, *id));
        for (id, shared, name, partition) in due {
            let is_turn = |chore| self.cluster.ceremonies.is_turn(chore, id, self.platform.uptime());
            if !is_turn(Chore::Begin) {
                continue;
            }
            if !shared.bans().is_empty() || shared.check_current().is_err() {
                tracing::warn!(key = %id, "not refreshed by the schedule: an administrator has to act, see `hsmctl key`");
                continue;
            }
            if !self.all_well(view, &shared) {
                tracing::warn!(key = %id, "not refreshed by the schedule: not every node that holds a share is there");
                continue;
            }
            if !is_turn(Chore::Refresh) {
                continue;
            }
            self.cluster.ceremonies.refresh(id);
            let peer = self.own_peer(view)?;
            let mut context = self.about_shares(&peer, CallId::RenewShares);
            (context.subject, context.object) = (name.clone(), Some(id));
            let key = KeyHere { name: &name, partition: &partition, id };
            let renewed = self.renew_shares(&mut context, view, key, None, &OrderedAct::Refresh);
            self.cluster.ceremonies.rest(Chore::Refresh, id, self.platform.uptime());
            return renewed.map(drop).inspect_err(|error| self.record_failure(&mut context, error));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_begin_after_the_time_that_is_set_and_not_all_at_once() {
        let times: Vec<Time> = (0..16).map(|node| due_at(5, 24, &[node; 32], ObjectId([1; 16]), 3)).collect();
        assert!(times.iter().all(|time| (5 + 24 * HOUR..=5 + 30 * HOUR).contains(time)), "{times:?}");
        let apart: std::collections::BTreeSet<Time> = times.iter().map(|time| time / 60_000_000).collect();
        assert!(apart.len() > 10, "{times:?}");
        assert_ne!(
            due_at(5, 24, &[1; 32], ObjectId([1; 16]), 3),
            due_at(5, 24, &[1; 32], ObjectId([1; 16]), 4)
        );
    }
}
