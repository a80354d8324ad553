//! Orders: what administrators have nodes do with the shares of a key.
//!
//! An order is signed with the keys that the membership document lists, by as many administrators as the document asks
//! for. It proves itself, so every node judges it by its own document, whichever node brings it. It names the
//! epoch that it starts from, so that it is used up when it has been carried out.

use std::{collections::BTreeSet, fmt};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use minicbor::{Decode, Encode, bytes::ByteVec};
use strongroom_shared::{object::ObjectId, wire::decode_body};

use super::document::{ClusterId, MAX_ADMINISTRATORS, Membership};

/// What a signature covers before the order's bytes.
const LABEL: &[u8] = b"strongroom order 1\0";
/// How long before its end an order may be shown, in seconds: administrators may sit far from one another.
pub const LONGEST: u64 = 24 * 3600;

/// What nodes are to do with the shares of a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    /// Which cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// The partition's name.
    #[n(1)]
    pub partition: String,
    /// The private key.
    #[n(2)]
    pub key: ObjectId,
    /// The epoch of the shares that it starts from.
    #[n(3)]
    pub epoch: u64,
    /// Of this order alone.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// When it ends, in seconds since 1970.
    #[n(5)]
    pub expires: u64,
    /// What is to be done.
    #[n(6)]
    pub act: OrderedAct,
    /// The public key, as a node shows it: as `CKA_EC_POINT` has it inside its OCTET STRING, of BIP340 x alone. So nobody
    /// who has had no share of the key yet is shown another one.
    #[n(7)]
    pub public_key: ByteVec,
}

/// What is to be done with the shares of a key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OrderedAct {
    /// Every node gets another share of the same key.
    #[n(0)]
    Refresh,
    /// As a refresh; and this node, which has lost its share, gets one again.
    #[n(1)]
    Repair {
        /// Its Ed25519 key.
        #[cbor(n(0), with = "minicbor::bytes")]
        node: [u8; 32],
    },
    /// The shares move to these nodes.
    #[n(2)]
    Reshare {
        /// How many sign from then on.
        #[n(0)]
        threshold: u8,
        /// Who holds the shares from then on: Ed25519 keys, in the order of their seats.
        #[n(1)]
        seats: Vec<Seat>,
    },
    /// A key that one node holds becomes shares, which these nodes hold.
    #[n(3)]
    Share {
        /// How many sign from then on.
        #[n(0)]
        threshold: u8,
        /// Who holds the shares: Ed25519 keys, in the order of their seats.
        #[n(1)]
        seats: Vec<Seat>,
    },
    /// A new key is given up of which shares wait, and which no node has in use.
    #[n(4)]
    Abandon,
}

/// A node at a seat: its Ed25519 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Seat(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// An order with the signatures over it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedOrder {
    /// The order, encoded.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub text: Vec<u8>,
    /// Who has signed it.
    #[n(1)]
    pub approvals: Vec<OrderApproval>,
}

/// One administrator's signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrderApproval {
    /// The administrator's Ed25519 key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// Over the order's text.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Why an order is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderRefusal {
    /// It cannot be read.
    Malformed(String),
    /// A signature on it is not one of its bytes.
    Signature,
    /// Somebody signed it whom the document in force does not list.
    Stranger,
    /// It is another cluster's.
    Cluster(ClusterId),
    /// Too few administrators have signed it.
    Approvals {
        /// How many have.
        found: u32,
        /// How many it takes.
        needed: u32,
    },
    /// Its time is over, or too far away.
    Time {
        /// When it ends, in seconds since 1970.
        expires: u64,
        /// What time it is here.
        now: u64,
    },
}

