//! One page that holds everything and loads nothing: verdict, findings with their calls and programs, and the matrices
//! of profiles, mechanisms and return values.

use std::fmt::Write;

use crate::check::Outcome;
use crate::marks::Severity;
use crate::observations::{Measured, Observation};
use crate::report::causes::{self, Cause};
use crate::report::markup::escape;
use crate::report::{Document, Row, matrices, performance};
use crate::survey::Survey;
use crate::trace::Trace;
use crate::vectors::FailedVector;

/// Calls that a finding shows.
const CALLS: usize = 40;

/// Letters of a vector's value that are shown.
const VALUE: usize = 1024;

/// Letters of what was expected and seen that stand on the finding's first lines.
const SEEN: usize = 130;

/// The page.
pub fn text(document: &Document) -> String {
    let name = escape(file_name(&document.manifest.module));
    let parts = [
        head(document),
        format!("<main>{}", tiles(document)),
        chapters(document),
        findings(document),
        waived(document),
        not_made(document),
        matrices::profiles(document),
        matrices::mechanisms(document),
        matrices::functions(document),
        observations(document),
        performance::section(&document.performance),
        manifest(document),
        format!(
            "</main><footer>p11-conformance {} · report format {}</footer>",
            document.suite, document.format
        ),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}: {} · PKCS#11 conformance</title>\n<style>\n{}</style>\n</head>\n<body>\n{}\n</body>\n</html>\n",
        document.headline(),
        include_str!("page.css"),
        parts.join("\n")
    )
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn head(document: &Document) -> String {
    let (survey, manifest) = (&document.survey, &document.manifest);
    let is_clean = document.tally.failed == 0 && document.incomplete.is_none();
    let class = if is_clean { "clean" } else { "findings" };
    let links = [
        Some(("findings", "Findings")),
        Some(("profiles", "Profiles")),
        Some(("mechanisms", "Mechanisms")),
        Some(("functions", "Return values")),
        Some(("performance", "Performance")).filter(|_| !document.performance.is_empty()),
        Some(("observations", "Observations")),
        Some(("manifest", "Manifest")),
    ];
    let links = links.iter().flatten().map(|(id, text)| format!("<a href=\"#{id}\">{text}</a>"));
    let links: String = links.collect();
    let verdict = document.headline();
    let incomplete = document.incomplete.iter();
    let incomplete =
        incomplete.map(|why| format!("<p class=\"incomplete\">This run is incomplete: {}.</p>", escape(why)));
    let notes = document.notes.iter().map(|note| format!("<p class=\"lead\">Note: {}.</p>", escape(note)));
    let incomplete: String = incomplete.chain(notes).collect();
    format!(
        "<header class=\"top\"><h1>{}<span class=\"verdict {class}\">{verdict}</span></h1>\
         <p class=\"lead\">{}checked {}</p>{incomplete}</header>\
         <nav class=\"top\">{links}</nav>",
        escape(file_name(&manifest.module)),
        if is_known(survey) { described(survey) } else { String::new() },
        escape(&manifest.began),
    )
}

/// Whether the module got so far that it said something of itself.
const fn is_known(survey: &Survey) -> bool {
    !survey.lists.is_empty()
}

fn described(survey: &Survey) -> String {
    format!(
        "{} {} · Cryptoki {} · function lists {} · token “{}” ({}) · ",
        escape(&survey.library),
        escape(&survey.library_version),
        escape(&survey.cryptoki_version),
        escape(&survey.lists.join(", ")),
        escape(&survey.token),
        escape(&survey.model),
    )
}

fn tiles(document: &Document) -> String {
    let tile = |class: &str, count: usize, text: &str| {
        let zero = if count == 0 { " zero" } else { "" };
        format!("<div class=\"tile {class}{zero}\"><b>{count}</b><span>{text}</span></div>")
    };
    let severities = document.by_severity();
    let severities =
        severities.iter().map(|(severity, count)| tile(severity.word(), *count, severity.word()));
    let tally = &document.tally;
    let rest = [
        tile("good", tally.passed, "passed"),
        tile("", tally.waived, "waived"),
        tile("", tally.not_made, "not made"),
        tile("", tally.not_offered, "not offered"),
    ];
    format!("<div class=\"tiles\">{}{}</div>", severities.collect::<String>(), rest.concat())
}

