//! Orders that wait at this node: for more signatures, or to be tried again because nodes were away. Each is a record in
//! the store, on disk before anybody hears of it, so a restart forgets none; and it is erased when it has been carried out
//! or can come about no more.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use minicbor::{Decode, Encode};
use strongroom_shared::{fault::FaultCode, secret::Wiped, wire::decode_body};

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

/// By the SHA-256 of their texts. None is one that this version cannot read, and that is to be erased.
type Orders = BTreeMap<[u8; 32], Option<Waiting>>;

/// The orders that wait at this node.
#[derive(Default)]
pub struct WaitingOrders(Mutex<Orders>);

impl WaitingOrders {
    /// Those that were kept, as they stand in the store. One of another version keeps no server from starting.
    pub fn load(kept: BTreeMap<[u8; 32], Wiped>) -> Self {
        let read = |bytes: &[u8]| {
            let record: OrderRecord = decode_body(bytes).ok()?;
            Some(Waiting { order: Order::from_bytes(&record.text).ok()?, record })
        };
        Self(Mutex::new(kept.into_iter().map(|(digest, bytes)| (digest, read(&bytes))).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        // One that ends later than any may was in time when it came: the clock is wrong.
        if order.expires <= self.platform.now() / 1_000_000 {
            return Err("its time is over".into());
        }
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

    /// The orders that may still come about. The others are erased, on disk and here; where the disk cannot be written,
    /// later.
    fn clear_up(&self, orders: &mut Orders) -> BTreeMap<[u8; 32], Waiting> {
        let (mut change, mut left, mut changed) = (Change::new(), BTreeMap::new(), false);
        let mut forgotten = Vec::new();
        for (digest, waiting) in orders.iter() {
            let unreadable = || "this version cannot read it".to_owned();
            match waiting.as_ref().ok_or_else(unreadable).and_then(|waiting| self.still_good(waiting)) {
                Ok(good) => {
                    if waiting.as_ref().is_some_and(|waiting| waiting.record != good.record) {
                        (change, changed) = (change.put(Path::Order(*digest), &good.record), true);
                    }
                    left.insert(*digest, good);
                }
                Err(why) => {
                    let about = waiting
                        .as_ref()
                        .map(|Waiting { order, .. }| format!("{} of {}", order.act, order.key));
                    forgotten.push((about.unwrap_or_default(), why));
                    (change, changed) = (change.delete(Path::Order(*digest)), true);
                }
            }
        }
        if changed {
            match self.change_silently(change) {
                Ok(()) => {
                    for (about, why) in forgotten {
                        tracing::info!(about, "an order that waited is forgotten: {why}");
                    }
                    *orders = left.iter().map(|(digest, good)| (*digest, Some(good.clone()))).collect();
                }
                Err(error) => tracing::warn!(%error, "orders that can come about no more are not erased yet"),
            }
        }
        left
    }

    /// Erases the orders that can come about no more.
    pub(in crate::vault) fn look_after_orders(&self) {
        self.clear_up(&mut self.cluster.orders.lock());
    }

    /// The orders that wait, in the order of their ends.
    pub(in crate::vault) fn waiting_orders(&self) -> Vec<Waiting> {
        let mut waiting: Vec<Waiting> =
            self.clear_up(&mut self.cluster.orders.lock()).into_values().collect();
        waiting.sort_by_key(|waiting| waiting.order.expires);
        waiting
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
        let left = self.clear_up(&mut orders);
        let known = left.get(&digest).cloned();
        if known.is_none() && left.len() >= MOST {
            return Err(Error::caller(FaultCode::Full, "too many orders wait for signatures at this node"));
        }
        let begun = left.values().filter(|waiting| waiting.is_begun_by(context.peer.id)).count();
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
            orders.insert(digest, Some(waiting));
        }
        Ok(judged)
    }

    /// Forgets an order that was carried out. Of any other it keeps what was wrong: whatever a node says that takes part,
    /// what the administrators have signed is theirs.
    pub(super) fn settle_order<T>(&self, signed: &SignedOrder, came: &Result<T, Error>) {
        let digest = sha256(&signed.text);
        let mut orders = self.cluster.orders.lock();
        let Some(Some(waiting)) = orders.get(&digest) else { return };
        let settled = match came {
            Err(error) => {
                let record = OrderRecord { trouble: Some(error.to_string()), ..waiting.record.clone() };
                let waiting = Waiting { order: waiting.order.clone(), record };
                self.change_silently(Change::new().put(Path::Order(digest), &waiting.record))
                    .map(|()| drop(orders.insert(digest, Some(waiting))))
            }
            Ok(_) => self
                .change_silently(Change::new().delete(Path::Order(digest)))
                .map(|()| drop(orders.remove(&digest))),
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "what came of an order that waited is not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_wrote_keeps_no_server_from_starting() {
        let known = minicbor::to_vec(OrderRecord { text: vec![0x80], signatures: Vec::new(), trouble: None })
            .unwrap();
        let kept = [vec![0xff], Vec::new(), known].into_iter().zip(0..);
        let orders = WaitingOrders::load(kept.map(|(bytes, place)| ([place; 32], bytes.into())).collect());
        assert_eq!(
            orders.lock().values().map(Option::is_none).collect::<Vec<_>>(),
            [true; 3],
            "they are erased"
        );
    }
}
