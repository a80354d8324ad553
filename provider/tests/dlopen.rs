//! The built module as an application loads it: `dlopen`, use, `dlclose`, a hundred times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{env, fs, path::PathBuf, process::Command};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};

/// Set in the process that does the loading: it gets its configuration from the environment.
const LOADER: &str = "STRONGROOM_TEST_LOADER";

fn module() -> PathBuf {
    let folder = env::current_exe().unwrap().parent().unwrap().to_owned();
    folder.join("libstrongroom_pkcs11.so")
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn load_and_use() {
    let module = Pkcs11::new(module()).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    assert!(module.get_library_info().unwrap().library_description().starts_with("Strongroom"));
    assert_eq!(module.get_all_slots().unwrap().len(), 1);
    // The server is down: the slot is there, its token is not.
    assert!(module.get_slots_with_token().unwrap().is_empty());
    module.finalize().unwrap();
}

#[test]
fn loading_a_hundred_times_leaks_no_thread_and_no_descriptor() {
    if env::var_os(LOADER).is_some() {
        load_and_use();
        let before = (count("/proc/self/fd"), count("/proc/self/task"));
        for _ in 0..100 {
            load_and_use();
        }
        assert_eq!((count("/proc/self/fd"), count("/proc/self/task")), before);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strongroom.toml");
    // Port 1 of the loopback refuses connections.
    let text = "deadline_ms = 200\nlog = \"debug\"\nlog_file = \"log\"\n[[token]]\nserver = \"127.0.0.1:1\"\n\
                ca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n";
    fs::write(&file, text).unwrap();
    let loader = Command::new(env::current_exe().unwrap())
        .args(["--exact", "loading_a_hundred_times_leaks_no_thread_and_no_descriptor"])
        .env("STRONGROOM_CONFIG", &file)
        .env(LOADER, "1")
        .output()
        .unwrap();
    assert!(loader.status.success(), "{}", String::from_utf8_lossy(&loader.stdout));
    assert!(fs::read_to_string(folder.path().join("log")).unwrap().contains("token not present"));
}
