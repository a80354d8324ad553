//! Bytes as people and logs read them.

use std::fmt;

/// Bytes in lower-case hexadecimal, without anything between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_two_digits() {
        assert_eq!(Hex(&[0, 0x0f, 0xa0]).to_string(), "000fa0");
        assert_eq!(Hex(&[]).to_string(), "");
    }
}
