//! Calls as a person reads them: one line each.

use std::fmt;

use cryptoki_sys::{CKA_CLASS, CKA_KEY_TYPE};

use crate::names;
use crate::trace::{Attribute, Call, Content, Null, Value, hex_of};

/// Bytes of a value that a line shows.
const SHOWN: usize = 24;

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function)?;
        for (place, value) in self.arguments.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
        }
        match self.result {
            Some(code) => write!(f, ") = {}", crate::rv::name(code)),
            None => write!(f, ") did not return"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) if *number > 1 << 32 => write!(f, "{number:#x}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Session(handle) => write!(f, "session {handle}"),
            Self::Object(handle) => write!(f, "object {handle}"),
            Self::Mechanism(None) | Self::Template(None) | Self::Room(None) | Self::New(None) => {
                write!(f, "NULL")
            }
            Self::Mechanism(Some((number, Content::Null(0)))) => write!(f, "{}", names::mechanism(*number)),
            Self::Mechanism(Some((number, parameter))) => {
                write!(f, "{} with {parameter}", names::mechanism(*number))
            }
            Self::Template(Some(attributes)) => {
                let rows: Vec<String> = attributes.iter().map(ToString::to_string).collect();
                write!(f, "{{{}}}", rows.join(", "))
            }
            Self::Input(content) => write!(f, "{content}"),
            Self::Output(content) => write!(f, "→ {content}"),
            Self::Room(Some((before, after))) if before == after => write!(f, "room {before}"),
            Self::Room(Some((before, after))) => write!(f, "room {before} → {after}"),
            Self::New(Some(number)) => write!(f, "→ {number}"),
            Self::Pointer(Null::Null) => write!(f, "NULL"),
            Self::Pointer(Null::Given) => write!(f, "pointer"),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match &self.value {
            Content::Memory(block) => block.bytes.as_slice().try_into().ok().map(u64::from_ne_bytes),
            Content::Null(_) | Content::Secret(..) | Content::Unreadable(_) => None,
        };
        match (self.number, number) {
            (CKA_CLASS, Some(class)) => write!(f, "CKA_CLASS {}", names::class(class)),
            (CKA_KEY_TYPE, Some(kind)) => write!(f, "CKA_KEY_TYPE {}", names::key_type(kind)),
            (number, _) => write!(f, "{} {}", names::attribute(number), self.value),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(0) => write!(f, "NULL"),
            Self::Null(length) => write!(f, "NULL of length {length}"),
            Self::Secret(what, length) => write!(f, "<{what}, {length} bytes>"),
            Self::Unreadable(length) => write!(f, "memory of length {length:#x}"),
            Self::Memory(block) => {
                let shown = block.bytes.get(..SHOWN).unwrap_or(&block.bytes);
                let more = if block.length > shown.len() as u64 { "…" } else { "" };
                write!(f, "[{}] {}{more}", block.length, hex_of(shown))?;
                for (at, target) in &block.points {
                    let shown = target.bytes.get(..SHOWN).unwrap_or(&target.bytes);
                    write!(f, " +{at}→[{}] {}", target.length, hex_of(shown))?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Block;

    #[test]
    fn a_call_is_a_line() {
        let data = Block { length: 2, bytes: vec![1, 0xff], points: Vec::new() };
        let call = Call {
            function: "C_Sign".to_owned(),
            arguments: vec![
                Value::Session(3),
                Value::Input(Content::Memory(data)),
                Value::Number(2),
                Value::Output(Content::Secret("plaintext".to_owned(), 9)),
                Value::Room(Some((64, 9))),
            ],
            result: Some(0),
        };
        let line = "C_Sign(session 3, [2] 01ff, 2, → <plaintext, 9 bytes>, room 64 → 9) = CKR_OK";
        assert_eq!(call.to_string(), line);
    }
}
