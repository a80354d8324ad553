//! Keys that were destroyed here: what a node keeps of each for ever, so that nobody brings one back.
//!
//! A certificate is good for ever, and whoever kept one could show it when it comes in useful: that of a descendant, to
//! a node whose share of the master became another just now. So a node takes nothing any more of a key that was destroyed
//! here: no share of it, no descendant by that name, and no new key under its id. Of a key of which nothing was here it
//! has a client's word alone, and so keeps a bounded number of such marks for each; administrators lift one when they
//! have the node hold a share.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use minicbor::{Decode, Encode};
use strongroom_shared::{fault::FaultCode, object::ObjectId};

use crate::{
    platform::Platform,
    store::Path,
    vault::{Context, Error, Vault, partition::Partition, record::Change, shared::certificate::sha256},
};

/// What is kept of a key that was destroyed, or abandoned before it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DestroyedRecord {
    /// SHA-256 of the public key (`CKA_PUBLIC_KEY_INFO`) that the application was shown, where nothing of the key was
    /// here that it could be compared with: another key of this id is none that the application destroyed. None where
    /// it was compared: nothing of this id is taken.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub shown: Option<[u8; 32]>,
    /// The Ed25519 key that signed the mandate, where nothing of the key was here: all that the mark rests on.
    #[cbor(n(1), with = "minicbor::bytes", default)]
    pub by: Option<[u8; 32]>,
}

/// How many keys, of which nothing was ever here, a partition marks as destroyed on the word of one mandate key: more than
/// an application destroys. Whoever has such a key, and a bad node that shows it around, makes as many marks as it likes.
const MOST_OF_ONE: usize = 1 << 14;

impl DestroyedRecord {
    /// Of a key that was here, or that administrators had nodes abandon.
    pub const WAS_HERE: Self = Self { shown: None, by: None };

    /// Whether something of the key was here.
    fn was_here(&self) -> bool {
        *self == Self::WAS_HERE
    }

    /// Whether it is about a key with this public key (`CKA_PUBLIC_KEY_INFO`).
    fn is_of(&self, public: &[u8]) -> bool {
        self.is_of_hash(&sha256(public))
    }

    /// The same, by its SHA-256.
    fn is_of_hash(&self, public: &[u8; 32]) -> bool {
        self.shown.is_none_or(|shown| shown == *public)
    }
}

/// The keys of a partition that were destroyed at this node.
#[derive(Default)]
pub struct Destroyed(RwLock<Marks>);

#[derive(Default)]
struct Marks {
    records: BTreeMap<ObjectId, DestroyedRecord>,
    /// How many rest on the word of a mandate key.
    by: BTreeMap<[u8; 32], usize>,
}

impl Marks {
    fn put(&mut self, id: ObjectId, record: DestroyedRecord) {
        self.remove(id);
        record.by.into_iter().for_each(|by| *self.by.entry(by).or_default() += 1);
        self.records.insert(id, record);
    }

    fn remove(&mut self, id: ObjectId) {
        let by = self.records.remove(&id).and_then(|record| record.by);
        if let Some(count) = by.and_then(|by| self.by.get_mut(&by)) {
            *count = count.saturating_sub(1);
        }
    }
}

impl Destroyed {
    fn write(&self) -> RwLockWriteGuard<'_, Marks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Marks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the store holds.
    pub fn load(&self, records: BTreeMap<ObjectId, DestroyedRecord>) {
        let mut marks = self.write();
        records.into_iter().for_each(|(id, record)| marks.put(id, record));
    }

    /// A key is destroyed; the store says so.
    pub fn put(&self, id: ObjectId, record: DestroyedRecord) {
        self.write().put(id, record);
    }

    fn record(&self, id: ObjectId) -> Option<DestroyedRecord> {
        self.read().records.get(&id).copied()
    }

    /// What is to be kept of a key of which this node has had nothing, if that is more than it keeps already, on the word
    /// of a client's mandate key. An application that was shown two keys by one name has destroyed whatever goes by it.
    ///
    /// # Errors
    /// `Full`: as many were marked on the word of that key as may be.
    pub fn unseen(
        &self,
        id: ObjectId,
        shown: [u8; 32],
        (client, by): (&str, [u8; 32]),
    ) -> Result<Option<DestroyedRecord>, Error> {
        let marks = self.read();
        match marks.records.get(&id) {
            None => {}
            Some(kept) if kept.was_here() || kept.is_of_hash(&shown) => return Ok(None),
            Some(kept) => return Ok(Some(DestroyedRecord { shown: None, by: kept.by.or(Some(by)) })),
        }
        if marks.by.get(&by).is_some_and(|count| *count >= MOST_OF_ONE) {
            let text = format!(
                "{MOST_OF_ONE} keys of which nothing was ever here are marked as destroyed on the word of client {client}: \
                 look at what it destroys, and at the nodes that it asks; where that is as it should be, admit another \
                 mandate key of the client (`hsmctl client admit`)"
            );
            tracing::error!(key = %id, client, "{text}");
            return Err(Error::caller(FaultCode::Full, text));
        }
        Ok(Some(DestroyedRecord { shown: Some(shown), by: Some(by) }))
    }

    /// Whether something of this key was here and was destroyed.
    pub fn was_here(&self, id: ObjectId) -> bool {
        self.record(id).is_some_and(|record| record.was_here())
    }

