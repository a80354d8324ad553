//! Data that looks random and is the same in every run with the same `--seed`. Not for keys.

/// A stream of numbers: SplitMix64 (Steele, Lea and Flood 2014).
pub struct Seeded(u64);

impl Seeded {
    /// The stream of a check in a run: another for each check, whichever checks are made before it.
    pub fn new(seed: u64, id: &str) -> Self {
        let mixed = id.bytes().fold(seed, |state, byte| Self(state ^ u64::from(byte)).number());
        Self(mixed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.number() % limit).unwrap_or(0)
    }

    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.number().to_le_bytes()).flatten().take(length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_its_authors() {
        let mut stream = Seeded(1_234_567);
        assert_eq!(stream.number(), 6_457_827_717_110_365_317);
        assert_eq!(stream.number(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn each_check_has_its_own() {
        let bytes = |seed, id| Seeded::new(seed, id).bytes(13);
        assert_eq!(bytes(1, "a.b"), bytes(1, "a.b"));
        assert_ne!(bytes(1, "a.b"), bytes(2, "a.b"));
        assert_ne!(bytes(1, "a.b"), bytes(1, "a.c"));
    }
}
