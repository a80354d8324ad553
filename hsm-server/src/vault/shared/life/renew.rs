//! Other shares of the same key, at the node that carries out an order or the schedule: it asks everybody what they
//! have, runs the ceremony, and hands the certificate on. It has no more authority than any other node.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use strongroom_shared::{fault::FaultCode, object::ObjectId};

use crate::{
    cluster::{
        Member,
        order::{OrderedAct, SignedOrder},
    },
    crypto::threshold::{Epoch, Party},
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        nodes::{Answer, NodeError, Question},
        partition::Partition,
        records::encode,
        shared::{
            ceremony::{
                making::{ACTIVATION, Making, ROUND},
                setback::Trouble,
            },
            certificate::Certified,
            keys::{KeyHere, SharedKey},
            life::{
                activate::reached,
                case::SPAN,
                lookafter::{PATIENCE, peer},
                moves::Move,
            },
            words::{Account, Objects, Renewal, Task, Warrant},
        },
    },
};

/// What came of it.
#[derive(Debug)]
pub struct Renewed {
    /// The epoch of the new shares.
    pub epoch: Epoch,
    /// What is still to be done.
    pub note: String,
}

/// What the nodes have that are to take part.
struct Stock {
    /// By Ed25519 key.
    accounts: BTreeMap<[u8; 32], Account>,
    troubles: BTreeMap<[u8; 32], String>,
}

impl<P: Platform> Vault<P> {
    /// Makes other shares of a key, together with everybody who is to hold one.
    pub(super) fn renew_shares(
        &self,
        context: &mut Context<'_>,
        view: &View,
        key: KeyHere<'_>,
        order: Option<&SignedOrder>,
        act: &OrderedAct,
    ) -> Result<Renewed, Error> {
        let KeyHere { partition, id, .. } = key;
        let shared = self.shared_here(partition, id)?;
        let old = Certified::read(&shared.certificate)?;
        let to = Move::of(act, &old)?;
        let identity = self.cluster.identity().ok_or(FaultCode::Forbidden)?.public();
        let stock = self.take_stock(view, key, &old, &to);
        self.meet(context, view, key, &shared, (&old, &to), &stock)?;
        self.spread_proofs(view, key, &shared, &stock);
        for (node, trouble) in &stock.troubles {
            if to.seats.contains(node) {
                return Err(Error::quorum_missing(format!(
                    "every node that is to hold a share takes part: {trouble}"
                )));
            }
        }
        let dealers = match to.is_refresh(&old) {
            true => BTreeMap::new(),
            false => dealers(&old, &to, &identity, &stock)?,
        };
        let parties = to.parties(&old, &dealers, view.document.membership())?;
        // What one node says cannot lead the others away from the epochs that they let follow.
        let own = partition.shared.highest(id).unwrap_or_default();
        let taking_part = parties.values().filter_map(|member| stock.accounts.get(&member.identity));
        let highest = taking_part.filter_map(|account| account.highest);
        let highest = highest.filter(|highest| *highest < own.saturating_add(SPAN)).max();
        let highest = highest.unwrap_or_default().max(own);
        let epoch = Epoch(highest.saturating_add(1));
        let public =
            partition.keyring.token_objects().into_iter().find(|object| object.id == old.claim.public);
        let renewal = Renewal {
            order: order.cloned(),
            certificate: shared.certificate.clone(),
            dealers,
            bans: shared.bans(),
            objects: Objects {
                public: public.map(|object| object.attributes.clone()),
                private: partition.keyring.token_attributes(id)?,
            },
        };
        let making = Making {
            parties,
            seats: &to.seats,
            key: old.public.key(),
            epoch,
            task: Task::Renew(renewal),
            patience: ROUND,
            unlike: "the nodes do not say the same of the new shares; none of them uses its own",
        };
        let whole = self.make_shares(context, view, making, |context, trouble| {
            self.undone_renewal(context, view, key, (&shared, &to), trouble)
        })?;
        let warrant = Warrant { certificate: encode(&whole).to_vec(), order: order.cloned() };
        // A node that leaves has none of them afterwards.
        let children = partition.children_to_bring(id);
        let mut notes = self
            .put_into_use(context, id, &warrant, || self.hand_on(view, (&old, &to), (&warrant, &children)))?;
        notes.extend(self.prove_new(context, view, key));
        // What has been done is done, and on record.
        context.recorded = true;
        Ok(Renewed { epoch, note: notes.join("; ") })
    }

    /// The key, if this node holds a share of it that may be used.
    pub(super) fn shared_here(
        &self,
        partition: &Partition,
        id: ObjectId,
    ) -> Result<std::sync::Arc<SharedKey>, Error> {
        let shared = partition.shared.key(id).ok_or_else(|| {
            let text = format!("no share of key {id} here: order it at a node that holds one");
            Error::caller(FaultCode::KeyHandleInvalid, text)
        })?;
        shared.check_current()?;
        Ok(shared)
    }

