//! Verdicts and acts.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use super::family::Family;
use super::seconds;
use crate::export::rank;
use crate::export::snapshot::Snapshot;

/// Adds `leak*` and `actions_total`.
pub(super) fn add(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    verdicts(snapshot, out);

    let mut confirmed =
        Family::counter("leaks_confirmed_total", "Confirmations since the agent started.");
    for ((unit, resource, rule), count) in &snapshot.confirmed_total {
        let labels = [("unit", &**unit), ("resource", resource.as_str()), ("rule", rule.as_str())];
        confirmed.push(&labels, *count as f64);
    }
    confirmed.finish(out);

    let mut actions =
        Family::counter("actions_total", "Acts of cleanup since the agent started, by outcome.");
    for ((unit, action, mode, outcome), count) in &snapshot.actions_total {
        let labels = [
            ("unit", &**unit),
            ("action", action.as_str()),
            ("mode", mode.as_str()),
            ("outcome", outcome.as_str()),
        ];
        actions.push(&labels, *count as f64);
    }
    actions.finish(out);
}

fn verdicts(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut counts = BTreeMap::<_, u64>::new();
    let mut amounts = BTreeMap::<_, (u64, f64)>::new();
    let mut deadlines = BTreeMap::new();
    for leak in &snapshot.leaks {
        let unit = &*leak.unit;
        for rule in &leak.rules {
            let key = (unit, leak.resource.as_str(), rule.as_str(), leak.state.as_str());
            *counts.entry(key).or_default() += 1;
        }
        if !rank::is_open(leak) {
            continue;
        }
        if !rank::is_headroom(leak) {
            let key = (unit, leak.resource.as_str(), &*leak.kind);
            let amount = amounts.entry(key).or_default();
            amount.0 += leak.held;
            amount.1 += leak.growth_per_hour / 3600.0;
        }
        if let Some(at) = leak.exhausts_at {
            let earliest = deadlines.entry((unit, leak.resource.as_str())).or_insert(at);
            *earliest = at.min(*earliest);
        }
    }

    let mut leaks = Family::gauge(
        "leaks",
        "Verdicts by rule and state; one on which several rules agree counts under each.",
    );
    for ((unit, resource, rule, state), count) in counts {
        let labels = [("unit", unit), ("resource", resource), ("rule", rule), ("state", state)];
        leaks.push(&labels, count as f64);
    }
    let mut held = Family::gauge("leak_held", "Leaked now, by the open verdicts.");
    let mut growth =
        Family::gauge("leak_growth_per_second", "Leaked more per second, by the open verdicts.");
    for ((unit, resource, kind), (members, per_second)) in amounts {
        let labels = [("unit", unit), ("resource", resource), ("kind", kind)];
        held.push(&labels, members as f64);
        growth.push(&labels, per_second);
    }
    let mut exhaustion = Family::gauge(
        "leak_exhaustion_timestamp_seconds",
        "When the first limit is hit at the present growth, Unix time.",
    );
    for ((unit, resource), at) in deadlines {
        exhaustion.push(&[("unit", unit), ("resource", resource)], seconds(at));
    }
    for family in [leaks, held, growth, exhaustion] {
        family.finish(out);
    }
}
