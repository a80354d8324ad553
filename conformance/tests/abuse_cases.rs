//! The README's table of abuse cases names checks that there are, and every check that is named after a case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::process::Command;

const README: &str = include_str!("../README.md");

/// How many cases there are.
const CASES: usize = 88;

/// The ids of all checks.
fn checks() -> Vec<String> {
    let run = Command::new(env!("CARGO_BIN_EXE_p11-conformance"))
        .args(["--list", "--allow-lockout"])
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// The rows of the table: number, and the cell that names the checks.
fn rows() -> Vec<(usize, &'static str)> {
    let (_, section) = README.split_once("## The abuse cases").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?.parse().ok()?, cells.nth(1)?))
    };
    section.lines().filter_map(row).collect()
}

/// Whether an id is meant by a name in which `*` stands for anything.
fn is_meant(name: &str, id: &str) -> bool {
    match name.split_once('*') {
        None => name == id,
        Some((start, rest)) => id.strip_prefix(start).is_some_and(|id| {
            let places = id.char_indices().map(|(place, _)| place).chain([id.len()]);
            places.into_iter().any(|place| is_meant(rest, &id[place..]))
        }),
    }
}

#[test]
fn every_case_is_checked_or_says_why_not() {
    let (checks, rows) = (checks(), rows());
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=CASES).collect::<Vec<_>>());
    for (number, cell) in &rows {
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || cell.starts_with("Not checked: "), "case {number}: {cell}");
        for name in names {
            assert!(checks.iter().any(|id| is_meant(name, id)), "case {number}: there is no check {name}");
        }
    }
}

/// `attacks.a12-…` is case 12, `attacks.d36-…` case 36.
#[test]
fn every_numbered_check_stands_in_its_row() {
    let rows = rows();
    for id in checks().iter().filter(|id| id.starts_with("attacks.")) {
        let number: usize = id["attacks.".len() + 1..].split('-').next().unwrap().parse().unwrap();
        let (_, cell) = rows.iter().find(|(row, _)| *row == number).unwrap();
        let named = cell.split('`').skip(1).step_by(2).any(|name| is_meant(name, id));
        assert!(named, "{id} is not in row {number}: {cell}");
    }
}

#[test]
fn a_star_stands_for_anything() {
    assert!(is_meant("a.*-b", "a.x-b") && is_meant("*.b", "a.b") && is_meant("a.b*", "a.b"));
    assert!(!is_meant("a.*-b", "a.x-c") && !is_meant("a.b", "a.bc"));
}
