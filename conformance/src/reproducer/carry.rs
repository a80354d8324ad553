//! What a call is given that came out of an earlier one: a program gives on what the module answers it, not what it
//! answered then, for generated keys are others every time. What cannot be given on is told.

use std::collections::HashSet;
use std::fmt::Write;

use crate::signature::{self, Kind};
use crate::trace::{Attribute, Block, Call, Content, Value};
use cryptoki_sys::{CKA_EC_POINT, CKA_MODULUS, CKA_PUBLIC_KEY_INFO, CKA_VALUE};

/// Bytes that a value has at least to be told from others: numbers and truth values are shorter.
const LEAST: usize = 9;

/// Bytes of a value that a record holds at most.
const SHOWN: u64 = 512;

/// Lines of C that put an earlier answer, of a variable's name, where a call is given these bytes.
pub fn lines(answer: (&str, &[u8]), target: &str, given: &[u8]) -> Option<String> {
    let (name, answered) = answer;
    Some(match way(answered, given)? {
        Way::Part { from } => format!("    memcpy({target}, {name} + {from}, {});\n", given.len()),
        Way::Whole { at } => format!("    memcpy({target} + {at}, {name}, {});\n", answered.len()),
        Way::Changed => {
            let mut text = format!("    memcpy({target}, {name}, {});\n", given.len());
            for (place, (one, other)) in answered.iter().zip(given).enumerate() {
                if one != other {
                    let _infallible = writeln!(text, "    {target}[{place}] ^= {:#04x};", one ^ other);
                }
            }
            text
        }
    })
}

/// How an answer is in what a later call is given.
enum Way {
    /// What is given is a part of the answer.
    Part { from: usize },
    /// The answer is a part of what is given.
    Whole { at: usize },
    /// The answer, but for some of its bytes.
    Changed,
}

fn way(answered: &[u8], given: &[u8]) -> Option<Way> {
    if answered.len() < LEAST || !is_telling(given) {
        return None;
    }
    let place = |long: &[u8], short: &[u8]| long.windows(short.len()).position(|part| part == short);
    let changed = || {
        let differ = answered.iter().zip(given).filter(|(one, other)| one != other).count();
        (answered.len() == given.len() && differ <= given.len() / 4).then_some(Way::Changed)
    };
    let part = place(answered, given).map(|from| Way::Part { from });
    part.or_else(|| place(given, answered).map(|at| Way::Whole { at })).or_else(changed)
}

/// One byte over and over says nothing of where it is from.
fn is_telling(bytes: &[u8]) -> bool {
    bytes.len() >= LEAST && bytes.windows(2).any(|pair| matches!(pair, [one, next] if one != next))
}

/// Whether a call put out what another is given.
pub fn feeds(first: &Call, second: &Call) -> bool {
    let given = inputs(second);
    outputs(first).iter().any(|answered| given.iter().any(|given| way(answered, given).is_some()))
}

/// Why the program may not do what the check did, if so: `kept` are those of the calls that it makes.
pub fn doubt(all: &[&Call], kept: &[&Call], left_out: usize) -> Option<&'static str> {
    if left_out > 0 {
        return Some("calls between the first and the last ones are left out");
    }
    let mut before: HashSet<&[u8]> = HashSet::new();
    let mut found: HashSet<u64> = HashSet::new();
    let mut carried: Vec<&[u8]> = Vec::new();
    let mut has_answered = false;
    for call in all {
        if kept.iter().any(|other| std::ptr::eq(*other, *call)) {
            if withholds(call) {
                return Some("something that the report withholds, such as a key's value, has a stand-in");
            }
            if call.used().any(|handle| found.contains(&handle)) {
                return Some("the handle of an object that was searched for is a constant");
            }
            let is_made_of_answers = |given: &&[u8]| {
                has_answered
                    && is_telling(given)
                    && !before.contains(given)
                    && !carried.iter().any(|answered| way(answered, given).is_some())
            };
            if inputs(call).iter().any(is_made_of_answers) {
                return Some("what the check made of earlier answers is a constant");
            }
            carried.extend(outputs(call));
        }
        if !has_answered {
            before.extend(inputs(call));
        }
        has_answered |= answers(call);
        found.extend(handles(call));
    }
    None
}

