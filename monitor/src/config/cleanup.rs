//! `[[cleanup]]`: the one table whose keys depend on each other.

use std::time::Duration;

use toml::de::DeValue;

use super::model::{ActionKind, Cleanup, Mode};
use super::nearest::{nearest, suggest};
use super::table::Table;
use super::values::{self, ANY, WAIT};
use crate::detection::verdict::Rule;
use crate::glob::{Glob, Subject};
use crate::text::printable;

/// Between two acts on the same verdict.
pub(super) const COOLDOWN: Duration = Duration::from_secs(600);
/// Acts per hour.
pub(super) const BUDGET: u32 = 3;
/// The same for `notify`.
const NOTIFY_BUDGET: u32 = 60;
/// SIGTERM to SIGKILL.
pub(super) const GRACE: Duration = Duration::from_millis(100);
/// Longest wait for one act and its check.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

const ACTIONS: [(&str, ActionKind); 3] = [
    ("notify", ActionKind::Notify),
    ("signal", ActionKind::Signal),
    ("kill-orphans", ActionKind::KillOrphans),
];

/// Planned, so that who writes them is not told of a typing mistake.
const LATER: [&str; 6] =
    ["exec", "restart", "archive-logs", "remove-files", "close-fds", "raise-limit"];

/// `None` where there is nothing to act with; that is then reported.
pub(super) fn read_cleanup(table: &Table<'_>) -> Option<Cleanup> {
    let modes = [("dry-run", Mode::DryRun), ("enforce", Mode::Enforce)];
    if !table.has("rule") && !table.has("unit") {
        let message = "`[[cleanup]]` says not for what; give it `rule` or `unit` or both \
                       (rule = \"*\" is every rule)";
        table.report("", message.into());
    }
    let action = read_action(table);
    let signal = read_signal(table, action);
    // A line in the log disturbs nobody, and a fourth leak must not go unsaid.
    let budget = if action == Some(ActionKind::Notify) { NOTIFY_BUDGET } else { BUDGET };
    Some(Cleanup {
        rule: read_rule(table),
        unit: table.glob("unit", Subject::Text, "deployer*"),
        signal,
        mode: table.choice("mode", &modes).unwrap_or_default(),
        cooldown: table.duration("cooldown", &ANY).unwrap_or(COOLDOWN),
        budget: table.integer("budget", 1, 3_600).map_or(budget, |n| n as u32),
        protect: table.globs("protect", Subject::Text, "postgresql*"),
        grace: table.duration("grace", &WAIT).unwrap_or(GRACE),
        timeout: table.duration("timeout", &WAIT).unwrap_or(TIMEOUT),
        action: action?,
    })
}

fn read_action(table: &Table<'_>) -> Option<ActionKind> {
    let Some(value) = table.get("do") else {
        let message = "`[[cleanup]]` has no `do`; use one of `notify`, `signal` and `kill-orphans`";
        table.report("do", message.into());
        return None;
    };
    match value.get_ref().as_str().filter(|given| LATER.contains(given)) {
        Some(given) => {
            let message = format!(
                "`do` is \"{given}\", which this version does not have; \
                 it has `notify`, `signal` and `kill-orphans`"
            );
            table.report_at(value.span(), "do", message);
            None
        }
        None => table.choice("do", &ACTIONS),
    }
}

fn read_rule(table: &Table<'_>) -> Option<String> {
    let pattern = table.glob("rule", Subject::Text, "unclosed-log-handle")?;
    let names = Rule::ALL.map(Rule::as_str);
    let glob = Glob::new(&pattern, Subject::Text).ok()?;
    if names.iter().any(|name| glob.is_match(name.as_bytes())) {
        return Some(pattern);
    }
    let value = table.get("rule")?;
    let right = suggest(&pattern, "the rules are", &names);
    let shown = printable(pattern.as_bytes());
    table.report_at(
        value.span(),
        "rule",
        format!("`rule` is \"{shown}\", which no rule is; {right}"),
    );
    None
}

/// The signal, where the action is `signal` and it is a good one.
fn read_signal(table: &Table<'_>, action: Option<ActionKind>) -> Option<i32> {
    let Some(value) = table.get("signal") else {
        if action == Some(ActionKind::Signal) {
            let message = "`do = \"signal\"` needs `signal`; add such as signal = \"SIGHUP\"";
            table.report("signal", message.into());
        }
        return None;
    };
    if let Some(action) = action.filter(|action| *action != ActionKind::Signal) {
        let message = format!(
            "`signal` has no meaning for `do = \"{}\"`; remove it, or use `do = \"signal\"`",
            action.as_str()
        );
        table.report_at(value.span(), "signal", message);
        return None;
    }
    match value.get_ref() {
        DeValue::Integer(_) => table.integer("signal", 1, 64).map(|n| n as i32),
        DeValue::String(name) => {
            let number = values::signal_number(name);
            if number.is_none() {
                let names = values::signal_names();
                let right = nearest(name, names.iter().map(String::as_str)).map_or_else(
                    || "use a name such as \"SIGHUP\" or a number from 1 to 64".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let shown = printable(name.as_bytes());
                let message = format!("`signal` is \"{shown}\", which is no signal; {right}");
                table.report_at(value.span(), "signal", message);
            }
            number
        }
        other => {
            let what = values::type_name(other);
            let message = format!(
                "`signal` is {what}; use a name such as \"SIGHUP\" or a number from 1 to 64"
            );
            table.report_at(value.span(), "signal", message);
            None
        }
    }
}
