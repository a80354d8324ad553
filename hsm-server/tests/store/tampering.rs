//! Whatever somebody did to the rows is found and named.

use super::*;

#[test]
fn a_wrong_root_key_is_told_from_tampering() {
    let disk = Files::filled();
    let opened = SealedStore::open(Sqlite::open(&disk.file).unwrap(), key(2), random());
    assert!(matches!(opened, Err(Error::WrongRootKey)));
    drop(opened);
    disk.sql("UPDATE rows SET sealed = zeroblob(length(sealed)) WHERE path = 'manifest'");
    assert_eq!(disk.verdict(), ("manifest".into(), Tampering::Edited));
}

#[test]
fn two_rows_swapped_are_found() {
    let disk = Files::filled();
    let (one, two) = (p(object(ALICE, 1)), p(object(ALICE, 2)));
    disk.sql(&format!(
        "CREATE TEMP TABLE old AS SELECT * FROM rows;
         UPDATE rows SET sealed = (SELECT sealed FROM old WHERE path = '{two}') WHERE path = '{one}';
         UPDATE rows SET sealed = (SELECT sealed FROM old WHERE path = '{one}') WHERE path = '{two}';"
    ));
    assert_eq!(disk.verdict(), (one, Tampering::Belongs { to: two }));
}

/// Rows of different commits, which take their versions along.
#[test]
fn two_rows_swapped_whole_are_found() {
    let disk = Files::filled();
    let (one, two) = (p(object(ALICE, 1)), p(object(ALICE, 2)));
    disk.sql(&format!(
        "CREATE TEMP TABLE old AS SELECT * FROM rows;
         UPDATE rows SET (version, sealed) = (SELECT version, sealed FROM old WHERE path = '{two}') WHERE path = '{one}';
         UPDATE rows SET (version, sealed) = (SELECT version, sealed FROM old WHERE path = '{one}') WHERE path = '{two}';"
    ));
    assert_eq!(disk.verdict(), (one, Tampering::Belongs { to: two }));
}

#[test]
fn two_partition_keys_swapped_are_found() {
    let disk = Files::filled();
    let (alice, bob) = (format!("partition/{ALICE}/key"), format!("partition/{BOB}/key"));
    disk.sql(&format!(
        "CREATE TEMP TABLE old AS SELECT * FROM rows;
         UPDATE rows SET sealed = (SELECT sealed FROM old WHERE path = '{bob}') WHERE path = '{alice}';
         UPDATE rows SET sealed = (SELECT sealed FROM old WHERE path = '{alice}') WHERE path = '{bob}';"
    ));
    assert_eq!(disk.verdict(), (alice, Tampering::Belongs { to: bob }));
}

#[test]
fn a_copy_under_another_path_is_found() {
    let disk = Files::filled();
    let (from, to) = (p(object(ALICE, 1)), p(object(BOB, 9)));
    disk.sql(&format!("INSERT INTO rows SELECT '{to}', version, sealed FROM rows WHERE path = '{from}'"));
    assert_eq!(disk.verdict(), (to, Tampering::Belongs { to: from }));
}

#[test]
fn a_row_of_no_known_name_is_found() {
    let disk = Files::filled();
    disk.sql("INSERT INTO rows SELECT 'backdoor', version, sealed FROM rows WHERE path = 'authority'");
    assert_eq!(disk.verdict(), ("backdoor".into(), Tampering::Unknown));
}

#[test]
fn every_row_with_a_flipped_bit_is_found() {
    let (_, rows) = (Files::filled(), contents());
    let names = rows.iter().map(|(path, _)| p(*path));
    let own = ["manifest".into(), "witness".into(), format!("partition/{ALICE}/key")];
    for path in names.chain(own) {
        let memory = Memory::default();
        fill(&SealedStore::create(memory.clone(), key(1), random()).unwrap());
        let row = memory.row(&path).unwrap();
        for index in [0, row.sealed.len() / 2, row.sealed.len() - 1] {
            let mut broken = row.clone();
            broken.sealed[index] ^= 0x10;
            memory.tamper(broken);
            let error = SealedStore::open(memory.clone(), key(1), random()).unwrap_err();
            assert!(
                matches!(&error, Error::Tampered { path: at, what: Tampering::Edited } if *at == path),
                "{path}: {error}"
            );
        }
        let mut renumbered = row.clone();
        renumbered.version -= u64::from(renumbered.version > 0);
        renumbered.version |= u64::from(row.version == 0);
        memory.tamper(renumbered);
        let error = SealedStore::open(memory.clone(), key(1), random()).unwrap_err();
        assert!(matches!(&error, Error::Tampered { path: at, .. } if *at == path), "{path}: {error}");
        memory.tamper(row);
        assert!(SealedStore::open(memory, key(1), random()).is_ok());
    }
}

