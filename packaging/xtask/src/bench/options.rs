//! What the reader wants measured.

use std::time::Duration;

use xtask::Outcome;

use crate::plan::{Algorithm, Keys, Target};

/// What `--help` prints.
pub const USAGE: &str = "\
cargo xtask bench [--quick] [--only p256,secp256k1,ed25519,rsa2048,hmac] [--threads 1,4,16,64]
                  [--keys token,session] [--targets process,thread,softhsm,floor] [--rounds N]
--quick    two short rounds instead of five longer ones: for a first look, not for judgement";

/// The choices made on the command line.
#[derive(Debug)]
pub struct Options {
    /// Which algorithms.
    pub algorithms: Vec<Algorithm>,
    /// How many threads, in turn.
    pub threads: Vec<usize>,
    /// Which kinds of key.
    pub keys: Vec<Keys>,
    /// Whom to measure.
    pub targets: Vec<Target>,
    /// How often each measurement is repeated, in turn with the others.
    pub rounds: usize,
    /// How long one measurement takes.
    pub slice: Duration,
}

impl Options {
    /// Reads a command line.
    ///
    /// # Errors
    /// A word that means nothing here.
    pub fn parse(words: &[&str]) -> Outcome<Self> {
        let mut options = Self {
            algorithms: Algorithm::ALL.to_vec(),
            threads: vec![1, 4, 16, 64],
            keys: Keys::ALL.to_vec(),
            targets: Target::ALL.to_vec(),
            rounds: 5,
            slice: Duration::from_millis(400),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut list =
                || words.next().ok_or(format!("{word} wants a value\n{USAGE}")).map(|text| text.split(','));
            match *word {
                "--quick" => (options.rounds, options.slice) = (2, Duration::from_millis(150)),
                "--only" => options.algorithms = named(list()?, Algorithm::ALL, Algorithm::name)?,
                "--keys" => options.keys = named(list()?, Keys::ALL, Keys::name)?,
                "--targets" => options.targets = named(list()?, Target::ALL, Target::name)?,
                "--threads" => options.threads = list()?.map(str::parse).collect::<Result<_, _>>()?,
                "--rounds" => options.rounds = list()?.collect::<String>().parse()?,
                other => return Err(format!("unknown: {other}\n{USAGE}").into()),
            }
        }
        if options.rounds == 0 || options.threads.iter().any(|count| !(1..=256).contains(count)) {
            return Err("at least one round, and 1 to 256 threads".into());
        }
        Ok(options)
    }
}

fn named<'w, T: Copy>(
    words: impl Iterator<Item = &'w str>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Outcome<Vec<T>> {
    let find = |word: &str| all.iter().copied().find(|each| name(*each) == word);
    words.map(|word| find(word).ok_or_else(|| format!("unknown: {word}\n{USAGE}").into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_narrows_and_a_wrong_word_is_refused() {
        let options = Options::parse(&["--only", "p256,hmac", "--threads", "1,16", "--quick"]).unwrap();
        assert_eq!(options.algorithms, [Algorithm::P256, Algorithm::Hmac]);
        assert_eq!((options.threads, options.rounds), (vec![1, 16], 2));
        assert!(Options::parse(&["--only", "md5"]).is_err());
        assert!(Options::parse(&["--threads", "0"]).is_err());
    }
}
