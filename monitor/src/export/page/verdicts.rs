//! A card for every verdict, the worst first.

use std::fmt::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::html::{Safe, Segment};
use crate::detection::verdict::{Example, Frame, Leak, Role, Rule, State};
use crate::export::count::grouped;
use crate::export::rank;
use crate::export::stack;
use crate::text;

/// Cards on the page; a host with more has one problem, not many.
const MAX_CARDS: usize = 60;

/// An agent that has watched for less says so: what grows is told by its growth.
const YOUNG: Duration = Duration::from_secs(3600);

/// The verdicts as of `now`, by an agent that has watched for `watched`.
pub(super) fn section(
    out: &mut String,
    leaks: &[Leak],
    now: Timestamp,
    watched: Duration,
) -> fmt::Result {
    let mut sorted: Vec<&Leak> = leaks.iter().collect();
    sorted.sort_by(|a, b| rank::worst_first(a, b));
    let open = sorted.iter().take_while(|leak| rank::is_open(leak)).count();
    let (open, resolved) = sorted.split_at(open);

    out.write_str("<h2>Verdicts</h2>")?;
    if open.is_empty() {
        out.write_str("<p class=\"soft\">Nothing leaks, as far as can be seen.")?;
        if watched < YOUNG {
            let watched = text::duration(watched);
            write!(out, " Watching for {watched}; growth takes minutes to an hour to tell.")?;
        }
        out.write_str("</p>")?;
    }
    for leak in open.iter().take(MAX_CARDS) {
        card(out, leak, now)?;
    }
    if open.len() > MAX_CARDS {
        let more = open.len() - MAX_CARDS;
        write!(out, "<p>And {more} more at <a href=\"/api/v1/leaks\">/api/v1/leaks</a>.</p>")?;
    }
    if !resolved.is_empty() {
        write!(out, "<details><summary>{} resolved</summary><br>", resolved.len())?;
        for leak in resolved.iter().take(MAX_CARDS) {
            card(out, leak, now)?;
        }
        out.write_str("</details>")?;
    }
    Ok(())
}

fn card(out: &mut String, leak: &Leak, now: Timestamp) -> fmt::Result {
    let state = leak.state.as_str();
    write!(
        out,
        "<article class=\"card {state}\"><div class=\"top\"><span class=\"pill {state}\">{state}\
         </span><h3>{}</h3>",
        Safe(&leak.unit)
    )?;
    let rules: Vec<&str> = leak.rules.iter().map(|rule| rule.as_str()).collect();
    write!(
        out,
        "<span class=\"soft\">{}</span></div><p class=\"mono soft\">{} {}</p>",
        rules.join(", "),
        Safe(&leak.kind),
        Safe(&leak.cohort)
    )?;
    facts(out, leak, now)?;
    if !leak.evidence.is_empty() {
        out.write_str("<ul class=\"evidence\">")?;
        for sentence in &leak.evidence {
            write!(out, "<li>{}</li>", Safe(sentence))?;
        }
        out.write_str("</ul>")?;
    }
    opener(out, leak)?;
    examples(out, &leak.examples)?;
    write!(
        out,
        "<p class=\"soft\">since {} &middot; confidence {:.0} % &middot; \
         <a href=\"/api/v1/leaks/{}\"><code>{}</code></a></p></article>",
        stamp(leak.first_seen),
        leak.confidence * 100.0,
        Segment(&leak.id),
        Safe(&leak.id)
    )
}

fn facts(out: &mut String, leak: &Leak, now: Timestamp) -> fmt::Result {
    out.write_str("<div class=\"facts\">")?;
    let mut fact = |value: &str, class: &str, label: &str| {
        write!(out, "<div><b class=\"{class}\">{value}</b><span>{label}</span></div>")
    };
    let held = match leak.limit {
        Some(limit) => format!("{} of {}", grouped(leak.held), grouped(limit)),
        None => grouped(leak.held),
    };
    let is_warning = leak.rules == [Rule::Headroom];
    fact(&held, "", if is_warning { "in use" } else { "held" })?;
    fact(&format!("{:+.1}/h", leak.growth_per_hour), "", "growth")?;
    if leak.state != State::Resolved
        && let Some(at) = leak.exhausts_at
    {
        let left = at.duration_since(now);
        let hours = left.as_secs_f64() / 3600.0;
        let class = if hours < 6.0 { "bad" } else { "warn" };
        let value = Duration::try_from(left).map_or_else(|_| "now".into(), text::duration);
        fact(&value, class, "to the limit")?;
    }
    if leak.oldest_age_seconds > 0.0 {
        let age = Duration::try_from_secs_f64(leak.oldest_age_seconds).unwrap_or(Duration::MAX);
        fact(&text::duration(age), "", "oldest")?;
    }
    if leak.pinned_bytes > 0 {
        fact(&text::bytes(leak.pinned_bytes).to_string(), "", "of disk pinned")?;
    }
    out.write_str("</div>")
}

fn opener(out: &mut String, leak: &Leak) -> fmt::Result {
    if leak.opener.is_empty() && leak.opener_note.is_none() {
        return Ok(());
    }
    let named = leak.opener.iter().find(|f| f.role == Role::Opener);
    out.write_str("<details><summary>Opened by")?;
    if let Some(frame) = named {
        write!(out, " <span class=\"mono\">{}</span>", Safe(&frame.function))?;
    }
    out.write_str("</summary><ol class=\"mono\">")?;
    for row in stack::rows(&leak.opener) {
        match row {
            stack::Row::Frame(f) => frame(out, f)?,
            stack::Row::Folded(count, modules) => {
                let text = stack::folded(count, &modules);
                write!(out, "<li class=\"soft\">&hellip; {}</li>", Safe(&text))?;
            }
        }
    }
    out.write_str("</ol>")?;
    if let Some(note) = &leak.opener_note {
        write!(out, "<p class=\"soft\">{}</p>", Safe(note))?;
    }
    out.write_str("</details>")
}

fn frame(out: &mut String, frame: &Frame) -> fmt::Result {
    let (open, close) = if frame.role == Role::Opener { ("<b>", "</b>") } else { ("", "") };
    write!(out, "<li>{open}{}{close}", Safe(&frame.function))?;
    if let Some(place) = stack::place(frame) {
        write!(out, " <span class=\"soft\">{}</span>", Safe(&place))?;
    }
    out.write_str("</li>")
}

fn examples(out: &mut String, examples: &[Example]) -> fmt::Result {
    if examples.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<details open><summary>Examples, oldest first</summary><div class=\"wide\">\
         <table class=\"ex\">\
         <thead><tr><th>process</th><th class=\"n\">fd</th><th>path</th><th>opened</th></tr>\
         </thead><tbody>"
    )?;
    for example in examples {
        write!(
            out,
            "<tr><td>{}[{}]</td><td class=\"n\">{}</td><td class=\"mono\">{}</td><td>{}</td></tr>",
            Safe(&example.comm),
            example.pid,
            example.fd.map_or_else(|| "&ndash;".to_owned(), |fd| fd.to_string()),
            Safe(&example.path),
            example.opened_at.map_or_else(|| "before the first look".to_owned(), stamp),
        )?;
    }
    out.write_str("</tbody></table></div></details>")
}

/// A time to the second, in UTC.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
