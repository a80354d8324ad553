//! How a run goes: what is refused before any check, what ends it early, and what it leaves out and behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{LABEL, PIN, Token, files, is_incomplete, module, read, run_stub, run_stub_in, stub};

/// The label of what the suite makes.
const OURS: &str = "p11-conformance: to be destroyed";

/// Puts a key with this label on the token.
fn plant(token: &Token, label: &str) {
    let key = token.path("key");
    fs::write(&key, [7; 32]).unwrap();
    let named = ["--token", LABEL, "--label", label, "--id", "01", "--pin", PIN];
    token.util(&[&["--import", key.to_str().unwrap(), "--aes"], &named[..]].concat());
}

#[test]
fn only_what_the_suite_left_is_destroyed_and_only_if_it_may() {
    let token = Token::new();
    plant(&token, OURS);
    for similar in ["mine", "p11-conformance", "p11-conformance: to be destroyed soon"] {
        plant(&token, similar);
    }
    let left = |option: &str| {
        token.check(&["--check", "random.exact", option]);
        token.objects().len()
    };
    assert_eq!(left("--keep-objects"), 4);
    assert_eq!(left("--read-only"), 4);
    let run = token.check(&["--check", "random.exact"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        text.contains(&format!("NOTE destroyed what an earlier run had left: secret key {OURS:?}\n")),
        "{text}"
    );
    assert_eq!(token.objects().len(), 3, "what a run that died left behind, and nothing else");
}

#[test]
fn what_is_no_module_and_where_no_report_can_be_is_told_at_once() {
    let token = Token::new();
    let nowhere = token.path("no-folder/report.json");
    let text = token.path("pin");
    let long = token.path("long");
    fs::write(&long, [b'1'; 4097]).unwrap();
    let (two, marked) = (token.path("two"), token.path("marked"));
    fs::write(&two, "1234\n5678\n").unwrap();
    fs::write(&marked, "\u{feff}1234").unwrap();
    let own = env!("CARGO_BIN_EXE_p11-conformance");
    let pipe = token.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let softhsm = module().to_str().unwrap();
    for (arguments, why) in [
        (vec!["--module", "/nowhere.so"], "No such file"),
        (vec!["--module", text.to_str().unwrap()], "no library that can be loaded here"),
        (vec!["--module", softhsm, "--json", nowhere.to_str().unwrap()], "make its folder first"),
        (
            vec!["--module", softhsm, "--sign-with", text.to_str().unwrap(), "--manifest", "m"],
            "openssl genpkey",
        ),
        (vec!["--module", "/dev/zero"], "/dev/zero: an ordinary file is needed"),
        (vec!["--module", softhsm, "--pin-file", "/dev/zero"], "/dev/zero: an ordinary file is needed"),
        (
            vec!["--module", softhsm, "--so-pin-file", pipe.to_str().unwrap()],
            "pipe: an ordinary file is needed",
        ),
        (vec!["--module", softhsm, "--pin-file", long.to_str().unwrap()], "long: more than 4096 bytes"),
        (vec!["--module", softhsm, "--pin-file", two.to_str().unwrap()], "two: a PIN is one line of text"),
        (vec!["--module", softhsm, "--so-pin-file", marked.to_str().unwrap()], "without a byte order mark"),
        (vec!["--module", softhsm, "--json", own], "the suite itself and --json name one file"),
        (vec!["--module", softhsm, "--waivers", "/dev/zero"], "/dev/zero: an ordinary file is needed"),
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
            .args(&arguments)
            .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{error}");
        assert!(run.stdout.is_empty() && error.contains(why), "{error}");
    }
}

/// One file for two reports, or for a report and what is read, however it is named: nothing is made and nothing overwritten.
#[test]
fn no_report_takes_the_place_of_another_file() {
    let token = Token::new();
    let report = token.path("report");
    let dotted = token.path(".").join("report");
    fs::write(&report, "before").unwrap();
    std::os::unix::fs::symlink(&report, token.path("link")).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (report, link, pin) = (text(&report), text(&token.path("link")), text(&token.path("pin")));
    for (options, why) in [
        (["--json", &report, "--html", &report], "--json and --html name one file"),
        (["--json", &report, "--sarif", &text(&dotted)], "--json and --sarif name one file"),
        (["--junit", &link, "--html", &report], "--html and --junit name one file"),
        (
            ["--manifest", &text(&token.path("new")), "--json", &text(&token.path("./new"))],
            "--json and --manifest",
        ),
        (["--json", &pin, "--html", "/dev/null"], "--pin-file and --json name one file"),
    ] {
        let run = token.check(&[&["--check", "random.exact"], &options[..]].concat());
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{options:?}: {error}");
        assert!(run.stdout.is_empty() && error.contains(why), "{options:?}: {error}");
    }
    assert_eq!(fs::read(&report).unwrap(), b"before");
    assert_eq!(fs::read_to_string(&pin).unwrap(), PIN);
    assert!(!token.path("new").exists());
}

/// A token of certificates, say: no PIN, nothing to write.
#[test]
fn a_token_without_pin_that_is_write_protected_is_checked_as_far_as_it_goes() {
    let checks = ["random.generate", "objects.create-data", "slots.token-info", "encrypt.not-initialized"];
    let named: Vec<_> = checks.iter().flat_map(|id| ["--check", id]).collect();
    let run = run_stub("PROTECTED", &named);
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(text.contains("NOT MADE 1 check: the write-protected token makes no objects"), "{text}");
    assert!(text.contains("1 passed, 0 failed, 1 not made, 2 not offered"), "{text}");
}

/// A client written with a crate has its calls on record too, and a program of its own.
#[test]
fn an_ordinary_clients_calls_are_told_and_its_pin_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let options = ["--check", "client.random", "--json", json.to_str().unwrap()];
    let run = run_stub_in(folder.path(), "PLAIN", &options, 3);
    assert_eq!(run.status.code(), Some(1), "{}", String::from_utf8_lossy(&run.stderr));
    let report = read(&json);
    let row = &report["checks"][0];
    assert_eq!(row["seen"], "C_GenerateRandom: CKR_FUNCTION_NOT_SUPPORTED");
    let calls = row["trace"]["calls"].as_array().unwrap();
    let told: Vec<_> =
        calls.iter().map(|call| (call["function"].as_str().unwrap(), &call["result"])).collect();
    for function in ["C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login"] {
        assert!(told.contains(&(function, &0.into())), "{function}: {told:?}");
    }
    assert_eq!(told.last().unwrap(), &("C_GenerateRandom", &0x54.into()));
    assert!(row["trace"].to_string().contains("the user PIN") && !report.to_string().contains(PIN));

    // The module as it is, one that answers otherwise, and none: the last line says what came of it.
    let reproducer = row["reproducer"].as_str().unwrap();
    let (module, other) = (folder.path().join("PLAIN.so"), reproducer.replace("rv, 0x54UL", "rv, 0x5UL"));
    for (source, argument, code, conclusion) in [
        (
            reproducer,
            Some(&module),
            1,
            "reproduced: expected CKR_OK, seen C_GenerateRandom: CKR_FUNCTION_NOT_SUPPORTED",
        ),
        (
            &other,
            Some(&module),
            0,
            "not reproduced: C_GenerateRandom answers otherwise: 0x54, not CKR_FUNCTION_NOT_SUPPORTED",
        ),
        (reproducer, None, 2, "cannot be told: usage: reproduce MODULE [TOKEN-LABEL]"),
    ] {
        let (file, program) = (folder.path().join("reproduce.c"), folder.path().join("reproduce"));
        fs::write(&file, source).unwrap();
        let flags = ["-std=c99", "-Wall", "-Werror", "-o"];
        let built = Command::new("gcc").args(flags).args([&program, &file]).arg("-ldl").status().unwrap();
        assert!(built.success(), "{source}");
        let run = Command::new(&program).args(argument).env("P11_PIN", PIN).output().unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert_eq!((run.status.code(), text.lines().last()), (Some(code), Some(conclusion)), "{text}");
    }
}

