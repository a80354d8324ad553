//! Without `--allow-lockout`, a token never sees more than one PIN that is not the right one before the right one comes
//! again: counted by the mutant (`mutant/src/witness.rs`) over every check, whatever becomes of the processes that make
//! them, and with each fault that spoils a login. Needs SoftHSM2 (`cargo xtask test` installs it).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use strongroom_mutant::faults;
use strongroom_mutant::functions::Function as F;
use support::{LABEL, PIN, SO_PIN, Token, module};

/// The chapters in which no check shows a PIN of its own: known answers and mechanisms, hundreds of logins alike.
const DATA: &[&str] = &["interop", "mechanisms", "vectors"];

/// Answers that come before any PIN is looked at (5.1.1 to 5.1.6): no session, no slot, no such user, somebody is there.
const NOT_TRIED: &[u64] = &[
    0x03, 0x07, 0x54, 0x91, 0xb0, 0xb3, 0xb5, 0xb6, 0xb7, 0xe0, 0xe2, 0x100, 0x101, 0x102, 0x103, 0x104,
    0x190,
];

/// Cargo puts the mutant beside the test that depends on it.
fn mutant() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().join("libstrongroom_mutant.so")
}

/// Runs the suite against the mutant, with these PINs.
fn run(token: &Token, fault: Option<&str>, pins: &[(&str, &str)], options: &[&str]) -> Output {
    let shown = token.path("shown");
    let _none_yet = std::fs::remove_file(&shown);
    let mut command = Command::new(env!("CARGO_BIN_EXE_p11-conformance"));
    command
        .args(["--module", mutant().to_str().unwrap(), "--token-label", LABEL, "--timeout", "8"])
        .args(options)
        .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
        .env("MUTANT_MODULE", module())
        .env("MUTANT_PINS", shown)
        .env_remove("MUTANT_NEWER")
        .env_remove("MUTANT_FAULT")
        .env_remove("P11_CONFORMANCE_PIN")
        .env_remove("P11_CONFORMANCE_SO_PIN")
        .envs(pins.iter().copied())
        .envs(fault.map(|fault| ("MUTANT_FAULT", fault)));
    command.output().unwrap()
}

/// The most tries in a row, of each user, that were not the right PIN, and how many there were in all.
fn worst(file: &Path) -> (BTreeMap<String, usize>, usize) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let (mut now, mut worst, mut all) = (BTreeMap::new(), BTreeMap::new(), 0);
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with("= ")) {
        let [function, user, pin] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let answer = lines.get(place + 1).and_then(|next| next.strip_prefix("= "));
        let answer: Option<u64> = answer.map(|answer| answer.parse().unwrap());
        let whose = if user == "0" { "SO" } else { "user" };
        let right = if user == "0" { SO_PIN } else { PIN };
        let count: &mut usize = now.entry(whose.to_owned()).or_default();
        match answer {
            Some(0) if function.starts_with("C_Login") && user != "2" => *count = 0,
            Some(0) => {}
            Some(answer) if NOT_TRIED.contains(&answer) => {}
            _ if pin == right => {}
            _ => {
                *count += 1;
                all += 1;
                let most: &mut usize = worst.entry(whose.to_owned()).or_default();
                *most = (*most).max(*count);
            }
        }
    }
    (worst, all)
}

/// Every chapter but those of data.
fn chapters() -> Vec<String> {
    let run = Command::new(env!("CARGO_BIN_EXE_p11-conformance")).arg("--list").output().unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    let mut chapters: Vec<String> =
        text.lines().map(|line| line.split('.').next().unwrap().to_owned()).collect();
    chapters.dedup();
    chapters.retain(|chapter| !DATA.contains(&chapter.as_str()) && chapter != "network");
    chapters.sort();
    chapters.dedup();
    chapters.into_iter().flat_map(|chapter| ["--group".to_owned(), chapter]).collect()
}

#[test]
fn never_more_than_one_wrong_pin() {
    let chapters = chapters();
    let chapters: Vec<&str> = chapters.iter().map(String::as_str).collect();
    let (user, so) = (("P11_CONFORMANCE_PIN", PIN), ("P11_CONFORMANCE_SO_PIN", SO_PIN));
    for (pins, least) in [(vec![user, so], 6), (vec![user], 4), (vec![], 0)] {
        let token = Token::new();
        let done = run(&token, None, &pins, &chapters);
        assert!(matches!(done.status.code(), Some(1 | 2)), "{}", String::from_utf8_lossy(&done.stderr));
        let (worst, all) = worst(&token.path("shown"));
        assert!(worst.values().all(|most| *most <= 1), "with {} PINs: {worst:?}", pins.len());
        assert!(all >= least, "with {} PINs, {all} wrong ones were tried", pins.len());
    }
}

#[test]
fn nor_with_a_faulty_login() {
    let spoils =
        |function: &F| matches!(function, F::C_Login | F::C_LoginUser | F::C_SetPIN | F::C_InitToken);
    let faulty: Vec<_> =
        faults::all().filter(|fault| fault.on.len() < 8 && fault.on.iter().any(spoils)).collect();
    assert!(faulty.len() > 8, "{}", faulty.len());
    let groups = ["--group", "login", "--group", "slots", "--group", "lengths"];
    let nulls = ["login", "login-user", "set-pin", "init-pin", "init-token"];
    let nulls: Vec<String> = nulls.iter().map(|row| format!("nulls.{row}")).collect();
    let options: Vec<&str> =
        groups.into_iter().chain(nulls.iter().flat_map(|row| ["--check", row.as_str()])).collect();
    for fault in faulty {
        let token = Token::new();
        let pins = [("P11_CONFORMANCE_PIN", PIN), ("P11_CONFORMANCE_SO_PIN", SO_PIN)];
        let done = run(&token, Some(fault.name), &pins, &options);
        assert!(done.status.code().is_some(), "{}", fault.name);
        let (worst, _) = worst(&token.path("shown"));
        assert!(worst.values().all(|most| *most <= 1), "{}: {worst:?}", fault.name);
    }
}
