//! What a ceremony's shares are to be, and the share that waits for those of the others.

use pkcs11_sys::CKA_PUBLIC_KEY_INFO;
use strongroom_shared::{
    fault::FaultCode,
    message::SecretBytes,
    object::{
        Attribute, CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_EPOCH, CKA_STRONGROOM_PARTIES,
        CKA_STRONGROOM_THRESHOLD, ObjectId, Template, Value,
    },
    shares::Claim,
};

use crate::{
    cluster::{NodeId, order::SignedOrder},
    crypto,
    crypto::threshold::Outcome as Made,
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault,
        record::Change,
        records::encode,
        shared::{
            ceremony::{draft::Draft, party::About},
            certificate::{self, sha256},
            generate::FIRST,
            kept::PendingRecord,
            words::End,
        },
    },
};

/// What a shared key is to be like, or its shares.
pub struct Plan {
    /// Its objects, without what changes with the shares, and its scheme.
    pub draft: Draft,
    /// Whether the public key's object is to be made.
    pub publish: bool,
    /// SHA-256 of the text of the mandate or order; zero without either.
    pub text: [u8; 32],
    /// What administrators ordered, if they did.
    pub order: Option<SignedOrder>,
    /// SHA-256 of what the private key's object is like, if it is not the mandate that says so.
    pub object: Option<[u8; 32]>,
    /// What administrators ordered that lifts the mark of a key of which nothing was here, in words; if they did.
    pub lifts: Option<String>,
    /// The nodes that are to hold the shares, in the order of their seats: their Ed25519 keys.
    pub seats: Vec<[u8; 32]>,
    /// The public key's object.
    pub public: ObjectId,
}

/// What changes with a key's shares.
const OF_SHARES: [u64; 3] = [CKA_STRONGROOM_THRESHOLD, CKA_STRONGROOM_PARTIES, CKA_STRONGROOM_EPOCH];

/// SHA-256 of what a private key's object is like, whatever its shares are.
pub fn likeness(private: &Template) -> [u8; 32] {
    let mut attributes: Vec<Attribute> =
        private.iter().filter(|attribute| !OF_SHARES.contains(&attribute.kind)).cloned().collect();
    attributes.sort_by_key(|attribute| attribute.kind);
    sha256(&encode(&Template(attributes)))
}

fn set(attributes: &mut Template, values: Template) {
    values.0.into_iter().for_each(|Attribute { kind, value }| attributes.set(kind, value));
}

impl<P: Platform> Vault<P> {
    /// Stores a share, pending, and says so. One who has only dealt has nothing to store.
    pub(super) fn keep_pending(
        &self,
        context: &mut Context<'_>,
        (about, coordinator): (&About, NodeId),
        plan: Plan,
        made: Made,
    ) -> Result<End, Error> {
        let Made { ready, share } = made;
        let Some(share) = share else {
            context.detail = format!("{}; this node has dealt its share", about.detail);
            self.record_done(context)?;
            return Ok(End::Dealt);
        };
        let (key, epoch) = (ready.shares().public_key().map_err(Error::internal)?, ready.shares().epoch());
        let Draft { scheme, shares, mut public, mut private } = plan.draft;
        let values = crypto::shared_values(scheme, &public, &key)?;
        set(&mut public, values.public);
        set(&mut private, values.private);
        let numbers = [shares.threshold.into(), shares.parties.into(), epoch.0];
        for (kind, number) in OF_SHARES.into_iter().zip(numbers) {
            private.set(kind, Value::Ulong(number));
        }
        if let Some(chain_code) = ready.shares().chain_code() {
            private.set(CKA_STRONGROOM_CHAIN_CODE, Value::bytes(chain_code.as_slice()));
        }
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let claim = Claim {
            cluster: view.document.membership().cluster.0,
            partition: about.partition.rules().record.name.clone(),
            mandate: plan.text,
            public: plan.public,
            seats: plan.seats,
            ready: ready.to_bytes(),
            private: about.object,
            key: public.bytes(CKA_PUBLIC_KEY_INFO).ok_or(FaultCode::Internal)?.to_vec(),
            object: plan.object,
        };
        let statement = certificate::state(&claim, &identity);
        let record = PendingRecord {
            share: SecretBytes(share.to_secret_bytes().map_err(Error::internal)?),
            claim: statement.claim.clone(),
            public: plan.publish.then_some(public),
            private,
            made: self.platform.now(),
            order: plan.order,
            coordinator: Some(coordinator),
        };
        if let Some(order) = &plan.lifts {
            self.lift_mark(context, &about.partition, about.object, (&claim.key, order))?;
        }
        context.detail = format!("{}; its share waits for the others", about.detail);
        let _turn = about.partition.object_turn();
        // It may have been destroyed since this began.
        about.partition.shared.destroyed.check(about.object, &claim.key)?;
        self.check_not_agreed(about.object)?;
        if epoch == FIRST {
            about.partition.shared.promises.check_new(about.object)?;
        }
        if about.partition.shared.highest(about.object) >= Some(epoch.0) {
            return Err(Error::forbidden("another ceremony has made shares of this epoch meanwhile"));
        }
        let _ids = self.cluster.ceremonies.turn_of_ids();
        self.check_free_elsewhere(&about.partition, about.object)?;
        let path = Path::Pending(about.partition.id, about.object, epoch.0);
        self.change(context, Change::new().put(path, &record))?;
        about.partition.shared.wait(about.object, epoch, record);
        Ok(End::Ready(statement))
    }
}
