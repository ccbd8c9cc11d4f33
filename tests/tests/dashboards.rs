//! The dashboard and the alert rules, as far as they can be judged without an agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use leakwatch_tests::prometheus::{dashboard, promtool};
use serde_json::Value;

fn check(arguments: &[&str]) {
    let Some(output) = promtool(arguments, b"") else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}\n{text}\n{errors}");
}

#[test]
fn the_rules_are_valid_and_pass_their_tests() {
    check(&["check", "rules", &dashboard("leakwatch.rules.yml").display().to_string()]);
    check(&["test", "rules", &dashboard("leakwatch.rules_test.yml").display().to_string()]);
}

fn names(text: &str, key: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|l| l.trim().trim_start_matches("- "));
    lines.filter_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned()).collect()
}

#[test]
fn every_alert_has_tests_that_fire_and_do_not_and_a_runbook_section() {
    let read = |path: &Path| fs::read_to_string(path).expect("it is part of the project");
    let rules = read(&dashboard("leakwatch.rules.yml"));
    let tests = read(&dashboard("leakwatch.rules_test.yml"));
    let book = read(&dashboard("../docs/runbook.md"));
    let alerts = names(&rules, "alert:");
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in &alerts {
        assert!(book.contains(&format!("\n## {alert}\n")), "docs/runbook.md on {alert}");
        let anchor = format!("docs/runbook.md#{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "a runbook_url that ends in {anchor}");
        let cases: Vec<&str> = tests.split(&format!("alertname: {alert}\n")).skip(1).collect();
        let quiet = cases.iter().filter(|c| c.lines().nth(1).is_some_and(|l| l.ends_with("[]")));
        let quiet = quiet.count();
        assert!(quiet > 0 && quiet < cases.len(), "{alert}: {quiet} of {} are quiet", cases.len());
    }
    assert_eq!(
        alerts,
        names(&tests, "- alertname:").union(&names(&tests, "alertname:")).cloned().collect()
    );
}

#[test]
fn the_dashboard_is_what_grafana_takes() {
    let text = fs::read_to_string(dashboard("leakwatch.json")).expect("it is part of the project");
    let board: Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(board["schemaVersion"].as_u64() >= Some(39));
    assert!(board["id"].is_null() && board["uid"] == "leakwatch" && board["title"] == "leakwatch");

    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let variables = list(&board["templating"]["list"]);
    let names: Vec<_> = variables.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "instance", "unit"]);

    let panels = list(&board["panels"]);
    let ids: BTreeSet<_> = panels.iter().filter_map(|p| p["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "panel ids are unique");
    let mut cells = BTreeSet::new();
    for panel in &panels {
        let title = &panel["title"];
        let kind = panel["type"].as_str().expect("a panel has a type");
        assert!(["row", "stat", "table", "timeseries"].contains(&kind), "{title}: {kind}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a panel has its place");
        assert!(at("x") + at("w") <= 24, "{title} is off the grid");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel at {x},{y}");
            }
        }
        if kind == "row" {
            continue;
        }
        let targets = list(&panel["targets"]);
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let query = target["expr"].as_str().expect("a target has a query");
            assert!(query.contains("leakwatch_") || query.contains("process_"), "{title}: {query}");
            assert!(query.contains("$instance"), "{title} ignores the chosen instance: {query}");
        }
    }
}
