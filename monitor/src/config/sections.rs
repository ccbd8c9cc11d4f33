//! The document as a whole and its plain tables.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cleanup::read_cleanup;
use super::keys::{CLEANUP, DETECTION, IGNORE, Spec, TABLES, UNIT, WATCH};
use super::model::{Config, Detection, Ignore, ProbeMode, StackMode, TaskRuntime, UnitRule, Watch};
use super::nearest::{list, nearest};
use super::problem::Sink;
use super::table::Table;
use super::values::{ANY, INTERVAL, SOME, type_name};
use crate::detection::verdict::Rule;
use crate::glob::Subject;
use crate::text::printable;

/// Longest unit name in bytes: it is a label of every series of the unit.
const MAX_NAME: usize = 200;

/// The name under which exporters sum the units past `max_units`.
const RESERVED_NAME: &str = "other";

pub(super) fn read(sink: &Sink<'_>, document: &DeTable<'_>) -> Config {
    for key in document.keys() {
        if !TABLES.iter().any(|spec| spec.name == key.get_ref().as_ref()) {
            report_unknown_table(sink, key.get_ref(), key.span());
        }
    }
    let mut units = Vec::new();
    let mut first_lines = HashMap::new();
    for table in tables(sink, document, &UNIT) {
        units.extend(read_unit(&table, &mut first_lines));
    }
    Config {
        watch: tables(sink, document, &WATCH).first().map(read_watch).unwrap_or_default(),
        units,
        detection: tables(sink, document, &DETECTION)
            .first()
            .map(read_detection)
            .unwrap_or_default(),
        ignore: tables(sink, document, &IGNORE).iter().map(read_ignore).collect(),
        cleanup: tables(sink, document, &CLEANUP).iter().filter_map(read_cleanup).collect(),
    }
}

fn report_unknown_table(sink: &Sink<'_>, given: &str, span: Range<usize>) {
    let shown = printable(given.as_bytes());
    let homes: Vec<String> =
        TABLES.iter().filter(|spec| spec.keys.contains(&given)).map(|s| s.header()).collect();
    let homes: Vec<&str> = homes.iter().map(String::as_str).collect();
    let near = nearest(given, TABLES.iter().map(|spec| spec.name));
    let message = if !homes.is_empty() {
        format!("`{shown}` stands outside of any table; it belongs in {}", list(&homes))
    } else if let Some(spec) = near.and_then(|name| TABLES.iter().find(|s| s.name == name)) {
        format!("unknown table `{shown}`; did you mean `{}`?", spec.header())
    } else {
        let all: Vec<String> = TABLES.iter().map(|spec| spec.header()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        format!("unknown table `{shown}`; the tables are {}", list(&all))
    };
    sink.report(span, shown, message);
}

/// The tables of one name, with brackets of the wrong number reported.
fn tables<'a>(
    sink: &'a Sink<'a>,
    document: &'a DeTable<'a>,
    spec: &'static Spec,
) -> Vec<Table<'a>> {
    let Some(value) = document.get(spec.name) else { return Vec::new() };
    let header = spec.header();
    match (value.get_ref(), spec.repeats) {
        (DeValue::Table(entries), false) => vec![Table::open(sink, spec, value.span(), entries)],
        (DeValue::Array(items), true) => items
            .iter()
            .filter_map(|item| match item.get_ref() {
                DeValue::Table(entries) => Some(Table::open(sink, spec, item.span(), entries)),
                other => {
                    let what = type_name(other);
                    let message = format!("`{}` holds {what}; write `{header}`", spec.name);
                    sink.report(item.span(), spec.name, message);
                    None
                }
            })
            .collect(),
        (other, _) => {
            let message = wrong_brackets(other, spec, &header);
            sink.report(value.span(), spec.name, message);
            Vec::new()
        }
    }
}

