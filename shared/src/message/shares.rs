//! What `hsmctl key` and the vault say to each other about the shares of a key.

use minicbor::{Decode, Encode, bytes::ByteVec};

use crate::object::ObjectId;

messages! {
    /// `hsmctl key refresh` and the like: asks what a node knows of a key that is shared or is to be.
    ReadShares {
        /// The partition's name.
        0 partition: String,
        /// The private key.
        1 key: ObjectId,
        /// 32 random bytes of the asker, which the proof then covers.
        2 challenge: Vec<u8> as "minicbor::bytes",
    }
    /// A key and its shares, as one node knows them.
    SharesRead {
        /// The partition's name.
        0 partition: String,
        /// The private key.
        1 key: ObjectId,
        /// `CKA_LABEL`.
        2 label: Vec<u8> as "minicbor::bytes",
        /// The public key, as `CKA_EC_POINT` has it inside its OCTET STRING; of a shared BIP340 key x alone, as of one that is to
        /// be shared.
        3 public_key: Vec<u8> as "minicbor::bytes",
        /// Which shares of the key they are: each refresh, repair and reshare makes later ones. Absent for a key that is
        /// not shared.
        4 epoch: Option<u64>,
        /// How many sign; 0 for a key that is not shared.
        5 threshold: u32,
        /// The nodes that hold the shares, in the order of their seats: their Ed25519 keys.
        6 seats: Vec<ByteVec>,
        /// How many pairs of them must not sign together any more.
        7 bans: u32,
        /// The node's Ed25519 public key.
        8 node: Vec<u8> as "minicbor::bytes",
        /// Its signature over the challenge and all of this.
        9 proof: Option<ByteVec>,
        /// Since when a share of a new key waits here for the word of all nodes, in seconds since 1970. Absent unless
        /// that is all that there is of the key.
        10 waiting: Option<u64>,
    }
    /// One administrator's signature under an order about a key's shares. The one that completes it has it carried out.
    RenewShares {
        /// The order, encoded.
        0 order: Vec<u8> as "minicbor::bytes",
        /// The administrator's Ed25519 key, as the membership document lists it.
        1 key: Vec<u8> as "minicbor::bytes",
        /// The signature.
        2 signature: Vec<u8> as "minicbor::bytes",
    }
    /// How far an order is.
    OrderState {
        /// How many administrators have signed it.
        0 approvals: u32,
        /// How many it takes.
        1 needed: u32,
        /// The epoch of the new shares, once it has been carried out; 0 where a new key was abandoned.
        2 epoch: Option<u64>,
        /// What is still to be done, by the nodes themselves or by somebody.
        3 note: String,
    }
    /// `hsmctl key approve`: asks which orders wait at this node, for more signatures or to be tried again.
    ListOrders {}
    /// The orders that wait.
    Orders {
        /// In the order of their ends.
        0 orders: Vec<WaitingOrder>,
    }
    /// An order that waits for more signatures, or to be tried again.
    WaitingOrder {
        /// The order, encoded.
        0 order: Vec<u8> as "minicbor::bytes",
        /// The administrators who have signed it.
        1 signed_by: Vec<String>,
        /// How many it takes.
        2 needed: u32,
        /// Why nothing came of it when it was last tried; absent if it was not.
        3 trouble: Option<String>,
    }
    /// `hsmctl key list --waiting`: asks which shares wait at this node.
    ListWaiting {
        /// The partition's name.
        0 partition: String,
    }
    /// The shares that wait until every node has said that it holds its own.
    WaitingShares {
        /// In the order of the keys and epochs.
        0 shares: Vec<WaitingShare>,
    }
    /// A share that waits.
    WaitingShare {
        /// The private key.
        0 key: ObjectId,
        /// The epoch of the share.
        1 epoch: u64,
        /// `CKA_LABEL`.
        2 label: Vec<u8> as "minicbor::bytes",
        /// The node that had it made; empty if that has left the cluster.
        3 node: String,
        /// Since when it waits, in seconds since 1970.
        4 since: u64,
        /// Whether it is of a new key, which administrators can have abandoned.
        5 new: bool,
    }
}
