//! Administration: partitions, clients, policy, freezing, the audit log. `hsmctl` asks; only
//! administrators' certificates may.

use std::sync::{Arc, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use pkcs11_sys::{CKA_CLASS, CKA_ID, CKA_KEY_TYPE, CKO_PRIVATE_KEY, CKO_SECRET_KEY};
use strongroom_shared::{
    fault::FaultCode,
    hex::Hex,
    message::*,
    object::{Descent, ObjectId},
    wire::Handle,
};

use super::{
    Context, Error, Vault, attributes,
    partition::{Partition, Rules},
    record::Change,
    records::{ClientRecord, RolesRecord},
    shared::keys::SharedKeys,
    start::{client_record, new_client},
};
use crate::{
    certificates,
    platform::Platform,
    policy::Policy,
    store::{PartitionId, Path},
};

/// The longest life that a client's certificate is given while the server runs, in days.
const MAX_CLIENT_DAYS: u32 = 825;
/// Records per answer of `TailAudit`: well below the frame limit.
const TAIL: u32 = 1000;

impl<P: Platform> Vault<P> {
    /// The partition of this name, which then stands in the call's record.
    pub(super) fn named(&self, context: &mut Context<'_>, name: &str) -> Result<Arc<Partition>, Error> {
        context.subject = name.into();
        self.partition_named(name)
            .ok_or_else(|| Error::caller(FaultCode::NotFound, format!("no partition {name}")))
    }

    /// Changes a partition's rules. No use of a key is put on record while it does.
    fn change_rules(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        edit: impl FnOnce(&mut Rules),
    ) -> Result<(), Error> {
        let mut rules = partition.rules_to_change();
        let mut changed = rules.clone();
        edit(&mut changed);
        let change = Change::new()
            .put(Path::Partition(partition.id), &changed.record)
            .put(Path::Policy(partition.id), &changed.policy_text);
        self.change(context, change)?;
        *rules = changed;
        Ok(())
    }

    /// Waits for its turn to add or remove partitions or clients: what was read of them then still holds.
    pub(super) fn administration_turn(&self) -> MutexGuard<'_, ()> {
        self.administration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client of this name is known, and is one of another partition, or an administrator.
    pub(super) fn is_known_elsewhere(&self, name: &str, partition: Option<&String>) -> bool {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let mut same = clients.values().filter(|client| client.name == name && !client.revoked);
        same.any(|client| client.partition.as_ref() != partition)
    }

    /// Revokes clients and has the front close their connections.
    fn revoke(
        &self,
        context: &mut Context<'_>,
        change: Change,
        which: impl Fn(&ClientRecord) -> bool,
    ) -> Result<usize, Error> {
        let mut change = change;
        let mut revoked = Vec::new();
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner).clone();
        for client in clients.values().filter(|client| !client.revoked && which(client)) {
            let client = ClientRecord { revoked: true, ..client.clone() };
            change = change.put(Path::Client(client.fingerprint), &client);
            revoked.push(client);
        }
        self.change(context, change)?;
        let count = revoked.len();
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.extend(revoked.into_iter().map(|client| (client.fingerprint, client)));
        self.clients_changed();
        Ok(count)
    }
}

pub fn check_name(name: &str) -> Result<(), Error> {
    if certificates::is_name(name) {
        return Ok(());
    }
    let rule = "a name has 1 to 32 characters of a-z, 0-9, '-' and '_'";
    Err(Error::caller(FaultCode::ArgumentsBad, format!("\"{name}\": {rule}")))
}

fn describe(name: &str, partition: &Partition) -> PartitionInfo {
    let rules = partition.rules();
    PartitionInfo {
        name: name.into(),
        serial: partition.id.to_string(),
        label: rules.record.label.clone().unwrap_or_default(),
        objects: partition.keyring.count().0,
        frozen: rules.record.frozen,
    }
}

impl<P: Platform> Handle<CreatePartition> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: CreatePartition) -> Result<PartitionInfo, Error> {
        context.subject.clone_from(&call.name);
        check_name(&call.name)?;
        let _turn = self.administration_turn();
        if self.partitions.read().unwrap_or_else(PoisonError::into_inner).contains_key(&call.name) {
            return Err(Error::caller(FaultCode::AlreadyExists, format!("partition {} exists", call.name)));
        }
        let mut id = PartitionId([0; 8]);
        self.platform.fill(&mut id.0);
        let (rules, roles) = (Rules::new(&call.name), RolesRecord::default());
        let change = Change::new()
            .create_partition(id)
            .put(Path::Partition(id), &rules.record)
            .put(Path::Roles(id), &roles)
            .put(Path::Policy(id), &rules.policy_text);
        self.change(context, change)?;
        let partition = Arc::new(Partition::new(id, rules, roles, SharedKeys::default()));
        let info = describe(&call.name, &partition);
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).insert(call.name, partition);
        Ok(info)
    }
}

