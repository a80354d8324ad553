//! How shares come to show that they sign, at whoever has them do so and at those who take part; and the end of the
//! shares before them, which are kept until then, and not used.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use strongroom_shared::{fault::FaultCode, object::ObjectId, wire::CallId};

use crate::{
    cluster::Member,
    crypto::threshold::{self, Party, Setup, Signing, Step, combine},
    platform::{Platform, Time},
    store::Path,
    vault::{
        Context, Error, Vault,
        cluster::View,
        nodes::{Answer, Question},
        partition::Partition,
        record::Change,
        shared::{
            ceremony::{
                ceremonies::{Chore, Coordinator, Going, Kind, SignatureOf, Work},
                making::ACTIVATION,
                party::{About, digits, names},
                relay::{Lead, Relay},
            },
            certificate::Certified,
            generate::FIRST,
            keys::{KeyHere, SharedKey},
            life::{
                lookafter::PATIENCE,
                proof::{self, Proof, Provable, quorums},
            },
            words::{Begin, End, Task, Warrant},
        },
    },
};

/// How long one signature may take.
const BUDGET: Time = 5_000_000;
/// How long a node may take for its part of a round.
const ROUND: Duration = Duration::from_secs(3);
/// How long whoever made the shares has for proving them, before others do.
const GRACE: Time = 30_000_000;

impl<P: Platform> Vault<P> {
    /// Takes part in a proof. What is signed is this node's own text, so it needs nobody's word.
    pub(in crate::vault::shared) fn begin_proving(
        &self,
        context: &mut Context<'_>,
        view: &View,
        coordinator: Coordinator,
        (signers, claim): (BTreeSet<Party>, [u8; 32]),
        setup: &dyn Fn(Party) -> Setup,
        key: threshold::KeyId,
    ) -> Result<Box<Going>, Error> {
        context.call = CallId::RenewShares;
        let id = ObjectId(key.0);
        let (partition, shared) =
            self.holder_of(id).ok_or_else(|| Error::forbidden(format!("no share of key {id} here")))?;
        context.subject.clone_from(&partition.rules().record.name);
        context.object = Some(id);
        shared.check_current()?;
        let provable = Provable::of(&shared.certificate)?;
        let setup = setup(shared.share.party());
        if provable.claim != claim || setup.epoch != provable.public.epoch() {
            return Err(Error::forbidden(
                "the coordinator means other shares than those that are active here",
            ));
        }
        // Whoever has erased what these shares replace knows that they sign, and the first of a key replace nothing.
        if !shared.standing().proofs.is_empty() {
            return Err(Error::forbidden("these shares have shown that they sign"));
        }
        if setup.epoch == FIRST {
            return Err(Error::forbidden(
                "these are the first shares of their key: they have nothing to show",
            ));
        }
        if !shared.may_sign(&signers) {
            return Err(Error::forbidden(
                "two of the signers must not sign together any more: refresh the key",
            ));
        }
        let members = shared.members(view.document.membership());
        if members.values().all(|member| member.id != coordinator.node) {
            return Err(Error::forbidden("the coordinator holds no share of this key"));
        }
        let parties: BTreeMap<Party, Member> =
            members.into_iter().filter(|(party, _)| signers.contains(party)).collect();
        if parties.len() != signers.len() {
            return Err(Error::forbidden("one of the signers is no member of the cluster"));
        }
        self.hear_before(view, &shared, &parties, &coordinator)?;
        if !shared.may_sign(&signers) {
            return Err(Error::forbidden(
                "another node knows that two of the signers must not sign together any more",
            ));
        }
        let now = self.platform.uptime();
        if !self.cluster.ceremonies.may_prove(coordinator.node, (id, setup.epoch), now) {
            return Err(Error::forbidden(
                "this node has had these shares show often enough lately that they sign",
            ));
        }
        let about = About {
            partition,
            object: id,
            call: CallId::RenewShares,
            detail: format!(
                "ceremony {} of node {}: proof that the shares of epoch {} sign: {}",
                digits(setup.id),
                coordinator.name,
                setup.epoch.0,
                names(parties.values())
            ),
        };
        about.tell(context);
        self.launch(context, view, (coordinator, parties), &setup, Kind::Signature, |context| {
            self.record_done(context)?;
            let text = provable.text(&signers);
            let signing = Signing { input: provable.input(&signers)?, signers };
            let begun = threshold::sign(&shared.share, &signing, &setup).map_err(Error::from);
            let (ceremony, outgoing) = begun?;
            Ok((about, Work::Signing(ceremony, Arc::clone(&shared), SignatureOf::Proof(text)), outgoing))
        })
    }

