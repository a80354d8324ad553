//! The chapter of the page about speed: what one thread gets, what many get, and what a search costs.

use std::collections::BTreeSet;

use crate::performance::Figure;
use crate::report::markup::escape;

/// The section, if anything was measured.
pub fn section(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let searches: Vec<&Figure> = figures.iter().filter(|figure| figure.objects.is_some()).collect();
    let together = side_by_side(figures);
    let is_alone = |figure: &&Figure| {
        figure.objects.is_none() && !together.iter().any(|other| std::ptr::eq(*other, *figure))
    };
    let alone: Vec<&Figure> = figures.iter().filter(is_alone).collect();
    let threads = |figure: &Figure| figure.threads.to_string();
    let objects = |figure: &Figure| figure.objects.unwrap_or(0).to_string();
    format!(
        "<section id=\"performance\"><h2>Performance</h2><p class=\"lead\">Times are what an application waits for one \
         operation, from its beginning to its result. They compare modules on one machine in one hour, and decide \
         nothing.</p>{}{}{}</section>",
        table("One thread", "", &alone, |_| String::new()),
        table("Scaling over threads", "Threads", &together, threads),
        table("Search for one object", "Among", &searches, objects),
    )
}

/// The measurements of one operation by a growing number of threads: the last series of its kind.
fn side_by_side(figures: &[Figure]) -> Vec<&Figure> {
    let many: BTreeSet<&str> =
        figures.iter().filter(|figure| figure.threads > 1).map(|figure| figure.what.as_str()).collect();
    let of_it = |figure: &&Figure| many.contains(figure.what.as_str());
    let mut series: Vec<&Figure> = Vec::new();
    for figure in figures.iter().filter(of_it) {
        series.retain(|other| (&other.what, other.threads) != (&figure.what, figure.threads));
        series.push(figure);
    }
    series
}

/// A table; with a column, its figures are of one kind, and bars compare them.
fn table(title: &str, column: &str, figures: &[&Figure], cell: impl Fn(&Figure) -> String) -> String {
    let Some(fastest) = figures.iter().map(|figure| figure.per_second).max() else { return String::new() };
    let column_of = |text: &str, tag: &str| match column {
        "" => String::new(),
        _ => format!("<{tag} class=\"number\">{text}</{tag}>"),
    };
    let bar = |share: u64| match column {
        "" => String::new(),
        _ => format!(
            "<td class=\"wide\"><div class=\"bar\"><i class=\"pass\" style=\"width:{share}%\"></i></div></td>"
        ),
    };
    let row = |figure: &&Figure| {
        let numbers = [figure.per_second, figure.p50, figure.p90, figure.p99, figure.max];
        format!(
            "<tr><td>{}</td>{}{}{}</tr>",
            escape(&figure.what),
            column_of(&cell(figure), "td"),
            numbers.map(|number| format!("<td class=\"number\">{}</td>", grouped(number))).concat(),
            bar(figure.per_second.saturating_mul(100) / fastest.max(1)),
        )
    };
    let names = ["A second", "p50 µs", "p90 µs", "p99 µs", "Longest µs"];
    format!(
        "<h3>{title}</h3><div class=\"scroll\"><table class=\"speed\"><tr><th>Operation</th>{}{}<th></th></tr>{}\
         </table></div>",
        column_of(column, "th"),
        names.map(|name| format!("<th class=\"number\">{name}</th>")).concat(),
        figures.iter().map(row).collect::<String>(),
    )
}

/// With a thin space between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(what: &str, threads: u32, objects: Option<u32>, per_second: u64) -> Figure {
        let what = what.to_owned();
        Figure { what, threads, objects, operations: 1, per_second, p50: 1, p90: 2, p99: 3, max: 1_234_567 }
    }

    #[test]
    fn each_figure_stands_in_one_table() {
        let figures = [
            figure("sign", 1, None, 100),
            figure("digest", 1, None, 200),
            figure("sign", 1, None, 110),
            figure("sign", 4, None, 400),
            figure("find", 1, Some(10), 50),
        ];
        let page = section(&figures);
        let rows = |title: &str| {
            let from = page.split_once(title).map_or("", |(_, rest)| rest);
            from.split_once("</table>").map_or("", |(table, _)| table).matches("<tr><td>").count()
        };
        assert_eq!([rows("One thread"), rows("Scaling"), rows("Search")], [2, 2, 1], "{page}");
        assert!(page.contains("1\u{2009}234\u{2009}567") && page.contains("width:27%"), "{page}");
        assert_eq!(section(&[]), "");
    }
}
