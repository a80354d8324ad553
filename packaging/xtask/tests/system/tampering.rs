//! A store or an audit log that somebody edited, cut, mixed up or put back: the server says what and where,
//! and refuses to serve it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use crate::support::{Place, World, alone, assert_signs, copy_folder, generate};

const LIMIT: Duration = Duration::from_secs(120);

/// A server with a few keys, stopped, and a copy of everything it keeps.
struct Victim {
    world: World,
    copy: PathBuf,
}

impl Victim {
    fn new(mut world: World) -> Self {
        let application = world.application();
        for id in [b"one", b"two"] {
            let pair = generate(&application.session, id, Place::Token).unwrap();
            assert_signs(&application.session, &pair);
        }
        world.server.stop().unwrap();
        let copy = world.folder.join("copy");
        let victim = Self { world, copy };
        victim.save(&victim.copy);
        victim
    }

    fn save(&self, to: &Path) {
        let state = self.world.state();
        copy_folder(&state, to).unwrap();
        copy_folder(&state.join("audit"), &to.join("audit")).unwrap();
    }

    /// Puts everything back as it was.
    fn restore(&self) {
        let state = self.world.state();
        for name in ["store.db-wal", "store.db-shm"] {
            // There may be none.
            fs::remove_file(state.join(name)).unwrap_or_default();
        }
        copy_folder(&self.copy, &state).unwrap();
        copy_folder(&self.copy.join("audit"), &state.join("audit")).unwrap();
    }

    /// The server refuses, and its log says so in these words.
    fn assert_refused(&self, what: &str, words: &[&str]) {
        let log = self.world.refused_start();
        println!("{what}: {}", log.lines().find(|line| line.contains("the vault cannot")).unwrap_or(&log));
        for word in words {
            assert!(log.contains(word), "{what}: not a word of {word:?} in\n{log}");
        }
        self.restore();
    }

    /// Changes the store as anybody with the file could; gives the paths of two objects' rows, of different commits.
    fn edit(&self, change: impl FnOnce(&Connection, &str, &str)) -> (String, String) {
        let store = Connection::open(self.world.state().join("store.db")).unwrap();
        let mut rows =
            store.prepare("SELECT path FROM rows WHERE path LIKE '%object%' ORDER BY version").unwrap();
        let paths: Vec<String> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        drop(rows);
        let [one, .., two] = &paths[..] else { panic!("{paths:?}") };
        change(&store, one, two);
        (one.clone(), two.clone())
    }

    fn segment(&self) -> PathBuf {
        self.world.state().join("audit/audit-00000000000000000001.log")
    }

    /// Changes the log; the frames are whole.
    fn edit_log(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let bytes = fs::read(self.segment()).unwrap();
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Some(length) = rest.first_chunk() {
            let (frame, after) = rest.split_at(4 + u32::from_be_bytes(*length) as usize + 32);
            frames.push(frame.to_vec());
            rest = after;
        }
        change(&mut frames);
        fs::write(self.segment(), frames.concat()).unwrap();
    }
}

