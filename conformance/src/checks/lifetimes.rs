//! What lasts from one start of the module to the next, in the same process and in another: token objects. And what must
//! not: destroyed objects, and the numbers that chance gave.

use std::collections::BTreeMap;
use std::time::Duration;

use cryptoki_sys::*;

use crate::bench::{Bench, Slots, Stage, Target};
use crate::check::{Stop, Verdict, ensure, table};
use crate::checks::random::{fill, has_source};
use crate::runner::again::run_again;
use crate::runner::process::tell;
use crate::session::{Session, aes};
use crate::template::{Mechanism, Template};

table! {
    "random.next-start" Loaded random_next_start, "5.19.2 C_GenerateRandom, 5.18", "random bytes, keys and nonces are others when the module starts again" => randomness critical session_objects;
    "random.next-process" Loaded random_next_process, "5.19.2 C_GenerateRandom, 5.18", "random bytes, keys and nonces are others in another process" => randomness critical session_objects patience(60);
    "objects.next-start" Loaded objects_next_start, "4.4 Storage objects, 5.7.3 C_DestroyObject", "when the module starts again, a token object is there, and a destroyed one is not" => key_separation high token_objects;
    "objects.next-process" Loaded objects_next_process, "4.4 Storage objects, 5.7.3 C_DestroyObject", "in another process, a token object is there, and a destroyed one is not" => key_separation high token_objects patience(60);
}

/// How long a process may take that tells one thing.
const LIMIT: Duration = Duration::from_secs(25);

/// What a process of its own is asked, as its command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// What chance gives it first.
    FirstChance,
    /// What chance gives it, when another was asked before.
    SecondChance,
    /// Which of the objects of these checks it sees.
    Objects,
}

impl Question {
    const fn option(self) -> &'static str {
        match self {
            Self::FirstChance => "first-chance",
            Self::SecondChance => "second-chance",
            Self::Objects => "objects",
        }
    }
}

/// Things by their names, as bytes.
type Things = BTreeMap<String, Vec<u8>>;

/// Answers a question in this process.
///
/// # Errors
/// A sentence, when the module cannot be loaded or the parent does not listen.
pub fn answer(target: Target, question: Question) -> Result<(), String> {
    let bench = Bench::new(Target { calls: None, socket: None, ..target })?;
    let seen = match question {
        Question::FirstChance => chance(&bench, 1),
        Question::SecondChance => chance(&bench, 2),
        Question::Objects => objects(&bench),
    };
    tell(&seen.map_err(crate::bench::reason))?;
    bench.reset(Stage::Loaded);
    Ok(())
}

fn ask(question: Question) -> Result<Things, Stop> {
    let answer: Result<Things, String> = run_again(&["--question", question.option()], None, LIMIT)?;
    answer.map_err(|why| Stop::Skipped(format!("in another process: {why}")))
}

/// A session of the user, or of nobody where no PIN is known.
fn begin(bench: &Bench) -> Result<Session<'_>, Stop> {
    bench.prepare(Stage::Initialized)?;
    if bench.slots(Slots::WithToken)?.is_empty() {
        return Err(Stop::NotOffered);
    }
    bench.prepare(Stage::User).or_else(|_| bench.prepare(Stage::Public))?;
    bench.session()
}

/// What is left to chance: random bytes, keys, and the nonce of a signature of this message, which its first half shows.
fn chance(bench: &Bench, message: u8) -> Result<Things, Stop> {
    let session = begin(bench)?;
    let mut things = Things::new();
    if has_source(bench).is_ok() {
        let mut bytes = vec![0; 32];
        fill(&session, &mut bytes)?;
        things.insert("random bytes".to_owned(), bytes);
    }
    if bench.offers(CKM_AES_KEY_GEN, CKF_GENERATE).is_ok() {
        let open = aes(32).bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true);
        let (rv, key) = session.try_generate(&Mechanism::plain(CKM_AES_KEY_GEN), &open);
        let value = session.attribute(key, CKA_VALUE).ok().filter(|_| rv.was(CKR_OK));
        things.extend(value.map(|value| ("an AES key".to_owned(), value)));
    }
    if let Ok(pair) = session.p256() {
        let point = session.attribute(pair.public, CKA_EC_POINT).ok();
        things.extend(point.map(|point| ("a P-256 key".to_owned(), point)));
        let signature = session.sign(&Mechanism::plain(CKM_ECDSA), pair.private, &[message; 32]);
        let half = signature.ok().and_then(|signature| Some(signature.get(..32)?.to_vec()));
        things.extend(half.map(|half| ("the nonce of an ECDSA signature".to_owned(), half)));
    }
    Ok(things)
}

