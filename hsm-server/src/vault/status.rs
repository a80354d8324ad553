//! `hsmctl status`: how this server is, and its cluster and the keys that nodes share, as far as this node knows.

use std::sync::PoisonError;

use strongroom_shared::{message::*, wire::Handle};

use super::{Context, Error, SERVER, Vault, cluster::View};
use crate::{audit::Durability, platform::Platform};

impl<P: Platform> Handle<ReadStatus> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: ReadStatus) -> Result<Status, Error> {
        let cluster = match self.cluster.view().filter(|view| view.own.is_some()) {
            Some(view) => Some(self.cluster_status(&view)?),
            None => None,
        };
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let counts = partitions.values().map(|partition| partition.keyring.count());
        let (objects, session_objects) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let waiting_shares: usize =
            partitions.values().map(|partition| partition.shared.pending().len()).sum();
        Ok(Status {
            server: SERVER.into(),
            started: self.started / 1_000_000,
            partitions: partitions.len() as u64,
            objects,
            session_objects,
            audit_records: self.log.last()?.0,
            waiting_shares: Some(waiting_shares as u64),
            isolation: self.settings.isolation.clone(),
            commit: match self.settings.durability {
                Durability::Process => "process".into(),
                Durability::Power => "power".into(),
            },
            cluster,
        })
    }
}

impl<P: Platform> Vault<P> {
    fn cluster_status(&self, view: &View) -> Result<ClusterStatus, Error> {
        let membership = view.document.membership();
        let ill = view.others().filter(|member| !self.cluster.links.is_well(member.id));
        let mut status = ClusterStatus {
            cluster: membership.cluster.0.to_vec(),
            version: membership.version,
            node: view.own.clone().unwrap_or_default(),
            nodes: membership.members.len() as u64,
            ill: ill.map(|member| self.cluster.links.state(member)).collect(),
            shared_keys: 0,
            unproven: 0,
            lost: 0,
            banned: 0,
            given_up: 0,
            orders: self.waiting_orders().len() as u64,
        };
        for partition in self.partitions.read().unwrap_or_else(PoisonError::into_inner).values() {
            let shared = &partition.shared;
            let keys = shared.keys();
            let of_keys = |wanted: &dyn Fn(&super::shared::keys::SharedKey) -> bool| {
                keys.iter().filter(|(_, key)| wanted(key)).count() as u64
            };
            status.shared_keys += keys.len() as u64;
            status.unproven += shared.unproven().len() as u64;
            status.lost += of_keys(&|key| key.check_current().is_err());
            status.banned += of_keys(&|key| !key.bans().is_empty());
            status.given_up += shared.promises.keys().len() as u64;
        }
        Ok(status)
    }
}
