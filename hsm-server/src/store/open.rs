//! Opening a store: every row is read, opened and counted, and whatever is wrong gets its name.

use std::collections::BTreeMap;

use strongroom_shared::secret::{Secret, Wiped};

use super::{
    Row,
    error::{Error, Tampering},
    manifest::{Manifest, RowSet},
    path::{Name, PartitionId},
    seal::{self, Key},
    sealed::{Keys, Record, State},
};

type Rows = BTreeMap<Name, Row>;

/// Opens all rows and proves that they are the ones that the last commit left.
pub(super) fn open(keys: &Keys, rows: Vec<Row>) -> Result<(State, Vec<Record>), Error> {
    if rows.is_empty() {
        return Err(Error::Empty);
    }
    let mut rows = by_name(rows)?;
    let manifest = open_manifest(keys, &mut rows)?;
    let opener = Opener { keys, partitions: open_partitions(keys, &rows)?, rows: &rows };
    let mut records = Vec::with_capacity(rows.len());
    for (name, row) in &rows {
        let plaintext = opener.open(*name, row)?;
        if let Name::Record(path) = name {
            records.push((*path, plaintext));
        }
    }
    let partitions = opener.partitions;
    let rows: BTreeMap<Name, u64> = rows.iter().map(|(name, row)| (*name, row.version)).collect();
    prove_whole(keys, &manifest, &rows)?;
    Ok((State { manifest, rows, partitions }, records))
}

fn by_name(rows: Vec<Row>) -> Result<Rows, Error> {
    let mut named = Rows::new();
    for row in rows {
        let Some(name) = Name::parse(&row.path) else {
            return Err(Error::tampered(row.path, Tampering::Unknown));
        };
        if let Some(twin) = named.insert(name, row) {
            return Err(Error::tampered(twin.path, Tampering::Unknown));
        }
    }
    Ok(named)
}

/// Takes the manifest out of the rows and opens it. If it does not open, another row tells whether the key is
/// at fault.
fn open_manifest(keys: &Keys, rows: &mut Rows) -> Result<Manifest, Error> {
    let opens =
        |(name, row): (&Name, &Row)| seal::open(&keys.store, *name, row.version, &row.sealed).is_some();
    let Some(row) = rows.remove(&Name::Manifest) else {
        return Err(Error::tampered(Name::Manifest, Tampering::Deleted));
    };
    let Some(plaintext) = seal::open(&keys.store, Name::Manifest, row.version, &row.sealed) else {
        return Err(if rows.iter().any(opens) {
            Error::tampered(Name::Manifest, what_it_holds(&row, rows, |_| Some(&keys.store)))
        } else {
            Error::WrongRootKey
        });
    };
    let manifest: Option<Manifest> = minicbor::decode(&plaintext).ok();
    manifest
        .filter(|manifest| manifest.version == row.version)
        .ok_or_else(|| Error::tampered(Name::Manifest, Tampering::Malformed))
}

fn open_partitions(keys: &Keys, rows: &Rows) -> Result<BTreeMap<PartitionId, Key>, Error> {
    let mut partitions = BTreeMap::new();
    for (name, row) in rows {
        let Name::Key(id) = name else { continue };
        let Some(key) = seal::open(&keys.store, *name, row.version, &row.sealed) else {
            let what = what_it_holds(row, rows, |other| matches!(other, Name::Key(_)).then_some(&keys.store));
            return Err(Error::tampered(name, what));
        };
        let Ok(key) = key.as_slice().try_into() else {
            return Err(Error::tampered(name, Tampering::Malformed));
        };
        partitions.insert(*id, Secret::new(key));
    }
    Ok(partitions)
}

/// Finds the row whose content `row` holds: with the version that the other row has, or that came along.
fn what_it_holds<'k>(row: &Row, rows: &Rows, key: impl Fn(&Name) -> Option<&'k Key>) -> Tampering {
    let belongs = |(name, other): &(&Name, &Row)| {
        let opens = |key, version| seal::open(key, **name, version, &row.sealed).is_some();
        key(name).is_some_and(|key| opens(key, other.version) || opens(key, row.version))
    };
    match rows.iter().find(belongs) {
        Some((owner, _)) => Tampering::Belongs { to: owner.to_string() },
        None => Tampering::Edited,
    }
}

/// Everything that is needed to open a row.
struct Opener<'a> {
    keys: &'a Keys,
    partitions: BTreeMap<PartitionId, Key>,
    rows: &'a Rows,
}

impl Opener<'_> {
    fn open(&self, name: Name, row: &Row) -> Result<Wiped, Error> {
        let Some(key) = self.key(&name) else {
            let orphan = name.partition().map_or(name, Name::Key);
            return Err(Error::tampered(orphan, Tampering::Deleted));
        };
        seal::open(key, name, row.version, &row.sealed)
            .ok_or_else(|| Error::tampered(name, what_it_holds(row, self.rows, |other| self.key(other))))
    }

    fn key(&self, name: &Name) -> Option<&Key> {
        match name {
            Name::Manifest | Name::Witness | Name::Key(_) => Some(&self.keys.store),
            Name::Record(path) => match path.partition() {
                Some(id) => self.partitions.get(&id),
                None => Some(&self.keys.store),
            },
        }
    }
}

/// Compares the rows, which are each genuine, with what the manifest says of them all.
fn prove_whole(keys: &Keys, manifest: &Manifest, rows: &BTreeMap<Name, u64>) -> Result<(), Error> {
    let found = manifest.version;
    if let Some((name, version)) = rows.iter().max_by_key(|(_, version)| **version)
        && *version > found
    {
        let what = Tampering::Behind { found, row: name.to_string(), version: *version };
        return Err(Error::tampered(Name::Manifest, what));
    }
    let mut set = RowSet::default();
    rows.iter().for_each(|(name, version)| set.add(&keys.set, *name, *version));
    manifest.rows.compare(&keys.set, &set, rows.iter().map(|(name, version)| (*name, *version)))
}
