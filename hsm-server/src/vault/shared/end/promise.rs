//! The promise to take no certificate of a new key that administrators have abandoned.
//!
//! Whether shares become a key or are given up, all who are to hold one must take alike, and one that lies must not have the
//! others part. So each that would give its share up promises first: signed, written down before anybody sees it, and for
//! this order alone. From then on it takes no certificate of the key's first shares, and makes none of them. Whoever drops
//! its share has seen the promises of all who are to hold one: so none of them takes the certificate any more, whoever shows
//! it to whom.
//!
//! A promise ends when nobody can have dropped a share for it: the order's time is over, and every other node that is
//! to hold a share has said, when it was over by its own clock, that it has not given the key up. None drops a share for
//! an order whose time is over. Until then this node neither takes the key nor gives it up, and says in its log whom it
//! waits for. Those that have left the cluster are not asked.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use strongroom_shared::{
    object::ObjectId,
    shares::{Claim, Signed},
    wire::CallId,
};

use crate::{
    cluster::{
        Member, Membership,
        document::{ClusterId, MAX_MEMBERS},
        order::{Order, SignedOrder},
    },
    platform::{Platform, Time},
    store::Path,
    vault::{
        Error, Vault,
        cluster::View,
        identity::Identity,
        nodes::Answer,
        partition::Partition,
        record::Change,
        records::{decode, encode},
        shared::{
            certificate::sha256,
            generate::FIRST,
            keys::KeyHere,
            words::{Promised, Stand},
        },
    },
};

/// What a promise's signature covers before its bytes.
const LABEL: &[u8] = b"strongroom abandon 1\0";
/// How long a node may take to say where it stands.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a node promises to take no certificate of, encoded and signed.
#[derive(Encode)]
struct Promise<'a> {
    #[n(0)]
    cluster: ClusterId,
    #[n(1)]
    partition: &'a str,
    #[n(2)]
    key: ObjectId,
    #[n(3)]
    epoch: u64,
    /// SHA-256 of the order's text.
    #[cbor(n(4), with = "minicbor::bytes")]
    order: [u8; 32],
}

/// What a node signs that promises by this order.
fn to_sign(order: &Order, signed: &SignedOrder) -> Vec<u8> {
    let Order { cluster, partition, key, epoch, .. } = order;
    let order = sha256(&signed.text);
    let promise = Promise { cluster: *cluster, partition, key: *key, epoch: *epoch, order };
    [LABEL, &encode(&promise)].concat()
}

impl Promised {
    /// The promise of this node by an order.
    pub fn new(order: &Order, signed: &SignedOrder, identity: &Identity) -> Self {
        let signature = Signed(identity.sign(&to_sign(order, signed)));
        Self { node: identity.public(), signature }
    }
}

/// Whether all of these nodes have promised by this order.
///
/// # Errors
/// `Forbidden`, naming one that has not.
pub fn check_promised<'m>(
    (order, signed): (&Order, &SignedOrder),
    promises: &[Promised],
    holders: impl IntoIterator<Item = &'m Member>,
) -> Result<(), Error> {
    if promises.len() > MAX_MEMBERS {
        return Err(Error::forbidden(format!(
            "{} promises: a cluster has {MAX_MEMBERS} nodes",
            promises.len()
        )));
    }
    let text = to_sign(order, signed);
    let has_promised = |member: &Member| {
        let promise = promises.iter().find(|promise| promise.node == member.identity);
        promise.is_some_and(|Promised { node, signature }| {
            UnparsedPublicKey::new(&ED25519, node).verify(&text, &signature.0).is_ok()
        })
    };
    match holders.into_iter().find(|member| !has_promised(member)) {
        None => Ok(()),
        Some(Member { name, .. }) => Err(Error::forbidden(format!(
            "node {name} has not promised by this order to take no certificate of the key, and is to hold a share of it: \
             nothing is given up before all have"
        ))),
    }
}

/// The nodes that are to hold the shares of this claim, those excepted that have left the cluster.
pub fn holders<'m>(claim: &Claim, membership: &'m Membership) -> Vec<&'m Member> {
    claim.seats.iter().filter_map(|seat| membership.member(seat)).collect()
}

