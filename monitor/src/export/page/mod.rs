//! `/`: the state of the host on one page, without a script or any other file.
//!
//! It is read at three in the morning on a phone: the worst comes first, and
//! what cannot be seen is said before what can.

mod blind;
mod html;
mod sparkline;
mod units;
mod verdicts;

use std::fmt::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use html::{Safe, Segment};

use self::verdicts::stamp;
use super::count::grouped;
use super::rank;
use super::snapshot::Snapshot;
use crate::detection::verdict::State;
use crate::text;

const STYLE: &str = include_str!("style.css");
/// Acts on the page; the API has more.
const MAX_ACTIONS: usize = 20;

/// Renders the page as of `now`. `alive` is what the loop says of itself.
pub fn render(snapshot: Option<&Snapshot>, alive: &Result<(), String>, now: Timestamp) -> String {
    let mut out = String::with_capacity(32 * 1024);
    // Writing to a string cannot fail.
    let _ = page(&mut out, snapshot, alive, now);
    out
}

fn page(
    out: &mut String,
    snapshot: Option<&Snapshot>,
    alive: &Result<(), String>,
    now: Timestamp,
) -> fmt::Result {
    let (class, summary) = summary(snapshot);
    write!(
        out,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"10\"><title>{summary} &middot; leakwatch</title>\
         <style>{STYLE}</style></head><body><header><h1>leakwatch</h1>\
         <span class=\"pill {class}\">{summary}</span>"
    )?;
    if let Some(snapshot) = snapshot {
        agent(out, snapshot, now)?;
    }
    if let Err(why) = alive {
        write!(out, "<p class=\"note bad\">{}</p>", Safe(why))?;
    }
    if let Some(snapshot) = snapshot {
        blind::section(out, snapshot)?;
    }
    out.write_str("</header><main>")?;
    match snapshot {
        Some(snapshot) => {
            verdicts::section(out, &snapshot.leaks, now, age(snapshot.started, now))?;
            units::section(out, &snapshot.units, &snapshot.leaks)?;
            actions(out, snapshot)?;
        }
        None => out.write_str("<p>The first census is under way; this page reloads itself.</p>")?,
    }
    write!(
        out,
        "</main><footer>leakwatch {} &middot; <a href=\"/api/v1/units\">units</a> \
         <a href=\"/api/v1/leaks\">leaks</a> <a href=\"/api/v1/actions\">actions</a> \
         <a href=\"/health\">health</a> &middot; reloads every 10 s</footer></body></html>",
        env!("CARGO_PKG_VERSION")
    )
}

/// The state of the host in three words, and its colour.
fn summary(snapshot: Option<&Snapshot>) -> (&'static str, String) {
    let Some(snapshot) = snapshot else { return ("warn", "starting".to_owned()) };
    let count = |wanted: State, warnings: bool| {
        let matches = |leak: &&crate::detection::verdict::Leak| {
            leak.state == wanted && rank::is_headroom(leak) == warnings
        };
        snapshot.leaks.iter().filter(matches).count()
    };
    let some = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    match (count(State::Confirmed, false), count(State::Confirmed, true)) {
        (0, 0) => match count(State::Suspected, false) + count(State::Suspected, true) {
            0 if blind::is_partial(snapshot) => ("warn", "no leaks seen".to_owned()),
            0 => ("", "no leaks".to_owned()),
            n => ("warn", some(n, "suspicion", "suspicions")),
        },
        (0, n) => ("bad", some(n, "limit near", "limits near")),
        (n, _) => ("bad", some(n, "confirmed leak", "confirmed leaks")),
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

fn agent(out: &mut String, snapshot: &Snapshot, now: Timestamp) -> fmt::Result {
    let since = |at: Timestamp| text::duration(age(at, now));
    let whole = snapshot.whole_interval;
    let whole = if whole > snapshot.interval {
        format!(" (of what has moved; of all every {})", text::duration(whole))
    } else {
        String::new()
    };
    write!(
        out,
        "<p class=\"soft\">{} descriptors in {} units &middot; census {} ago, took {:.0} ms, every \
         {}{} &middot; up {}</p>",
        grouped(snapshot.figures.census_fds),
        snapshot.units.len(),
        since(snapshot.at),
        snapshot.figures.census_seconds * 1e3,
        text::duration(snapshot.interval),
        whole,
        since(snapshot.started),
    )?;
    if !snapshot.reload_ok {
        out.write_str(
            "<p class=\"note\">The last reload of the config failed: the one before is in force. \
             The log says why; <code>leakwatch config check</code> checks it.</p>",
        )?;
    }
    Ok(())
}

fn actions(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    out.write_str("<h2>Actions</h2>")?;
    if snapshot.actions.is_empty() {
        return out.write_str("<p class=\"soft\">Nothing was done.</p>");
    }
    out.write_str(
        "<div class=\"wide\"><table class=\"rows\"><thead><tr><th>at</th><th>unit</th><th>action\
         </th><th>outcome</th><th>leak</th><th>detail</th></tr></thead><tbody>",
    )?;
    for act in snapshot.actions.iter().take(MAX_ACTIONS) {
        write!(
            out,
            "<tr><td data-l=\"at\">{}</td><td data-l=\"unit\"><div>{}</div></td>\
             <td data-l=\"action\">{} ({})</td><td data-l=\"outcome\">{}</td>\
             <td data-l=\"leak\"><a href=\"/api/v1/leaks/{}\"><code>{}</code></a></td>\
             <td data-l=\"detail\"><div>{}</div></td></tr>",
            stamp(act.at),
            Safe(&act.unit),
            act.action.as_str(),
            act.mode.as_str(),
            act.outcome.as_str(),
            Segment(&act.leak),
            Safe(&act.leak),
            Safe(&act.detail)
        )?;
    }
    out.write_str("</tbody></table></div>")
}

#[cfg(test)]
mod tests;
