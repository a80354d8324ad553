//! The model probe: what a module does with the attributes of its secret keys, learnt by experiment, searched for a
//! path to a sensitive key in clear, and the path replayed as proof (Bortolozzo, Centenaro, Focardi and Steel, CCS 2010).
//!
//! `model.rs` is the model, `search.rs` the search in it (neither knows a module), `experiment.rs` learns a model from
//! a module, `replay.rs` walks a path on one.

pub mod experiment;
pub mod model;
pub mod replay;
pub mod search;

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::bench::{self, Bench, Stage, Target};
use crate::files;
use model::{Flag, Flags, Model};
use search::{Found, search};

/// The sensitive keys that paths are looked for to, with what they are called.
pub const VICTIMS: [(&str, &[Flag]); 3] = [
    ("unextractable", &[Flag::Sensitive]),
    ("wrap-with-trusted", &[Flag::Sensitive, Flag::Extractable, Flag::WrapWithTrusted]),
    ("extractable", &[Flag::Sensitive, Flag::Extractable]),
];

/// The model with what the search of it came to, as it is written.
#[derive(Serialize)]
struct Record<'a> {
    format: &'static str,
    model: &'a Model,
    searches: Vec<Search>,
}

/// One search.
#[derive(Serialize)]
struct Search {
    victim: &'static str,
    /// The steps to its value, empty if there are none.
    path: Vec<String>,
    /// Rounds until nothing was new, if there is no path.
    rounds: Option<usize>,
    /// Facts that were looked at, if there is no path.
    facts: Option<usize>,
}

impl Search {
    fn of(model: &Model, victim: &'static str, flags: &[Flag]) -> Self {
        match search(model, Flags::of(flags)) {
            Found::Path(steps) => {
                let path = steps.iter().map(ToString::to_string).collect();
                Self { victim, path, rounds: None, facts: None }
            }
            Found::Nothing { rounds, facts } => {
                Self { victim, path: Vec::new(), rounds: Some(rounds), facts: Some(facts) }
            }
        }
    }

    fn text(&self) -> String {
        match (self.rounds, self.facts) {
            (Some(rounds), Some(facts)) => format!(
                "no path to the value of a sensitive key ({}): nothing new after {rounds} rounds, {facts} facts\n",
                self.victim
            ),
            _ => {
                let steps: String = self.path.iter().map(|step| format!("  {step}\n")).collect();
                format!("a path to the value of a sensitive key ({}), in the model:\n{steps}", self.victim)
            }
        }
    }
}

/// Learns the model of a module, prints it with what the search of it came to, and writes both to a file as JSON.
///
/// # Errors
/// A sentence, when the module cannot be used or the file not be written.
pub fn show(target: Target, file: &Path, output: &mut impl Write) -> Result<(), String> {
    let bench = Bench::new(target)?;
    bench.prepare(Stage::User).map_err(bench::reason)?;
    let session = bench.session().map_err(bench::reason)?;
    let model = experiment::learn(&session).map_err(bench::reason)?;
    bench.conclude();
    bench.reset(Stage::Loaded);
    let searches: Vec<Search> = VICTIMS.iter().map(|(name, flags)| Search::of(&model, name, flags)).collect();
    let mut text = model.to_string();
    text.extend(searches.iter().map(Search::text));
    output.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let record = Record { format: "p11-conformance-model/1", model: &model, searches };
    let json = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string())?;
    files::write(file, &json)
}