/// A promise of this node, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PromiseRecord {
    /// SHA-256 of the text of the order by which it was given: the last one.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub order: [u8; 32],
    /// When the order's time is over, in seconds since 1970.
    #[n(1)]
    pub until: u64,
}

impl PromiseRecord {
    /// That of an order.
    pub fn of(order: &Order, signed: &SignedOrder) -> Self {
        Self { order: sha256(&signed.text), until: order.expires }
    }

    /// Whether the order's time is over.
    pub const fn is_over(&self, now: Time) -> bool {
        self.until <= now / 1_000_000
    }

    /// Whether this node may promise by another order now: one that ends later, so that two orders in force do not have
    /// it write promises in turn.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_followed(&self, next: &Self) -> Result<(), Error> {
        if next.until > self.until {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "this node has promised by another order, which ends at {}, and this one ends no later: order it anew",
            self.until
        )))
    }
}

/// What this node has promised of the keys of a partition.
#[derive(Default)]
pub struct Promises(RwLock<BTreeMap<ObjectId, PromiseRecord>>);

impl Promises {
    /// Takes over what the store holds.
    pub fn load(&self, records: BTreeMap<ObjectId, PromiseRecord>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = records;
    }

    /// What was promised of a key.
    pub fn of(&self, id: ObjectId) -> Option<PromiseRecord> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// The keys of which something was promised.
    pub fn keys(&self) -> Vec<ObjectId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// This is promised; the store says so.
    pub fn put(&self, id: ObjectId, record: PromiseRecord) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, record);
    }

    /// It has ended; the store holds it no more.
    pub fn remove(&self, id: ObjectId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Whether this node may take the first shares of a key, or make some.
    ///
    /// # Errors
    /// `Forbidden`: it has promised not to.
    pub fn check_new(&self, id: ObjectId) -> Result<(), Error> {
        match self.of(id) {
            None => Ok(()),
            Some(PromiseRecord { until, .. }) => Err(Error::forbidden(format!(
                "this node has promised to take no certificate of key {id}, which administrators have abandoned by an order \
                 that ends at {until} (seconds since 1970): it takes one after that, once every node that is to hold a \
                 share has said that it has not given the key up"
            ))),
        }
    }
}

impl<P: Platform> Vault<P> {
    /// Where this node stands about a key that was to be abandoned.
    pub(in crate::vault::shared) fn stand_on(&self, partition: &Partition, id: ObjectId) -> Stand {
        // Nobody is just about to drop the share. One that is used is not dropped.
        let _turn = partition.shared.key(id).is_none().then(|| partition.object_turn());
        let time = self.platform.now() / 1_000_000;
        Stand { given_up: partition.shared.destroyed.was_here(id), time }
    }