impl fmt::Display for OrderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("order refused: ")?;
        match self {
            Self::Malformed(reason) => f.write_str(reason),
            Self::Signature => f.write_str("a signature on it is wrong"),
            Self::Stranger => {
                f.write_str("it is signed by somebody whom the membership document in force does not list")
            }
            Self::Cluster(cluster) => write!(f, "this server belongs to cluster {cluster}"),
            Self::Approvals { found, needed } => {
                write!(f, "{found} administrators have signed it, it takes {needed}")
            }
            Self::Time { expires, now } => write!(
                f,
                "it ends at {expires}, and it is {now} here: it may end at most {LONGEST} seconds ahead; are the \
                 clocks set alike?"
            ),
        }
    }
}

impl std::error::Error for OrderRefusal {}

impl Order {
    /// The bytes that administrators sign.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let written = minicbor::encode(self, &mut text);
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
        text
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_bytes(text: &[u8]) -> Result<Self, OrderRefusal> {
        decode_body(text).map_err(|error| OrderRefusal::Malformed(error.to_string()))
    }

    /// Whether an order of this end may be shown now (both in seconds since 1970).
    ///
    /// # Errors
    /// `Time`.
    pub const fn check_time(&self, now: u64) -> Result<(), OrderRefusal> {
        if self.expires <= now || self.expires > now.saturating_add(LONGEST) {
            return Err(OrderRefusal::Time { expires: self.expires, now });
        }
        Ok(())
    }
}

impl OrderedAct {
    /// Whether it is about a key that is not shared yet.
    pub const fn is_share(&self) -> bool {
        matches!(self, Self::Share { .. })
    }

    /// The nodes that are to hold the shares, in the order of their seats; none if those do who hold them now.
    pub fn seats(&self) -> &[Seat] {
        match self {
            Self::Reshare { seats, .. } | Self::Share { seats, .. } => seats,
            Self::Refresh | Self::Repair { .. } | Self::Abandon => &[],
        }
    }
}

impl fmt::Display for OrderedAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh => "refresh",
            Self::Repair { .. } => "repair",
            Self::Reshare { .. } => "reshare",
            Self::Share { .. } => "share",
            Self::Abandon => "abandon",
        })
    }
}

impl OrderApproval {
    /// An administrator's signature over an order's text.
    pub fn new(text: &[u8], pair: &Ed25519KeyPair) -> Self {
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        key.iter_mut().zip(pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        let signed = pair.sign(&[LABEL, text].concat());
        signature.iter_mut().zip(signed.as_ref()).for_each(|(to, from)| *to = *from);
        Self { key, signature }
    }

    /// The name of the listed administrator who has signed this text so.
    ///
    /// # Errors
    /// `Signature` or `Stranger`.
    pub fn judge<'a>(&self, text: &[u8], membership: &'a Membership) -> Result<&'a str, OrderRefusal> {
        let listed = membership.administrators.iter().find(|one| one.key == self.key);
        let name = listed.map(|one| one.name.as_str()).ok_or(OrderRefusal::Stranger)?;
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(&[LABEL, text].concat(), &self.signature)
            .map_err(|_| OrderRefusal::Signature)?;
        Ok(name)
    }
}

