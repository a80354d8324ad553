//! Findings that have one cause, told as one: the same fault in one function after the other, or with one mechanism
//! after the other. They agree in all but names of functions, mechanisms and key types, and numbers.

use std::collections::HashMap;

use crate::check::Outcome;
use crate::report::Row;

/// So many findings that agree are told as one.
const MANY: usize = 3;

/// One finding, or some that agree.
pub struct Cause<'a> {
    /// They, in their order.
    pub rows: Vec<&'a Row>,
    /// Their ids, with `*` where they differ.
    pub ids: String,
    /// Their clause, title and what was expected and seen, with `…` for what differs.
    pub clause: String,
    /// See `clause`.
    pub title: String,
    /// See `clause`.
    pub expected: String,
    /// See `clause`.
    pub seen: String,
}

/// The causes of findings, in the order of the first finding of each.
pub fn of<'a>(findings: &[&'a Row]) -> Vec<Cause<'a>> {
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut groups: Vec<Vec<&'a Row>> = Vec::new();
    for row in findings {
        let Outcome::Fail { severity, expected, seen } = &row.outcome else { continue };
        let what = [&row.title, expected, seen].map(|text| pattern(text)).join("\n");
        let place =
            *places.entry((format!("{} {}", row.group, severity.word()), what)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let split = |group: Vec<&'a Row>| match group.len() {
        MANY.. => vec![group],
        _ => group.into_iter().map(|row| vec![row]).collect(),
    };
    groups.into_iter().flat_map(split).filter_map(cause).collect()
}

fn cause(rows: Vec<&Row>) -> Option<Cause<'_>> {
    let texts = rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Fail { expected, seen, .. } => Some([&row.clause, &row.title, expected, seen]),
        Outcome::Pass | Outcome::Skipped { .. } | Outcome::NotOffered => None,
    });
    let mut texts = texts.map(|texts| texts.map(|text| words(text)));
    let mut common = texts.next()?;
    for next in texts {
        for (one, other) in common.iter_mut().zip(next) {
            merge(one, &other);
        }
    }
    let [clause, title, expected, seen] = common.map(|words| words.concat());
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    Some(Cause { ids: starred(&ids), clause, title, expected, seen, rows })
}

/// A text in words and what is between them.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_same = |letter: char| is_of_word(letter) == is_of_word(first);
        let end = rest.find(|letter| !is_same(letter)).unwrap_or(rest.len());
        let (word, next) = rest.split_at(end);
        words.push(word);
        rest = next;
    }
    words
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What stands in the place of a name or a number.
const ANY: &str = "…";

/// A text without the names and numbers in which findings of one cause differ.
fn pattern(text: &str) -> String {
    let is_name = |word: &str| ["C_", "CKM_", "CKK_", "CKA_"].iter().any(|start| word.starts_with(start));
    let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let any = |word| if is_name(word) || is_number(word) { ANY } else { word };
    words(text).into_iter().map(any).collect()
}

/// Keeps what two texts have in common.
fn merge(one: &mut Vec<&str>, other: &[&str]) {
    if one.len() != other.len() {
        *one = vec![ANY];
    }
    for (word, other) in one.iter_mut().zip(other) {
        if word != other {
            *word = ANY;
        }
    }
}

/// What ids have in common, cut where their parts end.
fn starred(ids: &[&str]) -> String {
    let Some((first, rest)) = ids.split_first() else { return String::new() };
    if rest.is_empty() {
        return (*first).to_owned();
    }
    let is_end = |byte: &u8| matches!(byte, b'.' | b'-');
    let all = |agrees: &dyn Fn(&str) -> bool| rest.iter().all(|id| agrees(id));
    let ends = || first.bytes().enumerate().filter(|(_, byte)| is_end(byte)).map(|(place, _)| place);
    let start = ends().filter_map(|place| first.get(..=place)).rfind(|part| all(&|id| id.starts_with(part)));
    let end = ends().filter_map(|place| first.get(place..)).find(|part| all(&|id| id.ends_with(part)));
    format!("{}*{}", start.unwrap_or_default(), end.filter(|end| !end.starts_with('.')).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::{Effect, Severity};

    fn row(id: &str, title: &str, seen: &str, severity: Severity) -> Row {
        Row {
            id: id.to_owned(),
            group: id.split('.').next().unwrap_or_default().to_owned(),
            tag: None,
            clause: format!("5.1.6, 6 {}", title.split(' ').next().unwrap_or_default()),
            title: title.to_owned(),
            effect: Effect::Nothing,
            milliseconds: 0,
            outcome: Outcome::Fail { severity, expected: "a refusal".to_owned(), seen: seen.to_owned() },
            waived: None,
            trace: None,
            reproducer: None,
        }
    }

    #[test]
    fn what_agrees_but_for_names_is_one() {
        let of_key = |name: &str, code: &str, severity| {
            let id = format!("mechanisms.{}-other-key", name.to_lowercase());
            row(
                &id,
                &format!("CKM_{name} takes no key of 12 other types"),
                &format!("C_SignInit: {code}"),
                severity,
            )
        };
        let rows = [
            of_key("AES_CBC", "CKR_OK", Severity::Low),
            of_key("DES_CBC", "CKR_OK", Severity::Low),
            of_key("RSA", "CKR_GENERAL_ERROR", Severity::Low),
            of_key("RC2", "CKR_OK", Severity::Low),
            of_key("RC4", "CKR_OK", Severity::High),
        ];
        let causes = of(&rows.iter().collect::<Vec<_>>());
        let counts: Vec<usize> = causes.iter().map(|cause| cause.rows.len()).collect();
        assert_eq!(counts, [3, 1, 1]);
        let first =
            causes.first().map(|cause| (cause.ids.as_str(), cause.title.as_str(), cause.seen.as_str()));
        let expected = ("mechanisms.*-other-key", "… takes no key of 12 other types", "C_SignInit: CKR_OK");
        assert_eq!(first, Some(expected));
        assert_eq!(causes.first().map(|cause| cause.clause.as_str()), Some("5.1.6, 6 …"));
        assert_eq!(causes.get(1).map(|cause| cause.ids.as_str()), Some("mechanisms.rsa-other-key"));
    }

    #[test]
    fn two_are_two() {
        let rows = ["a.x", "a.y"].map(|id| row(id, "C_Sign", "1", Severity::Low));
        assert_eq!(of(&rows.iter().collect::<Vec<_>>()).len(), 2);
    }
}
