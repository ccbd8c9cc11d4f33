use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::export::testing::{HOSTILE, fleet, hostile, night};

fn text(snapshot: &Snapshot) -> String {
    String::from_utf8(encode(&of_snapshot(snapshot))).unwrap()
}

/// `UPDATE_GOLDEN=1` writes the file anew; read the difference before committing it.
#[test]
fn the_night_is_as_in_the_golden_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/export/testdata/metrics.golden");
    let got = text(&night());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &got).unwrap();
    }
    let want = std::fs::read_to_string(path).unwrap();
    for (line, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "line {} of {path}", line + 1);
    }
    assert_eq!(got.lines().count(), want.lines().count());
}

#[test]
fn what_is_unknown_is_absent_and_not_zero() {
    let text = text(&night());
    for absent in [
        "leakwatch_unit_open_fds{kind=\"regular\",unit=\"vault.service\"",
        "unit_open_fds{unit=\"vault.service\"",
        "unit_worst_process_open_fds{unit=\"vault.service\"",
        "unit_deleted_open_bytes{unit=\"vault.service\"",
        "unit_fds_opened_total{unit=\"nginx.service\"",
        "unit_thread_lifetime_seconds",
    ] {
        assert!(!text.contains(absent), "{absent} is in\n{text}");
    }
    assert!(text.contains("leakwatch_unit_processes{unit=\"vault.service\"} 2"));
}

#[test]
fn a_warning_about_a_limit_is_not_held_as_a_leak() {
    let text = text(&night());
    assert!(!text.contains("leak_held{unit=\"deployer\",resource=\"fd\",kind=\"fd\"}"));
    // Its deadline counts all the same, and it is the earlier one.
    let earliest =
        "leak_exhaustion_timestamp_seconds{unit=\"deployer\",resource=\"fd\"} 1795321740";
    assert!(text.contains(earliest), "{text}");
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    for name in HOSTILE {
        let text = text(&hostile(name));
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        assert!(text.contains(&format!("unit=\"{escaped}\"")), "{name:?} in\n{text}");
        for line in text.lines() {
            assert!(line.starts_with("# ") || line.starts_with("leakwatch_"), "{line:?}");
        }
    }
}

#[test]
fn no_pid_and_no_path_of_a_file_is_a_label() {
    let text = String::from_utf8(render(&night())).unwrap();
    assert!(!text.contains("4211") && !text.contains("/var/log"));
}

#[test]
fn five_hundred_busy_units_stay_under_one_mebibyte() {
    let size = render(&fleet(500)).len();
    assert!(size < 1 << 20, "{size} bytes");
}

#[test]
fn every_metric_has_its_place_in_the_documentation() {
    let documentation = include_str!("../../../../docs/metrics.md");
    for snapshot in [night(), fleet(20)] {
        for family in of_snapshot(&snapshot) {
            let entry = format!("| `{}` |", family.name());
            assert!(documentation.contains(&entry), "{entry} is missing in docs/metrics.md");
        }
    }
}

#[test]
fn the_agent_is_there_before_the_first_snapshot() {
    let text = String::from_utf8(render_without_snapshot()).unwrap();
    assert!(text.contains("leakwatch_build_info{version="));
    assert!(text.contains("process_open_fds "));
    assert!(!text.contains("rustversion=\"unknown\""));
}

#[test]
fn promtool_has_nothing_to_say() {
    let mut pages = vec![render(&night()), render(&fleet(20)), render_without_snapshot()];
    pages.extend(HOSTILE.map(|name| render(&hostile(name))));
    for page in pages {
        let command = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match command {
            Ok(child) => child,
            Err(error) if std::env::var_os("CI").is_none_or(|v| v != "true") => {
                eprintln!("skipped: promtool cannot be started: {error}");
                return;
            }
            Err(error) => panic!("promtool is needed here: {error}"),
        };
        child.stdin.take().unwrap().write_all(&page).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success() && said.is_empty(),
            "{}\n{}",
            String::from_utf8_lossy(&said),
            String::from_utf8_lossy(&page)
        );
    }
}