impl SignedOrder {
    /// The order, and the names of those who have signed it, if it takes no more of them than that. `least` is how many
    /// different administrators it takes whatever the document says.
    ///
    /// # Errors
    /// As [`OrderRefusal`] says, but for its time.
    pub fn judge<'a>(
        &self,
        membership: &'a Membership,
        least: u32,
    ) -> Result<(Order, BTreeSet<&'a str>), OrderRefusal> {
        let order = Order::from_bytes(&self.text)?;
        if order.cluster != membership.cluster {
            return Err(OrderRefusal::Cluster(membership.cluster));
        }
        if self.approvals.len() > MAX_ADMINISTRATORS {
            return Err(OrderRefusal::Malformed("too many signatures".into()));
        }
        let mut keys = BTreeSet::new();
        let mut names = BTreeSet::new();
        for approval in &self.approvals {
            names.insert(approval.judge(&self.text, membership)?);
            keys.insert(approval.key);
        }
        // Two keys under one name are one person.
        let found = u32::try_from(keys.len().min(names.len())).unwrap_or(u32::MAX);
        let needed = membership.approvals.max(least);
        if found < needed {
            return Err(OrderRefusal::Approvals { found, needed });
        }
        Ok((order, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Administrator;

    fn administrator(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn membership(names: &[(&str, u8)], approvals: u32) -> Membership {
        let listed = |(name, seed): &(&str, u8)| Administrator {
            name: (*name).into(),
            key: administrator(*seed).public_key().as_ref().try_into().unwrap(),
        };
        let administrators = names.iter().map(listed).collect();
        Membership { cluster: ClusterId([9; 16]), version: 1, members: Vec::new(), administrators, approvals }
    }

    fn order() -> Order {
        Order {
            cluster: ClusterId([9; 16]),
            partition: "trading".into(),
            key: ObjectId([7; 16]),
            epoch: 3,
            nonce: [5; 16],
            expires: 1000,
            act: OrderedAct::Reshare { threshold: 2, seats: vec![Seat([1; 32]), Seat([2; 32])] },
            public_key: vec![2; 33].into(),
        }
    }

    fn signed(order: &Order, seeds: &[u8]) -> SignedOrder {
        let text = order.to_bytes();
        let approvals = seeds.iter().map(|seed| OrderApproval::new(&text, &administrator(*seed)));
        SignedOrder { approvals: approvals.collect(), text }
    }

    #[test]
    fn it_takes_as_many_different_administrators_as_the_document_or_the_act_asks_for() {
        let three = [("ann", 1), ("bob", 2), ("cid", 3)];
        for (approvals, least, seeds, good) in [
            (1, 1, &[1][..], true),
            (2, 1, &[1], false),
            (1, 2, &[1], false),
            (1, 2, &[1, 1], false),
            (1, 2, &[3, 1], true),
            (3, 2, &[3, 1], false),
            (1, 1, &[], false),
        ] {
            let judged = signed(&order(), seeds).judge(&membership(&three, approvals), least).map(drop);
            let (found, needed) = (seeds.iter().collect::<BTreeSet<_>>().len() as u32, approvals.max(least));
            let expected = if good { Ok(()) } else { Err(OrderRefusal::Approvals { found, needed }) };
            assert_eq!(judged, expected, "{approvals} {least} {seeds:?}");
        }
        let twins = membership(&[("ann", 1), ("ann", 2)], 1);
        assert!(signed(&order(), &[1, 2]).judge(&twins, 2).is_err(), "one person with two keys");
    }

    #[test]
    fn strangers_and_changed_bytes_spoil_it() {
        let membership = membership(&[("ann", 1), ("bob", 2)], 1);
        let judge = |signed: &SignedOrder| signed.judge(&membership, 1).map(drop);
        assert_eq!(judge(&signed(&order(), &[1])), Ok(()));
        assert_eq!(judge(&signed(&order(), &[1, 4])), Err(OrderRefusal::Stranger));
        let foreign = Order { cluster: ClusterId([8; 16]), ..order() };
        assert_eq!(judge(&signed(&foreign, &[1])), Err(OrderRefusal::Cluster(ClusterId([9; 16]))));
        let good = signed(&order(), &[1]);
        for place in 0..good.text.len() {
            let mut bad = good.clone();
            bad.text[place] ^= 1;
            assert!(judge(&bad).is_err(), "byte {place}");
        }
        let (_, names) = good.judge(&membership, 1).unwrap();
        assert_eq!(names, BTreeSet::from(["ann"]));
    }

    #[test]
    fn it_has_its_time() {
        for (now, good) in [(999, true), (1000, false), (1001, false)] {
            assert_eq!(order().check_time(now).is_ok(), good, "{now}");
        }
        let far = Order { expires: 1000 + LONGEST, ..order() };
        assert!(far.check_time(1000).is_ok() && far.check_time(999).is_err());
    }
}
