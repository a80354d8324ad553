//! The only place that turns a record into bytes for the disk.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use minicbor::bytes::ByteVec;
use strongroom_shared::secret::{Secret, Wiped};

use super::{
    Row, Store,
    draft::{Change, Draft},
    error::Error,
    manifest::{Manifest, RowSet, SetKey},
    open,
    path::{Name, PartitionId, Path},
    seal::{self, Key},
};

/// Fills a buffer with random bytes.
pub type Random = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// A record in plaintext and where it stands.
pub type Record = (Path, Wiped);

/// Changes that are made together or not at all, in this order.
#[derive(Default)]
pub struct Batch {
    pub(super) steps: Vec<Step>,
}

pub(super) enum Step {
    Put(Path, Wiped),
    Delete(Path),
    DeleteIfThere(Path),
    CreatePartition(PartitionId),
    DeletePartition(PartitionId),
}

impl Batch {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, in the place of the one that is there.
    pub fn put(&mut self, path: Path, plaintext: Wiped) -> &mut Self {
        self.steps.push(Step::Put(path, plaintext));
        self
    }

    /// Deletes a record.
    pub fn delete(&mut self, path: Path) -> &mut Self {
        self.steps.push(Step::Delete(path));
        self
    }

    /// Deletes a record, or does nothing if there is none.
    pub fn delete_if_there(&mut self, path: Path) -> &mut Self {
        self.steps.push(Step::DeleteIfThere(path));
        self
    }

    /// Makes a partition's key; before that, no record of the partition can be written.
    pub fn create_partition(&mut self, id: PartitionId) -> &mut Self {
        self.steps.push(Step::CreatePartition(id));
        self
    }

    /// Deletes a partition's key and all of its records: no copy of them opens any more. It may be created
    /// again.
    pub fn delete_partition(&mut self, id: PartitionId) -> &mut Self {
        self.steps.push(Step::DeletePartition(id));
        self
    }
}

/// Paths only: contents are secret.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.steps).finish()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(path, plaintext) => write!(f, "put {path} ({} bytes)", plaintext.len()),
            Self::Delete(path) => write!(f, "delete {path}"),
            Self::DeleteIfThere(path) => write!(f, "delete {path}, if it is there"),
            Self::CreatePartition(id) => write!(f, "create partition {id}"),
            Self::DeletePartition(id) => write!(f, "delete partition {id}"),
        }
    }
}

/// The keys that seal a store.
pub(super) struct Keys {
    root: Key,
    /// Seals every row that is not a partition's.
    pub store: Key,
    /// Hashes the set of rows.
    pub set: SetKey,
}

impl Keys {
    pub(super) fn new(root: Key) -> Self {
        let set = SetKey::new(&derive(&root, "row set"));
        Self { store: derive(&root, "store"), set, root }
    }
}

/// The root key's subkey of this label.
fn derive(root: &Key, label: &str) -> Key {
    seal::derive(root, &[b"strongroom 1 ", label.as_bytes()])
}

/// What is known of the rows on disk.
pub(super) struct State {
    pub manifest: Manifest,
    /// The version of every row but the manifest.
    pub rows: BTreeMap<Name, u64>,
    pub partitions: BTreeMap<PartitionId, Key>,
}

/// A [`Store`] whose rows are sealed, and whose set of rows is proved.
pub struct SealedStore<S> {
    store: S,
    keys: Keys,
    random: Random,
    state: Mutex<State>,
    /// Why what is on disk is no longer known.
    unsure: OnceLock<String>,
}

impl<S> fmt::Debug for SealedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedStore")
    }
}

impl<S: Store> SealedStore<S> {
    /// Makes a new store where there are no rows yet. Its version is 0.
    ///
    /// # Errors
    /// `AlreadyExists` if there are rows; what `Store::commit` says.
    pub fn create(store: S, root_key: Secret<[u8; 32]>, random: Random) -> Result<Self, Error> {
        if !store.load()?.is_empty() {
            return Err(Error::AlreadyExists);
        }
        let keys = Keys::new(root_key);
        let mut rows = RowSet::default();
        rows.add(&keys.set, Name::Witness, 0);
        let state = State {
            manifest: Manifest { version: 0, rows, outbox: None },
            rows: BTreeMap::from([(Name::Witness, 0)]),
            partitions: BTreeMap::new(),
        };
        let this = Self { store, keys, random, state: Mutex::new(state), unsure: OnceLock::new() };
        let witness = this.seal(&this.keys.store, Name::Witness, 0, b"strongroom")?;
        let manifest = this.seal_manifest(&this.lock().manifest)?;
        this.store.commit(&[witness, manifest], &[])?;
        Ok(this)
    }

    /// Opens a store, proves it whole, and gives out every record in it, in the order of their paths.
    ///
    /// # Errors
    /// `Empty`, `WrongRootKey`, `Tampered`; what `Store::load` says.
    pub fn open(store: S, root_key: Secret<[u8; 32]>, random: Random) -> Result<(Self, Vec<Record>), Error> {
        let keys = Keys::new(root_key);
        let (state, records) = open::open(&keys, store.load()?)?;
        Ok((Self { store, keys, random, state: Mutex::new(state), unsure: OnceLock::new() }, records))
    }

