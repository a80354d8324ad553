//! What the reports say of a finding: enough for whoever has to mend it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{PIN, Token, module};

/// SoftHSM2 reads a nonce of more than 256 bytes otherwise than published.
#[test]
fn a_finding_of_vectors_holds_the_vector_everywhere() {
    let token = Token::new();
    let (json, html) = (token.path("report.json"), token.path("report.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let run = token.check(&[&["--check", "vectors.aes-gcm"], &files[..]].concat());
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let row = &report["checks"][0];
    let vector = &row["trace"]["vectors"][0];
    let (name, expected, got) = (
        vector["file"].as_str().unwrap(),
        vector["expected"].as_str().unwrap(),
        vector["got"].as_str().unwrap(),
    );
    assert!(name == "aes_gcm_test.json" && vector["tcId"].is_u64() && expected != got, "{vector}");
    let published = vector["published"].as_object().unwrap();
    let sealed = format!("{}{}", published["ct"].as_str().unwrap(), published["tag"].as_str().unwrap());
    assert!(
        ["key", "iv", "aad", "msg"].iter().all(|part| published.contains_key(*part)) && sealed == expected
    );
    let program = row["reproducer"].as_str().unwrap().to_owned();
    let named = format!("Wycheproof {name} tcId {}", vector["tcId"]);
    let text = String::from_utf8(run.stdout).unwrap();
    for place in [text, fs::read_to_string(html).unwrap(), program.clone()] {
        let tells = |part: &str| place.contains(part);
        assert!(tells(&named) && tells(expected) && tells(got), "{place}");
    }
    assert_eq!(reproduce(&token, &program), Some(1), "the vector's own calls show the finding");
    let mended = program.replace(&bytes(got), &bytes(expected));
    assert_ne!(mended, program);
    assert_eq!(reproduce(&token, &mended), Some(0), "other output is another answer");
}

/// Digits as a program in C has the bytes.
fn bytes(digits: &str) -> String {
    let pairs = digits.as_bytes().chunks(2).map(|pair| format!("0x{}", std::str::from_utf8(pair).unwrap()));
    pairs.collect::<Vec<_>>().join(", ")
}

/// The exit code of a program.
fn reproduce(token: &Token, program: &str) -> Option<i32> {
    let (source, binary) = (token.path("reproduce.c"), token.path("reproduce"));
    fs::write(&source, program).unwrap();
    let built = Command::new("gcc")
        .args(["-std=c99", "-Wall", "-Werror", "-o"])
        .args([&binary as &Path, &source])
        .arg("-ldl")
        .output()
        .expect("gcc is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(binary)
        .arg(module())
        .arg(support::LABEL)
        .env("P11_PIN", PIN)
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
        .output()
        .unwrap();
    run.status.code()
}
