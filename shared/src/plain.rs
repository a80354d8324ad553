//! Text that somebody else has written, as logs, records and answers may carry it.

/// The most of it that is kept, in bytes.
pub const MOST: usize = 4096;

/// The same without characters that steer what is shown, each of which becomes U+FFFD, and cut after [`MOST`] bytes, which "…" says.
pub fn plain(text: &str) -> String {
    let mut end = text.len().min(MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, rest) = text.split_at(end);
    let visible = |c: char| if steers(c) { char::REPLACEMENT_CHARACTER } else { c };
    kept.chars().map(visible).chain((!rest.is_empty()).then_some('…')).collect()
}

/// Whether it steers what is shown: controls (Unicode category Cc), line and paragraph separators, and what turns the
/// direction of the text that follows (Unicode Standard Annex 9, section 2).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters_and_what_steers_a_terminal_is_replaced() {
        assert_eq!(plain("node b: späť"), "node b: späť");
        assert_eq!(plain("a\x1b[2J\nb\u{9b}c"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
        assert_eq!(plain("a\u{202e}b\u{2067}c\u{2028}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        let long = format!("x{}", "ä".repeat(MOST));
        let cut = plain(&long);
        assert_eq!(cut, format!("x{}…", "ä".repeat(MOST / 2 - 1)));
        assert_eq!(plain(&"y".repeat(MOST)), "y".repeat(MOST));
    }
}
