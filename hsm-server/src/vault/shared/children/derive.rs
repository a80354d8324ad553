//! Making a descendant: the object that waits, and the certificate that makes it visible.
//!
//! There is no ceremony, for every node makes its own share without a word to the others. What they agree on is the
//! object: each stores it *waiting*, by the application's mandate, and says so, signed. When all that hold a share of
//! the master have said the same, their signatures are the certificate, and each node that holds it makes the object
//! visible. A node that did not hear of it asks the others once a second.

use std::time::Duration;

use strongroom_shared::{
    fault::FaultCode,
    mandate::Mandated,
    object::{ObjectId, ObjectInfo, Template},
    shares::{Certificate, Signed},
    wire::CallId,
};

use crate::{
    platform::{Platform, Time},
    store::Path,
    vault::{
        Context, Error, Vault, attributes,
        cluster::View,
        keyring::{Object, Owner},
        mandates::CheckedMandate,
        nodes::{Answer, Question},
        object::check_access,
        partition::Partition,
        record::Change,
        records::{ObjectRecord, decode, encode},
        shared::{
            certificate::{is_whole_as, state_as},
            children::{
                ChildRecord,
                descendant::{ChildClaim, lineage, object_id},
            },
            keys::KeyHere,
            life::lookafter::peer,
            words::Statement,
        },
    },
};

/// What stands before a claim when it is signed.
const LABEL: &[u8] = b"strongroom child 1\0";
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_millis(800);
/// After how long a descendant is given up that no node has a certificate for.
const GIVEN_UP: Time = 3600 * 1_000_000;

impl<P: Platform> Vault<P> {
    /// A mandate is for one descendant, however often a coordinator shows it.
    fn use_up(&self, mandate: &CheckedMandate) -> Result<(), Error> {
        self.cluster.begun.begin_once(mandate, self.platform.uptime())
    }

    /// Stores a descendant, waiting, and says so.
    pub(in crate::vault) fn agree_to_child(
        &self,
        context: &mut Context<'_>,
        coordinator: &str,
        mandated: &Mandated,
    ) -> Result<Statement, Error> {
        context.call = CallId::DeriveShared;
        let mandate = self.check_mandate(mandated, CallId::DeriveKey)?;
        let partition = &mandate.partition;
        context.subject.clone_from(&partition.rules().record.name);
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let _turn = partition.object_turn();
        let known = partition.shared.children.record(object_id(&mandate.id));
        if let Some(ChildRecord::Waiting { claim, .. }) = known.as_deref() {
            // The answer was lost.
            return Ok(state_as(LABEL, claim.clone(), &identity));
        }
        let plan = self.plan_child(context, &view, &mandate)?;
        self.use_up(&mandate)?;
        let claim = encode(&plan.claim).to_vec();
        let record = ChildRecord::Waiting {
            descent: plan.claim.descent,
            claim: claim.clone(),
            attributes: plan.attributes,
            made: self.platform.now(),
        };
        context.detail = format!("{}, by way of node {coordinator}; it waits for the others", plan.detail);
        self.change(context, Change::new().put(Path::Child(partition.id, plan.id), &record))?;
        partition.shared.children.put(plan.id, record);
        Ok(state_as(LABEL, claim, &identity))
    }

    /// Makes a descendant that waits visible, on every node's word.
    pub(in crate::vault) fn take_child(
        &self,
        context: &mut Context<'_>,
        certificate: &[u8],
    ) -> Result<(), Error> {
        context.call = CallId::DeriveShared;
        let whole: Certificate = decode(certificate)?;
        let said: ChildClaim = decode(&whole.claim)?;
        let id = said.id();
        let partition = self.partition_named(&said.partition).ok_or(FaultCode::Forbidden)?;
        context.subject.clone_from(&said.partition);
        context.object = Some(id);
        let _turn = partition.object_turn();
        match partition.shared.children.record(id).as_deref() {
            // It came before.
            Some(ChildRecord::Certified { .. }) => Ok(()),
            Some(ChildRecord::Waiting { claim, attributes, .. }) if *claim == whole.claim => {
                let detail = format!("{}; every node has it", said.descent);
                self.adopt_child(context, &partition, &whole, said, attributes, detail)
            }
            Some(ChildRecord::Waiting { .. }) | None => {
                Err(Error::forbidden("no descendant waits here for this certificate"))
            }
        }
    }

