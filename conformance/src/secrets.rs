//! The PINs of a run, which no report may show in any form.

use crate::bench::Pin;

/// A PIN this short is found everywhere by chance.
const SHORTEST: usize = 4;

/// A PIN, and what it looks like elsewhere.
#[derive(Clone)]
struct Secret {
    name: &'static str,
    pin: Pin,
    /// As it is, in two bytes for each letter, and in Base64 wherever it begins.
    forms: Vec<Pin>,
    hexadecimal: Pin,
}

/// PINs, each with the name that stands in its place.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// These, as far as they were given.
    pub fn new(pins: [(&'static str, &Option<Pin>); 2]) -> Self {
        let secret = |(name, pin): (&'static str, &Option<Pin>)| {
            let pin = pin.clone()?;
            let wide = pin.iter().flat_map(|byte| [*byte, 0]).collect();
            let encoded = (0..3).map(|place| base64(&pin, place));
            let forms = [pin.to_vec(), wide].into_iter().chain(encoded).map(Pin::new).collect();
            Some(Secret { name, hexadecimal: Pin::new(hexadecimal(&pin)), forms, pin })
        };
        Self(pins.into_iter().filter_map(secret).collect())
    }

    /// Which of them these bytes are.
    pub fn is(&self, bytes: &[u8]) -> Option<&'static str> {
        self.0.iter().find(|secret| secret.pin.as_slice() == bytes).map(|secret| secret.name)
    }

    /// A text that a module had a part in; if one of them is in it, that it is, and no more.
    pub fn hidden(&self, text: String) -> String {
        // As a zero byte stands in the text of a string with two bytes for each letter.
        let is_in = self.within(text.as_bytes()).or_else(|| self.within(text.replace("\\0", "").as_bytes()));
        is_in.map_or(text, |name| format!("(not shown: {name} is in it)"))
    }

    /// Which of them is in these bytes: as it is, in two bytes for each letter, as hexadecimal digits, or in Base64.
    pub fn within(&self, bytes: &[u8]) -> Option<&'static str> {
        if self.0.is_empty() || bytes.len() < SHORTEST {
            return None;
        }
        let digits = Pin::new(digits(bytes));
        let is_in = |secret: &&Secret| {
            secret.pin.len() >= SHORTEST
                && (secret.forms.iter().any(|form| contains(bytes, form))
                    || contains(&digits, &secret.hexadecimal))
        };
        self.0.iter().find(is_in).map(|secret| secret.name)
    }
}

fn contains(bytes: &[u8], form: &[u8]) -> bool {
    !form.is_empty() && bytes.windows(form.len()).any(|part| part == form)
}

/// The hexadecimal digits of a text, whatever stands between them.
fn digits(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().filter(|byte| byte.is_ascii_hexdigit()).map(u8::to_ascii_lowercase).collect()
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// The letters of Base64 (RFC 4648, 4) that depend on nothing but these bytes, where so many stand before them.
fn base64(bytes: &[u8], before: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |place: usize| bytes.get(place / 8).map_or(0, |byte| usize::from(byte >> (7 - place % 8) & 1));
    // The first letter that begins in them or where they begin.
    let first = (6 - before * 8 % 6) % 6;
    let whole = (bytes.len() * 8).saturating_sub(first) / 6;
    let letter = |place: usize| (0..6).fold(0, |sum, next| sum << 1 | bit(first + place * 6 + next));
    (0..whole).filter_map(|place| LETTERS.get(letter(place)).copied()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_found_in_every_form() {
        let secrets = Secrets::new([("the user PIN", &Some(Pin::new(b"pin-2718".to_vec()))), ("", &None)]);
        for text in [
            "no such pin-2718!",
            "70696e2d32373138",
            "70:69:6E:2D 32:37:31:38",
            "x cGluLTI3MTg=",
            "eHBpbi0yNzE4",
            "eHhwaW4tMjcxOA==",
        ] {
            assert_eq!(secrets.within(text.as_bytes()), Some("the user PIN"), "{text}");
        }
        let wide: Vec<u8> = "pin-2718".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(secrets.within(&wide), Some("the user PIN"));
        for text in ["70%69%6e%2d%32%37%31%38", "\"p\\0i\\0n\\0-\\02\\07\\01\\08\\0\""] {
            assert_eq!(secrets.hidden(text.to_owned()), "(not shown: the user PIN is in it)");
        }
        assert_eq!(secrets.hidden("a pin\\0".to_owned()), "a pin\\0");
        assert_eq!(secrets.within(b"pin-2719 and 70696e2d32373139"), None);
        assert_eq!((secrets.is(b"pin-2718"), secrets.is(b"pin-271")), (Some("the user PIN"), None));
    }
}
