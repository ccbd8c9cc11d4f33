//! `notify`: says a verdict in the log.

use crate::detection::verdict::Leak;

/// What to say.
#[derive(Debug)]
pub(super) struct Notice {
    leak: Leak,
    rule: String,
}

impl Notice {
    pub(super) fn new(leak: &Leak, rule: &str) -> Self {
        Self { leak: leak.clone(), rule: rule.to_owned() }
    }

    /// One warning, with its figures as fields.
    pub(super) fn say(&self) {
        let leak = &self.leak;
        tracing::warn!(
            unit = %leak.unit,
            leak = %leak.id,
            rule = %self.rule,
            resource = %leak.resource,
            kind = %leak.kind,
            cohort = %leak.cohort,
            held = leak.held,
            growth_per_hour = leak.growth_per_hour,
            exhausts_at = leak.exhausts_at.map(|t| t.to_string()),
            "{}",
            sentence(leak)
        );
    }
}

/// The verdict in one sentence: its first evidence, else its figures.
fn sentence(leak: &Leak) -> String {
    match leak.evidence.first() {
        Some(evidence) => format!("{} leaks: {evidence}", leak.unit),
        None => format!("{} leaks {} {}: {}", leak.unit, leak.held, leak.kind, leak.cohort),
    }
}