/// Whether the bytes of an argument are not all known.
fn withholds(call: &Call) -> bool {
    let is_withheld = |content: &Content| match content {
        Content::Secret(..) => true,
        Content::Memory(block) => is_cut(block),
        Content::Null(_) | Content::Unreadable(_) => false,
    };
    kinds(call).any(|(kind, value)| match value {
        Value::Input(content) => kind != Kind::Pin && is_withheld(content),
        Value::Mechanism(Some((_, parameter))) => is_withheld(parameter),
        Value::Template(Some(attributes)) if kind == Kind::Template => {
            attributes.iter().any(|attribute| is_withheld(&attribute.value))
        }
        _ => false,
    })
}

fn is_cut(block: &Block) -> bool {
    block.length > SHOWN && block.bytes.len() as u64 == SHOWN
        || block.points.iter().any(|(_, target)| is_cut(target))
}

fn kinds(call: &Call) -> impl Iterator<Item = (Kind, &Value)> {
    let kinds = call.function().map(signature::of).unwrap_or_default();
    kinds.iter().copied().zip(&call.arguments)
}

/// What a call is given that may be from another.
fn inputs(call: &Call) -> Vec<&[u8]> {
    let mut found = Vec::new();
    for (kind, value) in kinds(call) {
        match value {
            Value::Input(Content::Memory(block)) if !matches!(kind, Kind::Label | Kind::Arguments) => {
                pieces(block, &mut found)
            }
            Value::Mechanism(Some((_, Content::Memory(block)))) => pieces(block, &mut found),
            Value::Template(Some(attributes)) if kind == Kind::Template => {
                for attribute in attributes.iter().filter(|attribute| is_of_a_key(attribute)) {
                    if let Content::Memory(block) = &attribute.value {
                        pieces(block, &mut found);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn is_of_a_key(attribute: &Attribute) -> bool {
    matches!(attribute.number, CKA_VALUE | CKA_MODULUS | CKA_EC_POINT | CKA_PUBLIC_KEY_INFO)
}

fn pieces<'a>(block: &'a Block, found: &mut Vec<&'a [u8]>) {
    if block.points.is_empty() {
        found.push(&block.bytes);
    }
    block.points.iter().for_each(|(_, target)| pieces(target, found));
}

/// What a call put out.
fn outputs(call: &Call) -> Vec<&[u8]> {
    let mut found = Vec::new();
    for (kind, value) in kinds(call) {
        match value {
            Value::Output(Content::Memory(block)) if kind == Kind::Output => found.push(&*block.bytes),
            Value::Template(Some(attributes)) if kind == Kind::Question => {
                found.extend(attributes.iter().filter_map(|attribute| match &attribute.value {
                    Content::Memory(block) => Some(&*block.bytes),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    found.retain(|bytes| bytes.len() >= LEAST);
    found
}

/// Whether a call put out anything that later arguments may be made of.
fn answers(call: &Call) -> bool {
    let is_withheld = |content: &Content| matches!(content, Content::Secret(_, length) if *length > 0);
    !outputs(call).is_empty()
        || kinds(call).any(|(kind, value)| match value {
            Value::Output(content) => is_withheld(content),
            Value::Template(Some(attributes)) if kind == Kind::Question => {
                attributes.iter().any(|attribute| is_withheld(&attribute.value))
            }
            _ => false,
        })
}

/// The handles that a search put out.
fn handles(call: &Call) -> Vec<u64> {
    let blocks = kinds(call).filter_map(|(kind, value)| match value {
        Value::Output(Content::Memory(block)) if kind == Kind::Handles => Some(block),
        _ => None,
    });
    blocks.flat_map(|block| block.bytes.as_chunks::<8>().0).map(|word| u64::from_ne_bytes(*word)).collect()
}
