//! The sealed store: what was committed comes back, and whatever was done to the file in between gets its
//! name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod tampering;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path as File, PathBuf},
};

use rusqlite::Connection;
use strongroom_server::store::{
    Batch, Error, PartitionId, Path, Random, Record, SealedStore, Store, Tampering,
    memory::{Disk, Memory},
    sqlite::Sqlite,
};
use strongroom_shared::{
    object::ObjectId,
    secret::{Secret, Wiped},
};
use tempfile::TempDir;

const ALICE: PartitionId = PartitionId([0xa1; 8]);
const BOB: PartitionId = PartitionId([0xb0; 8]);
const LABEL: &[u8] = b"treasury hot wallet label";
/// Long enough to stand in no random bytes.
const PARTITION: &[u8] = b"the partition of alice";
const SECOND: &[u8] = b"the second of three objects";

fn random() -> Random {
    Box::new(|bytes| getrandom::fill(bytes).unwrap())
}

fn key(byte: u8) -> Secret<[u8; 32]> {
    Secret::new([byte; 32])
}

fn object(partition: PartitionId, number: u8) -> Path {
    Path::Object(partition, ObjectId([number; 16]))
}

fn text(bytes: &[u8]) -> Wiped {
    bytes.into()
}

/// Five commits: two partitions, three objects, one of them written twice.
fn fill<S: Store>(store: &SealedStore<S>) {
    let mut batch = Batch::new();
    batch.put(Path::Authority, text(b"authority"));
    batch.create_partition(ALICE).put(Path::Partition(ALICE), text(PARTITION));
    batch.create_partition(BOB).put(Path::Partition(BOB), text(b"bob"));
    assert_eq!(store.commit(batch, b"one").unwrap(), 1);
    put(store, object(ALICE, 1), LABEL);
    put(store, object(ALICE, 2), SECOND);
    put(store, object(BOB, 3), b"third");
    put(store, object(ALICE, 1), LABEL);
}

fn put<S: Store>(store: &SealedStore<S>, path: Path, bytes: &[u8]) -> u64 {
    let mut batch = Batch::new();
    batch.put(path, text(bytes));
    store.commit(batch, &[]).unwrap()
}

fn delete<S: Store>(store: &SealedStore<S>, path: Path) {
    let mut batch = Batch::new();
    batch.delete(path);
    store.commit(batch, &[]).unwrap();
}

fn contents() -> Vec<(Path, Vec<u8>)> {
    let mut all = vec![
        (Path::Authority, b"authority".to_vec()),
        (Path::Partition(ALICE), PARTITION.to_vec()),
        (Path::Partition(BOB), b"bob".to_vec()),
        (object(ALICE, 1), LABEL.to_vec()),
        (object(ALICE, 2), SECOND.to_vec()),
        (object(BOB, 3), b"third".to_vec()),
    ];
    all.sort();
    all
}

fn plain(records: Vec<Record>) -> Vec<(Path, Vec<u8>)> {
    records.into_iter().map(|(path, bytes)| (path, bytes.to_vec())).collect()
}

struct Files {
    _folder: TempDir,
    file: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        Self { _folder: folder, file }
    }

    /// With [`fill`]'s commits.
    fn filled() -> Self {
        let disk = Self::new();
        fill(&SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random()).unwrap());
        disk
    }

    fn open(&self) -> Result<(SealedStore<Sqlite>, Vec<Record>), Error> {
        SealedStore::open(Sqlite::open(&self.file)?, key(1), random())
    }

    fn sql(&self, statements: &str) {
        Connection::open(&self.file).unwrap().execute_batch(statements).unwrap();
    }

    /// What opening says now.
    fn verdict(&self) -> (String, Tampering) {
        match self.open().map(|_| ()) {
            Err(Error::Tampered { path, what }) => (path, what),
            other => panic!("not found: {other:?}"),
        }
    }
}

fn p(path: Path) -> String {
    path.to_string()
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let disk = Files::filled();
    for _ in 0..2 {
        let (store, records) = disk.open().unwrap();
        assert_eq!(plain(records), contents());
        assert_eq!(store.version(), 5);
        assert_eq!(store.pending(), None);
    }
    let (store, _) = disk.open().unwrap();
    delete(&store, object(ALICE, 2));
    assert_eq!(put(&store, Path::Client([9; 32]), b"new"), 7);
    drop(store);
    let (_, records) = disk.open().unwrap();
    let paths: Vec<Path> = records.iter().map(|(path, _)| *path).collect();
    assert!(paths.contains(&Path::Client([9; 32])) && !paths.contains(&object(ALICE, 2)));
}

