//! Mandates: which clients' signed word this server believes, and whether a mandate is such a word.
//!
//! An administrator admits a client's Ed25519 key for a partition, at every node of its own. A mandate that comes
//! with a call, or from another node, is good if it is signed with an admitted key, meant for this cluster and
//! this call, and not over. Nothing here rests on what another node says.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use pkcs11_sys::{CKA_ID, CKA_LABEL, CKA_PUBLIC_KEY_INFO};
use strongroom_shared::{
    fault::FaultCode,
    mandate::{Mandate, Mandated, Seen},
    message::{AdmitClient, AdmittedKey, Done},
    wire::{CallId, Handle, decode_body},
};

use super::{
    Context, Error, Vault, admin::check_name, keyring::Object, partition::Partition, record::Change,
    shared::certificate::sha256,
};
use crate::{platform::Platform, store::Path};

/// The keys that were admitted for a partition, each with its client's name.
pub type Admitted = BTreeMap<[u8; 32], AdmissionRecord>;

/// A key that was admitted, as it is kept.
#[derive(Clone, Debug, Encode, Decode)]
pub struct AdmissionRecord {
    /// The client's name.
    #[n(0)]
    pub client: String,
}

/// A mandate that is good here and now.
#[derive(Clone, Debug)]
pub struct CheckedMandate {
    /// The partition that it is for.
    pub partition: Arc<Partition>,
    /// The client that signed it.
    pub client: String,
    /// SHA-256 of its text: what this mandate is known by.
    pub id: [u8; 32],
    /// The call that is meant, as it travels.
    pub body: Vec<u8>,
    seen: Option<Seen>,
}

impl CheckedMandate {
    /// Whether the application means this key: it was shown what stands here.
    ///
    /// # Errors
    /// `Forbidden`, saying what is different.
    pub fn check_seen(&self, object: &Object) -> Result<(), Error> {
        let Some(seen) = &self.seen else {
            return Err(refused("the mandate does not say which key the application was shown".into()));
        };
        let own = |kind| object.attributes.bytes(kind).unwrap_or_default();
        let differs = [
            ("CKA_PUBLIC_KEY_INFO", sha256(own(CKA_PUBLIC_KEY_INFO)) == seen.public),
            ("CKA_LABEL", own(CKA_LABEL) == seen.label),
            ("CKA_ID", own(CKA_ID) == seen.id),
        ];
        let differs: Vec<_> = differs.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        if differs.is_empty() {
            return Ok(());
        }
        let text = format!(
            "the application was shown another key by this name: {} differs from what stands here; look at the node \
             that it asked",
            differs.join(", ")
        );
        tracing::error!(key = %object.id, client = self.client, "{text}");
        Err(refused(text))
    }
}

fn refused(text: String) -> Error {
    Error::caller(FaultCode::Forbidden, text)
}

impl<P: Platform> Vault<P> {
    /// What a mandate says, if this server believes it.
    ///
    /// # Errors
    /// `Forbidden`, saying what is to be done; `Malformed` if it is no mandate.
    pub(super) fn check_mandate(
        &self,
        mandated: &Mandated,
        expected: CallId,
    ) -> Result<CheckedMandate, Error> {
        let mandate: Mandate = decode_body(&mandated.text)
            .map_err(|error| Error::caller(FaultCode::Malformed, error.to_string()))?;
        let view = self.cluster.view().filter(|view| view.own.is_some());
        let view =
            view.ok_or_else(|| refused("this server is in no cluster: see `hsmctl cluster`".into()))?;
        let cluster = view.document.membership().cluster;
        if cluster.0 != mandate.cluster {
            return Err(refused(format!("the mandate is for another cluster; this server is in {cluster}")));
        }
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let partition = partitions.get(&mandate.partition).cloned().ok_or_else(|| {
            let name = &mandate.partition;
            refused(format!("no partition {name} at this node: run `hsmctl partition create` here too"))
        })?;
        drop(partitions);
        let admission = partition.admitted().get(&mandate.key).cloned().ok_or_else(|| {
            refused(format!(
                "the client's mandate key is not admitted to partition {} at this node: run `hsmctl client admit` \
                 here too",
                mandate.partition
            ))
        })?;
        UnparsedPublicKey::new(&ED25519, mandate.key)
            .verify(&Mandate::to_sign(&mandated.text), &mandated.signature)
            .map_err(|_| refused("the signature of the mandate is wrong".into()))?;
        let now = self.platform.now() / 1_000_000;
        if mandate.expires <= now || mandate.expires > now + Mandate::LONGEST {
            return Err(refused(format!(
                "the mandate ends at {}, and it is {now} here: it may end at most {} seconds ahead; are the clocks \
                 set alike?",
                mandate.expires,
                Mandate::LONGEST
            )));
        }
        if mandate.call != expected as u16 {
            return Err(refused(format!("the mandate is for another call than this {}", expected.name())));
        }
        let AdmissionRecord { client } = admission;
        let id = sha256(&mandated.text);
        Ok(CheckedMandate { partition, client, id, body: mandate.body, seen: mandate.seen })
    }