/// Ctrl-C as soon as checks are made, on a token with an object that an earlier run left.
#[test]
fn an_interrupted_run_clears_the_token_and_writes_its_reports() {
    let token = Token::new();
    plant(&token, OURS);
    let files = files(&token, &["--json", "--html", "--junit", "--sarif", "--manifest"]);
    let mut command = token.command();
    let named = files.iter().flat_map(|(option, file)| [*option, file.to_str().unwrap()]);
    let folder = token.path("tmp");
    fs::create_dir(&folder).unwrap();
    command.args(named).env("TMPDIR", &folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let checks_are_made = || {
        let runs = fs::read_dir(&folder).unwrap();
        runs.flatten().any(|run| run.path().join("calls-1").exists())
    };
    while !checks_are_made() {
        assert!(Instant::now() < deadline, "no check is made");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = child.wait_with_output().unwrap();
    let report = is_incomplete(&run, &token.path("json"), "interrupted");
    let rows = report["checks"].as_array().unwrap();
    let is_signal = |row: &Value| row["seen"].as_str().is_some_and(|seen| seen.contains("signal"));
    assert!(!rows.iter().any(is_signal), "the check in hand has no blame");
    assert!(token.objects().is_empty(), "{:?}", token.objects());
    let page = fs::read_to_string(token.path("html")).unwrap();
    assert!(page.contains("This run is incomplete: interrupted"), "the page says so");
    let junit = fs::read_to_string(token.path("junit")).unwrap();
    assert!(junit.contains("errors=\"1\"") && junit.contains("<error message=\"interrupted"), "{junit}");
    let sarif = read(&token.path("sarif"));
    assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], false);
    assert_eq!(read(&token.path("manifest"))["verdict"], "incomplete");
}