#[test]
fn the_outbox_goes_with_its_commit_and_no_other() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    assert_eq!((store.version(), store.pending()), (0, None));
    assert_eq!(store.commit(Batch::new(), b"first").unwrap(), 1);
    let mut batch = Batch::new();
    batch.put(Path::Client([9; 32]), text(b"x"));
    assert_eq!(store.commit(batch, b"second").unwrap(), 2);
    assert_eq!(store.pending(), Some((2, b"second".to_vec())));
    let (store, _) = SealedStore::open(memory.clone(), key(1), random()).unwrap();
    assert_eq!(store.pending(), Some((2, b"second".to_vec())));
    store.commit(Batch::new(), &[]).unwrap();
    let (store, _) = SealedStore::open(memory, key(1), random()).unwrap();
    assert_eq!((store.version(), store.pending()), (3, None));
}

#[test]
fn subkeys_differ_by_label_and_root_and_last() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    let other = SealedStore::create(Memory::default(), key(2), random()).unwrap();
    assert_ne!(store.subkey("audit chain").expose(), store.subkey("ticket").expose());
    assert_ne!(store.subkey("audit chain").expose(), other.subkey("audit chain").expose());
    let (again, _) = SealedStore::open(memory, key(1), random()).unwrap();
    assert_eq!(store.subkey("ticket").expose(), again.subkey("ticket").expose());
}

#[test]
fn a_batch_that_does_not_fit_changes_nothing() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let refused = |build: fn(&mut Batch) -> &mut Batch| {
        let mut batch = Batch::new();
        build(batch.put(Path::Client([9; 32]), text(b"goes with it")));
        store.commit(batch, b"no").unwrap_err()
    };
    const CAROL: PartitionId = PartitionId([0xca; 8]);
    assert!(matches!(refused(|b| b.put(object(CAROL, 1), text(b"x"))), Error::NoPartition(CAROL)));
    assert!(matches!(refused(|b| b.delete(object(CAROL, 1))), Error::NoPartition(CAROL)));
    assert!(matches!(refused(|b| b.delete_partition(CAROL)), Error::NoPartition(CAROL)));
    assert!(matches!(refused(|b| b.create_partition(ALICE)), Error::PartitionExists(ALICE)));
    assert!(matches!(refused(|b| b.delete(object(ALICE, 9))), Error::Absent(_)));
    assert!(matches!(refused(|b| b.delete_if_there(object(CAROL, 1))), Error::NoPartition(CAROL)));
    assert!(matches!(
        refused(|b| b.delete(Path::Client([9; 32])).delete(Path::Client([9; 32]))),
        Error::Absent(_)
    ));
    let after_the_end = refused(|b| b.delete_partition(ALICE).put(object(ALICE, 1), text(b"x")));
    assert!(matches!(after_the_end, Error::NoPartition(ALICE)));
    assert_eq!(store.version(), 5);
    assert_eq!(plain(SealedStore::open(memory, key(1), random()).unwrap().1), contents());
}

#[test]
fn a_record_that_may_be_there_is_gone_in_either_case() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let mut batch = Batch::new();
    batch
        .delete_if_there(object(ALICE, 1))
        .delete_if_there(object(ALICE, 1))
        .delete_if_there(object(ALICE, 9));
    batch.put(object(ALICE, 8), text(b"drafted")).delete_if_there(object(ALICE, 8));
    store.commit(batch, &[]).unwrap();
    let left = contents().into_iter().filter(|(path, _)| *path != object(ALICE, 1));
    assert_eq!(plain(SealedStore::open(memory, key(1), random()).unwrap().1), left.collect::<Vec<_>>());
}

#[test]
fn nothing_readable_is_on_disk_and_the_file_is_private() {
    let disk = Files::new();
    let store = SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random()).unwrap();
    fill(&store);
    let log = disk.file.with_file_name("store.db-wal");
    for file in [&disk.file, &log] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let holds =
        |file: &File, text: &[u8]| fs::read(file).unwrap().windows(text.len()).any(|part| part == text);
    let path = p(object(ALICE, 1));
    assert!(holds(&log, path.as_bytes()), "the search finds what is there");
    for secret in [LABEL, PARTITION, SECOND, &[1; 32]] {
        assert!(!holds(&disk.file, secret) && !holds(&log, secret), "{secret:?}");
    }
    drop(store);
    assert!(holds(&disk.file, path.as_bytes()) && !holds(&disk.file, LABEL));
}