#[test]
fn a_flipped_bit_in_the_file_is_found() {
    let disk = Files::filled();
    let path = p(object(BOB, 3));
    disk.sql(&format!(
        "UPDATE rows SET sealed = CAST(substr(sealed, 1, 20) || x'00' || substr(sealed, 22) AS BLOB)
         WHERE path = '{path}' AND substr(sealed, 21, 1) <> x'00';
         UPDATE rows SET sealed = CAST(substr(sealed, 1, 21) || x'00' || substr(sealed, 23) AS BLOB)
         WHERE path = '{path}'"
    ));
    assert_eq!(disk.verdict(), (path, Tampering::Edited));
}

#[test]
fn every_missing_row_is_named() {
    let own = ["witness".into(), "manifest".into(), format!("partition/{BOB}/key")];
    for path in contents().iter().map(|(path, _)| p(*path)).chain(own) {
        let disk = Files::filled();
        disk.sql(&format!("DELETE FROM rows WHERE path = '{path}'"));
        assert_eq!(disk.verdict(), (path, Tampering::Deleted));
    }
}

#[test]
fn a_row_put_back_to_an_older_version_is_named_with_both() {
    let disk = Files::filled();
    let path = p(object(ALICE, 1));
    let kept: (i64, Vec<u8>) = Connection::open(&disk.file)
        .unwrap()
        .query_row("SELECT version, sealed FROM rows WHERE path = ?1", [&path], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let (store, _) = disk.open().unwrap();
    put(&store, object(ALICE, 1), b"newer");
    put(&store, object(ALICE, 2), b"newer");
    drop(store);
    Connection::open(&disk.file)
        .unwrap()
        .execute("UPDATE rows SET version = ?1, sealed = ?2 WHERE path = ?3", (kept.0, kept.1, &path))
        .unwrap();
    assert_eq!(disk.verdict(), (path, Tampering::RolledBack { found: 5, expected: 6 }));
}

#[test]
fn a_deleted_row_put_back_is_named_even_if_it_was_made_again() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let path = p(object(ALICE, 2));
    let old = memory.row(&path).unwrap();
    delete(&store, object(ALICE, 2));
    memory.tamper(old.clone());
    let error = SealedStore::open(memory.clone(), key(1), random()).unwrap_err();
    assert!(
        matches!(&error, Error::Tampered { path: at, what: Tampering::Returned } if *at == path),
        "{error}"
    );
    put(&store, object(ALICE, 2), b"made again");
    assert!(SealedStore::open(memory.clone(), key(1), random()).is_ok());
    memory.tamper(old);
    let error = SealedStore::open(memory, key(1), random()).unwrap_err();
    let what = Tampering::RolledBack { found: 3, expected: 7 };
    assert!(matches!(&error, Error::Tampered { path: at, what: w } if *at == path && *w == what), "{error}");
}

#[test]
fn a_manifest_put_back_alone_is_found() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let old = memory.row("manifest").unwrap();
    put(&store, object(BOB, 7), b"x");
    memory.tamper(old.clone());
    let error = SealedStore::open(memory.clone(), key(1), random()).unwrap_err();
    let what = Tampering::Behind { found: 5, row: p(object(BOB, 7)), version: 6 };
    assert!(
        matches!(&error, Error::Tampered { path, what: w } if path == "manifest" && *w == what),
        "{error}"
    );
    // Where the newer commit only deleted, the older manifest misses the row.
    delete(&store, object(BOB, 7));
    delete(&store, object(BOB, 3));
    memory.tamper(old);
    let error = SealedStore::open(memory, key(1), random()).unwrap_err();
    assert!(
        matches!(&error, Error::Tampered { path, what: Tampering::Deleted } if *path == p(object(BOB, 3))),
        "{error}"
    );
}

#[test]
fn several_changes_at_once_are_found_too() {
    let memory = Memory::default();
    fill(&SealedStore::create(memory.clone(), key(1), random()).unwrap());
    memory.steal(&p(object(ALICE, 1))).unwrap();
    memory.steal(&p(object(ALICE, 2))).unwrap();
    let error = SealedStore::open(memory, key(1), random()).unwrap_err();
    let what = Tampering::Rows { found: 7, expected: 9 };
    assert!(
        matches!(&error, Error::Tampered { path, what: w } if path == "manifest" && *w == what),
        "{error}"
    );
}

#[test]
fn a_whole_store_put_back_is_seen_by_its_version() {
    let memory = Memory::default();
    let store = SealedStore::create(memory.clone(), key(1), random()).unwrap();
    fill(&store);
    let backup = memory.copy();
    put(&store, Path::Client([9; 32]), b"later");
    assert_eq!(SealedStore::open(backup, key(1), random()).unwrap().0.version(), 5);
    assert_eq!(SealedStore::open(memory, key(1), random()).unwrap().0.version(), 6);
}
