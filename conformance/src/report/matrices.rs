//! The page's tables of profiles, mechanisms and return values.

use crate::coverage::{FunctionRow, MechanismRow, State, Use, UseState};
use crate::profiles::{Judgement, Standing};
use crate::report::Document;
use crate::report::markup::escape;

/// Of the profiles of which this run checked something: the verdict, and what speaks against it.
pub fn profiles(document: &Document) -> String {
    let chips = |class: &str, names: &[String]| -> String {
        names.iter().map(|name| format!("<span class=\"chip {class}\">{}</span>", escape(name))).collect()
    };
    let row = |profile: &Judgement| {
        let state = match profile.standing {
            Standing::Met => "<span class=\"chip seen\">met</span>",
            Standing::NotMet => "<span class=\"chip bad\">not met</span>",
            Standing::Unknown => "<span class=\"chip never\">not checked</span>",
        };
        let links =
            profile.failed.iter().map(|id| format!("<a href=\"#{0}\"><code>{0}</code></a> ", escape(id)));
        let failed = match profile.failed.len() {
            0 => String::new(),
            1 => format!("<p>A check about it failed: {}</p>", links.collect::<String>()),
            count => format!(
                "<details><summary>{count} checks about it failed</summary>{}</details>",
                links.collect::<String>()
            ),
        };
        format!(
            "<tr><td><code>{}</code><br>{}</td><td>{state}</td><td class=\"number\">{}</td>\
             <td class=\"wide\">{}{}{failed}</td></tr>",
            escape(&profile.name),
            escape(&profile.clause),
            profile.passed,
            chips("bad", &profile.missing),
            chips("never", &profile.unchecked),
        )
    };
    let rows: String = document.profiles.iter().filter(|profile| profile.was_looked_at()).map(row).collect();
    if rows.is_empty() {
        return "<section id=\"profiles\"><h2>Profiles</h2><p class=\"lead\">No requirement of a profile was among the \
                checks of this run (<code>--group profiles</code>).</p></section>"
            .to_owned();
    }
    format!(
        "<section id=\"profiles\"><h2>Profiles</h2><p class=\"lead\">What PKCS#11 Profiles asks of a provider: each \
         requirement, and the checks of the chapters that they come from. A profile is met if every requirement is, and \
         no such check failed.</p><p class=\"key\"><span><span class=\"chip bad\">NAME</span>required, not met</span>\
         <span><span class=\"chip never\">NAME</span>required, not checked in this run</span></p>\
         <div class=\"scroll\"><table><tr><th>Profile</th><th>Verdict</th><th class=\"number\">Passed</th>\
         <th>Open requirements</th></tr>{rows}</table></div></section>"
    )
}

/// Of each mechanism: its uses, and what came of them.
pub fn mechanisms(document: &Document) -> String {
    let each_use = |each: &Use| {
        let class = match (each.state, each.advertised) {
            (UseState::Works, true) => "seen",
            (UseState::Works, false) => "odd",
            (UseState::Refused, _) => "bad",
            (UseState::Untried, _) => "never",
        };
        let title = escape(&each.refusals.join(", "));
        format!("<span class=\"chip {class}\" title=\"{title}\">{}</span>", escape(&each.word))
    };
    let row = |row: &MechanismRow| {
        let listed = if row.listed { "" } else { " <span class=\"chip odd\">not listed</span>" };
        let sizes = match (row.least, row.most) {
            (0, 0) => String::new(),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least}–{most}"),
        };
        format!(
            "<tr><td><code>{}</code>{listed}</td><td class=\"number\">{sizes}</td><td class=\"wide\">{}</td></tr>",
            escape(&row.name),
            row.uses.iter().map(each_use).collect::<String>()
        )
    };
    format!(
        "<section id=\"mechanisms\"><h2>Mechanisms</h2><p class=\"lead\">{} of {} did something in some check.</p>\
         <p class=\"key\"><span><span class=\"chip seen\">use</span>advertised, and works</span>\
         <span><span class=\"chip odd\">use</span>works, and is not advertised</span>\
         <span><span class=\"chip bad\">use</span>always refused</span>\
         <span><span class=\"chip never\">use</span>advertised, and not tried</span></p><div class=\"scroll\"><table>\
         <tr><th>Mechanism</th><th class=\"number\">Key sizes</th><th>Uses</th></tr>{}</table></div></section>",
        document.working_mechanisms(),
        document.mechanisms.len(),
        document.mechanisms.iter().map(row).collect::<String>()
    )
}

/// Of each function: what it may answer, and what it did.
pub fn functions(document: &Document) -> String {
    let row = |row: &FunctionRow| {
        let chip = |(class, name): (&str, &str)| {
            format!("<span class=\"chip {class}\">{}</span>", escape(name.trim_start_matches("CKR_")))
        };
        let codes = row.codes.iter().map(|code| {
            let class = match code.state {
                State::Seen => "seen",
                State::NeverSeen => "never",
                State::Unlisted => "odd",
            };
            chip((class, &code.name))
        });
        let cell = if row.offered {
            codes.collect::<String>()
        } else {
            "<span class=\"chip never\">not offered</span>".to_owned()
        };
        format!("<tr><td><code>{}</code></td><td class=\"wide\">{cell}</td></tr>", escape(&row.name))
    };
    let (seen, listed) = document.codes_seen();
    format!(
        "<section id=\"functions\"><h2>Return values</h2><p class=\"lead\">{seen} of the {listed} return values that the \
         standard lists for the functions offered were seen.</p><p class=\"key\">\
         <span><span class=\"chip seen\">CODE</span>listed and seen</span>\
         <span><span class=\"chip never\">CODE</span>listed, never seen</span>\
         <span><span class=\"chip odd\">CODE</span>seen, not listed for this function</span></p><table><tr><th>Function</th>\
         <th>Return values</th></tr>{}</table></section>",
        document.functions.iter().map(row).collect::<String>()
    )
}
