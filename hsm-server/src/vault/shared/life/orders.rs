//! Orders about the shares of a key, as administrators bring them: one signature at a time, each on its own
//! administrator's connection. What is not complete waits here, in memory; what is, is carried out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use strongroom_shared::{fault::FaultCode, message::*, object::ObjectId, wire::Handle};

use crate::{
    cluster::{
        Membership,
        introduction::{self, CHALLENGE},
        order::{Order, OrderApproval, OrderRefusal, OrderedAct, SignedOrder},
    },
    door::ClientId,
    platform::Platform,
    vault::{
        Context, Error, Vault,
        cluster::View,
        identity::Identity,
        shared::{
            certificate::sha256, end::abandon::new_here, generate::FIRST, keys::KeyHere,
            life::consent::least, life::import::Whole,
        },
    },
};

/// How many orders may wait at once.
const MOST: usize = 64;
/// How many of them one certificate may have begun: no administrator keeps the others' orders out.
const MOST_OF_ONE: usize = 8;

/// The orders that wait for more signatures, by the SHA-256 of their texts.
#[derive(Default)]
pub struct WaitingOrders(Mutex<BTreeMap<[u8; 32], Waiting>>);

/// An order that waits.
#[derive(Clone)]
struct Waiting {
    order: Order,
    signed: SignedOrder,
    /// On whose connections the signatures came.
    by: Vec<ClientId>,
}

impl WaitingOrders {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the signatures of whoever is no administrator any more, and the orders that have no other: one such
    /// signature would spoil an order for those who are.
    pub(in crate::vault) fn keep_signed_by(&self, membership: &Membership) {
        self.lock().retain(|_, waiting| {
            let came = waiting.signed.approvals.drain(..).zip(waiting.by.drain(..));
            let good = came.filter(|(approval, _)| approval.judge(&waiting.signed.text, membership).is_ok());
            let (approvals, by) = good.unzip();
            (waiting.signed.approvals, waiting.by) = (approvals, by);
            !waiting.signed.approvals.is_empty()
        });
    }

    /// Those whose time is not over, and which are still about present shares.
    fn prune(&self, is_good: impl Fn(&Order) -> bool) -> MutexGuard<'_, BTreeMap<[u8; 32], Waiting>> {
        let mut orders = self.lock();
        orders.retain(|_, waiting| is_good(&waiting.order));
        orders
    }
}

impl<P: Platform> Vault<P> {
    fn own_view(&self) -> Result<std::sync::Arc<View>, Error> {
        let view = self.cluster.view().filter(|view| view.own.is_some());
        view.ok_or_else(|| Error::forbidden("this server is in no cluster: see `hsmctl cluster`"))
    }

