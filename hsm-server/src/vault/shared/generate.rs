//! Making a shared key: what it is to be like, the share that waits, and the certificate that makes it a key.
//!
//! A node that has its share stores it *pending*, with the objects that it will make, and says so, signed. When all
//! have said the same, their signatures are the certificate: each node that holds it makes its share active and the
//! objects visible, in one transaction. A node that did not hear of it asks the others when it greets them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pkcs11_sys::*;
use strongroom_shared::{
    fault::FaultCode,
    mandate::Mandated,
    message::*,
    object::{Attribute, CKA_STRONGROOM_CHAIN_CODE, CKA_STRONGROOM_EPOCH, ObjectId, Template, Value},
    wire::CallId,
};

use super::{
    super::{
        Context, Error, Vault, attributes,
        cluster::View,
        keyring::{Object, Owner},
        keys::generator,
        login::Role,
        mandates::CheckedMandate,
        nodes::{Answer, Question},
        object::{check_access, check_initialized},
        partition::Partition,
        record::Change,
        records::{ObjectRecord, decode, encode},
    },
    certificate::{Certificate, Claim, Signed, key_id, text_hash},
    draft::Draft,
    keys::{PendingRecord, ShareRecord, SharedKey},
    meant,
    party::About,
    relay::{Lead, Relay, Trouble},
    words::{Begin, End, Statement, Task},
};
use crate::{
    cluster::Member,
    crypto::{
        self,
        threshold::{Epoch, Outcome as Made, Party},
    },
    door::{ClientId, Peer},
    platform::{Platform, Time},
    store::Path,
};

/// How long a generation may take: a little less than the application waits.
const GENERATION: Time = 55_000_000;
/// How long a node may take to make its share active.
const ACTIVATION: Duration = Duration::from_secs(5);
/// After how long a share is given up that no node has a certificate for.
const GIVEN_UP: Time = 3600 * 1_000_000;
/// The epoch of a key's first shares.
pub const FIRST: Epoch = Epoch(0);
/// How many shares of a partition may wait for their certificates.
const WAITING: usize = 64;
/// How long a node may take to say whether it has a certificate.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a shared key is to be like.
pub struct Plan {
    /// Its objects, without the key, and its scheme.
    pub draft: Draft,
    mandate: [u8; 32],
    seats: Vec<[u8; 32]>,
    public: ObjectId,
}

impl<P: Platform> Vault<P> {
    /// What the key of a mandate is to be like, by the same rules as any other pair.
    pub(super) fn plan(
        &self,
        context: &mut Context<'_>,
        view: &View,
        mandate: &CheckedMandate,
        mandated: &Mandated,
        (public, private): (ObjectId, ObjectId),
    ) -> Result<Plan, Error> {
        let wanted: GenerateKeyPair = meant(mandate)?;
        let mechanism = generator(context, wanted.mechanism, &wanted.params, CKF_GENERATE_KEY_PAIR)?;
        let members = &view.document.membership().members;
        let draft = Draft::of(&wanted, mechanism, public, private, members.len())?;
        for half in [&draft.public, &draft.private] {
            check_initialized(&mandate.partition, half)?;
        }
        mandate.partition.rules().check_thawed(private)?;
        check_free(&mandate.partition, public, private)?;
        if mandate.partition.shared.pending().len() >= WAITING {
            return Err(Error::caller(FaultCode::Full, "too many shares wait for a node that is silent"));
        }
        let seats = members.iter().map(|member| member.identity).collect();
        Ok(Plan { draft, mandate: text_hash(mandated), seats, public })
    }

    /// Stores a share, pending, and says so.
    pub(super) fn keep_pending(
        &self,
        context: &mut Context<'_>,
        about: &About,
        plan: Plan,
        made: Made,
    ) -> Result<Statement, Error> {
        let broken = |error: &dyn std::fmt::Display| Error::caller(FaultCode::Internal, error.to_string());
        let Made { ready, share } = made;
        let share = share.ok_or(FaultCode::Internal)?;
        let key = ready.shares().public_key().map_err(|error| broken(&error))?;
        let Draft { scheme, shares: _, mut public, mut private } = plan.draft;
        let values = crypto::shared_values(scheme, &public, &key)?;
        set(&mut public, values.public);
        set(&mut private, values.private);
        private.set(CKA_STRONGROOM_EPOCH, Value::Ulong(ready.shares().epoch().0));
        if let Some(chain_code) = ready.shares().chain_code() {
            private.set(CKA_STRONGROOM_CHAIN_CODE, Value::bytes(chain_code.as_slice()));
        }
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let claim = Claim {
            cluster: view.document.membership().cluster,
            partition: about.partition.rules().record.name.clone(),
            mandate: plan.mandate,
            public: plan.public,
            seats: plan.seats,
            ready: ready.to_bytes(),
        };
        let statement = claim.state(&identity.pair);
        let record = PendingRecord {
            share: SecretBytes(share.to_secret_bytes().map_err(|error| broken(&error))?),
            claim: statement.claim.clone(),
            public,
            private,
            made: self.platform.now(),
        };
        context.detail = format!("{}; its share waits for the others", about.detail);
        let _turn = about.partition.object_turn();
        self.change(context, Change::new().put(Path::Pending(about.partition.id, about.object), &record))?;
        about.partition.shared.wait(about.object, record);
        Ok(statement)
    }

