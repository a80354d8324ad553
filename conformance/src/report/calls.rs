//! Calls as a person reads them: one line each.

use std::fmt;

use cryptoki_sys::*;

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
        write!(f, "{} ", names::attribute(self.number))?;
        let bytes = match &self.value {
            Content::Memory(block) if block.length == block.bytes.len() as u64 => block.bytes.as_slice(),
            Content::Memory(_) | Content::Null(_) | Content::Secret(..) | Content::Unreadable(_) => &[],
        };
        let number = bytes.try_into().ok().map(CK_ULONG::from_ne_bytes);
        match (self.number, number, bytes) {
            (CKA_CLASS, Some(class), _) => write!(f, "{}", names::class(class)),
            (CKA_KEY_TYPE, Some(kind), _) => write!(f, "{}", names::key_type(kind)),
            (CKA_KEY_GEN_MECHANISM, Some(number), _) => write!(f, "{}", names::mechanism(number)),
            (CKA_VALUE_LEN | CKA_MODULUS_BITS | CKA_CERTIFICATE_TYPE | CKA_PROFILE_ID, Some(number), _) => {
                write!(f, "{number}")
            }
            (number, _, [0]) if is_bool(number) => write!(f, "false"),
            (number, _, [1]) if is_bool(number) => write!(f, "true"),
            (CKA_LABEL | CKA_APPLICATION | CKA_UNIQUE_ID, _, [_, ..]) if bytes.iter().all(is_letter) => {
                write!(f, "\"{}\"", String::from_utf8_lossy(bytes))
            }
            _ => write!(f, "{}", self.value),
        }
    }
}

/// Whether a byte is shown as itself.
fn is_letter(byte: &u8) -> bool {
    (byte.is_ascii_graphic() || *byte == b' ') && *byte != b'"'
}

/// Whether an attribute is a `CK_BBOOL`.
const fn is_bool(attribute: CK_ATTRIBUTE_TYPE) -> bool {
    matches!(
        attribute,
        CKA_TOKEN
            | CKA_PRIVATE
            | CKA_TRUSTED
            | CKA_SENSITIVE
            | CKA_ENCRYPT
            | CKA_DECRYPT
            | CKA_WRAP
            | CKA_UNWRAP
            | CKA_SIGN
            | CKA_SIGN_RECOVER
            | CKA_VERIFY
            | CKA_VERIFY_RECOVER
            | CKA_DERIVE
            | CKA_ENCAPSULATE
            | CKA_DECAPSULATE
            | CKA_EXTRACTABLE
            | CKA_LOCAL
            | CKA_NEVER_EXTRACTABLE
            | CKA_ALWAYS_SENSITIVE
            | CKA_MODIFIABLE
            | CKA_COPYABLE
            | CKA_DESTROYABLE
            | CKA_ALWAYS_AUTHENTICATE
            | CKA_WRAP_WITH_TRUSTED
    )
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

    #[test]
    fn an_attribute_is_told_as_what_it_is() {
        let told = |number, bytes: &[u8]| {
            let value = Block { length: bytes.len() as u64, bytes: bytes.to_vec(), points: Vec::new() };
            Attribute { number, value: Content::Memory(value) }.to_string()
        };
        assert_eq!(told(CKA_CLASS, &CKO_DATA.to_ne_bytes()), "CKA_CLASS CKO_DATA");
        assert_eq!(told(CKA_TOKEN, &[1]), "CKA_TOKEN true");
        assert_eq!(told(CKA_TOKEN, &[7]), "CKA_TOKEN [1] 07");
        assert_eq!(told(CKA_ID, &[1]), "CKA_ID [1] 01");
        assert_eq!(told(CKA_LABEL, b"my key"), "CKA_LABEL \"my key\"");
        assert_eq!(told(CKA_LABEL, b"\x1b[2J"), "CKA_LABEL [4] 1b5b324a");
        assert_eq!(told(CKA_MODULUS_BITS, &2048_u64.to_ne_bytes()), "CKA_MODULUS_BITS 2048");
        assert_eq!(told(CKA_MODULUS_BITS, &[8]), "CKA_MODULUS_BITS [1] 08");
    }
}
