//! The effective configuration as a file that [`super::parse`] reads back.

use std::fmt::{Display, Write};
use std::time::Duration;

use toml::Value;

use super::model::{ActionKind, Config, ProbeMode, StackMode, TaskRuntime};
use super::values::signal_name;

/// Every key with its value in effect, defaults included.
///
/// Reading the result gives the same configuration again.
pub fn to_toml(config: &Config) -> String {
    let mut out = Writer::default();
    let watch = &config.watch;
    out.header("[watch]");
    out.duration("census_interval", watch.census_interval);
    out.value("census_cpu_budget", Value::Float(watch.census_cpu_budget));
    out.text("probes", probes(watch.probes));
    out.text("stacks", stacks(watch.stacks));
    out.value("max_units", watch.max_units);
    for unit in &config.units {
        out.header("[[unit]]");
        out.text("name", &unit.name);
        out.optional("cgroup", unit.cgroup.as_deref());
        out.optional("exe", unit.exe.as_deref());
        out.optional("cmdline", unit.cmdline.as_deref());
        out.optional("user", unit.user.as_deref());
        out.list("logs", &unit.logs);
        out.list("orphans", &unit.orphans);
        out.optional("tasks", unit.tasks.map(TaskRuntime::as_str));
    }
    let detection = &config.detection;
    out.header("[detection]");
    out.duration("window", detection.window);
    out.value("windows", detection.windows);
    out.duration("warmup", detection.warmup);
    out.duration("stale_after", detection.stale_after);
    out.value("min_held", detection.min_held);
    out.value("min_share", Value::Float(detection.min_share));
    for ignore in &config.ignore {
        out.header("[[ignore]]");
        out.optional("unit", ignore.unit.as_deref());
        out.optional("path", ignore.path.as_deref());
        out.optional("rule", ignore.rule.as_deref());
    }
    for cleanup in &config.cleanup {
        out.header("[[cleanup]]");
        out.optional("rule", cleanup.rule.as_deref());
        out.optional("unit", cleanup.unit.as_deref());
        out.text("do", cleanup.action.as_str());
        if let Some(number) = cleanup.signal.filter(|_| cleanup.action == ActionKind::Signal) {
            match signal_name(number) {
                Some(name) => out.text("signal", &name),
                None => out.value("signal", number),
            }
        }
        out.text("mode", cleanup.mode.as_str());
        out.duration("cooldown", cleanup.cooldown);
        out.value("budget", cleanup.budget);
        out.list("protect", &cleanup.protect);
        out.duration("grace", cleanup.grace);
        out.duration("timeout", cleanup.timeout);
    }
    out.0
}

const fn probes(mode: ProbeMode) -> &'static str {
    match mode {
        ProbeMode::Auto => "auto",
        ProbeMode::Always => "always",
        ProbeMode::OnSuspicion => "on-suspicion",
        ProbeMode::Off => "off",
    }
}

const fn stacks(mode: StackMode) -> &'static str {
    match mode {
        StackMode::Always => "always",
        StackMode::Sampled => "sampled",
        StackMode::OnSuspicion => "on-suspicion",
        StackMode::Off => "off",
    }
}

#[derive(Default)]
struct Writer(String);

impl Writer {
    fn header(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }

    fn value(&mut self, key: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.value(key, Value::String(text.to_owned()));
    }

    fn optional(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn list(&mut self, key: &str, items: &[String]) {
        if !items.is_empty() {
            self.value(key, Value::Array(items.iter().cloned().map(Value::String).collect()));
        }
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.text(key, &humantime::format_duration(duration).to_string());
    }
}
