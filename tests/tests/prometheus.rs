//! From the kernel to the query: a real Prometheus scrapes a real agent while a
//! leaker runs, and is asked for the leak.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use leakwatch_tests::agent::{Agent, FAST, Plan};
use leakwatch_tests::component::need_root;
use leakwatch_tests::prometheus::{Prometheus, dashboard, promtool};
use leakwatch_tests::raw;
use leakwatch_tests::started::{Started, program, python};
use leakwatch_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Probes, so that births are counted; a cleanup in a dry run, so that acts are.
fn config() -> String {
    let fast = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    format!(
        "{fast}
[[unit]]
name = \"deployer\"
cmdline = \"*--tag t-prometheus*\"
[[unit]]
name = \"busy\"
cmdline = \"*--tag t-busy*\"
[[cleanup]]
rule = \"*\"
unit = \"deployer\"
do = \"notify\"
"
    )
}

/// A leaker that grows for long, and somebody who opens and closes.
fn company(agent: &Agent) -> [Started; 2] {
    let log = agent.dir().join("deployer.log").display().to_string();
    let mut deployer = python("deployer.py");
    deployer.args(["--tag", "t-prometheus", "--count", "10000", "--pace", "400", "--log", &log]);
    let mut busy = program("connections");
    busy.args(["--tag", "t-busy", "--mode", "load", "--rise", "2000", "--count", "20"]);
    [Started::new(&mut deployer), Started::new(&mut busy)]
}

/// Lets the kernel keep the run time of BPF programs until this is closed.
fn keep_run_statistics() -> OwnedFd {
    const BPF_ENABLE_STATS: std::ffi::c_long = 32;
    // union bpf_attr: type BPF_STATS_RUN_TIME.
    let attributes = [0_u32; 2];
    // SAFETY: eight bytes at that address; the descriptor returned is ours alone.
    unsafe {
        let address = attributes.as_ptr() as std::ffi::c_long;
        let fd = raw::call(libc::SYS_bpf, &[BPF_ENABLE_STATS, address, 8]);
        OwnedFd::from_raw_fd(fd.expect("root may have statistics") as raw::Fd)
    }
}

#[test]
fn prometheus_is_asked_for_the_leak_and_every_panel_has_an_answer() {
    if need_root().is_none() {
        return;
    }
    let _statistics = keep_run_statistics();
    let agent = Plan::new(config()).start();
    let _company = company(&agent);
    let Some(prometheus) = Prometheus::start(agent.address) else { return };

    let leak = r#"leakwatch_leaks{state="confirmed",rule="unclosed-log-handle",unit="deployer"}"#;
    wait_until("the leak in Prometheus", LIMIT, || prometheus.value(leak).filter(|v| *v == 1.0));
    assert_eq!(prometheus.value("up{job=\"leakwatch\"}"), Some(1.0));
    let held = r#"leakwatch_leak_held{unit="deployer",resource="fd",kind="log"}"#;
    let before = prometheus.value(held).expect("it is held");
    wait_until("the leak to grow in Prometheus", LIMIT, || {
        prometheus.value(held).filter(|v| *v > before)
    });

    the_alert_is_on_its_way(&prometheus);
    every_panel_is_answered(&prometheus);
    the_page_is_in_order(&agent);
    no_series_names_a_process_or_a_file(&prometheus, &agent);
}

fn the_alert_is_on_its_way(prometheus: &Prometheus) {
    let rules = prometheus.ask("/api/v1/rules");
    let loaded = rules["data"]["groups"][0]["rules"].as_array().map_or(0, Vec::len);
    assert!(loaded >= 12, "{rules}");
    wait_until("the alert on the leak", LIMIT, || {
        prometheus.alerts().into_iter().find(|(name, state, labels)| {
            name == "LeakwatchConfirmedLeak"
                && labels["unit"] == "deployer"
                && labels["rule"] == "unclosed-log-handle"
                && ["pending", "firing"].contains(&state.as_str())
        })
    });
    let healthy: Vec<_> = prometheus
        .alerts()
        .into_iter()
        .filter(|(name, ..)| {
            ["LeakwatchDown", "LeakwatchBlind", "LeakwatchConfigReloadFailed"]
                .contains(&name.as_str())
        })
        .collect();
    assert!(healthy.is_empty(), "{healthy:?}");
}

