//! Text that somebody else has written, as logs, records and answers may carry it.

/// The most of it that is kept, in bytes.
pub const MOST: usize = 4096;

/// The same without control characters, each of which becomes U+FFFD, and cut after [`MOST`] bytes, which "…" says.
pub fn plain(text: &str) -> String {
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, rest) = text.split_at(end);
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    kept.chars().map(visible).chain((!rest.is_empty()).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters_and_what_steers_a_terminal_is_replaced() {
        assert_eq!(plain("node b: späť"), "node b: späť");
        assert_eq!(plain("a\x1b[2J\nb\u{9b}c"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
        let long = format!("x{}", "ä".repeat(MOST));
        let cut = plain(&long);
        assert_eq!(cut, format!("x{}…", "ä".repeat(MOST / 2 - 1)));
        assert_eq!(plain(&"y".repeat(MOST)), "y".repeat(MOST));
    }
}