    /// Makes a descendant visible, if all have signed. Only for whoever has the object turn.
    pub(super) fn adopt_child(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        whole: &Certificate,
        said: ChildClaim,
        attributes: &Template,
        detail: String,
    ) -> Result<(), Error> {
        if !is_whole_as(LABEL, whole, &said.seats) {
            return Err(Error::forbidden("not all nodes have signed the descendant that waits here"));
        }
        let (id, lineage) = (said.id(), lineage(&said.descent));
        let family = partition.shared.key(said.descent.master);
        let family = family.ok_or_else(|| Error::forbidden("its master has been destroyed meanwhile"))?;
        // They may have moved since it was signed.
        let attributes = attributes::with_shares(attributes.clone(), family.shares());
        let object = ObjectRecord { attributes: attributes.clone(), lineage };
        let certificate = encode(whole).to_vec();
        let record = ChildRecord::Certified { descent: said.descent, certificate };
        let change = Change::new();
        let change = change.put(Path::Object(partition.id, id), &object);
        let change = change.put(Path::Child(partition.id, id), &record);
        context.detail = detail;
        self.change(context, change)?;
        partition.shared.children.put(id, record);
        partition.keyring.put([Object::new(id, attributes, Owner::Token, lineage)]);
        Ok(())
    }

    /// Makes a descendant at all nodes that hold a share of its master, or at none.
    pub(in crate::vault::shared) fn derive_shared(
        &self,
        context: &mut Context<'_>,
        mandated: &Mandated,
        mandate: &CheckedMandate,
    ) -> Result<ObjectInfo, Error> {
        let (Some(view), Some(identity)) = (self.cluster.view(), self.cluster.identity()) else {
            return Err(FaultCode::Forbidden.into());
        };
        let own = view.me().ok_or(FaultCode::Forbidden)?.id;
        let partition = &mandate.partition;
        // What cannot be made is refused before anybody is asked.
        let plan = self.plan_child(context, &view, mandate)?;
        check_access(context, &plan.attributes)?;
        self.use_up(mandate)?;
        let members = plan.family.members(view.document.membership());
        let others: Vec<_> = members.into_values().filter(|member| member.id != own).collect();
        let failed = |troubles: Vec<String>| {
            let text = "no descendant was made, because not every node that holds a share would";
            Err(Error::quorum_missing(format!("{text}: {}", troubles.join("; "))))
        };
        // So that nothing waits anywhere for a node that is down.
        let there = |answer| matches!(answer, Answer::Vouched { .. }).then_some(());
        let troubles = self.ask_each(&view, &others, &Question::Vouch, PATIENCE, there);
        let troubles: Vec<String> = troubles.into_iter().filter_map(Result::err).collect();
        if !troubles.is_empty() {
            return failed(troubles);
        }
        let agreed = |answer| if let Answer::Agreed(statement) = answer { Some(statement) } else { None };
        let question = Question::MayDerive(mandated.clone());
        let (mut statements, mut troubles) = (Vec::new(), Vec::new());
        for answer in self.ask_each(&view, &others, &question, PATIENCE, agreed) {
            match answer {
                Ok(statement) => statements.push(statement),
                Err(trouble) => troubles.push(trouble),
            }
        }
        if !troubles.is_empty() {
            return failed(troubles);
        }
        let claim = encode(&plan.claim).to_vec();
        statements.push(state_as(LABEL, claim.clone(), &identity));
        let whole = certificate(claim, &statements, &plan.claim.seats).ok_or_else(|| {
            let text = "the nodes do not say the same of the descendant; none of them uses it";
            Error::quorum_missing(text)
        })?;
        {
            let _turn = partition.object_turn();
            context.check_login(partition)?;
            let detail = format!("{}; every node has it", plan.detail);
            self.adopt_child(context, partition, &whole, plan.claim, &plan.attributes, detail)?;
        }
        let question = Question::Derive(encode(&whole).to_vec());
        for trouble in self.ask_all(&view, &others, &question, PATIENCE) {
            // It asks for the certificate itself, once a second.
            tracing::warn!(trouble, "a node does not show the new descendant yet");
        }
        Ok(attributes::describe(plan.id, &plan.attributes))
    }

