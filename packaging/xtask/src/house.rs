//! House rules as code: where `unsafe` may stand, what the provider may depend on, what the top level
//! holds, and whether the README tells of every function and mechanism.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Outcome,
    shell::{Echo, Shell},
    workspace::{cargo, root, shown},
};

/// A rule: its name and what looks whether it is kept.
pub type Check = (&'static str, fn() -> Outcome);

/// Every rule.
pub const CHECKS: &[Check] = &[
    ("`unsafe` only where it may stand", unsafe_has_one_home),
    ("no async runtime and no libcrypto under the provider", provider_stays_small),
    ("the top level holds the house and nothing else", top_level),
    ("the README tells of every function", readme_functions),
    ("the README tells of every mechanism", readme_mechanisms),
];

/// The product's one home of `unsafe`, and what is never shipped: malformed calls, the faulty module, and the
/// provider's tests, which load it, fork with it and unload it.
const UNSAFE_HOMES: &[&str] =
    &["provider/src/ffi/", "provider/tests/", "conformance/src/raw/", "conformance/mutant/"];

/// What the top level may hold beside dot-files.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "conformance",
    "hsm-server",
    "packaging",
    "provider",
    "shared",
    "target",
];

fn unsafe_has_one_home() -> Outcome {
    let mut strays = Vec::new();
    for path in sources(&root())? {
        let name = shown(&path);
        if UNSAFE_HOMES.iter().any(|home| name.starts_with(home)) {
            continue;
        }
        if uses_unsafe(&fs::read_to_string(&path)?) {
            strays.push(name);
        }
    }
    verdict(strays.is_empty(), || format!("`unsafe` in {}", strays.join(", ")))
}

fn uses_unsafe(source: &str) -> bool {
    without_comments_and_strings(source).split(|c| !is_word(c)).any(|word| word == "unsafe")
}

/// Every Rust file under a folder but those that cargo makes.
fn sources(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(sources(&path)?);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The code alone: a comment or a message may well speak of `unsafe`.
fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string_length(rest)
        } else if let Some(guard) = raw_guard(rest).filter(|_| !code.ends_with(is_word)) {
            let end = format!("\"{guard}");
            let body = guard.len() + 2;
            rest.get(body..).and_then(|text| text.find(&end)).map_or(rest.len(), |at| body + at + end.len())
        } else if rest.starts_with("'\"'") {
            3
        } else {
            0
        };
        let (passed, keep) = if skipped > 0 { (skipped, ' ') } else { (first.len_utf8(), first) };
        code.push(keep);
        rest = rest.get(passed..).unwrap_or_default();
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The hashes of a raw string that begins here: `r##"`.
fn raw_guard(text: &str) -> Option<&str> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after.get(hashes..)?.starts_with('"').then(|| after.get(..hashes)).flatten()
}

/// The length of a string literal, its quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The provider lives in a stranger's process (architecture, section 1, decision 3), and `shared` lives in it.
fn provider_stays_small() -> Outcome {
    let barred = ["tokio", "openssl", "openssl-sys", "strongroom-server"];
    for package in ["strongroom-provider", "strongroom-shared"] {
        let cargo = cargo();
        let name = cargo.to_str().unwrap_or("cargo");
        let words = [name, "tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", package];
        let tree = Shell::new(Echo::Nothing).run(&words)?;
        let found = |crate_name: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(crate_name));
        if let Some(barred) = barred.iter().find(found) {
            return Err(format!("{package} depends on {barred}").into());
        }
    }
    Ok(())
}

fn top_level() -> Outcome {
    let mut strays = Vec::new();
    for entry in fs::read_dir(root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            strays.push(name);
        }
    }
    verdict(strays.is_empty(), || format!("at the top level: {}", strays.join(", ")))
}

/// The function table of the README has a row for each function in our lists, and says truly which of them
/// only answer that they are not supported.
fn readme_functions() -> Outcome {
    let lists = read("provider/src/ffi/tables.rs")?;
    let listed = lists.split_once("\nfunction_lists! {").and_then(|(_, list)| list.split_once("\n}"));
    let readme = read("README.md")?;
    same("functions", &names(listed.map_or("", |(list, _)| list), "C_"), &rows(&readme, "C_"))?;

    let unsupported = read("provider/src/ffi/unsupported.rs")?;
    let refused = unsupported.split_once("FunctionNotSupported:").map_or("", |(_, list)| list);
    let mut refused = names(refused, "C_");
    // Looks at its session first.
    refused.insert("C_SetOperationState".into());
    let told: Vec<&str> = readme.lines().filter(|line| line.ends_with("| not supported |")).collect();
    same("functions that are not supported", &refused, &rows(&told.join("\n"), "C_"))
}

/// The mechanism table of the README has a row for each row of `mechanisms!`, and no others.
fn readme_mechanisms() -> Outcome {
    let source = read("shared/src/mechanism.rs")?;
    let table = source.split_once("\nmechanisms! {").map_or("", |(_, table)| table);
    let table = table.split_once("\n}").map_or("", |(table, _)| table);
    same("mechanisms", &names(table, "CKM_"), &rows(&read("README.md")?, "CKM_"))
}

fn read(path: &str) -> Outcome<String> {
    Ok(fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))?)
}

/// Every word of a text that begins so.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    let words = text.split(|c| !is_word(c));
    words.filter(|word| word.starts_with(prefix) && word.len() > prefix.len()).map(String::from).collect()
}

/// The names that begin so in the first column of the README's tables.
fn rows(readme: &str, prefix: &str) -> BTreeSet<String> {
    let cells = readme.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    cells.flat_map(|cell| names(cell, prefix)).collect()
}

fn same(what: &str, real: &BTreeSet<String>, told: &BTreeSet<String>) -> Outcome {
    let list = |set: Vec<&String>| set.into_iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let (missing, invented) = (list(real.difference(told).collect()), list(told.difference(real).collect()));
    verdict(!real.is_empty() && missing.is_empty() && invented.is_empty(), || {
        format!("README, {what}: missing [{missing}], not in the code [{invented}]")
    })
}

fn verdict(kept: bool, complaint: impl FnOnce() -> String) -> Outcome {
    if kept { Ok(()) } else { Err(complaint().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_is_found_in_code_only() {
        assert!(uses_unsafe("fn f() { unsafe { g() } }"));
        assert!(uses_unsafe("let s = \"a\\\"b\"; unsafe fn h() {}"));
        assert!(uses_unsafe("let c = '\"'; unsafe {}"));
        assert!(uses_unsafe("let r = r#\"x\"y\"#; unsafe {}"));
        assert!(!uses_unsafe("// unsafe\n/* unsafe */ let s = \"unsafe\"; let r = r#\"unsafe\"#;"));
        assert!(!uses_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn the_first_column_of_a_table_names_things() {
        let readme = "Use `C_Sign`.\n| `C_Login`, `C_Logout` | as `C_LoginUser` |\n|---|---|\n";
        assert_eq!(rows(readme, "C_"), names("C_Login C_Logout", "C_"));
    }
}