    /// The orders that may still be carried out.
    fn orders(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Waiting>> {
        let now = self.platform.now() / 1_000_000;
        self.cluster.orders.prune(|order| {
            let partition = self.partition_named(&order.partition);
            let present = partition.is_some_and(|partition| match partition.shared.key(order.key) {
                Some(shared) => order.act != OrderedAct::Abandon && shared.epoch().0 == order.epoch,
                None if order.act == OrderedAct::Abandon => {
                    matches!(partition.shared.new_key(order.key), Ok(Some(_)))
                }
                None => order.act.is_share() && partition.keyring.has(order.key),
            });
            order.check_time(now).is_ok() && present
        })
    }

    /// How many administrators an order about this key takes.
    fn needed(&self, view: &View, order: &Order) -> u32 {
        let partition = self.partition_named(&order.partition);
        let shared = partition.and_then(|partition| partition.shared.key(order.key));
        let banned = shared.is_some_and(|shared| !shared.bans().is_empty());
        view.document.membership().approvals.max(least(banned))
    }

    /// Keeps a signature with those that came before it.
    fn keep_approval(
        &self,
        context: &Context<'_>,
        order: &Order,
        text: Vec<u8>,
        approval: OrderApproval,
    ) -> Result<SignedOrder, Error> {
        let digest = sha256(&text);
        let mut orders = self.orders();
        if !orders.contains_key(&digest) && orders.len() >= MOST {
            return Err(Error::caller(FaultCode::Full, "too many orders wait for signatures at this node"));
        }
        let begun = orders.values().filter(|waiting| waiting.by.first() == Some(&context.peer.id)).count();
        if !orders.contains_key(&digest) && begun >= MOST_OF_ONE {
            let text = "too many orders of yours wait for signatures at this node: they end with their time";
            return Err(Error::caller(FaultCode::Full, text));
        }
        let signed = SignedOrder { text, approvals: Vec::new() };
        let new = Waiting { order: order.clone(), signed, by: Vec::new() };
        let waiting = orders.entry(digest).or_insert(new);
        let before = waiting.signed.approvals.iter().zip(&waiting.by).find(|(_, by)| **by == context.peer.id);
        match before {
            Some((before, _)) if *before == approval => {}
            Some(_) => {
                return Err(Error::forbidden(
                    "another signature under this order came with the same certificate: each administrator comes \
                     with one of their own",
                ));
            }
            None if waiting.signed.approvals.iter().any(|other| other.key == approval.key) => {}
            None => {
                waiting.signed.approvals.push(approval);
                waiting.by.push(context.peer.id);
            }
        }
        Ok(waiting.signed.clone())
    }
}

impl<P: Platform> Handle<RenewShares> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: RenewShares) -> Result<OrderState, Error> {
        let view = self.own_view()?;
        let membership = view.document.membership();
        let order = Order::from_bytes(&call.order).map_err(Error::forbidden)?;
        let partition = self.named(context, &order.partition)?;
        context.object = Some(order.key);
        context.detail = order.act.to_string();
        order.check_time(self.platform.now() / 1_000_000).map_err(Error::forbidden)?;
        if order.cluster != membership.cluster {
            return Err(Error::forbidden(OrderRefusal::Cluster(membership.cluster)));
        }
        let malformed = |_| Error::caller(FaultCode::ArgumentsBad, "not an Ed25519 key and signature");
        let approval = OrderApproval {
            key: call.key.try_into().map_err(malformed)?,
            signature: call.signature.try_into().map_err(malformed)?,
        };
        let name = approval.judge(&call.order, membership).map_err(Error::forbidden)?.to_owned();
        let epoch = match order.act {
            OrderedAct::Share { .. } => Whole::of(&partition, order.key).map(|_| 0)?,
            OrderedAct::Abandon => new_here(&partition, order.key).map(|_| FIRST.0)?,
            OrderedAct::Refresh | OrderedAct::Repair { .. } | OrderedAct::Reshare { .. } => {
                self.shared_here(&partition, order.key)?.epoch().0
            }
        };
        if epoch != order.epoch {
            return Err(Error::forbidden(format!(
                "the order starts from epoch {}, and the key is at epoch {}",
                order.epoch, epoch
            )));
        }
        let digest = sha256(&call.order);
        let signed = self.keep_approval(context, &order, call.order, approval)?;
        let needed = self.needed(&view, &order);
        match signed.judge(membership, needed) {
            Ok(_) => {}
            Err(OrderRefusal::Approvals { found, needed }) => {
                context.detail = format!("{}, signed by {name}: {found} of {needed} signatures", order.act);
                return Ok(OrderState { approvals: found, needed, epoch: None, note: String::new() });
            }
            Err(refusal) => return Err(Error::forbidden(refusal)),
        }
        let key = KeyHere { name: &order.partition, partition: &partition, id: order.key };
        let renewed = match order.act {
            OrderedAct::Share { .. } => self.share_key(context, &view, key, (&signed, &order))?,
            OrderedAct::Abandon => self.abandon_key(context, &view, key, &signed)?,
            OrderedAct::Refresh | OrderedAct::Repair { .. } | OrderedAct::Reshare { .. } => {
                self.renew_shares(context, &view, key, Some(&signed), &order.act)?
            }
        };
        self.cluster.orders.lock().remove(&digest);
        let approvals = u32::try_from(signed.approvals.len()).unwrap_or(u32::MAX);
        Ok(OrderState { approvals, needed, epoch: Some(renewed.epoch.0), note: renewed.note })
    }
}

