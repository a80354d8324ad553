//! What the store as a whole should be: how many commits, which rows, and what the last commit still has to
//! say.
//!
//! A row's seal proves the row; only the manifest proves that no row is missing, extra or old. It holds a
//! keyed hash of the set of (path, version), which a commit updates by the rows that it touches. Beside it
//! stands the plain XOR of the same pairs: where exactly one row differs, that names it.

use aws_lc_rs::hmac;
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::{
    error::{Error, Tampering},
    path::Name,
    seal::Key,
};

/// A row's version and its path, padded.
const TRACE: usize = 8 + Name::LONGEST;

/// The content of the manifest row.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Manifest {
    /// How many commits there have been.
    #[n(0)]
    pub version: u64,
    /// The rows, but for the manifest.
    #[n(1)]
    pub rows: RowSet,
    /// What the last commit's caller still has to say elsewhere.
    #[n(2)]
    pub outbox: Option<ByteVec>,
}

/// A set of rows, in constant space.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RowSet {
    #[n(0)]
    count: u64,
    #[cbor(n(1), with = "minicbor::bytes")]
    digest: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    trace: [u8; TRACE],
}

impl Default for RowSet {
    fn default() -> Self {
        Self { count: 0, digest: [0; 32], trace: [0; TRACE] }
    }
}

/// The key of [`RowSet`]'s hash.
pub(super) struct SetKey(hmac::Key);

impl SetKey {
    pub(super) fn new(key: &Key) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }
}

fn xor(into: &mut [u8], bytes: &[u8]) {
    into.iter_mut().zip(bytes).for_each(|(a, b)| *a ^= b);
}

impl RowSet {
    /// Adds a row that is not in the set.
    pub(super) fn add(&mut self, key: &SetKey, name: Name, version: u64) {
        self.toggle(key, name, version);
        self.count = self.count.wrapping_add(1);
    }

    /// Removes a row that is in the set.
    pub(super) fn remove(&mut self, key: &SetKey, name: Name, version: u64) {
        self.toggle(key, name, version);
        self.count = self.count.wrapping_sub(1);
    }

    fn toggle(&mut self, key: &SetKey, name: Name, version: u64) {
        let mut entry = [0; TRACE];
        let (number, path) = entry.split_at_mut(8);
        number.copy_from_slice(&version.to_be_bytes());
        xor(path, name.to_string().as_bytes());
        xor(&mut self.digest, hmac::sign(&key.0, &entry).as_ref());
        xor(&mut self.trace, &entry);
    }

    /// Says what was done to the rows, if `self` is what they should be and `found` what they are.
    pub(super) fn compare(
        &self,
        key: &SetKey,
        found: &Self,
        rows: impl Iterator<Item = (Name, u64)>,
    ) -> Result<(), Error> {
        if self == found {
            return Ok(());
        }
        let mut change = found.clone();
        xor(&mut change.digest, &self.digest);
        xor(&mut change.trace, &self.trace);
        let single = |name, version| {
            let mut one = Self::default();
            one.toggle(key, name, version);
            one.digest == change.digest
        };
        let versions = change.trace.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        match change.name() {
            Some(name) if self.count == found.count.wrapping_add(1) && single(name, versions) => {
                return Err(Error::tampered(name, Tampering::Deleted));
            }
            Some(name) if found.count == self.count.wrapping_add(1) && single(name, versions) => {
                return Err(Error::tampered(name, Tampering::Returned));
            }
            Some(_) | None => {}
        }
        for (name, version) in rows {
            let expected = version ^ versions;
            let mut both = Self::default();
            both.toggle(key, name, version);
            both.toggle(key, name, expected);
            if self.count == found.count && both.digest == change.digest {
                return Err(Error::tampered(name, Tampering::RolledBack { found: version, expected }));
            }
        }
        let what = Tampering::Rows { found: found.count, expected: self.count };
        Err(Error::tampered(Name::Manifest, what))
    }

    /// The one path in the trace, if it is one.
    fn name(&self) -> Option<Name> {
        let (_, path) = self.trace.split_at_checked(8)?;
        let text = std::str::from_utf8(path).ok()?;
        Name::parse(text.trim_end_matches('\0'))
    }
}
