//! The suite against modules of two other kinds: NSS softokn, which has slots and an initialisation of its own, and
//! p11-kit-trust, which has no PIN and cannot be written to. Their findings are those of the tables in
//! `conformance/FINDINGS.md`, exactly. Needs both modules and certutil (`cargo xtask test` installs them).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const FINDINGS: &str = include_str!("../FINDINGS.md");

/// What the scheduler decides.
const RACES: &str = "threads.";

/// A library of the system's.
fn library(name: &str) -> PathBuf {
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [triplet.as_str(), "/usr/lib64", "/usr/lib"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed (packages libnss3, p11-kit-modules)"))
}

/// The findings that the table of a module explains.
fn explained(heading: &str) -> BTreeSet<String> {
    let (_, section) =
        FINDINGS.split_once(heading).unwrap_or_else(|| panic!("FINDINGS.md has no {heading:?}"));
    let section = section.split("\n## ").next().unwrap();
    let first_cell = |line: &str| line.split('|').nth(1).unwrap_or_default().to_owned();
    let cells: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).map(first_cell).collect();
    let ids = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).flat_map(expanded);
    ids.filter(|id| !id.starts_with(RACES)).collect()
}

/// The ids that braces stand for, as in a shell: `keys.{aes,rsa}-size` is two.
fn expanded(id: &str) -> Vec<String> {
    let Some((head, rest)) = id.split_once('{') else { return vec![id.to_owned()] };
    let (choices, tail) =
        rest.split_once('}').unwrap_or_else(|| panic!("{id} has a brace that does not close"));
    let tails = expanded(tail);
    choices
        .split(',')
        .flat_map(|choice| tails.iter().map(move |tail| format!("{head}{choice}{tail}")))
        .collect()
}

#[test]
fn braces_stand_for_several_ids() {
    assert_eq!(expanded("a.b"), ["a.b"]);
    assert_eq!(expanded("a.{b,c}-{d,e}"), ["a.b-d", "a.b-e", "a.c-d", "a.c-e"]);
}

/// Runs the suite and compares its findings.
fn compare(heading: &str, module: &Path, options: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let run = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .arg("--module")
        .arg(module)
        .args(options)
        .arg("--json")
        .arg(&json)
        .env_remove("P11_CONFORMANCE_PIN")
        .env_remove("P11_CONFORMANCE_SO_PIN")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let rows = report["checks"].as_array().unwrap();
    let fails = || rows.iter().filter(|row| row["outcome"] == "fail" && row["group"] != "threads");
    let failed: BTreeSet<_> = fails().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    let known = explained(heading);
    let alarm = |row: &&Value| !known.contains(row["id"].as_str().unwrap());
    let told = |row: &Value| format!("\n| `{}` | {} | {} |", row["id"], row["clause"], row["seen"]);
    let alarms: String = fails().filter(alarm).map(told).collect();
    let lost: Vec<_> = known.difference(&failed).collect();
    assert!(
        alarms.is_empty() && lost.is_empty(),
        "conformance/FINDINGS.md, {heading}: lost findings {lost:?}, findings that nobody judged:{alarms}"
    );
    report
}

fn passed(report: &Value, id: &str) -> bool {
    let rows = report["checks"].as_array().unwrap();
    rows.iter().any(|row| row["id"] == id && row["outcome"] == "pass")
}

#[test]
fn nss_softokn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("pin"), "a-pin-of-nss").unwrap();
    let made = Command::new("certutil")
        .args(["-N", "-d", &format!("sql:{}", path("")), "-f", &path("pin")])
        .output()
        .expect("certutil is installed (package libnss3-tools)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let string = format!("configdir='sql:{}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", path(""));
    let options =
        ["--init-string", &string, "--token-label", "NSS Certificate DB", "--pin-file", &path("pin")];
    let report = compare("## NSS softokn", &library("libsoftokn3.so"), &options);
    assert!(passed(&report, "profiles.authentication-token-AUTH-M-1-32"), "it signs with an RSA key");
    assert!(passed(&report, "login.right"), "the string and the PIN are taken");
}

#[test]
fn p11_kit_trust() {
    let report = compare("## p11-kit-trust", &library("pkcs11/p11-kit-trust.so"), &[]);
    assert!(
        passed(&report, "profiles.public-certificates-CERT-M-1-32"),
        "it shows certificates to everybody"
    );
    let missing = report["profiles"][0]["missing"].as_array().unwrap();
    assert!(
        missing.contains(&"C_GetInterface".into()),
        "a module of 2.40 is no Baseline Provider: {missing:?}"
    );
}
