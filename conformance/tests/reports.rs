//! What the suite writes: reports, programs, waivers, comparisons.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use support::{LABEL, PIN, SO_PIN, Token, files, module, read};

/// A check that SoftHSM2 fails by answering, one that it fails by accepting, one that it dies of, one that it passes.
const CHECKS: [&str; 4] =
    ["login.logout-first", "objects.create-odd-bool", "ciphers.gcm-null-iv", "digest.sha256"];

fn checks() -> Vec<&'static str> {
    CHECKS.iter().flat_map(|id| ["--check", id]).collect()
}

#[test]
fn every_report_tells_the_same() {
    let token = Token::new();
    let files = files(&token, &["--json", "--html", "--junit", "--sarif", "--manifest"]);
    let names = files.iter().flat_map(|(option, file)| [*option, file.to_str().unwrap()]);
    let key = Ed25519KeyPair::generate().unwrap();
    let pkcs8 = key.to_pkcs8().unwrap();
    fs::write(token.path("key"), pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref()))).unwrap();
    let arguments: Vec<&str> = checks().into_iter().chain(names).chain(["--performance"]).collect();
    let signing = ["--sign-with", token.path("key").to_str().unwrap()].map(str::to_owned);
    let run = token.check(&[&arguments[..], &signing.each_ref().map(String::as_str)].concat());
    assert_eq!(run.status.code(), Some(1), "{}", String::from_utf8_lossy(&run.stderr));

    let json = read(&token.path("json"));
    let schema = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json"));
    assert_eq!(wrong(&schema, &schema, &json, "$"), Vec::<String>::new());
    assert_eq!((&json["tally"]["failed"], &json["tally"]["passed"]), (&3.into(), &1.into()));
    let figures = json["performance"].as_array().unwrap();
    assert!(figures.iter().any(|figure| figure["threads"] == 64), "{figures:?}");
    let itself = token.path("json");
    let compared = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["compare".as_ref(), itself.as_os_str(), itself.as_os_str()])
        .output()
        .unwrap();
    let compared = String::from_utf8_lossy(&compared.stdout);
    assert_eq!(compared.matches("× 1.00").count(), figures.len(), "{compared}");

    let junit = fs::read_to_string(token.path("junit")).unwrap();
    assert!(
        junit.contains("tests=\"4\" failures=\"3\"") && junit.matches("<failure ").count() == 3,
        "{junit}"
    );
    assert_eq!(junit.matches("<testcase ").count(), 4);
    assert!(!junit.contains("time=\"0\"") && !junit.contains("time=\"0.000\""), "{junit}");

    let sarif = read(&token.path("sarif"));
    let run = &sarif["runs"][0];
    assert_eq!((&sarif["version"], run["results"].as_array().unwrap().len()), (&"2.1.0".into(), 3));
    for result in run["results"].as_array().unwrap() {
        let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], result["ruleId"]);
        assert!(CHECKS.contains(&result["ruleId"].as_str().unwrap()));
    }

    let page = fs::read_to_string(token.path("html")).unwrap();
    for outside in ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import"] {
        assert!(!page.contains(outside), "the page loads nothing: {outside}");
    }
    assert!(page.contains("id=\"login.logout-first\"") && page.contains("C_Logout(session"));
    let closed = "<span class=\"seen\">expected: CKR_USER_NOT_LOGGED_IN</span>\
                  <span class=\"seen\">seen: C_Logout: CKR_OK</span></summary>";
    assert!(page.contains(closed), "a finding that is not open says both");
    for table in ["One thread", "Scaling over threads", "Search for one object"] {
        assert!(page.contains(table), "{table}");
    }
    for text in [page, junit, sarif.to_string(), json.to_string()] {
        assert!(!text.contains(PIN) && !text.contains(SO_PIN));
    }

    let manifest = fs::read(token.path("manifest")).unwrap();
    let signature = fs::read(token.path("manifest.sig")).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
    public.verify(&manifest, &signature).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let sha256 = |file: &Path| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fs::read(file).unwrap());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(manifest["sha256"], sha256(module()));
    assert_eq!(manifest["report_sha256"], sha256(&token.path("json")));
}