    /// Makes a pending share active and its objects visible, on every node's word.
    pub(in super::super) fn activate(
        &self,
        context: &mut Context<'_>,
        certificate: &[u8],
    ) -> Result<(), Error> {
        context.call = CallId::GenerateShared;
        let forged = |text: &str| Error::caller(FaultCode::Forbidden, text);
        let whole: Certificate = decode(certificate)?;
        let claim: Claim = decode(&whole.claim)?;
        let ready = claim.ready().map_err(|error| forged(&error.to_string()))?;
        let id = ObjectId(ready.shares().key().0);
        let partition = self.partition_named(&claim.partition).ok_or(FaultCode::Forbidden)?;
        (context.subject, context.object) = (claim.partition, Some(id));
        let _turn = partition.object_turn();
        if partition.shared.key(id).is_some() {
            // It came before.
            return Ok(());
        }
        let pending = partition.shared.pending().get(&id).cloned();
        let pending = pending.ok_or_else(|| forged("no share waits here for this certificate"))?;
        if pending.claim != whole.claim || !whole.is_whole(&claim.seats) {
            return Err(forged("not all nodes have signed the share that waits here"));
        }
        if [claim.public, id].iter().any(|object| partition.keyring.has(*object)) {
            return Err(forged("an object here has the id of the new key"));
        }
        let record = ShareRecord { share: pending.share.clone(), certificate: certificate.to_vec() };
        let objects = [(claim.public, &pending.public), (id, &pending.private)];
        let mut change =
            Change::new().put(Path::Share(partition.id, id), &record).delete(Path::Pending(partition.id, id));
        for (object, attributes) in objects {
            let record = ObjectRecord { attributes: attributes.clone(), lineage: object };
            change = change.put(Path::Object(partition.id, object), &record);
        }
        let shared = SharedKey::open(record, Vec::new())?;
        context.detail = format!("public key {}; every node has its share", claim.public);
        self.change(context, change)?;
        partition.shared.activate(id, shared);
        let object = |(object, attributes): (ObjectId, &Template)| {
            Object::new(object, attributes.clone(), Owner::Token, object)
        };
        partition.keyring.put(objects.map(object));
        Ok(())
    }

    /// The partition of this name.
    pub(super) fn partition_named(&self, name: &str) -> Option<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(name).cloned()
    }

    /// The certificate of a key, if this node has it.
    pub(in super::super) fn certificate_of(&self, partition: &str, key: ObjectId) -> Option<Vec<u8>> {
        Some(self.partition_named(partition)?.shared.key(key)?.certificate.clone())
    }
}

/// The coordinator chooses the ids, and must not put a key in the place of another object.
fn check_free(partition: &Partition, public: ObjectId, private: ObjectId) -> Result<(), Error> {
    let taken = [public, private].iter().any(|id| partition.keyring.has(*id) || partition.shared.holds(*id));
    if taken || public == private {
        return Err(Error::caller(
            FaultCode::Forbidden,
            "the coordinator gives the new key an id that is taken",
        ));
    }
    Ok(())
}

fn set(attributes: &mut Template, values: Template) {
    values.0.into_iter().for_each(|Attribute { kind, value }| attributes.set(kind, value));
}