fn chapters(document: &Document) -> String {
    let mut rows = String::new();
    for chapter in document.chapters() {
        let checks: Vec<&Row> = document.checks.iter().filter(|row| row.group == chapter).collect();
        let count = |is: &dyn Fn(&Row) -> bool| checks.iter().filter(|row| is(row)).count();
        let passed = count(&|row| matches!(row.outcome, Outcome::Pass));
        let failed = count(&Row::is_finding);
        let skipped = count(&|row| matches!(row.outcome, Outcome::Skipped { .. }));
        let share = |part: usize| part * 100 / checks.len().max(1);
        let _infallible = write!(
            rows,
            "<tr><td><code>{}</code></td><td class=\"number\">{}</td><td class=\"number\">{passed}</td>\
             <td class=\"number\">{failed}</td><td class=\"wide\"><div class=\"bar\">\
             <i class=\"pass\" style=\"width:{}%\"></i><i class=\"fail\" style=\"width:{}%\"></i>\
             <i class=\"skip\" style=\"width:{}%\"></i></div></td></tr>",
            escape(chapter),
            checks.len(),
            share(passed),
            share(failed).max(usize::from(failed > 0)),
            share(skipped)
        );
    }
    format!(
        "<details><summary>Chapters: how many checks of each passed and failed</summary><table><tr><th>Chapter</th>\
         <th class=\"number\">Checks</th><th class=\"number\">Passed</th><th class=\"number\">Findings</th><th></th></tr>\
         {rows}</table></details>"
    )
}

fn findings(document: &Document) -> String {
    let all = document.findings();
    let mut text = "<section id=\"findings\"><h2>Findings</h2>".to_owned();
    if document.checks.is_empty() {
        text.push_str("<p class=\"lead\">No check was made.</p>");
    } else if all.is_empty() {
        text.push_str(
            "<p class=\"lead\">Every check that could be made passed, or its failure is waived.</p>",
        );
    }
    if !all.is_empty() {
        text.push_str(
            "<p class=\"lead\">Each says what a module should do and, below it, what was expected and seen. Open it for the clause, \
             the calls and a C program that shows the same without this suite. Where one fault shows in many functions or \
             mechanisms, the findings stand in one line: open it for each of them.</p>",
        );
    }
    for severity in Severity::ALL.iter().rev() {
        let is_of_it = |row: &&&Row| row.severity() == Some(*severity);
        let of_it: Vec<&Row> = all.iter().filter(is_of_it).copied().collect();
        if of_it.is_empty() {
            continue;
        }
        let word = severity.word();
        let _infallible = write!(
            text,
            "<div class=\"{word}\"><h3>{} {word}</h3><p class=\"lead\">{}</p>{}</div>",
            of_it.len(),
            severity.meaning(),
            causes::of(&of_it).iter().map(together).collect::<String>()
        );
    }
    text + "</section>"
}

/// A finding, or some of one cause in one.
fn together(cause: &Cause<'_>) -> String {
    let findings: String = cause.rows.iter().map(|row| finding(row)).collect();
    if cause.rows.len() == 1 {
        return findings;
    }
    format!(
        "<details class=\"finding\"><summary><code>{} × {}</code>{}{}</summary>\
         <div class=\"inside\"><dl><dt>Clause</dt><dd>{}</dd><dt>Expected</dt><dd>{}</dd><dt>Seen</dt><dd><b>{}</b></dd>\
         </dl>{findings}</div></details>",
        cause.rows.len(),
        escape(&cause.ids),
        escape(&cause.title),
        expected_and_seen(&cause.expected, &cause.seen),
        escape(&cause.clause),
        escape(&cause.expected),
        escape(&cause.seen),
    )
}

/// What a reader sees of a finding that is not open.
fn expected_and_seen(expected: &str, seen: &str) -> String {
    let line =
        |name: &str, text: &str| format!("<span class=\"seen\">{name}: {}</span>", escape(&shortened(text)));
    line("expected", expected) + &line("seen", seen)
}

fn finding(row: &Row) -> String {
    let Outcome::Fail { expected, seen, .. } = &row.outcome else { return String::new() };
    let group = row.tag.map(|tag| format!("<dt>Group</dt><dd>{}</dd>", tag.meaning())).unwrap_or_default();
    let program = match &row.reproducer {
        Some(program) => format!(
            "<details class=\"program\"><summary>C program that shows it</summary><pre>{}</pre></details>",
            escape(program)
        ),
        None => String::new(),
    };
    format!(
        "<details class=\"finding\" id=\"{id}\"><summary><code>{id}</code>{title}{short}</summary><div class=\"inside\"><dl>\
         <dt>Clause</dt><dd>{clause}</dd><dt>Expected</dt><dd>{expected}</dd><dt>Seen</dt><dd><b>{seen}</b></dd>{group}\
         </dl>{vectors}{calls}{program}</div></details>",
        id = escape(&row.id),
        title = escape(&row.title),
        clause = escape(&row.clause),
        expected = escape(expected),
        seen = escape(seen),
        short = expected_and_seen(expected, seen),
        vectors = row.trace.as_ref().map(vectors).unwrap_or_default(),
        calls = row.trace.as_ref().map(calls).unwrap_or_default(),
    )
}

