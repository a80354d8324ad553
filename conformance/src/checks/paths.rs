//! The model probe as checks: whether what a module allows with its keys, taken together, leads to a sensitive key in
//! clear. Each finding is a path that was walked on the module (see `probe/`).
//!
//! A clause forbids the paths to a key that is unextractable, or that only trusted keys wrap. Whoever may wrap a key that
//! its owner made extractable, and has the wrapping key decrypt, breaks none: such a path is told for what a token may
//! do better, not as a fault.

use crate::bench::Bench;
use crate::check::{Stop, Verdict, table};
use crate::probe::model::Flags;
use crate::probe::search::{Found, Step, search};
use crate::probe::{VICTIMS, experiment, replay};

table! {
    all key_separation alone;
    "paths.unextractable" User unextractable, "4.10 CKA_EXTRACTABLE (Bortolozzo and others, CCS 2010)", "no calls lead to the value of a sensitive, unextractable key" => critical patience(120);
    "paths.wrap-with-trusted" User wrap_with_trusted, "4.10 CKA_WRAP_WITH_TRUSTED (Bortolozzo and others, CCS 2010)", "no calls lead to the value of a sensitive key that only trusted keys wrap" => critical patience(120);
    "paths.extractable" User extractable, "beyond 4.10 CKA_EXTRACTABLE (Clulow 2003; Bortolozzo and others, CCS 2010)", "no calls lead to the value of a sensitive, extractable key, although the standard forbids none of them" => informational patience(120);
}

fn unextractable(bench: &Bench) -> Verdict {
    no_path(bench, "unextractable")
}

fn wrap_with_trusted(bench: &Bench) -> Verdict {
    no_path(bench, "wrap-with-trusted")
}

fn extractable(bench: &Bench) -> Verdict {
    no_path(bench, "extractable")
}

fn no_path(bench: &Bench, victim: &str) -> Verdict {
    let known = VICTIMS.iter().find(|(name, _)| *name == victim);
    let (_, victim) = known.ok_or(Stop::NotOffered)?;
    let session = bench.session()?;
    let model = bench.model(|| experiment::learn(&session))?;
    let Found::Path(path) = search(model, Flags::of(victim)) else { return Ok(()) };
    bench.module.recorder().begin();
    let expected = "a call refused on every way to the value of a sensitive key";
    match replay::replay(&session, &path) {
        Ok(true) => Err(Stop::fail(expected, format!("its value, by {}", told(&path)))),
        Ok(false) => Err(Stop::Skipped(format!("a path of the model gave another value: {}", told(&path)))),
        Err(stop) => Err(unproved(stop, &path)),
    }
}

/// The model allowed what the module refused in the end: nothing is proved.
fn unproved(stop: Stop, path: &[Step]) -> Stop {
    match stop {
        Stop::Fail { seen, .. } => {
            Stop::Skipped(format!("a path of the model was refused ({seen}): {}", told(path)))
        }
        Stop::Skipped(why) => Stop::Skipped(why),
        Stop::NotOffered => Stop::NotOffered,
    }
}

fn told(path: &[Step]) -> String {
    let steps: Vec<String> = path.iter().map(ToString::to_string).collect();
    steps.join("; ")
}