impl<P: Platform> Vault<P> {
    /// Makes a key together with all other nodes.
    pub(super) fn generate_shared(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        mandate: &CheckedMandate,
    ) -> Result<KeyPair, Error> {
        let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
        let (public, private) = (self.new_id(), self.new_id());
        // What cannot be made is refused before anybody is asked.
        let plan = self.plan(context, &view, mandate, mandated, (public, private))?;
        for half in [&plan.draft.public, &plan.draft.private] {
            check_access(context, half)?;
        }
        let members = &view.document.membership().members;
        let parties: BTreeMap<Party, _> = (1..).map_while(Party::new).zip(members.iter().cloned()).collect();
        let until = self.platform.uptime().saturating_add(GENERATION);
        let times = (until, Duration::from_micros(GENERATION));
        let mut relay = Relay::new(self, &view, parties, times, Lead::Together)?;
        let begin = Begin {
            id: relay.id,
            key: key_id(private),
            epoch: FIRST,
            task: Task::Generate {
                mandated: mandated.clone(),
                public,
                seats: members.iter().map(|member| member.name.clone()).collect(),
            },
            parcels: Vec::new(),
        };
        let ran = relay.run(context, &begin).map_err(failed);
        let certificate = ran.and_then(|()| {
            certificate(relay.ends(), &plan.seats).ok_or_else(|| {
                let text = "the nodes do not say the same of the new key; none of them uses it";
                Error::caller(FaultCode::QuorumMissing, text)
            })
        });
        let certificate = certificate.inspect_err(|_| context.recorded = false)?;
        let bytes = encode(&certificate).to_vec();
        self.activate(context, &bytes)?;
        for trouble in self.ask_all(&view, view.others(), &Question::Activate(bytes), ACTIVATION) {
            // It asks for the certificate itself when it greets the others.
            tracing::warn!(trouble, "a node has not taken the new key into use yet");
        }
        let describe = |id| -> Result<_, Error> {
            let (me, missing) = (context.application_id(), FaultCode::ObjectHandleInvalid);
            let object = mandate.partition.keyring.object(id, me, Role::User, missing)?;
            Ok(attributes::describe(id, &object.attributes))
        };
        Ok(KeyPair { public: describe(public)?, private: describe(private)? })
    }

    /// Asks the others for the certificates of the shares that wait here, and gives up those that nobody can have.
    pub(in super::super) fn look_after_pending(&self, view: &View) {
        let partitions: Vec<_> = {
            let partitions = self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            partitions.iter().map(|(name, partition)| (name.clone(), Arc::clone(partition))).collect()
        };
        for (name, partition) in partitions {
            for (id, pending) in partition.shared.pending() {
                if let Err(error) = self.look_after(view, &name, &partition, id, pending.made) {
                    tracing::warn!(key = %id, %error, "a share still waits for its certificate");
                }
            }
        }
    }

    /// What a node does about shares by itself.
    pub(super) fn about_shares<'a>(&self, peer: &'a Peer) -> Context<'a> {
        Context::new(peer, Caller::default(), CallId::GenerateShared, self.platform.now())
    }

    fn look_after(
        &self,
        view: &View,
        name: &str,
        partition: &Partition,
        id: ObjectId,
        made: Time,
    ) -> Result<(), Error> {
        let question = Question::Certificate { partition: name.into(), key: id };
        let mut denied = 0;
        for member in view.others() {
            match self.consult(view, member, &question, PATIENCE) {
                Ok(Answer::Certificate(Some(bytes))) => {
                    let peer = peer(member);
                    return self.activate(&mut self.about_shares(&peer), &bytes);
                }
                Ok(Answer::Certificate(None)) => denied += 1,
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
        if partition.shared.pending().contains_key(&id) {
            tracing::warn!(key = %id, "no node has a certificate for this share: it is dropped");
            let peer = view.me().map(peer).ok_or(FaultCode::Forbidden)?;
            let mut context = self.about_shares(&peer);
            (context.subject, context.object) = (name.into(), Some(id));
            context.detail = "no node has a certificate for this share: it was dropped".into();
            self.change(&mut context, Change::new().delete(Path::Pending(partition.id, id)))?;
            partition.shared.drop_pending(id);
        }
        Ok(())
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

/// The certificate, if all have said the same, each with its own key.
fn certificate(ends: &BTreeMap<Party, End>, seats: &[[u8; 32]]) -> Option<Certificate> {
    let statement = |end: &End| match end {
        End::Ready(statement) => Some(statement.clone()),
        End::Signed | End::Behind(_) | End::Aborted(_) => None,
    };
    let statements = ends.values().map(statement).collect::<Option<Vec<_>>>()?;
    let claim = statements.first()?.claim.clone();
    if statements.iter().any(|statement| statement.claim != claim) {
        return None;
    }
    let signatures = statements.iter().map(|statement| Signed(statement.signature)).collect();
    let certificate = Certificate { claim, signatures };
    certificate.is_whole(seats).then_some(certificate)
}

/// Why no key was made.
fn failed(trouble: Trouble) -> Error {
    match trouble {
        Trouble::Own(error) => error,
        Trouble::Others(setback) => Error::caller(
            FaultCode::QuorumMissing,
            format!("a shared key is made by all nodes together: {}", setback.reasons.join("; ")),
        ),
    }
}
