//! Orders that wait at this node: for more signatures, or to be tried again because nodes were away. Each is a record in
//! the store, on disk before anybody hears of it, so a restart forgets none; and it is erased when it has been carried out
//! or can come about no more.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use minicbor::{Decode, Encode};
use strongroom_shared::fault::FaultCode;

use crate::{
    cluster::{
        Membership,
        order::{Order, OrderApproval, OrderRefusal, OrderedAct, SignedOrder},
    },
    door::ClientId,
    platform::Platform,
    store::Path,
    vault::{
        Context, Error, Vault,
        cluster::View,
        record::Change,
        shared::{certificate::sha256, life::consent::least},
    },
};

/// How many orders may wait at once.
const MOST: usize = 64;
/// How many of them one certificate may have begun: no administrator keeps the others' orders out.
const MOST_OF_ONE: usize = 8;

/// An order that waits, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrderRecord {
    /// The order, encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    text: Vec<u8>,
    /// Who has signed it, in the order in which the signatures came.
    #[n(1)]
    signatures: Vec<Signature>,
    /// Why nothing came of it when it was last tried.
    #[n(2)]
    trouble: Option<String>,
}

/// A signature, and on whose connection it came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Signature {
    #[n(0)]
    approval: OrderApproval,
    /// The client.
    #[cbor(n(1), with = "minicbor::bytes")]
    by: [u8; 16],
}

/// An order that waits.
#[derive(Clone)]
pub struct Waiting {
    pub order: Order,
    record: OrderRecord,
}

impl Waiting {
    /// The order with the signatures that have come.
    pub fn signed(&self) -> SignedOrder {
        let approvals = self.record.signatures.iter().map(|one| one.approval.clone()).collect();
        SignedOrder { text: self.record.text.clone(), approvals }
    }

    /// Why nothing came of it when it was last tried.
    pub fn trouble(&self) -> Option<&str> {
        self.record.trouble.as_deref()
    }

    fn is_begun_by(&self, client: ClientId) -> bool {
        self.record.signatures.first().is_some_and(|first| first.by == client.0)
    }

    /// Takes a signature that came on this client's connection.
    fn sign(&mut self, approval: OrderApproval, client: ClientId) -> Result<(), Error> {
        let signatures = &mut self.record.signatures;
        match signatures.iter().find(|one| one.by == client.0) {
            Some(before) if before.approval == approval => {}
            Some(_) => {
                return Err(Error::forbidden(
                    "another signature under this order came with the same certificate: each administrator comes \
                     with one of their own",
                ));
            }
            None if signatures.iter().any(|other| other.approval.key == approval.key) => {}
            None => signatures.push(Signature { approval, by: client.0 }),
        }
        Ok(())
    }

    /// The same without the signatures of whoever is no administrator any more: one such signature would spoil the order
    /// for those who are.
    fn signed_by(mut self, membership: &Membership) -> Result<Self, String> {
        let is_listed = |key: [u8; 32]| membership.administrators.iter().any(|one| one.key == key);
        self.record.signatures.retain(|one| is_listed(one.approval.key));
        match self.record.signatures.is_empty() {
            true => Err("nobody who has signed it is an administrator any more".into()),
            false => Ok(self),
        }
    }
}

/// By the SHA-256 of their texts.
type Orders = BTreeMap<[u8; 32], Waiting>;

/// The orders that wait at this node.
#[derive(Default)]
pub struct WaitingOrders(Mutex<Orders>);