#[test]
fn a_deleted_row_leaves_nothing_on_disk() {
    let disk = Files::new();
    let store = SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random()).unwrap();
    fill(&store);
    let sealed = {
        // A copy, because opening the file itself is refused.
        let copy = disk.file.with_file_name("copy.db");
        fs::copy(&disk.file, &copy).unwrap();
        fs::copy(disk.file.with_file_name("store.db-wal"), disk.file.with_file_name("copy.db-wal")).unwrap();
        let path = p(object(ALICE, 2));
        let query = "SELECT sealed FROM rows WHERE path = ?1";
        Connection::open(&copy).unwrap().query_row(query, [path], |row| row.get::<_, Vec<u8>>(0)).unwrap()
    };
    let on_disk = || {
        ["store.db", "store.db-wal"].iter().any(|name| {
            let bytes = fs::read(disk.file.with_file_name(name)).unwrap_or_default();
            bytes.windows(sealed.len()).any(|part| part == sealed)
        })
    };
    assert!(on_disk());
    delete(&store, object(ALICE, 2));
    assert!(!on_disk());
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let disk = Files::filled();
    let first = disk.open().unwrap();
    let error = disk.open().unwrap_err();
    assert!(matches!(&error, Error::InUse { file } if *file == disk.file), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    assert!(disk.open().is_ok());
}

#[test]
fn a_second_process_is_refused_too() {
    let disk = Files::filled();
    let opener = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "opens_the_file_it_is_told", "--nocapture"]).env("STORE_FILE", &disk.file);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let first = disk.open().unwrap();
    assert!(opener().contains("verdict: InUse"));
    drop(first);
    assert!(opener().contains("verdict: Sqlite"));
}

/// The second process of the test above.
#[test]
#[allow(clippy::print_stdout)]
fn opens_the_file_it_is_told() {
    if let Some(file) = std::env::var_os("STORE_FILE") {
        match Sqlite::open(File::new(&file)) {
            Ok(store) => println!("verdict: {store:?}"),
            Err(error) => println!("verdict: {error:?}"),
        }
    }
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let disk = Files::new();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Missing { .. })));
    disk.sql("CREATE TABLE theirs (x)");
    fs::set_permissions(&disk.file, fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::read(&disk.file).unwrap();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Foreign { .. })));
    assert!(matches!(Sqlite::create(&disk.file), Err(Error::Foreign { .. })));
    fs::write(&disk.file, [b'x'; 5000]).unwrap();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Foreign { .. })));
    fs::write(&disk.file, &before).unwrap();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Foreign { .. })));
    assert_eq!(fs::read(&disk.file).unwrap(), before);
}

#[test]
fn another_version_mode_or_schema_is_refused() {
    let disk = Files::filled();
    disk.sql("PRAGMA user_version = 2");
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Schema { found: 2, known: 1, .. })));
    disk.sql("PRAGMA user_version = 1");
    fs::set_permissions(&disk.file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Exposed { mode: 0o644, .. })));
    fs::set_permissions(&disk.file, fs::Permissions::from_mode(0o600)).unwrap();
    disk.sql("CREATE TRIGGER back AFTER DELETE ON rows BEGIN SELECT 1; END");
    let error = Sqlite::open(&disk.file).unwrap_err();
    assert!(matches!(&error, Error::Damaged { what, .. } if what.contains("TRIGGER back")), "{error}");
}

#[test]
fn a_broken_file_is_reported_as_damaged() {
    let disk = Files::filled();
    let mut bytes = fs::read(&disk.file).unwrap();
    let second_page = bytes.len() - 4096;
    bytes[second_page..second_page + 8].fill(0xff);
    fs::write(&disk.file, bytes).unwrap();
    assert!(matches!(Sqlite::open(&disk.file), Err(Error::Damaged { .. })));
}

#[test]
fn a_store_is_not_made_over_another_and_an_empty_one_is_not_opened() {
    let disk = Files::filled();
    let again = SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random());
    assert!(matches!(again, Err(Error::AlreadyExists)));
    drop(again);
    disk.sql("DELETE FROM rows");
    assert!(matches!(disk.open(), Err(Error::Empty)));
}

#[test]
fn deleting_a_partition_shreds_its_rows() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let backup = memory.copy();
    let mut batch = Batch::new();
    batch.delete_partition(ALICE);
    store.commit(batch, &[]).unwrap();
    let (_, records) = SealedStore::open(memory.clone(), key(1), random()).unwrap();
    assert!(records.iter().all(|(path, _)| path.partition() != Some(ALICE)));
    assert_eq!(records.len(), 3);
    // The same root key, and every row from a backup but the partition's key: they do not open.
    backup.steal(&format!("partition/{ALICE}/key")).unwrap();
    let error = SealedStore::open(backup, key(1), random()).unwrap_err();
    assert!(matches!(&error, Error::Tampered { path, what: Tampering::Deleted } if path.ends_with("/key")));
}

