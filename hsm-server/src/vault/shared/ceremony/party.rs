//! A party's side of a ceremony: it begins when a coordinator asks, and decides for itself whether to.
//!
//! The coordinator is one of the possible bad nodes. What a party does rests on the application's mandate, on its
//! own policy and on its own share; what other parties say is sealed for it, unless the coordinator is that party.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use strongroom_shared::{
    fault::FaultCode,
    hex::Hex,
    mandate::Mandated,
    message::{AuditRecord, Outcome, Sign},
    object::{Descent, ObjectId},
    wire::CallId,
};

use crate::{
    authority::Act,
    cluster::{Member, NodeId},
    crypto::{
        self,
        threshold::{self, CeremonyId, Committee, Outgoing, Party, Setup, Signing},
    },
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        login::Role,
        mandates::CheckedMandate,
        partition::Partition,
        shared::{
            bans::SignedBan,
            ceremony::{
                ceremonies::{Coordinator, Going, Kind, SignatureOf, Work},
                draft::Draft,
            },
            certificate::key_id,
            children::SigningKey,
            generate::FIRST,
            keys::SharedKey,
            life::{consent::Consent, proof::is_reserved},
            meant,
            words::{Begin, End, Progress, Task, Warrant},
        },
        sign::Wish,
    },
};

/// What a ceremony is about, for its records.
pub struct About {
    /// Where the key is.
    pub partition: Arc<Partition>,
    /// The private key.
    pub object: ObjectId,
    /// The call that it is part of.
    pub call: CallId,
    /// Who wants it, by whom and with whom.
    pub detail: String,
}

impl About {
    /// Has the call's record say it.
    pub fn tell(&self, context: &mut Context<'_>) {
        context.call = self.call;
        context.subject.clone_from(&self.partition.rules().record.name);
        context.object = Some(self.object);
        context.detail.clone_from(&self.detail);
    }
}

/// The first digits of a ceremony's id, for people.
pub(in crate::vault::shared) fn digits(id: CeremonyId) -> String {
    Hex(id.0.get(..8).unwrap_or_default()).to_string()
}