fn every_panel_is_answered(prometheus: &Prometheus) {
    let text = fs::read_to_string(dashboard("leakwatch.json")).expect("it is part of the project");
    let board: Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = board["panels"].as_array().expect("panels").iter();
    let mut open: Vec<(String, String)> = panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets.into_iter().map(|t| {
                (panel["title"].to_string(), t["expr"].as_str().unwrap_or_default().to_owned())
            })
        })
        .collect();
    assert!(open.len() > 25, "{} queries", open.len());
    let begun = std::time::Instant::now();
    while !open.is_empty() {
        open.retain(|(_, query)| {
            let query = query
                .replace("$__rate_interval", "10s")
                .replace("$__interval", "10s")
                .replace("$instance", ".*")
                .replace("$unit", ".*");
            assert!(!query.contains('$'), "a variable that is not known here: {query}");
            prometheus.query(&query).is_empty()
        });
        assert!(begun.elapsed() < LIMIT, "panels without an answer: {open:#?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    for variable in board["templating"]["list"].as_array().expect("variables") {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inside = query.trim_start_matches("label_values(").trim_end_matches(')');
        let (series, label) = inside.rsplit_once(", ").expect("a series and a label");
        let series = series.replace("$instance", ".*");
        let values = prometheus.query(&format!("count by ({label}) ({series})"));
        assert!(
            values.iter().all(|v| v["metric"][label].is_string()) && !values.is_empty(),
            "{query}"
        );
    }
}

fn the_page_is_in_order(agent: &Agent) {
    let page = agent.get("/metrics");
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain") && kind.contains("version=0.0.4"), "{kind}");
    let Some(said) = promtool(&["check", "metrics"], &page.body) else { return };
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && out.is_empty() && err.is_empty(), "promtool: {out}{err}");

    let headers = [("Accept-Encoding", "gzip")];
    let packed = leakwatch_tests::http::request(agent.address, "GET", "/metrics", &headers)
        .expect("it answers");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < page.body.len() / 2);
}

/// Every metric that the design promises and this company shows is there, and no
/// label holds a pid or a path of a descriptor.
fn no_series_names_a_process_or_a_file(prometheus: &Prometheus, agent: &Agent) {
    let names = prometheus.ask("/api/v1/label/__name__/values");
    let names: BTreeSet<&str> =
        names["data"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for promised in [
        "unit_info",
        "unit_open_fds",
        "unit_worst_process_open_fds",
        "unit_worst_process_max_fds",
        "unit_threads",
        "unit_processes",
        "unit_zombies",
        "unit_orphans",
        "unit_fds_opened_total",
        "unit_fds_closed_total",
        "unit_threads_created_total",
        "unit_threads_exited_total",
        "unit_processes_started_total",
        "unit_processes_exited_total",
        "unit_fd_lifetime_seconds_bucket",
        "unit_process_lifetime_seconds_bucket",
        "unit_deleted_open_bytes",
        "leaks",
        "leak_held",
        "leak_growth_per_second",
        "leak_exhaustion_timestamp_seconds",
        "leaks_confirmed_total",
        "actions_total",
        "source_state",
        "events_lost_total",
        "census_corrections_total",
        "census_fds",
        "census_duration_seconds",
        "census_timestamp_seconds",
        "census_interval_seconds",
        "census_whole_interval_seconds",
        "config_last_reload_successful",
        "build_info",
    ] {
        let name = format!("leakwatch_{promised}");
        assert!(names.contains(name.as_str()), "{name} is missing of {names:?}");
    }
    assert!(names.contains("process_open_fds") && names.contains("process_resident_memory_bytes"));

    let here = agent.dir().display().to_string();
    for sample in agent.metrics().0 {
        for (label, value) in &sample.labels {
            assert!(label != "pid" && label != "path", "{sample:?}");
            assert!(!value.contains(".log") && !value.contains(&here), "{sample:?}");
            // A unit may be a cgroup, whose name is its path; nothing else is.
            let cgroup = label == "cgroup" || label == "unit";
            assert!(!value.starts_with('/') || cgroup, "{sample:?}");
        }
    }
}
