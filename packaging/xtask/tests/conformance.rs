//! Our module before our own conformance suite: no findings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::process::Command;

use tempfile::TempDir;
use xtask::{
    server::Server,
    shell::{Echo, Shell},
    token::{PIN, SO_PIN, Token},
    workspace::Artefacts,
};

#[test]
fn strongroom_has_no_findings() {
    let (artefacts, folder) = (Artefacts::built().unwrap(), TempDir::new().unwrap());
    let shell = Shell::new(Echo::Nothing);
    let mut server = Server::create(&shell, &artefacts, &folder.path().join("state")).unwrap();
    server.start().unwrap();
    let config = server.enrol("trading", "desk").unwrap();
    let shell = shell.with("STRONGROOM_CONFIG", &config.display().to_string());
    Token { shell, module: artefacts.module(), label: "trading".into() }.initialise().unwrap();

    let output = Command::new(artefacts.conformance())
        .args(["--module", &artefacts.module(), "--token-label", "trading"])
        .env("STRONGROOM_CONFIG", &config)
        .env("P11_CONFORMANCE_PIN", PIN)
        .env("P11_CONFORMANCE_SO_PIN", SO_PIN)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("0 failed, 0 not made"), "{report}");
    // What the token claims with an object, which the suite holds against each requirement.
    for profile in ["CKP_BASELINE_PROVIDER", "CKP_EXTENDED_PROVIDER", "CKP_AUTHENTICATION_TOKEN"] {
        let verdict = report.lines().find(|line| line.starts_with(&format!("PROFILE {profile} ")));
        assert!(verdict.is_some_and(|line| line.contains(" met: all ")), "{profile}: {report}");
    }
}