impl<P: Platform> Handle<DeletePartition> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: DeletePartition) -> Result<Done, Error> {
        let _turn = self.administration_turn();
        let partition = self.named(context, &call.name)?;
        let change = Change::new().delete_partition(partition.id);
        self.revoke(context, change, |client| client.partition.as_ref() == Some(&call.name))?;
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).remove(&call.name);
        partition.keyring.clear();
        Ok(Done {})
    }
}

impl<P: Platform> Handle<ListPartitions> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: ListPartitions) -> Result<Partitions, Error> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Partitions {
            partitions: partitions.iter().map(|(name, partition)| describe(name, partition)).collect(),
        })
    }
}

impl<P: Platform> Handle<AddClient> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: AddClient) -> Result<Certificate, Error> {
        check_name(&call.name)?;
        let _turn = self.administration_turn();
        if let Some(partition) = &call.partition {
            self.named(context, partition)?;
        }
        let role = if call.partition.is_some() { "application" } else { "administrator" };
        context.detail = format!("client {}, {role}", call.name);
        if !(1..=MAX_CLIENT_DAYS).contains(&call.days) {
            return Err(Error::caller(FaultCode::ArgumentsBad, format!("1 to {MAX_CLIENT_DAYS} days")));
        }
        let same = |client: &ClientRecord| client.name == call.name && !client.revoked;
        if self.clients.read().unwrap_or_else(PoisonError::into_inner).values().any(same) {
            let text = format!("client {} exists; revoke it first or choose another name", call.name);
            return Err(Error::caller(FaultCode::AlreadyExists, text));
        }
        let admitted_elsewhere = |(partition, _): &(Arc<Partition>, _)| {
            Some(&partition.rules().record.name) != call.partition.as_ref()
        };
        if self.admissions_of(&call.name).iter().any(admitted_elsewhere) {
            let text = format!(
                "a client {} is admitted to another partition; revoke it first or choose another name",
                call.name
            );
            return Err(Error::caller(FaultCode::AlreadyExists, text));
        }
        let seconds = context.now / 1_000_000;
        let partition = call.partition.as_deref();
        let issued = self.authority.issue_client(&call.request, &call.name, partition, seconds, call.days)?;
        let id = new_client(&*self.platform);
        let record = client_record(id, &call.name, call.partition, &issued, call.days);
        self.change(context, Change::new().put(Path::Client(record.fingerprint), &record))?;
        self.clients.write().unwrap_or_else(PoisonError::into_inner).insert(record.fingerprint, record);
        self.clients_changed();
        Ok(self.certificate(&issued))
    }
}

impl<P: Platform> Handle<RevokeClient> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: RevokeClient) -> Result<Done, Error> {
        context.detail = format!("client {}", call.name);
        let _turn = self.administration_turn();
        let mine = context.peer.client == call.name;
        let known = |client: &ClientRecord| client.name == call.name && !client.revoked;
        let admitted = self.admissions_of(&call.name);
        let certified = self.clients.read().unwrap_or_else(PoisonError::into_inner).values().any(known);
        if !certified && admitted.is_empty() {
            return Err(Error::caller(FaultCode::NotFound, format!("no client {} to revoke", call.name)));
        }
        if mine {
            return Err(Error::caller(FaultCode::ArgumentsBad, "an administrator cannot revoke itself"));
        }
        let change = admitted.iter().fold(Change::new(), |change, (partition, key)| {
            change.delete(Path::Admission(partition.id, *key))
        });
        self.revoke(context, change, known)?;
        for (partition, key) in admitted {
            partition.admitted_to_change().remove(&key);
        }
        Ok(Done {})
    }
}

impl<P: Platform> Handle<ListClients> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: ListClients) -> Result<Clients, Error> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let mut clients: Vec<_> = clients
            .values()
            .map(|client| ClientInfo {
                name: client.name.clone(),
                partition: client.partition.clone(),
                fingerprint: client.fingerprint.to_vec(),
                not_after: client.not_after,
                revoked: client.revoked,
            })
            .collect();
        clients.sort_by(|one, other| (&one.name, one.not_after).cmp(&(&other.name, other.not_after)));
        Ok(Clients { clients, admitted: Some(self.admitted_keys()) })
    }
}

