//! The table of units: those with verdicts first, then the nearest to a limit.

use std::cmp::Reverse;
use std::fmt::{self, Write};

use super::html::{Safe, Segment};
use super::sparkline;
use crate::detection::verdict::{Leak, State};
use crate::export::count::grouped;
use crate::export::rank;
use crate::ledger::view::{UnitView, WorstProcess};
use crate::source::model::FdKind;

/// Kinds that a row names before it only counts the rest.
const MAX_KINDS: usize = 4;

pub(super) fn section(out: &mut String, units: &[UnitView], leaks: &[Leak]) -> fmt::Result {
    let mut rows: Vec<(&UnitView, bool, u64)> = units
        .iter()
        .map(|view| {
            let name = &view.unit.name;
            let confirmed = leaks.iter().any(|l| l.unit == *name && l.state == State::Confirmed);
            (view, confirmed, rank::open_leaks(leaks, name))
        })
        .collect();
    rows.sort_by_key(|(view, confirmed, open)| {
        let nearness = view.worst.as_ref().and_then(permille).unwrap_or(0);
        (Reverse(*confirmed), Reverse(*open), Reverse(nearness), &view.unit.name)
    });

    write!(
        out,
        "<h2>Units ({})</h2><div class=\"wide\"><table class=\"rows\"><thead><tr><th>unit</th>\
         <th>descriptors</th><th>worst process</th><th>lately</th><th class=\"n\">threads</th>\
         <th class=\"n\">processes</th><th class=\"n\">zombies</th><th class=\"n\">orphans</th>\
         </tr></thead><tbody>",
        units.len()
    )?;
    for (view, confirmed, open) in rows {
        row(out, view, confirmed, open)?;
    }
    out.write_str("</tbody></table></div>")
}

fn row(out: &mut String, view: &UnitView, confirmed: bool, open: u64) -> fmt::Result {
    let name = &*view.unit.name;
    write!(
        out,
        "<tr><td data-l=\"unit\"><div><a href=\"/api/v1/units/{}\" title=\"{}\">{}</a> \
         <span class=\"soft\">{}</span>",
        Segment(name),
        Safe(&view.unit.cgroup),
        Safe(name),
        view.unit.kind
    )?;
    if confirmed || open > 0 {
        let class = if confirmed { "bad" } else { "warn" };
        let what = match open {
            0 => "near a limit".to_owned(),
            1 => "1 leak".to_owned(),
            n => format!("{n} leaks"),
        };
        write!(out, " <span class=\"pill {class}\">{what}</span>")?;
    }
    out.write_str("</div></td><td data-l=\"descriptors\"><div>")?;
    descriptors(out, view)?;
    out.write_str("</div></td><td data-l=\"worst process\"><div>")?;
    match &view.worst {
        Some(worst) => worst_process(out, worst)?,
        None => out.write_str("<span class=\"soft\">not seen</span>")?,
    }
    out.write_str("</div></td><td data-l=\"lately\"><div>")?;
    sparkline::draw(out, &view.history)?;
    out.write_str("</div></td>")?;
    for (label, count, class) in [
        ("threads", view.threads, ""),
        ("processes", view.processes, ""),
        ("zombies", view.zombies, "warn"),
        ("orphans", view.orphans, "warn"),
    ] {
        let class = if count > 0 { class } else { "" };
        write!(out, "<td class=\"n {class}\" data-l=\"{label}\">{}</td>", grouped(count))?;
    }
    out.write_str("</tr>")
}

fn descriptors(out: &mut String, view: &UnitView) -> fmt::Result {
    match view.open_fds_total {
        Some(total) => write!(out, "<b>{}</b>", grouped(total))?,
        None => out.write_str("<span class=\"soft\">not seen</span>")?,
    }
    if let Some(open) = &view.open_fds {
        let mut kinds: Vec<(&FdKind, &u64)> = open.iter().filter(|(_, n)| **n > 0).collect();
        kinds.sort_by_key(|(_, n)| Reverse(**n));
        let rest = kinds.len().saturating_sub(MAX_KINDS);
        for (kind, count) in kinds.iter().take(MAX_KINDS) {
            write!(out, " <span class=\"soft\">{kind}&nbsp;{}</span>", grouped(**count))?;
        }
        if rest > 0 {
            write!(out, " <span class=\"soft\">+{rest}&nbsp;kinds</span>")?;
        }
    }
    if view.denied_processes > 0 {
        write!(out, " <span class=\"soft\">({} denied)</span>", view.denied_processes)?;
    }
    Ok(())
}

fn worst_process(out: &mut String, worst: &WorstProcess) -> fmt::Result {
    write!(out, "{}[{}] {}", Safe(&worst.comm), worst.pid, grouped(worst.open_fds))?;
    let (Some(max), Some(permille)) = (worst.max_fds, permille(worst)) else { return Ok(()) };
    let class = match permille {
        900.. => "bad",
        700.. => "warn",
        _ => "",
    };
    write!(
        out,
        " / {}<div class=\"bar\"><i class=\"{class}\" style=\"width:{:.1}%\"></i></div>",
        grouped(max),
        permille as f64 / 10.0
    )
}

/// How much of its limit a process uses, in thousandths, at most 1000.
fn permille(worst: &WorstProcess) -> Option<u64> {
    let max = worst.max_fds?;
    Some(worst.open_fds.saturating_mul(1000).checked_div(max).unwrap_or(1000).min(1000))
}
