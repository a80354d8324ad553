//! The plot: one panel per algorithm and kind of key, bars of operations per second, drawn by hand as SVG.

use std::fmt::Write as _;

use xtask::Outcome;

use crate::{
    driver::Rows,
    plan::{Algorithm, Cell, Keys, Target},
};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 70.0;
const BARS: f64 = 130.0;

/// Everybody's colour.
const fn colour(target: Target) -> &'static str {
    match target {
        Target::Process => "#1b6ca8",
        Target::Thread => "#7fb8de",
        Target::SoftHsm => "#e08e2b",
        Target::Floor => "#b9b9b9",
    }
}

/// Draws all rows.
///
/// # Errors
/// None in practice: writing to memory.
pub fn svg(rows: &Rows) -> Outcome<String> {
    let panels: Vec<(Algorithm, Keys)> = Algorithm::ALL
        .iter()
        .flat_map(|algorithm| Keys::ALL.iter().map(|keys| (*algorithm, *keys)))
        .filter(|panel| rows.keys().any(|(cell, _)| (cell.algorithm, cell.keys) == *panel))
        .collect();
    let height = TOP + panels.len().div_ceil(2) as f64 * HEIGHT;
    let mut out = String::new();
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {height}" font-family="sans-serif" font-size="11">"#,
        2.0 * WIDTH + LEFT
    )?;
    writeln!(out, r##"<rect width="100%" height="100%" fill="#fff"/>"##)?;
    writeln!(
        out,
        r#"<text x="{LEFT}" y="24" font-size="16">Operations per second, by number of threads</text>"#
    )?;
    for (number, target) in Target::ALL.iter().enumerate() {
        let x = LEFT + number as f64 * 210.0;
        writeln!(out, r#"<rect x="{x}" y="38" width="12" height="12" fill="{}"/>"#, colour(*target))?;
        writeln!(out, r#"<text x="{}" y="48">{}</text>"#, x + 18.0, target.title())?;
    }
    for (number, (algorithm, keys)) in panels.into_iter().enumerate() {
        let origin = (LEFT + (number % 2) as f64 * WIDTH, TOP + (number / 2) as f64 * HEIGHT);
        panel(&mut out, rows, algorithm, keys, origin)?;
    }
    writeln!(out, "</svg>")?;
    Ok(out)
}

fn panel(out: &mut String, rows: &Rows, algorithm: Algorithm, keys: Keys, (x, y): (f64, f64)) -> Outcome {
    let here = |cell: &Cell| cell.algorithm == algorithm && cell.keys == keys;
    let bars: Vec<_> = rows.iter().filter(|((cell, _), _)| here(cell)).collect();
    let greatest = bars.iter().map(|(_, row)| row.rate()).fold(1.0, f64::max);
    let base = y + BARS + 30.0;
    writeln!(
        out,
        r#"<text x="{x}" y="{}" font-size="13">{}, {} keys</text>"#,
        y + 12.0,
        algorithm.name(),
        keys.name()
    )?;
    let mut left = x;
    let mut group = None;
    for ((cell, target), row) in bars {
        if group != Some(cell.threads) {
            left += if group.is_some() { 16.0 } else { 0.0 };
            writeln!(out, r#"<text x="{left}" y="{}">{} thread(s)</text>"#, base + 14.0, cell.threads)?;
            group = Some(cell.threads);
        }
        let height = BARS * row.rate() / greatest;
        let (top, fill) = (base - height, colour(*target));
        writeln!(out, r#"<rect x="{left}" y="{top:.1}" width="26" height="{height:.1}" fill="{fill}"/>"#)?;
        let (middle, label) = (left + 13.0, short(row.rate()));
        writeln!(
            out,
            r#"<text x="{middle}" y="{:.1}" font-size="9" text-anchor="middle">{label}</text>"#,
            top - 3.0
        )?;
        left += 28.0;
    }
    Ok(())
}

fn short(rate: f64) -> String {
    if rate >= 1000.0 { format!("{:.1}k", rate / 1000.0) } else { format!("{rate:.0}") }
}