    /// Ends this node's promise about a key if nobody can have given the key up for it, and says who keeps it from
    /// ending if its order's time is over.
    ///
    /// # Errors
    /// `Forbidden` if somebody does; what is kept cannot be read or written.
    pub(in crate::vault::shared) fn end_promise(&self, view: &View, key: KeyHere<'_>) -> Result<(), Error> {
        let KeyHere { name, partition, id } = key;
        let Some(promise) = partition.shared.promises.of(id) else { return Ok(()) };
        if !promise.is_over(self.platform.now()) {
            return Ok(());
        }
        // Where nothing waits that could be given up or taken there is nobody to ask.
        let waits = partition.shared.pending().get(&(id, FIRST.0)).cloned();
        let claim = waits.map(|waits| decode::<Claim>(&waits.claim)).transpose()?;
        let holders = claim.map(|claim| holders(&claim, view.document.membership())).unwrap_or_default();
        let own = self.own_peer(view)?;
        let question = key.question();
        for member in holders {
            if member.id.0 == own.fingerprint {
                continue;
            }
            let answer = self.consult(view, member, &question, PATIENCE);
            let trouble = match answer {
                Ok(Answer::Certificate(account)) => match account.stand {
                    Some(Stand { given_up: true, .. }) => {
                        "has given it up, or says so: `hsmctl key abandon` at this node, once more, gives it up here too; if that finds the \
                         key in use elsewhere, the node does not tell the truth: `hsmctl cluster remove` it".into()
                    }
                    Some(Stand { time, .. }) if time < promise.until => {
                        format!("is at {time} by its clock: are the clocks set alike?")
                    }
                    Some(Stand { .. }) => continue,
                    None => "does not say whether it has given the key up: has it the partition, and this version?".into(),
                },
                Ok(other) => other.strange().to_string(),
                Err(error) => format!("does not say whether it has given the key up ({error}); if it never will again, `hsmctl cluster remove` it"),
            };
            let text = format!(
                "this node has promised to take no certificate of key {id}, by an order that ended at {}, and neither takes \
                 the key nor gives it up: node {} {trouble}",
                promise.until, member.name
            );
            return Err(Error::forbidden(text));
        }
        let _turn = partition.object_turn();
        if partition.shared.promises.of(id) != Some(promise) {
            return Ok(());
        }
        let mut context = self.about_shares(&own, CallId::RenewShares);
        (context.subject, context.object) = (name.into(), Some(id));
        context.detail =
            "its promise to take no certificate of the key has ended: nobody that is to hold a share has given it up".into();
        self.change(&mut context, Change::new().delete(Path::Promise(partition.id, id)))?;
        partition.shared.promises.remove(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::cluster::{NodeId, order::OrderedAct};

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn node(seed: u8) -> Member {
        Member {
            name: format!("n{seed}"),
            address: "127.0.0.1:7373".into(),
            server_name: "localhost".into(),
            authority: Vec::new(),
            id: NodeId([seed; 32]),
            identity: pair(seed).public_key().as_ref().try_into().unwrap(),
            sealing: [seed; 32],
        }
    }

    fn order() -> Order {
        Order {
            cluster: ClusterId([9; 16]),
            partition: "trading".into(),
            key: ObjectId([7; 16]),
            epoch: 0,
            nonce: [5; 16],
            expires: 1000,
            act: OrderedAct::Abandon,
            public_key: vec![2; 33].into(),
        }
    }

    fn signed(order: &Order) -> SignedOrder {
        SignedOrder { text: order.to_bytes(), approvals: Vec::new() }
    }

    fn promised(seed: u8, order: &Order, signed: &SignedOrder) -> Promised {
        let signature = pair(seed).sign(&to_sign(order, signed)).as_ref().try_into().unwrap();
        Promised { node: node(seed).identity, signature: Signed(signature) }
    }

    #[test]
    fn a_promise_is_of_one_order_cluster_partition_key_and_epoch() {
        let (order, nodes) = (order(), [node(1), node(2)]);
        let text = signed(&order);
        let good = [1, 2].map(|seed| promised(seed, &order, &text));
        let check = |promises: &[Promised]| check_promised((&order, &text), promises, &nodes).is_ok();
        assert!(check(&good));
        assert!(!check(&good[..1]) && !check(&good[1..]) && !check(&[]), "one has not promised");
        assert!(
            !check(&[good[0].clone(), Promised { node: good[1].node, ..good[0].clone() }]),
            "another's signature"
        );
        let changes: [fn(&mut Order); 6] = [
            |order| order.cluster = ClusterId([8; 16]),
            |order| order.partition = "savings".into(),
            |order| order.key = ObjectId([6; 16]),
            |order| order.epoch = 1,
            |order| order.nonce = [4; 16],
            |order| order.expires = 1001,
        ];
        for change in changes {
            let mut other = order.clone();
            change(&mut other);
            let replayed = [good[0].clone(), promised(2, &other, &signed(&other))];
            assert!(!check(&replayed), "{other:?}");
            // The same bytes with the text of the order that is shown.
            if other.nonce == order.nonce && other.expires == order.expires {
                assert!(!check(&[good[0].clone(), promised(2, &other, &text)]), "{other:?}");
            }
        }
        let many = vec![good[0].clone(); MAX_MEMBERS + 1];
        assert!(!check(&[&good[..], &many].concat()), "too many");
    }

    #[test]
    fn only_an_order_that_ends_later_follows_another() {
        let first = PromiseRecord { order: [1; 32], until: 1000 };
        for (until, good) in [(999, false), (1000, false), (1001, true)] {
            assert_eq!(
                first.check_followed(&PromiseRecord { order: [2; 32], until }).is_ok(),
                good,
                "{until}"
            );
        }
    }
}
