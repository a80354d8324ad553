//! What modules that hang, die, talk, start others or do not start themselves do to a run: each is compiled with one flaw.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{PIN, is_incomplete, read, run_stub, run_stub_in, run_stub_with};

#[test]
fn a_module_that_cannot_be_checked_is_told_before_any_check() {
    for (flaw, why) in [
        ("CRASH", "in C_Initialize: SIGABRT: the process was aborted; its last words: no configuration"),
        ("LOCKED", "the token says that the user PIN is locked"),
        ("FINAL", "one try of the user PIN is left"),
        ("FULL", "the token is full (C_CreateObject: CKR_DEVICE_MEMORY)"),
        ("BROKEN", "the token takes no object (C_CreateObject: CKR_GENERAL_ERROR)"),
        ("COUNTS", "C_GetSlotList: 1099511627776 entries"),
        ("NOLIST", "C_GetFunctionList answers CKR_OK and gives a null list"),
        ("FORGETFUL", "says CKR_OK to a new object and does not have it"),
    ] {
        let run = run_stub(flaw, &["--check", "random.exact", "--check", "general.info"]);
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{flaw}: {error}");
        assert!(run.stdout.is_empty() && error.contains(why), "{flaw}: {error}");
    }
    let run = run_stub("FULL", &["--check", "general.info", "--read-only"]);
    assert_eq!(run.status.code(), Some(0), "a full token can be read");
}

/// What stops the run before its first check stands in every report, with what the module had said until then.
#[test]
fn a_run_that_stops_before_any_check_writes_its_reports() {
    for (flaw, why, functions) in [
        ("DIES_AT_LOGOUT", "the module failed at once, in C_Logout: SIGABRT", 68),
        ("CRASH", "the module failed at once, in C_Initialize: SIGABRT", 0),
        ("LOCKED", "the token says that the user PIN is locked", 68),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let names = ["json", "html", "junit", "sarif", "manifest"];
        let files = names.map(|name| (format!("--{name}"), folder.path().join(name)));
        let named = files.iter().flat_map(|(option, file)| [option.as_str(), file.to_str().unwrap()]);
        let options: Vec<&str> = ["--check", "general.info"].into_iter().chain(named).collect();
        let run = run_stub_in(folder.path(), flaw, &options, 2 + names.len());
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{flaw}: {error}");
        assert!(run.stdout.is_empty() && error.contains(why), "{flaw}: {error}");
        let report = read(&folder.path().join("json"));
        assert!(report["incomplete"].as_str().unwrap().contains(why), "{flaw}: {report}");
        assert_eq!(report["checks"], Value::Array(Vec::new()));
        assert_eq!(report["survey"]["functions"].as_array().unwrap().len(), functions, "{flaw}");
        for name in ["html", "junit", "sarif"] {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains(why), "{flaw}: {name}: {text}");
        }
        assert_eq!(read(&folder.path().join("manifest"))["verdict"], "incomplete");
    }
    // The end of the first look stops nothing: it is a finding.
    let run = run_stub("DIES_AT_FINALIZE", &["--check", "slots.token-info"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("FAIL general.clean-end") && text.contains("1 passed, 1 failed"), "{text}");
}

#[test]
fn a_pin_that_is_refused_on_the_way_is_not_tried_again() {
    let run = run_stub("FORGETS", &["--group", "keys"]);
    let error = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{error}");
    assert!(error.contains("not accepted any more"), "{error}");
}

/// The checks pass, and the processes that made them die in the module's destructor: that is one finding, once.
#[test]
fn a_process_that_dies_at_its_end_is_a_finding_of_its_own() {
    let checks = ["general.clean-end", "general.info", "slots.token-info"];
    let named: Vec<_> = checks.iter().flat_map(|id| ["--check", id]).collect();
    let run = run_stub("DIES_LAST", &named);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL general.clean-end  (5.4.2 C_Finalize) high"), "{text}");
    assert!(text.contains("2 passed, 1 failed"), "{text}");
}