    /// How a signature ends at a node that gives its part of it.
    pub(in crate::vault::shared) fn end_of_signing(&self, signature: &SignatureOf) -> Result<End, Error> {
        match signature {
            SignatureOf::Message => Ok(End::Signed),
            SignatureOf::Proof(text) => {
                let identity = self.cluster.identity().ok_or(FaultCode::Forbidden)?;
                Ok(End::Proved(proof::word(text, &identity)))
            }
        }
    }

    /// The key of this id of which this node holds a share, and where.
    fn holder_of(&self, id: ObjectId) -> Option<(Arc<Partition>, Arc<SharedKey>)> {
        let partitions = self.partitions.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        partitions.values().find_map(|partition| Some((Arc::clone(partition), partition.shared.key(id)?)))
    }

    /// Has the shares of a key show that they sign, and everybody erase those before them.
    pub(super) fn prove_shares(
        &self,
        context: &mut Context<'_>,
        view: &View,
        KeyHere { name, partition, id }: KeyHere<'_>,
    ) -> Result<(), Error> {
        let shared = partition.shared.key(id).ok_or(FaultCode::KeyHandleInvalid)?;
        let provable = Provable::of(&shared.certificate)?;
        let mut proofs = shared.standing().proofs;
        if proofs.is_empty() {
            for signers in quorums(provable.public.committee()) {
                let proof = self.proof(context, view, &provable, &shared, signers);
                proofs.push(proof.inspect_err(|_| context.recorded = false)?);
            }
        }
        self.take_proofs(context, name, id, &proofs)?;
        let question = Question::Proven { partition: name.into(), key: id, proofs };
        // Those that have left hold one too.
        for trouble in self.ask_all(view, view.others(), &question, ACTIVATION) {
            // It asks for the proof itself, once a second at first.
            tracing::info!(trouble, "a node has not erased the share that it had before");
        }
        Ok(())
    }

    fn proof(
        &self,
        context: &mut Context<'_>,
        view: &View,
        provable: &Provable,
        shared: &SharedKey,
        signers: BTreeSet<Party>,
    ) -> Result<Proof, Error> {
        let members = shared.members(view.document.membership());
        let parties: BTreeMap<Party, Member> =
            members.into_iter().filter(|(party, _)| signers.contains(party)).collect();
        let members = parties.clone();
        let until = self.platform.uptime().saturating_add(BUDGET);
        let mut relay = Relay::new(self, view, parties, (until, ROUND), Lead::Together)?;
        let public = &provable.public;
        let (id, key, epoch, me) = (relay.id, public.key(), public.epoch(), shared.share.party());
        let task = Task::Prove { signers: signers.clone(), claim: provable.claim };
        relay
            .run(context, &Begin { id, key, epoch, task, parcels: Vec::new() })
            .map_err(|trouble| trouble.told(|reasons| reasons))?;
        let text = provable.text(&signers);
        let word = |(party, member): (&Party, &Member)| match relay.ends().get(party) {
            Some(End::Proved(word)) if provable.has_said(*party, &text, word) => Ok((*party, *word)),
            _ => Err(Error::quorum_missing(format!(
                "node {} does not say that it gave its part of the proof",
                member.name
            ))),
        };
        let words = members.iter().map(word).collect::<Result<BTreeMap<_, _>, _>>()?;
        let signing = Signing { input: provable.input(&signers)?, signers };
        let combining = combine(&shared.share, &signing, &Setup { key, id, epoch, me });
        let combining = combining?;
        match combining.step(relay.collected()) {
            Step::Done(signature, _) => Ok(Proof { signers: signing.signers, signature, words }),
            Step::Abort(abort) => Err(Error::quorum_missing(abort)),
            Step::Refused(_, rejected) => Err(Error::quorum_missing(rejected)),
            Step::Continue(..) => Err(Error::quorum_missing("not every signer gave its part")),
        }
    }

    /// Erases the share before, if these show that every one of its successors signs.
    pub(in crate::vault) fn take_proofs(
        &self,
        context: &mut Context<'_>,
        name: &str,
        id: ObjectId,
        proofs: &[Proof],
    ) -> Result<(), Error> {
        self.take_proofs_of(context, name, id, proofs, None)
    }