    /// Whether administrators may have something come here of the key of this id and public key (`CKA_PUBLIC_KEY_INFO`),
    /// and have to lift a mark for that: one that rests on a client's word alone, since nothing of the key was here.
    ///
    /// # Errors
    /// `Forbidden`: it was here and was destroyed.
    pub fn is_to_be_lifted(&self, id: ObjectId, public: &[u8]) -> Result<bool, Error> {
        match self.record(id) {
            Some(record) if record.was_here() => Err(destroyed(id)),
            record => Ok(record.is_some_and(|record| record.is_of(public))),
        }
    }

    /// The mark is gone from the store.
    fn lift(&self, id: ObjectId) {
        self.write().remove(id);
    }

    /// Whether a new key may have this id.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_new(&self, id: ObjectId) -> Result<(), Error> {
        match self.record(id) {
            None => Ok(()),
            Some(_) => Err(destroyed(id)),
        }
    }

    /// Whether something may come here of the key of this id and public key (`CKA_PUBLIC_KEY_INFO`).
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check(&self, id: ObjectId, public: &[u8]) -> Result<(), Error> {
        match self.record(id) {
            Some(record) if record.is_of(public) => Err(destroyed(id)),
            Some(_) | None => Ok(()),
        }
    }
}

impl<P: Platform> Vault<P> {
    /// Lifts the mark that a key was destroyed of which nothing was here.
    pub(in crate::vault::shared) fn lift_mark(
        &self,
        context: &mut Context<'_>,
        partition: &Partition,
        id: ObjectId,
        (public, order): (&[u8], &str),
    ) -> Result<(), Error> {
        let _turn = partition.object_turn();
        if !partition.shared.destroyed.is_to_be_lifted(id, public)? {
            return Ok(());
        }
        let detail = format!(
            "the mark is lifted that this key was destroyed, of which nothing was here: a client's word, against {order}"
        );
        let detail = std::mem::replace(&mut context.detail, detail);
        let lifted = self.change(context, Change::new().delete(Path::Destroyed(partition.id, id)));
        // What follows has a record of its own.
        (context.detail, context.recorded) = (detail, false);
        lifted?;
        partition.shared.destroyed.lift(id);
        Ok(())
    }
}

fn destroyed(id: ObjectId) -> Error {
    Error::forbidden(format!("key {id} was destroyed at this node, and does not come back"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ObjectId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ObjectId(id)
    }

    #[test]
    fn a_client_has_a_bounded_number_of_keys_marked_that_were_never_here() {
        let (marks, one, other) = (Destroyed::default(), ("desk", [1; 32]), ("till", [2; 32]));
        for number in 0..MOST_OF_ONE {
            marks.put(id(number), marks.unseen(id(number), [9; 32], one).unwrap().unwrap());
        }
        let Err(Error::Caller(FaultCode::Full, text)) = marks.unseen(id(MOST_OF_ONE), [9; 32], one) else {
            panic!("one too many");
        };
        assert!(text.contains("client desk") && text.contains("hsmctl client admit"), "{text}");
        assert_eq!(marks.unseen(id(0), [9; 32], one).unwrap(), None, "it stands already");
        assert!(marks.unseen(id(0), [8; 32], one).unwrap().is_some(), "it takes no more room");
        assert!(marks.unseen(id(MOST_OF_ONE), [9; 32], other).unwrap().is_some(), "nor another's");
        marks.lift(id(0));
        assert!(marks.unseen(id(MOST_OF_ONE), [9; 32], one).unwrap().is_some());
        // What was here takes none of it.
        let was_here = Destroyed::default();
        (0..=MOST_OF_ONE).for_each(|number| was_here.put(id(number), DestroyedRecord::WAS_HERE));
        assert!(was_here.unseen(id(MOST_OF_ONE + 1), [9; 32], one).unwrap().is_some());
    }

    #[test]
    fn whatever_clients_say_of_a_key_that_was_never_here_the_mark_can_be_lifted() {
        let (marks, client, key) = (Destroyed::default(), ("desk", [1; 32]), id(7));
        let public = b"a public key";
        assert!(!marks.is_to_be_lifted(key, public).unwrap());
        marks.put(key, marks.unseen(key, sha256(public), client).unwrap().unwrap());
        assert!(marks.check(key, public).is_err() && marks.check(key, b"another").is_ok());
        assert!(marks.is_to_be_lifted(key, public).unwrap());
        assert!(!marks.is_to_be_lifted(key, b"another").unwrap(), "no mark of that one");
        // Another key was shown by the same name: whatever goes by it.
        marks.put(key, marks.unseen(key, [3; 32], client).unwrap().unwrap());
        assert!(marks.check(key, b"another").is_err());
        assert!(marks.is_to_be_lifted(key, b"another").unwrap() && !marks.was_here(key));
        marks.put(key, DestroyedRecord::WAS_HERE);
        assert!(marks.is_to_be_lifted(key, public).is_err());
        assert_eq!(marks.unseen(key, [4; 32], client).unwrap(), None);
    }

    #[test]
    fn marks_of_before_are_read() {
        for (shown, record) in [
            (None, DestroyedRecord::WAS_HERE),
            (Some([5; 32]), DestroyedRecord { shown: Some([5; 32]), by: None }),
        ] {
            let kept =
                minicbor::to_vec((shown.map(|shown: [u8; 32]| minicbor::bytes::ByteArray::from(shown)),))
                    .unwrap();
            assert_eq!(minicbor::decode::<DestroyedRecord>(&kept).unwrap(), record);
        }
    }
}