    /// The certificate of a descendant, if this node has it.
    pub(in crate::vault) fn child_certificate(&self, partition: &str, key: ObjectId) -> Option<Vec<u8>> {
        match &*self.partition_named(partition)?.shared.children.record(key)? {
            ChildRecord::Certified { certificate, .. } => Some(certificate.clone()),
            ChildRecord::Waiting { .. } => None,
        }
    }

    /// Asks the others for the certificates of the descendants that wait here, and gives up those that nobody can have.
    pub(in crate::vault) fn look_after_children(&self, view: &View) {
        let partitions = self.all_partitions();
        for (name, partition) in partitions {
            for (id, record) in partition.shared.children.waiting() {
                let ChildRecord::Waiting { made, .. } = *record else { continue };
                if let Err(error) =
                    self.look_after_child(view, KeyHere { name: &name, partition: &partition, id }, made)
                {
                    tracing::warn!(key = %id, %error, "a descendant still waits for its certificate");
                }
            }
        }
    }

    fn look_after_child(
        &self,
        view: &View,
        KeyHere { name, partition, id }: KeyHere<'_>,
        made: Time,
    ) -> Result<(), Error> {
        let question = Question::Descendant { partition: name.into(), key: id };
        let mut denied = 0;
        for member in view.others() {
            match self.consult(view, member, &question, PATIENCE) {
                Ok(Answer::Descendant(Some(bytes))) => {
                    let from = peer(member);
                    let mut context = self.about_shares(&from, CallId::DeriveShared);
                    match self.take_child(&mut context, &bytes) {
                        Ok(()) => return Ok(()),
                        // Another node may have the right one.
                        Err(error) => tracing::warn!(
                            key = %id, node = member.name, %error,
                            "a node's certificate for a descendant that waits here is none"
                        ),
                    }
                }
                Ok(Answer::Descendant(None)) => denied += 1,
                Ok(_) | Err(_) => {}
            }
        }
        // Only when nobody can have it: whoever does not answer may be showing its own.
        let late = self.platform.now() >= made.saturating_add(GIVEN_UP);
        if !late || denied < view.others().count() {
            return Ok(());
        }
        let _turn = partition.object_turn();
        let record = partition.shared.children.record(id);
        if matches!(record.as_deref(), Some(ChildRecord::Waiting { .. })) {
            let peer = view.me().map(peer).ok_or(FaultCode::Forbidden)?;
            let mut context = self.about_shares(&peer, CallId::DeriveShared);
            (context.subject, context.object) = (name.into(), Some(id));
            context.detail = "no node has a certificate for this descendant: it was dropped".into();
            self.change(&mut context, Change::new().delete(Path::Child(partition.id, id)))?;
            partition.shared.children.remove(id);
        }
        Ok(())
    }
}

/// The certificate, if all have signed this claim, each with its own key.
fn certificate(claim: Vec<u8>, statements: &[Statement], seats: &[[u8; 32]]) -> Option<Certificate> {
    let signed = |seat: &[u8; 32]| {
        let of_seat = |statement: &&Statement| {
            let signatures = vec![Signed(statement.signature)];
            let alone = Certificate { claim: claim.clone(), signatures };
            statement.claim == claim && is_whole_as(LABEL, &alone, std::slice::from_ref(seat))
        };
        statements.iter().find(of_seat).map(|statement| Signed(statement.signature))
    };
    let signatures = seats.iter().map(signed).collect::<Option<_>>()?;
    Some(Certificate { claim, signatures })
}