fn are_others(first: &Things, second: &Things) -> Verdict {
    if !first.keys().any(|name| second.contains_key(name)) {
        return Err(Stop::NotOffered);
    }
    let same = first.iter().filter(|(name, thing)| second.get(*name) == Some(thing));
    let same: Vec<&str> = same.map(|(name, _)| name.as_str()).collect();
    ensure(same.is_empty(), "others each time", format!("the same again: {}", same.join(", ")))
}

fn random_next_start(bench: &Bench) -> Verdict {
    let first = chance(bench, 1)?;
    bench.reset(Stage::Loaded);
    are_others(&first, &chance(bench, 2)?)
}

fn random_next_process(_: &Bench) -> Verdict {
    are_others(&ask(Question::FirstChance)?, &ask(Question::SecondChance)?)
}

/// By which the two objects are found.
const KEPT: &[u8] = b"lifetimes-kept";
const DESTROYED: &[u8] = b"lifetimes-destroyed";

/// Leaves one object on the token, and one that was there.
fn keep_and_destroy(bench: &Bench) -> Verdict {
    let session = begin(bench)?;
    destroy_all(&session)?;
    session.create_on_token(Template::data().bytes(CKA_APPLICATION, KEPT))?;
    let object = session.create_on_token(Template::data().bytes(CKA_APPLICATION, DESTROYED))?;
    session.destroy(object).ok()
}

/// How many of each there are, where there are any.
fn objects(bench: &Bench) -> Result<Things, Stop> {
    let session = begin(bench)?;
    let mut things = Things::new();
    for mark in [KEPT, DESTROYED] {
        let found = session.find(&by_mark(mark))?.len();
        if found > 0 {
            things.insert(String::from_utf8_lossy(mark).into_owned(), found.to_string().into_bytes());
        }
    }
    Ok(things)
}

fn by_mark(mark: &[u8]) -> Template {
    Template::new().ulong(CKA_CLASS, CKO_DATA).bytes(CKA_APPLICATION, mark)
}

fn destroy_all(session: &Session<'_>) -> Verdict {
    for mark in [KEPT, DESTROYED] {
        for object in session.find(&by_mark(mark))? {
            session.destroy(object).ok()?;
        }
    }
    Ok(())
}

/// Judges what the next start sees, after the token is cleared of it.
fn are_right(bench: &Bench, seen: Result<Things, Stop>) -> Verdict {
    destroy_all(&begin(bench)?)?;
    let seen = seen?;
    let has = |mark: &[u8]| seen.contains_key(String::from_utf8_lossy(mark).as_ref());
    ensure(!has(DESTROYED), "no destroyed object", "the object that C_DestroyObject destroyed is back")?;
    ensure(has(KEPT), "the token object", "nothing: the token object is lost")
}

fn objects_next_start(bench: &Bench) -> Verdict {
    keep_and_destroy(bench)?;
    bench.reset(Stage::Loaded);
    let seen = objects(bench);
    are_right(bench, seen)
}

fn objects_next_process(bench: &Bench) -> Verdict {
    keep_and_destroy(bench)?;
    bench.reset(Stage::Loaded);
    are_right(bench, ask(Question::Objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn things(all: &[(&str, u8)]) -> Things {
        all.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect()
    }

    #[test]
    fn what_comes_again_is_named() {
        let first = things(&[("a key", 1), ("bytes", 2), ("a nonce", 3)]);
        assert_eq!(are_others(&first, &things(&[("a key", 4), ("bytes", 5)])), Ok(()));
        assert_eq!(are_others(&first, &things(&[("another", 1)])), Err(Stop::NotOffered));
        let again = are_others(&first, &things(&[("a key", 1), ("bytes", 5), ("a nonce", 3)]));
        assert!(
            matches!(&again, Err(Stop::Fail { seen, .. }) if seen == "the same again: a key, a nonce"),
            "{again:?}"
        );
    }
}
