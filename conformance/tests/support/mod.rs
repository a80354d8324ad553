//! A SoftHSM2 token for a test, and modules that fail from the start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The user's PIN.
pub const PIN: &str = "1234-user";
/// The SO's PIN.
pub const SO_PIN: &str = "1234-officer";
/// The token's label.
pub const LABEL: &str = "conformance";

/// A token of its own, in a folder that goes when the test ends.
pub struct Token {
    folder: tempfile::TempDir,
}

impl Token {
    pub fn new() -> Self {
        let token = Self { folder: tempfile::tempdir().unwrap() };
        let tokens = token.folder.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        fs::write(token.path("pin"), PIN).unwrap();
        fs::write(token.path("so-pin"), format!("{SO_PIN}\n")).unwrap();
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(token.path("softhsm2.conf"), settings).unwrap();
        token.util(&["--init-token", "--free", "--label", LABEL, "--so-pin", SO_PIN, "--pin", PIN]);
        token
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn util(&self, arguments: &[&str]) {
        let run = Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .expect("softhsm2-util is installed (package softhsm2)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    /// The suite, on this token.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p11-conformance"));
        command
            .args(["--module", module().to_str().unwrap(), "--token-label", LABEL])
            .args(["--pin-file", self.path("pin").to_str().unwrap()])
            .args(["--so-pin-file", self.path("so-pin").to_str().unwrap()])
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }

    pub fn check(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// The files of the token's objects, with what is in them.
    pub fn objects(&self) -> BTreeSet<(PathBuf, Vec<u8>)> {
        let mut objects = BTreeSet::new();
        for token in fs::read_dir(self.path("tokens")).unwrap() {
            for file in fs::read_dir(token.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let is_object = path.extension().is_some_and(|extension| extension == "object");
                if is_object && path.file_name().is_some_and(|name| name != "token.object") {
                    objects.insert((path.clone(), fs::read(&path).unwrap()));
                }
            }
        }
        objects
    }
}

/// SoftHSM2.
pub fn module() -> &'static Path {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
    places
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .expect("SoftHSM2 is installed (package softhsm2)")
}

/// A module of our own, compiled with a flaw.
pub fn stub(folder: &Path, flaw: &str) -> PathBuf {
    let module = folder.join(format!("{flaw}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/stub.c");
    let built = Command::new("gcc")
        .args(["-std=c99", "-Wall", "-Werror", "-shared", "-fPIC", &format!("-D{flaw}"), "-o"])
        .args([&module, &source])
        .output()
        .expect("gcc is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    module
}

/// A report, read.
pub fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The options that name a file for each.
pub fn files<'a>(token: &Token, options: &[&'a str]) -> Vec<(&'a str, PathBuf)> {
    options.iter().map(|option| (*option, token.path(option.trim_start_matches('-')))).collect()
}

/// Runs the suite on a flawed module.
pub fn run_stub(flaw: &str, options: &[&str]) -> Output {
    run_stub_with(flaw, options, 2)
}

/// The same, with so many files beside the suite's in the end.
pub fn run_stub_with(flaw: &str, options: &[&str], files: usize) -> Output {
    run_stub_in(tempfile::tempdir().unwrap().path(), flaw, options, files)
}

/// Runs the suite on a flawed module in a folder, in which so many files are in the end.
pub fn run_stub_in(folder: &Path, flaw: &str, options: &[&str], files: usize) -> Output {
    fs::write(folder.join("pin"), if flaw == "PROTECTED" { "" } else { PIN }).unwrap();
    Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["--module", stub(folder, flaw).to_str().unwrap()])
        .args(["--pin-file", folder.join("pin").to_str().unwrap()])
        .args(options)
        .env("TMPDIR", folder)
        .env_remove("P11_CONFORMANCE_SO_PIN")
        .output()
        .inspect(|_| {
            let left = fs::read_dir(folder).unwrap().count();
            assert_eq!(
                left, files,
                "the suite leaves no file behind but the module, the PIN and what the test asks for"
            );
        })
        .unwrap()
}

/// A run that cannot go on says so in every report, and everything else that it knows.
pub fn is_incomplete(run: &Output, json: &Path, why: &str) -> Value {
    let error = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{error}");
    assert!(error.contains("the run is incomplete: ") && error.contains(why), "{error}");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(text.contains("INCOMPLETE ") && text.contains(": incomplete: "), "{text}");
    let report = read(json);
    assert!(report["incomplete"].as_str().unwrap().contains(why), "{}", report["incomplete"]);
    report
}