impl<P: Platform> Handle<ListOrders> for Vault<P> {
    fn handle(&self, _: &mut Context<'_>, _: ListOrders) -> Result<Orders, Error> {
        let view = self.own_view()?;
        let mut waiting: Vec<Waiting> = self.orders().values().cloned().collect();
        waiting.sort_by_key(|waiting| waiting.order.expires);
        let describe = |waiting: Waiting| {
            let Waiting { order, signed, .. } = waiting;
            let names = signed.approvals.iter();
            let names = names.filter_map(|one| one.judge(&signed.text, view.document.membership()).ok());
            WaitingOrder {
                signed_by: names.map(str::to_owned).collect(),
                needed: self.needed(&view, &order),
                order: signed.text.clone(),
            }
        };
        Ok(Orders { orders: waiting.into_iter().map(describe).collect() })
    }
}

impl<P: Platform> Handle<ReadShares> for Vault<P> {
    fn handle(&self, context: &mut Context<'_>, call: ReadShares) -> Result<SharesRead, Error> {
        let partition = self.named(context, &call.partition)?;
        context.object = Some(call.key);
        let identity = self.cluster.identity().ok_or(FaultCode::Forbidden)?;
        let shared = match partition.shared.key(call.key) {
            Some(_) => Some(self.shared_here(&partition, call.key)?),
            None => None,
        };
        if let Some(new) = partition.shared.new_key(call.key)? {
            let said = SharesRead {
                partition: call.partition,
                key: call.key,
                label: new.label,
                public_key: new.public_key,
                epoch: None,
                threshold: new.public.committee().threshold().into(),
                seats: new.claim.seats.iter().map(|seat| seat.to_vec().into()).collect(),
                bans: 0,
                node: identity.public().to_vec(),
                proof: None,
                waiting: Some(new.made / 1_000_000),
            };
            return prove(said, call.challenge, &identity);
        }
        let seats = shared.iter().flat_map(|shared| &shared.seats);
        let bans = shared.as_ref().map_or(0, |shared| shared.bans().len());
        let said = SharesRead {
            label: label(&partition.keyring.token_objects(), call.key),
            partition: call.partition,
            key: call.key,
            public_key: match &shared {
                Some(shared) => shared.share.public().public_key().map_err(Error::internal)?,
                None => Whole::of(&partition, call.key)?.public_key,
            },
            epoch: shared.as_ref().map(|shared| shared.epoch().0),
            threshold: shared
                .as_ref()
                .map_or(0, |shared| shared.share.public().committee().threshold().into()),
            seats: seats.map(|seat| seat.to_vec().into()).collect(),
            bans: u32::try_from(bans).unwrap_or(u32::MAX),
            node: identity.public().to_vec(),
            proof: None,
            waiting: None,
        };
        prove(said, call.challenge, &identity)
    }
}

fn prove(said: SharesRead, challenge: Vec<u8>, identity: &Identity) -> Result<SharesRead, Error> {
    let challenge: [u8; CHALLENGE] = challenge
        .try_into()
        .map_err(|_| Error::caller(FaultCode::ArgumentsBad, format!("a challenge has {CHALLENGE} bytes")))?;
    Ok(introduction::prove_shares(said, &challenge, &identity.pair))
}

fn label(objects: &[std::sync::Arc<crate::vault::keyring::Object>], id: ObjectId) -> Vec<u8> {
    objects.iter().find(|object| object.id == id).map(|object| object.label().to_vec()).unwrap_or_default()
}