#[test]
fn a_run_that_takes_too_long_ends_with_what_is_known() {
    let token = Token::new();
    let json = token.path("report.json");
    let run = token.check(&["--run-timeout", "2", "--json", json.to_str().unwrap()]);
    is_incomplete(&run, &json, "it took longer than 2 s (--run-timeout)");
}

/// What was chosen and not made is told with the reason, in every report that a person reads.
#[test]
fn what_options_leave_out_is_told() {
    let token = Token::new();
    let (json, html) = (token.path("report.json"), token.path("report.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let run = token.check(&[&["--group", "login", "--read-only"], &files[..]].concat());
    let text = String::from_utf8_lossy(&run.stdout);
    let why = "they write to the token or cost a try of a PIN (--read-only)";
    let report = read(&json);
    assert_eq!(report["left_out"][0]["why"], why, "{text}");
    let checks = report["left_out"][0]["checks"].as_u64().unwrap();
    assert!(checks > 10 && text.contains(&format!("LEFT OUT {checks} checks: {why}")), "{text}");
    assert!(fs::read_to_string(&html).unwrap().contains(why));
    let run = token.check(&["--group", "login"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(text.contains("LEFT OUT 1 check: they lock a PIN or the token (--allow-lockout)"), "{text}");
    let run = token.check(&["--check", "random.exact", "--group", "I"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(text.contains("they are about the network (--network)"), "{text}");
}

/// A token that has a PIN is not clean when nobody gave it, unless none is meant.
#[test]
fn a_run_without_the_pin_is_incomplete_unless_none_is_meant() {
    let token = Token::new();
    let without = |pin: Option<&str>| {
        Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
            .args(["--module", module().to_str().unwrap(), "--token-label", LABEL, "--check", "login.right"])
            .args(["--check", "slots.info"])
            .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
            .env_remove("P11_CONFORMANCE_PIN")
            .env_remove("P11_CONFORMANCE_SO_PIN")
            .envs(pin.map(|pin| ("P11_CONFORMANCE_PIN", pin)))
            .output()
            .unwrap()
    };
    let run = without(None);
    let (text, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(2), "{text}");
    assert!(
        error.contains("no user PIN was given, which") && text.contains(": incomplete: "),
        "{text}{error}"
    );
    let run = without(Some(""));
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(0), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let locked = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["--module", stub(folder.path(), "LOCKED").to_str().unwrap(), "--check", "general.info"])
        .env_remove("P11_CONFORMANCE_PIN")
        .env_remove("P11_CONFORMANCE_SO_PIN")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&locked.stdout);
    assert!(text.contains("NOTE the token says that the user PIN is locked"), "{text}");
}