/// A run of other checks says nothing of profiles; one of their requirements says which they are.
#[test]
fn a_profile_is_told_where_its_requirements_were_checked() {
    let token = Token::new();
    let told = |group: &str| {
        let (json, html) = (token.path("report.json"), token.path("report.html"));
        let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
        let run =
            token.check(&[&["--check", "objects.create-odd-bool", "--check", group], &files[..]].concat());
        assert_eq!(run.status.code(), Some(1));
        let page = fs::read_to_string(html).unwrap();
        let (_, section) = page.split_once("<section id=\"profiles\">").unwrap();
        let section = section.split_once("</section>").unwrap().0.to_owned();
        (
            String::from_utf8_lossy(&run.stdout).into_owned(),
            section,
            read(&json)["profiles"][0]["standing"].clone(),
        )
    };
    let (text, section, standing) = told("digest.sha256");
    assert!(!text.contains("PROFILE") && !section.contains("chip"), "{text}{section}");
    assert!(section.contains("No requirement of a profile was among the checks"), "{section}");
    assert_eq!(standing, "unknown", "a finding elsewhere is not one of the profile");
    let (text, section, standing) = told("profiles.baseline-C_GetInterface");
    assert!(
        text.contains("PROFILE CKP_BASELINE_PROVIDER") && section.contains("C_GetInterface"),
        "{text}{section}"
    );
    assert!(!section.contains("CKP_EXTENDED_PROVIDER"), "{section}");
    assert_eq!(standing, "not-met", "SoftHSM 2.6.1 has no C_GetInterface");
}

/// What is measured decides nothing: the check passes, and each report has the figures.
#[test]
fn observations_stand_beside_the_checks() {
    let token = Token::new();
    let (json, html) = (token.path("report.json"), token.path("report.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let run = token.check(&[&["--check", "ciphers.cbc-pad-oracle"], &files[..]].concat());
    let text = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(0), "{text}");
    let report = read(&json);
    let schema = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json"));
    assert_eq!(wrong(&schema, &schema, &report, "$"), Vec::<String>::new());
    let observations = report["observations"].as_array().unwrap();
    assert_eq!(observations.len(), 2, "{text}");
    let page = fs::read_to_string(html).unwrap();
    for observation in observations {
        assert_eq!(
            (&observation["check"], &observation["kind"]),
            (&json!("ciphers.cbc-pad-oracle"), &json!("times"))
        );
        for sample in ["first", "second"] {
            assert!(observation[sample]["samples"].as_u64().unwrap() > 90, "{observation}");
        }
        let what = observation["what"].as_str().unwrap();
        assert!(
            text.contains(&format!("SEEN ciphers.cbc-pad-oracle: {what}: ")) && page.contains(what),
            "{text}"
        );
    }
}

/// Where a value is not what a JSON Schema says; the words that report.schema.json uses, and no others.
fn wrong(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, told) in schema.as_object().unwrap() {
        let good = match word.as_str() {
            "$ref" => {
                let name = told.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                found.extend(wrong(root, &root["$defs"][name], value, place));
                true
            }
            "type" => match told {
                Value::Array(types) => types.iter().any(|one| is_type(one.as_str().unwrap(), value)),
                one => is_type(one.as_str().unwrap(), value),
            },
            "const" => value == told,
            "enum" => told.as_array().unwrap().contains(value),
            "minimum" => value.as_u64().is_some_and(|number| number >= told.as_u64().unwrap()),
            "required" => {
                told.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                found.extend(items.flat_map(|(at, item)| wrong(root, told, item, &format!("{place}[{at}]"))));
                true
            }
            "properties" => {
                for (name, inner) in told.as_object().unwrap() {
                    let member = value.get(name).into_iter();
                    found.extend(
                        member.flat_map(|member| wrong(root, inner, member, &format!("{place}.{name}"))),
                    );
                }
                true
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                value.as_object().into_iter().flatten().all(|(name, _)| known.contains_key(name))
            }
            "$schema" | "$id" | "title" | "$defs" => true,
            other => panic!("the schema uses {other:?}, which this test does not know"),
        };
        if !good {
            found.push(format!("{place}: {word} is {told}"));
        }
    }
    found
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the schema uses the type {other:?}"),
    }
}