    /// Makes the changes of `batch` durable in one transaction and returns the store's new version. `outbox`
    /// is kept with them until the next commit: what must be said elsewhere about this one.
    ///
    /// # Errors
    /// `Absent`, `NoPartition`, `PartitionExists` if the batch does not fit, `Full`: nothing was changed. Any
    /// other error: the change may come to light after a restart, and until then every commit is refused with
    /// `Unsure`.
    pub fn commit(&self, batch: Batch, outbox: &[u8]) -> Result<u64, Error> {
        let mut state = self.lock();
        self.check()?;
        let draft = Draft::new(&state, batch, &self.random)?;
        let manifest = self.next_manifest(&state, &draft, outbox);
        let (puts, deletes) = self.seal_changes(&state, &draft, &manifest)?;
        if let Err(error) = self.store.commit(&puts, &deletes) {
            if !matches!(error, Error::Full { .. }) {
                self.unsure.get_or_init(|| error.to_string());
            }
            return Err(error);
        }
        let version = manifest.version;
        state.apply(draft, manifest);
        Ok(version)
    }

    /// Whether commits can still be made.
    ///
    /// # Errors
    /// `Unsure`: not before the store was opened anew.
    pub fn check(&self) -> Result<(), Error> {
        match self.unsure.get() {
            None => Ok(()),
            Some(reason) => Err(Error::Unsure { reason: reason.clone() }),
        }
    }

    /// The version of the last commit that left an outbox, if it is the last of all, and the outbox.
    pub fn pending(&self) -> Option<(u64, Vec<u8>)> {
        let state = self.lock();
        state.manifest.outbox.as_ref().map(|outbox| (state.manifest.version, outbox.to_vec()))
    }

    /// How many commits there have been.
    pub fn version(&self) -> u64 {
        self.lock().manifest.version
    }

    /// A key for another purpose, derived from the root key.
    pub fn subkey(&self, label: &str) -> Secret<[u8; 32]> {
        derive(&self.keys.root, &format!("for {label}"))
    }

    fn next_manifest(&self, state: &State, draft: &Draft, outbox: &[u8]) -> Manifest {
        let version = state.manifest.version.saturating_add(1);
        let mut rows = state.manifest.rows.clone();
        for (name, change) in &draft.rows {
            if let Some(old) = state.rows.get(name) {
                rows.remove(&self.keys.set, *name, *old);
            }
            match change {
                Change::Put(_) => rows.add(&self.keys.set, *name, version),
                Change::Delete => {}
            }
        }
        let outbox = (!outbox.is_empty()).then(|| ByteVec::from(outbox.to_vec()));
        Manifest { version, rows, outbox }
    }

    /// The rows to write and the paths to delete.
    fn seal_changes(
        &self,
        state: &State,
        draft: &Draft,
        manifest: &Manifest,
    ) -> Result<(Vec<Row>, Vec<String>), Error> {
        let (mut puts, mut deletes) = (Vec::with_capacity(draft.rows.len() + 1), Vec::new());
        for (name, change) in &draft.rows {
            match change {
                Change::Put(plaintext) => {
                    let key = self.key(state, draft, *name)?;
                    puts.push(self.seal(key, *name, manifest.version, plaintext)?);
                }
                Change::Delete => deletes.push(name.to_string()),
            }
        }
        puts.push(self.seal_manifest(manifest)?);
        Ok((puts, deletes))
    }

    /// The key that is to seal a row.
    fn key<'a>(&'a self, state: &'a State, draft: &'a Draft, name: Name) -> Result<&'a Key, Error> {
        match name {
            Name::Record(path) => match path.partition() {
                Some(id) => draft.key(state, id).ok_or(Error::NoPartition(id)),
                None => Ok(&self.keys.store),
            },
            Name::Manifest | Name::Witness | Name::Key(_) => Ok(&self.keys.store),
        }
    }

    fn seal_manifest(&self, manifest: &Manifest) -> Result<Row, Error> {
        let mut plaintext = Vec::new();
        minicbor::encode(manifest, &mut plaintext).map_err(|_| Error::TooLong)?;
        self.seal(&self.keys.store, Name::Manifest, manifest.version, &plaintext)
    }

    fn seal(&self, key: &Key, name: Name, version: u64, plaintext: &[u8]) -> Result<Row, Error> {
        let sealed = seal::seal(key, name, version, plaintext, &self.random).ok_or(Error::TooLong)?;
        Ok(Row { path: name.to_string(), version, sealed })
    }

    /// A thread that panicked here has changed nothing: the state is applied whole, after the disk.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The draft is on disk.
    fn apply(&mut self, draft: Draft, manifest: Manifest) {
        for (name, change) in draft.rows {
            match change {
                Change::Put(_) => self.rows.insert(name, manifest.version),
                Change::Delete => self.rows.remove(&name),
            };
        }
        for (id, key) in draft.keys {
            match key {
                Some(key) => self.partitions.insert(id, key),
                None => self.partitions.remove(&id),
            };
        }
        self.manifest = manifest;
    }
}