fn wrong_brackets(value: &DeValue<'_>, spec: &Spec, header: &str) -> String {
    let name = spec.name;
    let of_tables = value
        .as_array()
        .is_some_and(|a| a.iter().any(|i: &Spanned<DeValue<'_>>| i.get_ref().is_table()));
    match value {
        DeValue::Table(_) => format!("`{name}` may be given many times; write `{header}`"),
        DeValue::Array(_) if of_tables => format!("`{name}` is given once; write `{header}`"),
        other => format!("`{name}` is {}; write a table, `{header}`", type_name(other)),
    }
}

fn read_watch(table: &Table<'_>) -> Watch {
    let default = Watch::default();
    let probes = [
        ("auto", ProbeMode::Auto),
        ("always", ProbeMode::Always),
        ("on-suspicion", ProbeMode::OnSuspicion),
        ("off", ProbeMode::Off),
    ];
    let stacks = [
        ("always", StackMode::Always),
        ("sampled", StackMode::Sampled),
        ("on-suspicion", StackMode::OnSuspicion),
        ("off", StackMode::Off),
    ];
    Watch {
        census_interval: table
            .duration("census_interval", &INTERVAL)
            .unwrap_or(default.census_interval),
        census_cpu_budget: table.share("census_cpu_budget").unwrap_or(default.census_cpu_budget),
        probes: table.choice("probes", &probes).unwrap_or(default.probes),
        stacks: table.choice("stacks", &stacks).unwrap_or(default.stacks),
        max_units: table.integer("max_units", 1, 100_000).map_or(default.max_units, |n| n as usize),
    }
}

fn read_detection(table: &Table<'_>) -> Detection {
    let default = Detection::default();
    Detection {
        window: table.duration("window", &SOME).unwrap_or(default.window),
        windows: table.integer("windows", 2, 1_000).map_or(default.windows, |n| n as u32),
        warmup: table.duration("warmup", &ANY).unwrap_or(default.warmup),
        stale_after: table.duration("stale_after", &SOME).unwrap_or(default.stale_after),
        min_held: table.integer("min_held", 1, i64::MAX).map_or(default.min_held, |n| n as u64),
        min_share: table.share_or_none("min_share").unwrap_or(default.min_share),
    }
}

fn read_unit(table: &Table<'_>, first_lines: &mut HashMap<String, usize>) -> Option<UnitRule> {
    let rule = UnitRule {
        name: read_name(table, first_lines).unwrap_or_default(),
        cgroup: table.glob("cgroup", Subject::Path, "/system.slice/deployer.service"),
        exe: table.glob("exe", Subject::Path, "/usr/bin/python3*"),
        cmdline: table.glob("cmdline", Subject::Text, "*deployment_runner.py*"),
        user: table.text("user", "svc").map(|text| text.value.to_owned()),
        logs: table.globs("logs", Subject::Path, "/var/log/deployer/*.log"),
        orphans: table.globs("orphans", Subject::Text, "*agent-runner*"),
        tasks: table.choice("tasks", &TaskRuntime::ALL),
    };
    let matchers = ["cgroup", "exe", "cmdline", "user"];
    if !matchers.iter().any(|key| table.has(key)) {
        let message =
            format!("`[[unit]]` matches nothing; give it one or more of {}", list(&matchers));
        table.report("", message);
    }
    Some(rule)
}

fn read_name(table: &Table<'_>, first_lines: &mut HashMap<String, usize>) -> Option<String> {
    if !table.has("name") {
        table.report("name", "`[[unit]]` has no `name`; add such as name = \"deployer\"".into());
        return None;
    }
    let name = table.text("name", "deployer")?;
    let bytes = name.value.len();
    let wrong = if bytes > MAX_NAME {
        Some(format!("`name` has {bytes} bytes; it may have {MAX_NAME}"))
    } else if name.value == RESERVED_NAME {
        Some("`name` is \"other\", which stands for the units past `max_units`; use another".into())
    } else if printable(name.value.as_bytes()) != name.value {
        Some("`name` holds control characters; use printable ones".into())
    } else {
        None
    };
    if let Some(message) = wrong {
        table.report_at(name.span, "name", message);
        return None;
    }
    let line = table.line(name.span.start);
    if let Some(first) = first_lines.get(name.value) {
        let message = format!(
            "`name` is \"{}\" again, as on line {first}; every unit needs its own",
            name.value
        );
        table.report_at(name.span, "name", message);
        return None;
    }
    first_lines.insert(name.value.to_owned(), line);
    Some(name.value.to_owned())
}

fn read_ignore(table: &Table<'_>) -> Ignore {
    let rules = Rule::ALL.map(|rule| (rule.as_str(), rule));
    let keys = ["unit", "path", "rule"];
    if !keys.iter().any(|key| table.has(key)) {
        let message = format!("`[[ignore]]` names nothing; give it one or more of {}", list(&keys));
        table.report("", message);
    }
    Ignore {
        unit: table.glob("unit", Subject::Text, "postgresql.service"),
        path: table.glob("path", Subject::Path, "/var/lib/postgresql/**"),
        rule: table.choice("rule", &rules).map(|rule| rule.as_str().to_owned()),
    }
}