pub(in crate::vault::shared) fn names<'a>(members: impl IntoIterator<Item = &'a Member>) -> String {
    members.into_iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl<P: Platform> Vault<P> {
    /// Takes part in a ceremony. `checked` is its mandate, if that was checked already.
    pub(in crate::vault) fn begin_ceremony(
        &self,
        context: &mut Context<'_>,
        coordinator: Coordinator,
        begin: Begin,
        checked: Option<&CheckedMandate>,
    ) -> Result<Progress, Error> {
        let view = self.cluster.view().filter(|view| view.own.is_some());
        let view = view.ok_or_else(|| Error::forbidden("this server is in no cluster"))?;
        let Begin { id, key, epoch, task, parcels } = begin;
        let setup = |me| Setup { key, id, epoch, me };
        let begun = match task {
            Task::Sign { mandated, signers, bans } => {
                let (mandate, shared) = self.shared_key(context, (&mandated, checked), key)?;
                let family = &shared.family;
                family.check_current()?;
                if family.epoch() != epoch {
                    return Ok(elsewhen(family));
                }
                let partition = &mandate.partition;
                self.keep_unkept_bans(context, partition, family)?;
                self.learn(context, partition, family, &bans)?;
                let untold: Vec<SignedBan> = family.unknown_to(&bans);
                if !untold.is_empty() {
                    let end = Some(End::Behind(untold));
                    return Ok(Progress { parcels: Vec::new(), more: false, end });
                }
                self.begin_signing(context, &view, coordinator, (&mandate, signers), &shared, &setup)
            }
            Task::Generate { mandated, public, seats } => {
                self.begin_making(context, &view, coordinator, (mandated, public, seats), &setup)
            }
            Task::Renew(renewal) => {
                match self.begin_renewing(context, &view, coordinator, renewal, &setup)? {
                    Consent::Begun(going) => Ok(going),
                    Consent::Behind(untold) => {
                        let end = Some(End::Behind(untold));
                        return Ok(Progress { parcels: Vec::new(), more: false, end });
                    }
                }
            }
            Task::Prove { signers, claim } => {
                self.begin_proving(context, &view, coordinator, (signers, claim), &setup, key)
            }
            Task::Import(import) => self.begin_importing(context, &view, coordinator, import, &setup),
        };
        let mut going = begun?;
        if let Err(error) = self.advance(context, &view, id, &mut going, parcels) {
            self.cluster.ceremonies.end(id, going.coordinator.node);
            return Err(error);
        }
        Ok(self.report(id, going))
    }

    /// The key of a mandate for a signature, which is this one.
    fn shared_key(
        &self,
        context: &mut Context<'_>,
        (mandated, checked): (&Mandated, Option<&CheckedMandate>),
        key: threshold::KeyId,
    ) -> Result<(CheckedMandate, SigningKey), Error> {
        context.call = CallId::SignShared;
        let mandate = match checked {
            Some(mandate) => mandate.clone(),
            None => self.check_mandate(mandated, CallId::Sign)?,
        };
        context.subject.clone_from(&mandate.partition.rules().record.name);
        let wanted: Sign = meant(&mandate)?;
        (context.object, context.mechanism) = (Some(wanted.key), Some(wanted.mechanism));
        if key_id(wanted.key) != key {
            return Err(Error::forbidden("the mandate is for another key"));
        }
        let shared = mandate.partition.shared.signing_key(wanted.key)?.ok_or_else(|| {
            Error::caller(FaultCode::KeyHandleInvalid, format!("no share of key {} here", wanted.key))
        })?;
        Ok((mandate, shared))
    }

    /// Everything that this node checks of a signature for itself, down to its policy and its record; what its share
    /// then signs. `by` is the node that coordinates.
    pub(in crate::vault::shared) fn allow(
        &self,
        context: &mut Context<'_>,
        (mandate, by): (&CheckedMandate, NodeId),
        shared: &SigningKey,
        detail: impl FnOnce(&str) -> String,
    ) -> Result<(About, Vec<u8>), Error> {
        let Sign { key, mechanism, params, input } = meant(mandate)?;
        let partition = mandate.partition.clone();
        let (me, missing) = (context.application_id(), FaultCode::KeyHandleInvalid);
        // The mandate stands for the login.
        let object = partition.keyring.object(key, me, Role::User, missing)?;
        let mut detail = detail(&mandate.client);
        if let Some(descent) = Descent::of(&object.attributes) {
            detail.push_str(&format!("; with {descent}"));
        }
        let about = About { partition, object: key, call: CallId::SignShared, detail };
        about.tell(context);
        context.mechanism = Some(mechanism);
        mandate.check_seen(&object)?;
        if is_reserved(&input) {
            return Err(Error::forbidden("what begins like a proof of shares is signed for no application"));
        }
        self.cluster.begun.begin(mandate, by, self.platform.uptime())?;
        let wish = Wish { act: Act::Sign, key, mechanism, params, input };
        let authorized = self
            .cluster
            .begun
            .charge(mandate, |charge| self.authorize_use(context, &about.partition, &object, wish, charge))?;
        let intent = authorized.into_intent();
        let scheme = shared.share().public().scheme();
        let input = crypto::shared_input(scheme, intent.mechanism, &intent.input)
            .map_err(|error| self.undone(context, error))?;
        Ok((about, input))
    }

    /// Begins a ceremony in a place of its own, which it leaves again if it does not come about. That this node deals
    /// is on record before the first letter leaves: a coordinator that breaks off then still has what was dealt.
    pub(in crate::vault::shared) fn launch(
        &self,
        context: &mut Context<'_>,
        view: &View,
        (coordinator, parties): (Coordinator, BTreeMap<Party, Member>),
        setup: &Setup,
        kind: Kind,
        begin: impl FnOnce(&mut Context<'_>) -> Result<(About, Work, Vec<Outgoing>), Error>,
    ) -> Result<Box<Going>, Error> {
        let (ceremonies, node) = (&self.cluster.ceremonies, coordinator.node);
        ceremonies.reserve(setup.id, &coordinator, kind, self.platform.uptime())?;
        let launched = begin(context).and_then(|(about, work, outgoing)| {
            if matches!(work, Work::Making(..)) {
                let begun = format!("{}; this node begins to deal", about.detail);
                let record = AuditRecord { detail: begun, ..self.record_of(context, Outcome::Done) };
                self.log.commit(self.log.append(record)?)?;
            }
            let (me, work) = (setup.me, Some(work));
            let outbox = VecDeque::new();
            let mut going = Box::new(Going { coordinator, parties, me, about, work, outbox, end: None });
            self.post(view, setup.id, &mut going, outgoing)?;
            Ok(going)
        });
        launched.inspect_err(|_| ceremonies.end(setup.id, node))
    }

    fn begin_signing(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        (mandate, signers): (&CheckedMandate, BTreeSet<Party>),
        shared: &SigningKey,
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Box<Going>, Error> {
        if !shared.family.may_sign(&signers) {
            return Err(Error::forbidden(
                "two of the signers must not sign together any more: refresh the key",
            ));
        }
        let members = shared.family.members(view.document.membership());
        let parties: BTreeMap<Party, Member> =
            members.into_iter().filter(|(party, _)| signers.contains(party)).collect();
        if parties.len() != signers.len() {
            return Err(Error::forbidden("one of the signers is no member of the cluster"));
        }
        self.hear_before(view, &shared.family, &parties, &coordinator)?;
        if !shared.family.may_sign(&signers) {
            return Err(Error::forbidden(
                "another node knows that two of the signers must not sign together any more",
            ));
        }
        let setup = setup(shared.share().party());
        let by = coordinator.node;
        let detail = format!("ceremony {} of node {}", digits(setup.id), coordinator.name);
        let signing_parties = names(parties.values());
        self.launch(context, view, (coordinator, parties), &setup, Kind::Signature, |context| {
            let tell = |client: &str| format!("{detail} for client {client}: {signing_parties}");
            let (about, input) = self.allow(context, (mandate, by), shared, tell)?;
            let begun = threshold::sign(shared.share(), &Signing { signers, input }, &setup);
            let (ceremony, outgoing) = begun?;
            let work = Work::Signing(ceremony, Arc::clone(&shared.family), SignatureOf::Message);
            Ok((about, work, outgoing))
        })
    }

    fn begin_making(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        (mandated, public, seats): (Mandated, ObjectId, Vec<String>),
        setup: &dyn Fn(Party) -> Setup,
    ) -> Result<Box<Going>, Error> {
        context.call = CallId::GenerateShared;
        let members = &view.document.membership().members;
        if !members.iter().map(|member| &member.name).eq(&seats) {
            return Err(Error::forbidden("the coordinator knows another list of members"));
        }
        let parties: BTreeMap<Party, Member> =
            (1..).map_while(Party::new).zip(members.iter().cloned()).collect();
        let own = parties.iter().find(|(_, member)| view.own.as_ref() == Some(&member.name));
        let (me, _) = own.ok_or(FaultCode::Forbidden)?;
        let setup = setup(*me);
        let mandate = self.check_mandate(&mandated, CallId::GenerateKeyPair)?;
        let about = About {
            partition: mandate.partition.clone(),
            object: ObjectId(setup.key.0),
            call: CallId::GenerateShared,
            detail: format!(
                "ceremony {} of node {} for client {}: {}",
                digits(setup.id),
                coordinator.name,
                mandate.client,
                names(parties.values())
            ),
        };
        about.tell(context);
        if setup.epoch != FIRST {
            return Err(Error::forbidden("a new key begins with another epoch"));
        }
        let plan = self.plan(context, view, (&mandate, coordinator.node), (public, about.object))?;
        let now = self.platform.uptime();
        self.cluster.begun.begin_once(&mandate, now)?;
        self.launch(context, view, (coordinator, parties), &setup, Kind::Shares, |_| {
            let Draft { scheme, shares, .. } = &plan.draft;
            let begun = Committee::new(shares.threshold, shares.parties)
                .and_then(|committee| threshold::generate_key(*scheme, committee, &setup));
            let (ceremony, outgoing) = begun?;
            Ok((about, Work::Making(ceremony, Box::new(plan)), outgoing))
        })
    }
}

/// That the share here is of another epoch than the coordinator's.
fn elsewhen(shared: &SharedKey) -> Progress {
    let end = End::Elsewhen { epoch: shared.epoch(), warrant: Warrant::of(shared) };
    Progress { parcels: Vec::new(), more: false, end: Some(end) }
}