#[test]
fn a_store_that_was_changed_is_refused() {
    alone("tampering::a_store_that_was_changed_is_refused", LIMIT, |world| {
        let mut victim = Victim::new(world);
        const TAMPERED: &str = "the store was tampered with at row";

        let (one, _) = victim.edit(|store, one, _| {
            let sealed: Vec<u8> =
                store.query_row("SELECT sealed FROM rows WHERE path = ?1", [one], |row| row.get(0)).unwrap();
            let mut edited = sealed;
            let middle = edited.len() / 2;
            edited[middle] ^= 1;
            assert_eq!(
                store.execute("UPDATE rows SET sealed = ?2 WHERE path = ?1", (one, edited)).unwrap(),
                1
            );
        });
        victim.assert_refused("edited", &[TAMPERED, &one, "changed"]);

        let (one, two) = victim.edit(|store, one, two| {
            store.execute_batch("BEGIN").unwrap();
            let read = |path: &str| -> (i64, Vec<u8>) {
                let query = "SELECT version, sealed FROM rows WHERE path = ?1";
                store.query_row(query, [path], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
            };
            let before = (read(one), read(two));
            let write = |path: &str, (version, sealed): &(i64, Vec<u8>)| {
                let update = "UPDATE rows SET version = ?2, sealed = ?3 WHERE path = ?1";
                assert_eq!(store.execute(update, (path, version, sealed)).unwrap(), 1);
            };
            write(one, &before.1);
            write(two, &before.0);
            store.execute_batch("COMMIT").unwrap();
        });
        victim.assert_refused("swapped", &[TAMPERED, &one, "it holds the content of row", &two]);

        let (one, _) = victim.edit(|store, one, _| {
            assert_eq!(store.execute("DELETE FROM rows WHERE path = ?1", [one]).unwrap(), 1);
        });
        victim.assert_refused("deleted", &[TAMPERED, &one, "missing"]);

        victim.edit(|store, _, _| {
            let trigger = "CREATE TRIGGER spy AFTER INSERT ON rows BEGIN DELETE FROM rows; END";
            store.execute_batch(trigger).unwrap();
        });
        victim.assert_refused("a trigger", &["store.db is damaged", "CREATE TRIGGER spy"]);

        // An older copy, from before the last key.
        victim.world.server.start().unwrap();
        // Two changes: each has the log on disk up to the one before, and the store knows that.
        for name in ["later", "latest"] {
            victim.world.server.hsmctl(&["partition", "create", name]).unwrap();
        }
        victim.world.server.stop().unwrap();
        let later = victim.world.folder.join("later");
        victim.save(&later);
        let old_store = |victim: &Victim| {
            for name in ["store.db", "store.db-wal"] {
                let (from, to) = (victim.copy.join(name), victim.world.state().join(name));
                match from.exists() {
                    true => drop(fs::copy(from, to).unwrap()),
                    false => fs::remove_file(to).unwrap_or_default(),
                }
            }
        };
        old_store(&victim);
        let log = victim.world.refused_start();
        assert!(log.contains("the store is older than its audit log"), "{log}");

        // And the other way round: the newer store with an older log.
        victim.copy = later;
        victim.restore();
        let first = victim.world.folder.join("copy");
        copy_folder(&first.join("audit"), &victim.world.state().join("audit")).unwrap();
        victim.assert_refused("an older log", &["audit log is older than its store"]);

        // Nothing of this was the server's own fault.
        victim.world.server.start().unwrap();
        victim.world.server.hsmctl(&["audit", "verify"]).unwrap();
    });
}

#[test]
fn an_audit_log_that_was_changed_is_refused() {
    alone("tampering::an_audit_log_that_was_changed_is_refused", LIMIT, |world| {
        let mut victim = Victim::new(world);
        const TAMPERED: &str = "the audit log was tampered with at record";

        victim.edit_log(|frames| {
            // The name of an act: still good CBOR.
            let frame = &mut frames[4];
            let is_name =
                |text: &[u8]| text[0].is_ascii_uppercase() && text[1..].iter().all(u8::is_ascii_lowercase);
            let place = frame.windows(4).position(is_name).unwrap();
            frame[place] += 1;
        });
        victim.assert_refused("a changed byte", &[TAMPERED, "5: its bytes do not fit the chain"]);
        victim.edit_log(|frames| drop(frames.remove(3)));
        victim.assert_refused("a dropped record", &[TAMPERED, "4: record 5 stands in its place"]);
        victim.edit_log(|frames| frames.swap(3, 4));
        victim.assert_refused("reordered records", &[TAMPERED, "4: record 5 stands in its place"]);
        let mut last = 0;
        victim.edit_log(|frames| {
            last = frames.len();
            frames.pop();
        });
        victim.assert_refused("a dropped end", &[TAMPERED, &format!("{last}: it is missing")]);
        victim.edit_log(|frames| {
            let end = frames.last_mut().unwrap();
            end.truncate(end.len() - 7);
        });
        victim.assert_refused("a truncated end", &[TAMPERED, &format!("{last}: it is cut off")]);
        fs::remove_file(victim.segment()).unwrap();
        victim.assert_refused("no log", &["audit"]);
        let head = victim.world.state().join("audit/head");
        fs::remove_file(head).unwrap();
        victim.assert_refused("no head", &["the head of the audit log is missing"]);

        // While the server runs it is `hsmctl audit verify` that finds it.
        victim.world.server.start().unwrap();
        victim.world.server.hsmctl(&["audit", "verify"]).unwrap();
        victim.edit_log(|frames| frames[2][10] ^= 1);
        let error = victim.world.server.hsmctl(&["audit", "verify"]).unwrap_err().to_string();
        assert!(error.contains("tampered with at record 3"), "{error}");
    });
}