impl WaitingOrders {
    /// Those that were kept.
    ///
    /// # Errors
    /// `IntegrityViolated`: one is none.
    pub fn load(kept: BTreeMap<[u8; 32], OrderRecord>) -> Result<Self, Error> {
        let read = |(digest, record): ([u8; 32], OrderRecord)| match Order::from_bytes(&record.text) {
            Ok(order) => Ok((digest, Waiting { order, record })),
            Err(refusal) => Err(Error::caller(FaultCode::IntegrityViolated, refusal.to_string())),
        };
        Ok(Self(Mutex::new(kept.into_iter().map(read).collect::<Result<_, _>>()?)))
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an act that came to nothing can come about by the same order later. What this node itself forbids cannot; nodes
/// that were away, or a disk that was full, may be mended.
const fn may_be_tried_again(error: &Error) -> bool {
    !matches!(
        error,
        Error::Caller(
            FaultCode::Forbidden
                | FaultCode::KeyHandleInvalid
                | FaultCode::KeyTypeInconsistent
                | FaultCode::MechanismInvalid
                | FaultCode::ArgumentsBad
                | FaultCode::AttributeValueInvalid,
            _
        )
    )
}

impl<P: Platform> Vault<P> {
    /// How many administrators an order about this key takes.
    pub(super) fn needed(&self, view: &View, order: &Order) -> u32 {
        let partition = self.partition_named(&order.partition);
        let shared = partition.and_then(|partition| partition.shared.key(order.key));
        let banned = shared.is_some_and(|shared| !shared.bans().is_empty());
        view.document.membership().approvals.max(least(banned))
    }

    /// What is left of an order that waits, or why it can come about no more.
    fn still_good(&self, waiting: &Waiting) -> Result<Waiting, String> {
        let view = self.cluster.view().filter(|view| view.own.is_some());
        let view = view.ok_or("this server has left the cluster")?;
        let (membership, order) = (view.document.membership(), &waiting.order);
        if order.cluster != membership.cluster {
            return Err("this server is in another cluster now".into());
        }
        let now = self.platform.now() / 1_000_000;
        order.check_time(now).map_err(|_| "its time is over")?;
        let gone = order.act.seats().iter().any(|seat| membership.member(&seat.0).is_none());
        if gone {
            return Err("a node that is to hold a share has left the cluster".into());
        }
        let partition = self.partition_named(&order.partition).ok_or("its partition is gone")?;
        let present = match (partition.shared.key(order.key), &order.act) {
            (Some(_), OrderedAct::Abandon | OrderedAct::Share { .. }) => false,
            (Some(shared), _) => shared.epoch().0 == order.epoch,
            (None, OrderedAct::Abandon) => matches!(partition.shared.new_key(order.key), Ok(Some(_))),
            (None, act) => act.is_share() && partition.keyring.has(order.key),
        };
        if !present {
            return Err("the shares that it is about are no more, or others have taken their place".into());
        }
        waiting.clone().signed_by(membership)
    }

    /// Erases what can come about no more, on disk and here.
    fn clear_up(&self, orders: &mut Orders) -> Result<(), Error> {
        let (mut change, mut left, mut changed) = (Change::new(), BTreeMap::new(), false);
        for (digest, waiting) in orders.iter() {
            match self.still_good(waiting) {
                Ok(good) => {
                    if good.record != waiting.record {
                        (change, changed) = (change.put(Path::Order(*digest), &good.record), true);
                    }
                    left.insert(*digest, good);
                }
                Err(why) => {
                    let Order { key, act, .. } = &waiting.order;
                    tracing::info!(%key, %act, "an order that waited is forgotten: {why}");
                    (change, changed) = (change.delete(Path::Order(*digest)), true);
                }
            }
        }
        if changed {
            self.change_silently(change)?;
            *orders = left;
        }
        Ok(())
    }

    /// Erases the orders that can come about no more.
    pub(in crate::vault) fn look_after_orders(&self) {
        let mut orders = self.cluster.orders.lock();
        if let Err(error) = self.clear_up(&mut orders) {
            tracing::warn!(%error, "orders that can come about no more are not erased yet");
        }
    }

    /// The orders that wait, in the order of their ends.
    pub(in crate::vault) fn waiting_orders(&self) -> Result<Vec<Waiting>, Error> {
        let mut orders = self.cluster.orders.lock();
        self.clear_up(&mut orders)?;
        let mut waiting: Vec<Waiting> = orders.values().cloned().collect();
        waiting.sort_by_key(|waiting| waiting.order.expires);
        Ok(waiting)
    }

    /// Keeps a signature of the administrator `name` with those that came before it: the order with all of them, if there
    /// are as many as it takes.
    pub(super) fn keep_approval(
        &self,
        context: &mut Context<'_>,
        (view, name): (&View, &str),
        order: &Order,
        text: Vec<u8>,
        approval: OrderApproval,
    ) -> Result<Result<SignedOrder, OrderRefusal>, Error> {
        let digest = sha256(&text);
        let mut orders = self.cluster.orders.lock();
        self.clear_up(&mut orders)?;
        let known = orders.get(&digest).cloned();
        if known.is_none() && orders.len() >= MOST {
            return Err(Error::caller(FaultCode::Full, "too many orders wait for signatures at this node"));
        }
        let begun = orders.values().filter(|waiting| waiting.is_begun_by(context.peer.id)).count();
        if known.is_none() && begun >= MOST_OF_ONE {
            let text = "too many orders of yours wait for signatures at this node: they end with their time";
            return Err(Error::caller(FaultCode::Full, text));
        }
        let before = known.as_ref().map(|waiting| waiting.record.clone());
        let new = || OrderRecord { text, signatures: Vec::new(), trouble: None };
        let mut waiting = known.unwrap_or_else(|| Waiting { order: order.clone(), record: new() });
        waiting.sign(approval, context.peer.id)?;
        let signed = waiting.signed();
        let judged = signed.judge(view.document.membership(), self.needed(view, order)).map(|_| signed);
        if let Err(OrderRefusal::Approvals { found, needed }) = &judged {
            context.detail = format!("{}, signed by {name}: {found} of {needed} signatures", order.act);
        }
        if before.as_ref() != Some(&waiting.record) {
            let change = Change::new().put(Path::Order(digest), &waiting.record);
            match &judged {
                // The act has its record at the end.
                Ok(_) => self.change_silently(change)?,
                Err(_) => self.change(context, change)?,
            }
            orders.insert(digest, waiting);
        }
        Ok(judged)
    }

    /// Forgets an order that was carried out or can come about no more; of one that may be tried again it keeps what was
    /// wrong.
    pub(super) fn settle_order<T>(&self, signed: &SignedOrder, came: &Result<T, Error>) {
        let digest = sha256(&signed.text);
        let mut orders = self.cluster.orders.lock();
        let Some(waiting) = orders.get(&digest) else { return };
        let settled = match came {
            Err(error) if may_be_tried_again(error) => {
                let record = OrderRecord { trouble: Some(error.to_string()), ..waiting.record.clone() };
                let waiting = Waiting { order: waiting.order.clone(), record };
                self.change_silently(Change::new().put(Path::Order(digest), &waiting.record))
                    .map(|()| drop(orders.insert(digest, waiting)))
            }
            Ok(_) | Err(_) => self
                .change_silently(Change::new().delete(Path::Order(digest)))
                .map(|()| drop(orders.remove(&digest))),
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "what came of an order that waited is not written down");
        }
    }
}