    /// The same; a node that holds no share any more takes the proof of shares after the next, of the same key, too: if
    /// enough of those hold them who held the next, or administrators have ordered them.
    fn take_proofs_of(
        &self,
        context: &mut Context<'_>,
        name: &str,
        id: ObjectId,
        proofs: &[Proof],
        later: Option<&Warrant>,
    ) -> Result<(), Error> {
        context.call = CallId::RenewShares;
        (context.subject, context.object) = (name.into(), Some(id));
        let partition = self.partition_named(name).ok_or(FaultCode::Forbidden)?;
        let _turn = partition.object_turn();
        let (active, former) = (partition.shared.key(id), partition.shared.former(id));
        let known = active.as_ref().is_none_or(|active| !active.standing().proofs.is_empty());
        if known && former.is_none() {
            return Ok(());
        }
        let certificate = active.as_ref().map(|active| &active.certificate);
        let certificate = certificate.or_else(|| former.as_ref().map(|former| &former.successor));
        let own = Certified::read(certificate.ok_or(FaultCode::Internal)?)?;
        let read = later.filter(|_| active.is_none()).map(|later| Certified::read(&later.certificate));
        let read = read.transpose()?.filter(|read| read.epoch() > own.epoch());
        let provable: Provable = match later.zip(read) {
            Some((warrant, later)) => {
                let view = self.cluster.view().ok_or(FaultCode::Forbidden)?;
                let membership = view.document.membership();
                if let Err(unordered) = proof::check_later(&later, &own, membership) {
                    proof::check_same(&later, &own, membership)?;
                    self.check_leave(&view, &later, warrant).map_err(|_| unordered)?;
                }
                later.into()
            }
            None => own.into(),
        };
        if active.as_ref().is_some_and(|active| !active.is_same_key(&provable.public)) {
            return Err(Error::forbidden("the certificate is of another public key than the share here"));
        }
        if !provable.is_proven(proofs) {
            return Err(Error::forbidden("these signatures do not show that every share signs"));
        }
        let mut change = Change::new();
        let standing = active.map(|active| {
            let mut standing = active.standing();
            standing.proofs = proofs.to_vec();
            (active, standing)
        });
        if let Some((_, standing)) = &standing {
            change = change.put(Path::Standing(partition.id, id), standing);
        }
        context.detail = format!("every share of epoch {} has signed", provable.public.epoch().0);
        if former.is_some() {
            change = change.delete(Path::Former(partition.id, id));
            context.detail += "; the one before it is erased";
        }
        self.change(context, change)?;
        if let Some((active, standing)) = standing {
            active.set_standing(standing);
        }
        partition.shared.drop_former(id);
        Ok(())
    }

    /// Asks the others for the proof that they may have, or has the shares give one.
    pub(super) fn look_after_unproven(&self, view: &View, key: KeyHere<'_>) -> Result<(), Error> {
        let KeyHere { name, partition, id } = key;
        let now = self.platform.uptime();
        if !self.cluster.ceremonies.is_turn(Chore::Former, id, now) {
            return Ok(());
        }
        let peer = self.own_peer(view)?;
        let question = key.question();
        for member in view.others() {
            if let Ok(Answer::Certificate(account)) = self.consult(view, member, &question, PATIENCE)
                && !account.proofs.is_empty()
            {
                let mut context = self.about_shares(&peer, CallId::RenewShares);
                let later = account
                    .certificate
                    .map(|certificate| Warrant { certificate: certificate.to_vec(), order: account.order });
                match self.take_proofs_of(&mut context, name, id, &account.proofs, later.as_ref()) {
                    Ok(()) => return Ok(()),
                    Err(error) if partition.shared.key(id).is_some() => {
                        tracing::debug!(%error, "another epoch's proof");
                    }
                    // A node that holds no share any more waits for nothing else.
                    Err(error) => self.tell_of(&mut context, id, &error),
                }
            }
        }
        let Some(shared) = partition.shared.key(id) else { return Ok(()) };
        // Whoever sits first begins, so that not all do at once.
        let wait = GRACE.saturating_mul(shared.share.party().number().into());
        let early = self.platform.now() < shared.made.saturating_add(wait);
        if early || !self.all_well(view, &shared) {
            return Ok(());
        }
        if !self.cluster.ceremonies.is_turn(Chore::Prove, id, now) {
            return Ok(());
        }
        let mut context = self.about_shares(&peer, CallId::RenewShares);
        (context.subject, context.object) = (name.into(), Some(id));
        let proven = self.prove_shares(&mut context, view, key);
        self.cluster.ceremonies.rest(Chore::Prove, id, self.platform.uptime());
        proven.inspect_err(|error| self.record_failure(&mut context, error))
    }

    /// Whether everybody who holds a share of a key is there.
    pub(super) fn all_well(&self, view: &View, shared: &SharedKey) -> bool {
        let members = shared.members(view.document.membership());
        let own = view.me().map(|me| me.id);
        members.len() == shared.seats.len()
            && members.values().all(|member| Some(member.id) == own || self.cluster.links.is_well(member.id))
    }
}