#[test]
fn a_program_shows_the_finding_without_the_suite() {
    let token = Token::new();
    let json = token.path("report.json");
    let checks = [
        "login.logout-first",
        "objects.create-odd-bool",
        "lengths.login",
        "ciphers.gcm-null-iv",
        "attacks.d36-modes",
        "mechanisms.rsa-pkcs-parameter-stray",
    ];
    let named: Vec<_> = checks.iter().flat_map(|id| ["--check", id]).collect();
    token.check(&[&named[..], &["--json", json.to_str().unwrap()]].concat());
    let report = read(&json);
    for id in checks {
        let rows = report["checks"].as_array().unwrap();
        let row = rows.iter().find(|row| row["id"] == id).unwrap();
        let (source, program) = (token.path("reproduce.c"), token.path("reproduce"));
        fs::write(&source, row["reproducer"].as_str().unwrap()).unwrap();
        let built = Command::new("gcc")
            .args(["-std=c99", "-Wall", "-Werror", "-o"])
            .args([&program, &source])
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "{id}: {}", String::from_utf8_lossy(&built.stderr));
        let run = Command::new(&program)
            .args([module().to_str().unwrap(), LABEL])
            .env("SOFTHSM2_CONF", token.path("softhsm2.conf"))
            .envs([("P11_PIN", PIN), ("P11_SO_PIN", SO_PIN)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        assert_eq!(run.status.code(), Some(1), "{id}: {text}");
        let [expected, seen] = ["expected", "seen"].map(|key| row[key].as_str().unwrap());
        let seen: String = seen.chars().take(200).collect();
        let conclusion = format!("reproduced: expected {expected}, seen {seen}");
        assert!(text.lines().last().unwrap().starts_with(&conclusion), "{id}: {text}");
        match id {
            "ciphers.gcm-null-iv" => assert!(text.contains("ended by signal 11"), "{text}"),
            "lengths.login" => assert!(text.contains("the exit code 5"), "SoftHSM2 calls exit(5): {text}"),
            _ => assert!(!text.contains("otherwise"), "{id}: {text}"),
        }
    }
}

fn waivers(token: &Token, expires: [&str; 3]) -> PathBuf {
    let file = token.path("waivers.toml");
    let failing = CHECKS.iter().zip(expires);
    let rows = failing.map(|(id, date)| {
        format!("[[waiver]]\ncheck = \"{id}\"\nreason = \"known\"\nexpires = \"{date}\"\n")
    });
    fs::write(&file, rows.collect::<String>()).unwrap();
    file
}

#[test]
fn a_waiver_hides_a_failure_until_its_date() {
    let token = Token::new();
    let run = |file: &Path| token.check(&[&checks()[..], &["--waivers", file.to_str().unwrap()]].concat());
    let all = run(&waivers(&token, ["2999-01-01"; 3]));
    let text = String::from_utf8_lossy(&all.stdout);
    assert_eq!(all.status.code(), Some(0), "{text}");
    assert!(text.contains("no findings: 1 passed, 0 failed, 3 waived"), "{text}");

    let expired = run(&waivers(&token, ["2999-01-01", "2999-01-01", "2020-01-01"]));
    let text = String::from_utf8_lossy(&expired.stdout);
    assert_eq!(expired.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FAIL waivers.ciphers.gcm-null-iv") && text.contains("2 failed, 2 waived"),
        "{text}"
    );

    for (wrong, why) in [
        ("[[waiver]]\ncheck = \"no.check\"\nreason = \"r\"\nexpires = \"2999-01-01\"\n", "no such check"),
        ("[[waiver]]\ncheck = \"digest.sha1\"\nreason = \"r\"\nexpires = \"soon\"\n", "YYYY-MM-DD"),
        ("[[waiver]]\ncheck = \"digest.sha1\"\nreason = \" \"\nexpires = \"2999-01-01\"\n", "no reason"),
        ("waiver = 1", "waivers.toml"),
    ] {
        let file = token.path("waivers.toml");
        fs::write(&file, wrong).unwrap();
        let run = run(&file);
        let error = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn two_reports_are_compared() {
    let token = Token::new();
    let report = |name: &str, checks: &[&str]| {
        let file = token.path(name);
        let named = checks.iter().flat_map(|id| ["--check", id]).collect::<Vec<_>>();
        token.check(&[&named[..], &["--json", file.to_str().unwrap()]].concat());
        file
    };
    let less = report("a.json", &["digest.sha256", "login.logout-first", "random.exact"]);
    let shared = ["digest.sha256", "login.logout-first"];
    let more = [&shared[..], &["objects.create-odd-bool", "digest.sha1", "digest.sha512"]].concat();
    let more = report("b.json", &more);
    let compare = |a: &Path, b: &Path| {
        Command::new(env!("CARGO_BIN_EXE_p11-conformance")).arg("compare").args([a, b]).output().unwrap()
    };
    let worse = compare(&less, &more);
    let text = String::from_utf8_lossy(&worse.stdout);
    assert_eq!(worse.status.code(), Some(1), "{text}");
    assert!(text.contains("ONLY B objects.create-odd-bool") && !text.contains("NEW"), "{text}");
    assert!(text.contains("0 findings in B that A has not, 1 of checks that A did not make"), "{text}");
    assert!(text.contains("LACKS  B lacks 1 check that A made: random 1\n"), "{text}");
    assert!(text.contains("LACKS  A lacks 3 checks that B made: digest 2, objects 1\n"), "{text}");
    assert!(!text.contains("OTHER"), "what was not chosen is no difference of the module: {text}");
    let better = compare(&more, &less);
    let text = String::from_utf8_lossy(&better.stdout);
    assert_eq!(better.status.code(), Some(0), "{text}");
    assert!(
        text.contains("OTHER  objects.create-odd-bool") && text.contains("finding → not in the report"),
        "{text}"
    );
    fs::write(token.path("other.json"), "{}").unwrap();
    assert_eq!(compare(&less, &token.path("other.json")).status.code(), Some(2));

    // A check that A made without a finding, and reports that say nothing of what they lack.
    let change = |file: &Path, name: &str, change: &dyn Fn(&mut Value)| {
        let mut report = read(file);
        change(&mut report);
        let place = token.path(name);
        fs::write(&place, report.to_string()).unwrap();
        place
    };
    let passed = change(&more, "passed.json", &|report| {
        let rows = report["checks"].as_array_mut().unwrap();
        rows.iter_mut().for_each(|row| row["outcome"] = "pass".into());
    });
    let half = change(&less, "half.json", &|report| report["incomplete"] = "interrupted".into());
    let half_and_worse = change(&more, "worse.json", &|report| report["incomplete"] = "interrupted".into());
    for (a, b, code) in [
        (&passed, &more, 1),
        (&passed, &half_and_worse, 1),
        (&more, &half, 2),
        (&half, &more, 2),
        (&less, &less, 0),
        (&half, &half, 2),
    ] {
        let run = compare(a, b);
        let text = String::from_utf8_lossy(&run.stdout);
        assert_eq!(run.status.code(), Some(code), "{text}");
        assert_eq!(text.contains("NEW    objects.create-odd-bool"), code == 1, "{text}");
    }

    // What has no end is not read, from neither side.
    let pipe = token.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (a, b) in [(&less, pipe.as_path()), (&less, Path::new("/dev/zero"))].map(|(a, b)| (a.as_path(), b)) {
        for run in [compare(a, b), compare(b, a)] {
            let error = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(2), "{error}");
            assert!(error.contains("an ordinary file is needed"), "{error}");
        }
    }
}