/// The published vectors that failed, the first of them open.
fn vectors(trace: &Trace) -> String {
    let one = |(place, vector): (usize, &FailedVector)| {
        let lines = vector.lines(VALUE).into_iter();
        let rows: String = lines
            .map(|(name, value)| {
                let (name, value) = (escape(&name), escape(&value));
                format!("<tr><th>{name}</th><td class=\"wide mono\">{value}</td></tr>")
            })
            .collect();
        let open = if place == 0 { " open" } else { "" };
        format!("<details{open}><summary>{}</summary><table>{rows}</table></details>", escape(&vector.name()))
    };
    trace.vectors.iter().enumerate().map(one).collect()
}

/// The beginning of a text that may be long.
fn shortened(text: &str) -> String {
    let mut letters = text.chars();
    let short: String = letters.by_ref().take(SEEN).collect();
    if letters.next().is_some() { format!("{short}…") } else { short }
}

fn calls(trace: &Trace) -> String {
    let all: Vec<_> = trace.earlier.iter().chain(&trace.calls).collect();
    if all.is_empty() {
        return "<p class=\"lead\">No call was made.</p>".to_owned();
    }
    let start = all.len().saturating_sub(CALLS);
    let note = match start + trace.left_out {
        0 => String::new(),
        earlier => format!("<p class=\"lead\">The last {CALLS} calls; {earlier} came before.</p>"),
    };
    let lines = all.iter().skip(start).map(|call| format!("<li>{}</li>", escape(&call.to_string())));
    format!("{note}<ol class=\"calls mono\" start=\"{}\">{}</ol>", start + 1, lines.collect::<String>())
}

fn waived(document: &Document) -> String {
    let rows = document.checks.iter().filter_map(|row| {
        let reason = row.waived.as_ref()?;
        Some(format!(
            "<tr><td><code>{}</code></td><td class=\"wide\">{}</td></tr>",
            escape(&row.id),
            escape(reason)
        ))
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("<section><h2>Waived</h2><table><tr><th>Check</th><th>Reason</th></tr>{rows}</table></section>")
}

fn not_made(document: &Document) -> String {
    let left_out = document.left_out.iter().map(|left| (left.why.as_str(), left.checks));
    let rows: Vec<(&str, usize)> = document.not_made().into_iter().chain(left_out).collect();
    if rows.is_empty() {
        return String::new();
    }
    let rows = rows.iter().map(|(why, count)| {
        format!("<tr><td class=\"number\">{count}</td><td class=\"wide\">{}</td></tr>", escape(why))
    });
    format!(
        "<section><h2>Not made</h2><table><tr><th class=\"number\">Checks</th><th>Why</th></tr>{}</table></section>",
        rows.collect::<String>()
    )
}

fn observations(document: &Document) -> String {
    let row = |Observation { check, what, measured }: &Observation| {
        let class = match measured {
            Measured::Times(times) if times.differ() => "odd",
            Measured::Times(_) | Measured::Values { .. } | Measured::Vectors { .. } => "seen",
        };
        format!(
            "<tr><td><code>{}</code></td><td>{}</td><td class=\"wide\"><span class=\"chip {class}\">{}</span></td></tr>",
            escape(check),
            escape(what),
            escape(&measured.sentence())
        )
    };
    let rows: String = document.observations.iter().map(row).collect();
    if rows.is_empty() {
        return "<section id=\"observations\"><h2>Observations</h2><p class=\"lead\">No check that was made measures \
                anything.</p></section>"
            .to_owned();
    }
    format!(
        "<section id=\"observations\"><h2>Observations</h2><p class=\"lead\">What was measured beside the checks. It decides \
         nothing: times are those of one machine in one hour, compared by Welch's t-test; beyond a t of 4.5 the difference is \
         not chance, and whether anybody can use it depends on its size and on who can measure it.</p><div class=\"scroll\">\
         <table><tr><th>Check</th><th>What</th><th>Seen</th></tr>{rows}</table></div></section>"
    )
}

fn manifest(document: &Document) -> String {
    let (manifest, survey) = (&document.manifest, &document.survey);
    let told = |text: String| if is_known(survey) { text } else { "not known".to_owned() };
    let rows = [
        ("Module", manifest.module.clone()),
        ("SHA-256", manifest.sha256.clone()),
        ("Length", format!("{} bytes", manifest.bytes)),
        ("Library", told(format!("{} {}", survey.library, survey.library_version))),
        ("Token", told(format!("{} · serial {} · slot {}", survey.token, survey.serial, survey.slot))),
        ("Hardware / firmware", told(survey.versions.clone())),
        ("Seed", manifest.seed.to_string()),
        ("Options", manifest.options.join(" ")),
        ("Began", manifest.began.clone()),
        ("Took", format!("{} s", manifest.seconds)),
    ];
    let rows = rows.iter().map(|(name, value)| {
        format!("<tr><th>{name}</th><td class=\"wide\"><code>{}</code></td></tr>", escape(value))
    });
    format!("<section id=\"manifest\"><h2>Manifest</h2><table>{}</table></section>", rows.collect::<String>())
}