#[test]
fn a_partition_made_again_has_another_key() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let old = memory.row(&p(object(ALICE, 1))).unwrap();
    let mut batch = Batch::new();
    batch.put(Path::Roles(ALICE), text(b"dropped with the partition"));
    batch.delete_partition(ALICE).create_partition(ALICE).put(Path::Partition(ALICE), text(b"again"));
    store.commit(batch, &[]).unwrap();
    let (_, records) = SealedStore::open(memory.clone(), key(1), random()).unwrap();
    let of_alice: Vec<_> =
        plain(records).into_iter().filter(|(path, _)| path.partition() == Some(ALICE)).collect();
    assert_eq!(of_alice, [(Path::Partition(ALICE), b"again".to_vec())]);
    memory.tamper(old.clone());
    let error = SealedStore::open(memory, key(1), random()).unwrap_err();
    assert!(
        matches!(&error, Error::Tampered { path, what: Tampering::Edited } if *path == old.path),
        "under the old key it would read `Returned`: {error}"
    );
}

#[test]
fn a_full_disk_refuses_and_recovers_and_a_failing_one_refuses_until_restart() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    let attempt = |bytes: &[u8]| {
        let mut batch = Batch::new();
        batch.put(Path::Client([9; 32]), text(bytes));
        store.commit(batch, b"outbox")
    };
    memory.set_disk(Disk::Full);
    assert!(matches!(attempt(b"a"), Err(Error::Full { .. })));
    assert_eq!((store.version(), store.pending()), (0, None));
    memory.set_disk(Disk::Good);
    assert_eq!(attempt(b"b").unwrap(), 1);
    memory.set_disk(Disk::Failing);
    assert!(matches!(attempt(b"c"), Err(Error::Io { .. })));
    memory.set_disk(Disk::Good);
    assert!(matches!(attempt(b"d"), Err(Error::Unsure { .. })));
    assert_eq!(store.version(), 1);
    let (store, records) = SealedStore::open(memory, key(1), random()).unwrap();
    assert_eq!(plain(records), [(Path::Client([9; 32]), b"c".to_vec())]);
    assert_eq!(store.pending(), Some((2, b"outbox".to_vec())));
}

#[test]
fn a_copy_of_the_files_at_any_commit_opens_as_after_kill_9() {
    let disk = Files::new();
    let store = SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random()).unwrap();
    fill(&store);
    for round in 0..20u8 {
        put(&store, object(ALICE, round), &[round; 900]);
        let copy = Files::new();
        fs::copy(&disk.file, &copy.file).unwrap();
        fs::copy(disk.file.with_file_name("store.db-wal"), copy.file.with_file_name("store.db-wal")).unwrap();
        let (copied, records) = copy.open().unwrap();
        assert_eq!(copied.version(), store.version());
        let found = records.iter().find(|(path, _)| *path == object(ALICE, round)).unwrap();
        assert_eq!(*found.1, vec![round; 900]);
    }
}

#[test]
fn a_process_that_was_killed_loses_no_committed_row() {
    let disk = Files::new();
    drop(SealedStore::create(Sqlite::create(&disk.file).unwrap(), key(1), random()).unwrap());
    let mut last = 0;
    for commits in [5, 20, 45] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "commits_until_it_is_killed", "--nocapture"])
            .env("STORE_TO_FILL", &disk.file)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut committed = 0;
        for (seen, line) in
            lines.map_while(Result::ok).filter(|line| line.starts_with("committed ")).enumerate()
        {
            committed = line["committed ".len()..].parse().unwrap();
            if seen == commits {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (store, records) = disk.open().unwrap();
        assert!(committed > last && (committed..=committed + 1).contains(&store.version()));
        assert_eq!(store.pending().unwrap(), (store.version(), store.version().to_be_bytes().to_vec()));
        let written = records.iter().filter(|(path, _)| matches!(path, Path::Object(..))).count() as u64;
        assert_eq!(written, store.version() - 1);
        last = store.version();
    }
}

/// The process of the test above.
#[test]
#[allow(clippy::print_stdout)]
fn commits_until_it_is_killed() {
    let Some(file) = std::env::var_os("STORE_TO_FILL") else { return };
    let store = Sqlite::open(File::new(&file)).unwrap();
    let (store, records) = SealedStore::open(store, key(1), random()).unwrap();
    println!();
    for version in store.version() + 1..1_000_000u64 {
        let mut batch = Batch::new();
        if records.is_empty() && version == 1 {
            batch.create_partition(ALICE).put(Path::Partition(ALICE), text(b"alice"));
        } else {
            let id = ObjectId(u128::from(version).to_be_bytes());
            batch.put(Path::Object(ALICE, id), text(&[7; 700]));
        }
        assert_eq!(store.commit(batch, &version.to_be_bytes()).unwrap(), version);
        println!("committed {version}");
    }
}
