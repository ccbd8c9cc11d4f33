//! The tables for people.

use std::fmt::Write as _;

use super::judge::METHODS;
use super::label::Label;
use super::score::{Figures, Outcome, Row, median};

/// The tables of `docs/detection.md`: the part that was looked at, the part that was not.
pub fn tables(rows: &[Row]) -> String {
    let count = |leaky| rows.iter().filter(|(l, _)| l.leaky() == leaky).count();
    let servers = rows.iter().filter(|(l, _)| !l.server.is_empty()).count();
    let real = rows.iter().filter(|(l, _)| !l.generated()).count() - servers;
    let mut text = format!(
        "{} leaky and {} innocent cases, {real} of them real programs, {servers} real servers or their \
         clients, and the others generated.\n",
        count(true),
        count(false),
    );
    for (title, aside) in [("Looked at while the rules were made", false), ("Kept aside", true)] {
        let _ = write!(
            text,
            "\n{title}:\n\n| method | leaks found | false alarms | precision | recall | windows to \
             confirm: median, worst | leaked by then: median, worst | descriptor leaks found \
             before 10 % of the limit |\n|---|---|---|---|---|---|---|---|\n"
        );
        for (i, method) in METHODS.iter().enumerate() {
            let of = rows.iter().filter(|(l, _)| l.held_out == aside).map(|(_, o)| &o[i]);
            line(&mut text, method, &Figures::of(of));
        }
        let of = rows.iter().filter(|(l, _)| l.held_out == aside).map(|(_, o)| &o[0]);
        let ours = Figures::of(of);
        if ours.openers > 0 {
            let _ = writeln!(
                text,
                "\nOf the real leaks that leakwatch found, {} have an opener on record; it named {}.",
                ours.openers, ours.named
            );
        }
    }
    text
}

fn line(text: &mut String, method: &str, f: &Figures) {
    let share = |x: Option<f64>| x.map_or("none".to_owned(), |x| format!("{x:.3}"));
    let windows = |x: Option<f64>| x.map_or("–".to_owned(), |x| format!("{x:.1}"));
    let count = |x: Option<u64>| x.map_or("–".to_owned(), |x| x.to_string());
    let _ = writeln!(
        text,
        "| {method} | {} of {} | {} of {} cases | {} | {} | {}, {} | {}, {} | {} of {} |",
        f.found,
        f.leaky,
        f.wrong,
        f.leaky + f.innocent,
        share(f.precision()),
        share(f.recall()),
        windows(median(&f.windows)),
        windows(f.windows.last().copied()),
        count(median(&f.leaked)),
        count(f.leaked.last().copied()),
        f.early,
        f.descriptors,
    );
}

/// A line on what one method made of a case.
pub fn sentence(label: &Label, method: &str, outcome: &Outcome) -> String {
    let aside = if label.held_out { " (kept aside)" } else { "" };
    let what = match (&outcome.found, label.leaky()) {
        (Some(f), _) => {
            let opener = match f.opener.filter(|_| method == METHODS[0]) {
                Some(true) => ", with its opener",
                Some(false) => ", without its opener",
                None => "",
            };
            let (windows, leaked) = (f.windows, f.leaked);
            format!("found after {windows:.1} windows and {leaked} leaked, by {}{opener}", f.why)
        }
        (None, true) => "MISSED".to_owned(),
        (None, false) => "silent".to_owned(),
    };
    let wrong = outcome.wrong.as_ref().map_or(String::new(), |w| format!("; FALSE ALARM: {w}"));
    format!("{}{aside}: {method}: {what}{wrong}", label.name)
}
