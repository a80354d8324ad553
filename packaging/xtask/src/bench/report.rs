//! What the reader gets: a table and a verdict on the terminal, JSON and a plot in `target/bench/`.

use std::{fmt::Write as _, fs, path::Path};

use xtask::{
    Outcome,
    shell::{heading, note},
    workspace::shown,
};

use crate::{
    driver::{Row, Rows},
    options::Options,
    plan::{Algorithm, Cell, Keys, Target},
    plot,
};

impl Row {
    /// Operations per second: the median of the rounds.
    pub fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    /// This row's rate over another's: the median of the rounds' own ratios.
    pub fn ratio(&self, other: &Self) -> f64 {
        median(self.rates.iter().zip(&other.rates).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// A quantile of the latencies, in microseconds.
    pub fn micros(&self, share: f64) -> f64 {
        self.latencies.quantile(share) as f64 / 1000.0
    }

    /// Microseconds of CPU per operation: the client's and the server's.
    pub fn cpu(&self) -> (f64, f64) {
        let operations = self.latencies.count().max(1) as f64;
        (self.client.as_secs_f64() * 1e6 / operations, self.server.as_secs_f64() * 1e6 / operations)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), middle.checked_sub(1).and_then(|before| values.get(before))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => (high + low) / 2.0,
        (Some(high), _) => *high,
        (None, _) => f64::NAN,
    }
}

/// Prints the rows of one cell as soon as they are measured.
pub fn progress(cell: Cell, rows: &Rows) {
    println!("\n  {}, {} keys, {} thread(s)", cell.algorithm.name(), cell.keys.name(), cell.threads);
    println!(
        "    {:<26}{:>9}{:>10}{:>10}{:>12}{:>12}{:>11}{:>9}",
        "", "ops/s", "p50 µs", "p99 µs", "client µs", "server µs", "× SoftHSM", "× floor"
    );
    for (key, row) in rows.iter().filter(|((of, _), _)| *of == cell) {
        let beside =
            |other| rows.get(&(cell, other)).map_or("-".into(), |other| format!("{:.2}", row.ratio(other)));
        let (client, server) = row.cpu();
        println!(
            "    {:<26}{:>9.0}{:>10.1}{:>10.1}{:>12.1}{:>12.1}{:>11}{:>9}",
            key.1.title(),
            row.rate(),
            row.micros(0.5),
            row.micros(0.99),
            client,
            server,
            beside(Target::SoftHsm),
            beside(Target::Floor)
        );
    }
}

/// Writes the files and the verdict.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path, options: &Options, rows: &Rows) -> Outcome {
    verdict(rows);
    let (json, svg) = (folder.join("bench.json"), folder.join("bench.svg"));
    fs::write(&json, to_json(options, rows)?)?;
    fs::write(&svg, plot::svg(rows)?)?;
    heading("Written");
    note(&format!("{}\n{}", shown(&json), shown(&svg)));
    Ok(())
}

/// What is compared with an aim.
#[derive(Clone, Copy)]
enum Measure {
    /// The median latency, which should be low.
    P50,
    /// Operations per second, which should be high.
    Rate,
}

/// What Strongroom in two processes, with policy and audit, wants to reach with token keys.
const AIMS: &[(Algorithm, usize, Measure, Target, f64)] = &[
    (Algorithm::P256, 1, Measure::P50, Target::SoftHsm, 1.3),
    (Algorithm::P256, 16, Measure::Rate, Target::SoftHsm, 0.9),
    (Algorithm::P256, 64, Measure::Rate, Target::SoftHsm, 0.9),
    (Algorithm::P256, 16, Measure::Rate, Target::Floor, 0.55),
    (Algorithm::P256, 64, Measure::Rate, Target::Floor, 0.55),
    (Algorithm::Secp256k1, 16, Measure::Rate, Target::SoftHsm, 4.0),
    (Algorithm::Ed25519, 16, Measure::Rate, Target::SoftHsm, 2.5),
];

fn verdict(rows: &Rows) {
    heading("The aims (two processes, token keys)");
    for &(algorithm, threads, measure, other, aim) in AIMS {
        let cell = Cell { algorithm, keys: Keys::Token, threads };
        let (Some(ours), Some(theirs)) = (rows.get(&(cell, Target::Process)), rows.get(&(cell, other)))
        else {
            continue;
        };
        let (what, sign, is, met) = match measure {
            Measure::P50 => {
                let is = ours.micros(0.5) / theirs.micros(0.5);
                ("p50", "≤", is, is <= aim)
            }
            Measure::Rate => {
                let is = ours.ratio(theirs);
                ("ops/s", "≥", is, is >= aim)
            }
        };
        println!(
            "    {:<10}{threads:>3} thread(s)  {what:<6}{is:>6.2} × {:<26} aim {sign} {aim:<5} {}",
            algorithm.name(),
            other.title(),
            if met { "met" } else { "missed" }
        );
    }
}

/// The rows as JSON, written by hand: numbers and plain names only.
fn to_json(options: &Options, rows: &Rows) -> Outcome<String> {
    let mut out = String::new();
    let slice = options.slice.as_millis();
    writeln!(out, "{{\n  \"rounds\": {}, \"slice_ms\": {slice},\n  \"rows\": [", options.rounds)?;
    for (number, ((cell, target), row)) in rows.iter().enumerate() {
        let ((client, server), comma) = (row.cpu(), if number + 1 < rows.len() { "," } else { "" });
        let (algorithm, keys, threads) = (cell.algorithm.name(), cell.keys.name(), cell.threads);
        write!(out, "    {{\"algorithm\": \"{algorithm}\", \"keys\": \"{keys}\", \"threads\": {threads}")?;
        write!(out, ", \"target\": \"{}\", \"operations\": {}", target.name(), row.latencies.count())?;
        write!(out, ", \"ops_per_s\": {:.1}, \"p50_us\": {:.2}", row.rate(), row.micros(0.5))?;
        write!(out, ", \"p99_us\": {:.2}", row.micros(0.99))?;
        write!(out, ", \"client_cpu_us\": {client:.2}, \"server_cpu_us\": {server:.2}")?;
        for other in [Target::SoftHsm, Target::Floor] {
            if let Some(other_row) = rows.get(&(*cell, other)) {
                write!(out, ", \"ratio_to_{}\": {:.3}", other.name(), row.ratio(other_row))?;
            }
        }
        writeln!(out, "}}{comma}")?;
    }
    writeln!(out, "  ]\n}}")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