    /// Asks everybody who is or was to hold a share what they have.
    fn take_stock(&self, view: &View, key: KeyHere<'_>, old: &Certified, to: &Move) -> Stock {
        let nodes: BTreeSet<&[u8; 32]> = old.claim.seats.iter().chain(&to.seats).collect();
        let members: Vec<&Member> = view.others().filter(|member| nodes.contains(&member.identity)).collect();
        let question = key.question();
        let ask = |member: &Member| match self.consult(view, member, &question, PATIENCE)? {
            Answer::Certificate(account) => Ok(account),
            other => Err(other.strange()),
        };
        let mut stock = Stock { accounts: BTreeMap::new(), troubles: BTreeMap::new() };
        let answers: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = members
                .iter()
                .map(|member| {
                    let thread = thread::Builder::new().name("ceremony".into());
                    thread.spawn_scoped(scope, move || ask(member))
                })
                .collect();
            let panicked = |_| Err(NodeError::Malformed("the thread that asked it panicked".into()));
            let answer = |(spawned, member): (std::io::Result<thread::ScopedJoinHandle<'_, _>>, &&Member)| {
                match spawned {
                    Ok(thread) => thread.join().unwrap_or_else(panicked),
                    Err(_) => ask(member),
                }
            };
            asked.into_iter().zip(&members).map(answer).collect()
        });
        for (member, answer) in members.into_iter().zip(answers) {
            match answer {
                Ok(account) => drop(stock.accounts.insert(member.identity, account)),
                Err(error) => {
                    drop(stock.troubles.insert(member.identity, format!("node {}: {error}", member.name)));
                }
            }
        }
        stock
    }

    /// Brings those who have missed an activation to the same epoch, and hears of bans.
    fn meet(
        &self,
        context: &mut Context<'_>,
        view: &View,
        KeyHere { name, partition, id }: KeyHere<'_>,
        shared: &SharedKey,
        (old, to): (&Certified, &Move),
        stock: &Stock,
    ) -> Result<(), Error> {
        for (node, account) in &stock.accounts {
            let Some(member) = view.document.membership().member(node) else { continue };
            let reached = reached(account);
            if let Some((epoch, warrant)) = reached.as_ref().filter(|(epoch, _)| *epoch > shared.epoch()) {
                let peer = peer(member);
                let call = strongroom_shared::wire::CallId::RenewShares;
                if let Err(error) = self.activate(&mut self.about_shares(&peer, call), warrant) {
                    shared.check_current()?;
                    tracing::warn!(node = member.name, %error, "it shows later shares that are not believed here");
                    continue;
                }
                return Err(Error::quorum_missing(format!(
                    "node {} had later shares, of epoch {}, and this node has taken its own into use: order it again",
                    member.name, epoch.0
                )));
            }
            if old.claim.seats.contains(node) && to.lost != Some(*node) {
                match reached {
                    Some((epoch, _)) if epoch == shared.epoch() => {
                        if let Err(error) = self.learn(context, partition, shared, &account.bans) {
                            tracing::warn!(node = member.name, %error, "it tells bans that are not believed here");
                        }
                    }
                    Some(_) | None if to.is_refresh(old) => {
                        let handed = self.consult(view, member, &Warrant::of(shared).question(), ACTIVATION);
                        handed.map_err(|error| {
                            Error::quorum_missing(format!(
                                "node {} has not its share of epoch {}: {error}; `hsmctl key repair {name} {id} --node \
                                 {}` gives it one again",
                                member.name,
                                shared.epoch().0,
                                member.name
                            ))
                        })?;
                    }
                    Some(_) if to.seats.contains(node) => {
                        // It compares the shares that there are with its own.
                        let handed = self.consult(view, member, &Warrant::of(shared).question(), ACTIVATION);
                        if let Err(error) = handed {
                            tracing::warn!(node = member.name, %error, "it has an older share");
                        }
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }

    /// Brings everybody to know the same of whether the shares that there are have signed: whoever did not hear of it would
    /// keep another share, of those before, than the rest.
    fn spread_proofs(
        &self,
        view: &View,
        KeyHere { name, id, .. }: KeyHere<'_>,
        shared: &SharedKey,
        stock: &Stock,
    ) {
        let members = view.document.membership();
        let alike = stock
            .accounts
            .iter()
            .filter(|(_, account)| reached(account).is_some_and(|(epoch, _)| epoch == shared.epoch()));
        let alike = alike.filter_map(|(node, account)| Some((members.member(node)?, account)));
        let (know, ignorant): (Vec<_>, Vec<_>) = alike.partition(|(_, account)| !account.proofs.is_empty());
        for (member, account) in know {
            if !shared.standing().proofs.is_empty() {
                break;
            }
            let peer = peer(member);
            let mut context = self.about_shares(&peer, strongroom_shared::wire::CallId::RenewShares);
            if let Err(error) = self.take_proofs(&mut context, name, id, &account.proofs) {
                tracing::warn!(node = member.name, %error, "it shows a proof that is not believed here");
            }
        }
        let proofs = shared.standing().proofs;
        if proofs.is_empty() {
            return;
        }
        let question = Question::Proven { partition: name.into(), key: id, proofs };
        let ignorant = ignorant.into_iter().map(|(member, _)| member);
        for trouble in self.ask_all(view, ignorant, &question, ACTIVATION) {
            tracing::warn!(trouble, "a node has not heard that the shares that it uses have signed");
        }
    }

    /// Why nothing came of it; what was learned of bans and culprits is kept.
    fn undone_renewal(
        &self,
        context: &mut Context<'_>,
        view: &View,
        KeyHere { partition, .. }: KeyHere<'_>,
        (shared, to): (&SharedKey, &Move),
        trouble: Trouble,
    ) -> Error {
        let setback = match trouble {
            Trouble::Own(error) => return error,
            Trouble::Others(setback) => setback,
        };
        let mut reasons = setback.reasons.clone();
        let mut kept = Ok(());
        for (party, bans) in setback.bans() {
            match self.learn(context, partition, shared, bans) {
                // It is a reason like the others, and no judgement of this node's.
                Err(Error::Caller(FaultCode::Forbidden, text)) => {
                    reasons.push(format!("{party} tells {text}"))
                }
                learnt => kept = kept.and(learnt),
            }
        }
        let seated = to.seats == shared.seats;
        let judgement = setback.judge(&BTreeSet::new());
        let why = (&judgement, reasons.as_slice());
        let accused = if seated { self.accuse(context, shared, view, why) } else { Ok(()) };
        if let Err(error) = kept.and(accused) {
            return error;
        }
        Error::quorum_missing(format!(
            "every node that is to hold a share takes part, and the shares are as they were: {}",
            reasons.join("; ")
        ))
    }

    /// Hands the certificate on to everybody, and descendants to whoever is new: what is still to be done.
    fn hand_on(
        &self,
        view: &View,
        (old, to): (&Certified, &Move),
        (warrant, children): (&Warrant, &[(ObjectId, Question)]),
    ) -> Vec<String> {
        let nodes: BTreeSet<&[u8; 32]> = old.claim.seats.iter().chain(&to.seats).collect();
        let others = view.others().filter(|member| nodes.contains(&member.identity));
        let others: Vec<&Member> = others.collect();
        // Whoever does not hear it asks for the certificate itself.
        let done = |answer| matches!(answer, Answer::Done).then_some(());
        let told = self.ask_each(view, others.iter().copied(), &warrant.question(), ACTIVATION, done);
        let note = |(told, member): (Result<(), String>, &&Member)| {
            let trouble = told.err()?;
            Some(match to.seats.contains(&member.identity) {
                true => format!("has not taken its new share into use yet: {trouble}"),
                false => format!("has not heard yet that it holds no share any more: {trouble}"),
            })
        };
        let mut notes: Vec<String> = told.into_iter().zip(&others).filter_map(note).collect();
        let comes = |member: &&Member| {
            let node = &member.identity;
            to.seats.contains(node) && (to.lost == Some(*node) || !old.claim.seats.contains(node))
        };
        let newcomers: Vec<&Member> = view.others().filter(comes).collect();
        notes.extend(self.bring_children(view, children, &newcomers));
        notes
    }

    /// Has the new shares show that they sign: what is still to be done.
    fn prove_new(&self, context: &mut Context<'_>, view: &View, key: KeyHere<'_>) -> Option<String> {
        if key.partition.shared.key(key.id).is_none() {
            return Some("this node holds no share of the key any more".into());
        }
        let proven = self.prove_shares(context, view, key);
        proven.err().map(|error| {
            tracing::warn!(key = %key.id, %error, "new shares have not all signed yet");
            format!(
                "the shares before are kept until every new one has signed, which the nodes go on trying: {error}"
            )
        })
    }
}

/// Who deals: as many as sign, of those who hold the same shares as this node, and rather such as stay.
fn dealers(
    old: &Certified,
    to: &Move,
    own: &[u8; 32],
    stock: &Stock,
) -> Result<BTreeMap<Party, Party>, Error> {
    let same = |node: &[u8; 32]| {
        let reached = stock.accounts.get(node).and_then(reached);
        node == own || reached.is_some_and(|(epoch, _)| epoch == old.epoch())
    };
    let seats = (1..).map_while(Party::new).zip(&old.claim.seats);
    let mut candidates: Vec<(Party, Option<Party>, &[u8; 32])> = seats
        .filter(|(_, node)| to.lost != Some(**node) && same(node))
        .map(|(was, node)| (was, to.seat(node), node))
        .collect();
    candidates.sort_by_key(|(_, stays, node)| (stays.is_none(), *node != own));
    let needed = usize::from(old.public.committee().threshold());
    if candidates.len() < needed {
        let names: Vec<_> = stock.troubles.values().map(String::as_str).collect();
        return Err(Error::quorum_missing(format!(
            "{} of the {needed} nodes whose shares it takes are there: {}",
            candidates.len(),
            names.join("; ")
        )));
    }
    let mut above = (to.committee.parties() + 1..).map_while(Party::new);
    let deal = |(was, stays, _): (Party, Option<Party>, _)| Some((stays.or_else(|| above.next())?, was));
    candidates
        .into_iter()
        .take(needed)
        .map(deal)
        .collect::<Option<_>>()
        .ok_or_else(|| FaultCode::Internal.into())
}