/// A process that a module ends in `C_Finalize` with the code of success has not come to a clean end.
#[test]
fn a_process_that_is_ended_in_finalize_as_if_all_were_well_is_a_finding() {
    let run = run_stub("LEAVES_LAST", &["--check", "slots.token-info"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL general.clean-end"), "{text}");
    assert!(text.contains("ended as if all were well, before C_Finalize returned"), "{text}");
}

#[test]
fn memory_is_bounded() {
    let run = run_stub("HOG", &["--check", "general.info"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains("the process grew by 70"), "{text}");
    let run = run_stub("HOG", &["--check", "general.info", "--memory", "300"]);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(0), "an allocation that fails is the module's to handle: {text}");
}

#[test]
fn a_module_that_hangs_for_ever_or_loses_its_token_ends_the_run_and_not_the_report() {
    let checks = ["general.info", "slots.token-info", "slots.token-limits", "sessions.info-public"];
    for (flaw, why, failed) in [
        (
            "HANGS",
            "the module does not start any more, or does not show the token: no answer within 3 s: \
             C_Initialize did not return",
            1,
        ),
        ("VANISHES", "shows no initialised token", 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("report.json");
        let named = checks.iter().flat_map(|id| ["--check", id]);
        let options: Vec<&str> = named.chain(["--timeout", "1", "--json", json.to_str().unwrap()]).collect();
        let run = run_stub_in(folder.path(), flaw, &options, 5);
        let report = is_incomplete(&run, &json, why);
        let made = report["checks"].as_array().unwrap().len();
        assert!((1..checks.len()).contains(&made), "{flaw}: {made}");
        assert_eq!(report["tally"]["failed"], failed, "{flaw}");
        assert!(report["incomplete"].as_str().unwrap().contains("may be left on the token"), "{flaw}");
    }
}

/// Where the suite looks before the checks, where a check ends and where the token is cleared: a call that does not return is
/// named, the process is killed, and the run goes on.
#[test]
fn a_hang_costs_no_more_than_the_limit_wherever_it_is() {
    let began = Instant::now();
    let options = ["--check", "general.info", "--check", "slots.token-info", "--timeout", "1"];
    let run = run_stub("NEVER_FINALIZED", &options);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&run.stderr));
    let hang = "seen:     no answer within 1 s: C_Finalize did not return";
    assert!(text.contains("FAIL general.clean-end") && text.contains(hang), "{text}");
    assert!(
        text.contains("1 passed, 2 failed"),
        "the check that finalises has the blame, and no other: {text}"
    );
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());

    let run = run_stub("NEVER_LOADED", &options);
    let error = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{error}");
    assert!(error.contains("while it was loaded: no answer within 3 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
}

/// What may be left on the token is no clean run: a crash or hang where it is cleared is a finding with its call, and the run
/// is incomplete.
#[test]
fn a_module_that_fails_where_the_token_is_cleared_is_a_finding_and_no_complete_run() {
    for (flaw, seen) in [
        ("DIES_CLEARING", "SIGABRT: the process was aborted"),
        ("HANGS_CLEARING", "no answer within 3 s: C_Initialize did not return"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("report.json");
        let options = ["--check", "slots.token-info", "--timeout", "1", "--json", json.to_str().unwrap()];
        let run = run_stub_in(folder.path(), flaw, &options, 3);
        let why = "may be left on the token: the process that clears the token died or hung in C_Initialize";
        let report = is_incomplete(&run, &json, why);
        let rows = report["checks"].as_array().unwrap();
        let end = rows.iter().find(|row| row["id"] == "general.clean-end").unwrap();
        assert_eq!((end["outcome"].as_str(), end["seen"].as_str()), (Some("fail"), Some(seen)), "{flaw}");
        let call = end["trace"]["calls"].as_array().unwrap().last().unwrap();
        assert_eq!((call["function"].as_str(), &call["result"]), (Some("C_Initialize"), &Value::Null));
    }
}

/// A module that ends the process with the code of a library that cannot be loaded, once the suite has looked: the token
/// cannot be cleared either.
#[test]
fn a_module_that_ends_the_process_is_a_finding_of_the_check() {
    let run = run_stub_with("LEAVES", &["--check", "general.info", "--check", "general.finalize-twice"], 3);
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(2), "{text}{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("seen:     the process was ended (exit status: 2)"), "{text}");
}

/// Neither what a module says without end nor a PIN in it comes into a report, nor into memory.
#[test]
fn what_a_module_says_is_cut_and_shows_no_pin() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let options = ["--check", "general.info", "--json", json.to_str().unwrap()];
    let run = run_stub_in(folder.path(), "TALKS", &options, 4);
    let text = fs::read_to_string(json).unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("its last words: (not shown: the user PIN is in them)"), "{text}");
    assert!(text.len() < 1 << 20 && !text.to_lowercase().contains("313233342d75736572"), "{}", text.len());
}

/// A module that puts the PIN into what it says of itself, of the token and of why it refuses, in every form.
#[test]
fn no_report_shows_a_pin_that_the_module_says() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["json", "html", "junit", "sarif", "manifest"];
    let files = names.map(|name| (format!("--{name}"), folder.path().join(name)));
    let for_module = format!("pin={PIN}");
    let named = files.iter().flat_map(|(option, file)| [option.as_str(), file.to_str().unwrap()]);
    let checks = ["--check", "general.info", "--check", "slots.token-info", "--init-string", &for_module];
    let options: Vec<&str> = checks.into_iter().chain(named).collect();
    let run = run_stub_in(folder.path(), "TELLS_PIN", &options, 2 + names.len());
    assert_eq!(run.status.code(), Some(1), "{}", String::from_utf8_lossy(&run.stderr));
    let json = folder.path().join("json");
    let compared = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["compare".as_ref(), json.as_os_str(), json.as_os_str()])
        .output()
        .unwrap();
    let other = run_stub("TELLS_PIN", &["--token-label", "other"]);
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("(not shown: the user PIN is in it)"),
        "{other:?}"
    );
    let told = [run.stdout, run.stderr, compared.stdout, other.stdout, other.stderr];
    let reports = files.iter().map(|(_, file)| fs::read(file).unwrap());
    for text in told.into_iter().chain(reports) {
        let text = String::from_utf8_lossy(&text).to_lowercase();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let letters: String = text.chars().filter(|letter| !"\\0".contains(*letter)).collect();
        assert!(!letters.contains(PIN) && !letters.contains("mtiznc11c2vy"), "{text}");
        assert!(!digits.contains("313233342d75736572"), "{text}");
    }
    let survey = &read(&json)["survey"];
    for field in ["library", "token", "model", "serial"] {
        assert!(survey[field].as_str().unwrap().contains("(not shown: the user PIN is in it)"), "{survey}");
    }
}

/// The module's own processes end with the run, those that left its group too, and none keeps the suite waiting.
#[test]
fn what_a_module_starts_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let run = run_stub_in(folder.path(), "FORKS", &["--check", "general.info"], 3);
    assert!(run.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let pids = fs::read_to_string(folder.path().join("pids")).unwrap();
    let lives = |pid: &&str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
    };
    let pids: Vec<&str> = pids.lines().collect();
    assert!(pids.len() >= 4, "{pids:?}");
    // What was killed takes a moment to be gone; what was not stays for ever.
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(lives) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    let left: Vec<_> = pids.into_iter().filter(lives).collect();
    assert!(left.is_empty(), "{left:?}");
}