impl<P: Platform> Handle<ListKeys> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ListKeys) -> Result<Keys, Error> {
        let partition = self.named(context, &call.partition)?;
        let rules = partition.rules();
        let objects = partition.keyring.token_objects();
        let keys = objects.iter().filter(|object| object.attributes.ulong(CKA_KEY_TYPE).is_some());
        let keys = keys.map(|object| KeyInfo {
            object: attributes::describe(object.id, &object.attributes),
            label: String::from_utf8_lossy(object.label()).into_owned(),
            id: object.attributes.bytes(CKA_ID).unwrap_or_default().to_vec(),
            frozen: rules
                .check_thawed(object.lineage)
                .and_then(|()| rules.check_family(&object.attributes))
                .is_err(),
            descent: Descent::of(&object.attributes),
        });
        Ok(Keys { keys: keys.collect() })
    }
}

impl<P: Platform> Handle<SetPolicy> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: SetPolicy) -> Result<Done, Error> {
        let partition = self.named(context, &call.partition)?;
        context.detail = if call.text.trim().is_empty() {
            "removed".into()
        } else {
            format!("SHA-256 {}", hex(digest::digest(&digest::SHA256, call.text.as_bytes()).as_ref()))
        };
        let policy = Policy::parse(&call.text)
            .map_err(|error| Error::caller(FaultCode::ConfigurationInvalid, error.to_string()))?;
        self.change_rules(context, &partition, |rules| {
            rules.policy = policy;
            rules.policy_text = call.text;
        })?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<ReadPolicy> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ReadPolicy) -> Result<PolicyText, Error> {
        Ok(PolicyText { text: self.named(context, &call.partition)?.rules().policy_text.clone() })
    }
}

impl<P: Platform> Handle<Freeze> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Freeze) -> Result<Done, Error> {
        let partition = self.named(context, &call.partition)?;
        context.object = call.key;
        let lineage = call.key.map(|key| lineage(&partition, key)).transpose()?;
        self.change_rules(context, &partition, |rules| match lineage {
            None => rules.record.frozen = true,
            Some(key) if rules.record.frozen_keys.contains(&key) => {}
            Some(key) => rules.record.frozen_keys.push(key),
        })?;
        Ok(Done {})
    }
}

impl<P: Platform> Handle<Thaw> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: Thaw) -> Result<Done, Error> {
        let partition = self.named(context, &call.partition)?;
        context.object = call.key;
        let lineage = call.key.map(|key| lineage(&partition, key)).transpose()?;
        self.change_rules(context, &partition, |rules| match lineage {
            None => rules.record.frozen = false,
            Some(key) => rules.record.frozen_keys.retain(|frozen| *frozen != key),
        })?;
        Ok(Done {})
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// The first of a key's copies, which stands for all of them. A public key is nothing that could be stopped.
fn lineage(partition: &Partition, key: ObjectId) -> Result<ObjectId, Error> {
    let objects = partition.keyring.token_objects();
    let object = objects.iter().find(|object| object.id == key);
    match object.map(|object| (object.lineage, object.attributes.ulong(CKA_CLASS))) {
        Some((lineage, Some(CKO_PRIVATE_KEY | CKO_SECRET_KEY))) => Ok(lineage),
        Some(_) => Err(Error::caller(
            FaultCode::ArgumentsBad,
            format!("{key} is no private or secret key; `hsmctl key list` shows which belongs to it"),
        )),
        None => Err(Error::caller(FaultCode::NotFound, format!("no key {key} in this partition"))),
    }
}

impl<P: Platform> Handle<TailAudit> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: TailAudit) -> Result<AuditRecords, Error> {
        let records = self.log.tail(call.count.min(TAIL) as usize, call.after)?;
        let connection = context.peer.connection;
        context.recorded = self.readers.read_on(connection, call.after);
        // What comes later and is read on this connection is part of this act.
        match (records.first(), records.last(), call.after) {
            (Some(first), Some(last), _) => {
                context.detail = format!("from record {} on", first.sequence);
                self.readers.stop_at(connection, last.sequence);
            }
            (_, _, Some(after)) => {
                context.detail = format!("from record {} on", after.saturating_add(1));
                self.readers.stop_at(connection, after);
            }
            (_, _, None) => context.detail = "none".into(),
        }
        Ok(AuditRecords { records })
    }
}

impl<P: Platform> Handle<VerifyAudit> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, _: VerifyAudit) -> Result<AuditVerified, Error> {
        let summary = self.log.verify()?;
        context.detail = format!("{} records, whole", summary.records);
        Ok(AuditVerified { records: summary.records, head: summary.head.to_vec() })
    }
}