    /// As [`Self::check_mandate`], of a mandate that its own client brings.
    pub(super) fn check_own_mandate(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        expected: CallId,
    ) -> Result<CheckedMandate, Error> {
        let mandate = self.check_mandate(mandated, expected)?;
        let own = context.partition()?;
        if own.id != mandate.partition.id || context.peer.client != mandate.client {
            return Err(refused(format!(
                "the mandate is client {}'s, for another connection than this",
                mandate.client
            )));
        }
        let id: String = mandate.id.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        context.detail = format!("mandate {id}");
        Ok(mandate)
    }

    /// Where keys of this client are admitted.
    pub(super) fn admissions_of(&self, client: &str) -> Vec<(Arc<Partition>, [u8; 32])> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_partition = |partition: &Arc<Partition>| {
            let admitted = partition.admitted();
            let keys = admitted.iter().filter(|(_, admission)| admission.client == client);
            keys.map(|(key, _)| (Arc::clone(partition), *key)).collect::<Vec<_>>()
        };
        partitions.values().flat_map(of_partition).collect()
    }

    /// Every admitted key, for an administrator.
    pub(super) fn admitted_keys(&self) -> Vec<AdmittedKey> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        let of_partition = |(name, partition): (&String, &Arc<Partition>)| {
            let describe = |(key, admission): (&[u8; 32], &AdmissionRecord)| AdmittedKey {
                name: admission.client.clone(),
                partition: name.clone(),
                key: key.to_vec(),
            };
            partition.admitted().iter().map(describe).collect::<Vec<_>>()
        };
        partitions.iter().flat_map(of_partition).collect()
    }
}

impl<P: Platform> Handle<AdmitClient> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: AdmitClient) -> Result<Done, Error> {
        check_name(&call.name)?;
        let _turn = self.administration_turn();
        let partition = self.named(context, &call.partition)?;
        let key: [u8; 32] = call
            .key
            .try_into()
            .map_err(|_| Error::caller(FaultCode::ArgumentsBad, "an Ed25519 public key has 32 bytes"))?;
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        context.detail = format!("client {}, mandate key {hex}", call.name);
        let exists = |text: String| Err(Error::caller(FaultCode::AlreadyExists, text));
        if self.is_known_elsewhere(&call.name, Some(&call.partition)) {
            return exists(format!("client {} is known here, and not as one of this partition", call.name));
        }
        match partition.admitted().get(&key) {
            Some(admission) if admission.client == call.name => return Ok(Done {}),
            Some(admission) => {
                return exists(format!("this key is client {}'s already", admission.client));
            }
            None => {}
        }
        let record = AdmissionRecord { client: call.name };
        self.change(context, Change::new().put(Path::Admission(partition.id, key), &record))?;
        partition.admitted_to_change().insert(key, record);
        Ok(Done {})
    }
}
