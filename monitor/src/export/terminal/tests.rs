use super::*;
use crate::detection::verdict::{Leak, State};
use crate::export::api;
use crate::export::testing::{HOSTILE, hostile, night};

fn fits(text: &str, width: usize) {
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{width}: {line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert_eq!(line.trim_end(), line);
    }
}

#[test]
fn the_overview_of_the_night() {
    let snapshot = night();
    let got = status(&api::units(&snapshot), &api::leaks(&snapshot, None), 80);
    fits(&got, 80);
    let want = "\
Verdicts: 2 confirmed, 1 suspected, 1 resolved

CONFIRMED  deployer                                                 0b0001c2d4e7
  headroom  fd RLIMIT_NOFILE
  833 of 1,024, +146.5 per hour, limit hit at 2026-11-22 04:29 UTC
  python3[4211] has 833 of 1,024 descriptors open; 77 min are left.

CONFIRMED  deployer                                                 3f9a01c2d4e5
  unclosed-log-handle, rising-floor  log /var/log/agent/agent-{n}.jsonl
  811 of 1,024, +146.5 per hour, limit hit at 2026-11-22 04:30 UTC
  812 write handles on /var/log/agent/agent-{n}.jsonl in python3[4211]; 811 hav…

SUSPECTED  nginx.service                                            77aa01c2d4e6
  rising-floor  socket tcp to 10.0.0.7:5432
  9 held, +2.0 per hour
  The floor rose from 5 to 9 in 3 windows of 5 min.

UNIT                                  FDS       WORST/MAX    THR  PROC ZOMB ORPH
deployer                              841        833/1024     11     5    1    2
nginx.service                          14         14/1024      4     2    0    0
vault.service                           ?               ?      4     2    0    0

? cannot be seen; `leakwatch doctor` says why and what to grant

resolved  nginx.service                                             c0ffee000001
  log /var/log/nginx/access.log.{n}
  Over: the 3 deleted files were closed after SIGUSR1.
";
    assert_eq!(got, want, "\n{got}");
}

#[test]
fn a_total_that_lacks_some_processes_is_shown_as_the_least() {
    let mut snapshot = night();
    snapshot.units[1].denied_processes = 1;
    let got = status(&api::units(&snapshot), &api::leaks(&snapshot, None), 80);
    fits(&got, 80);
    for line in [
        "nginx.service                         14+         14/1024      4     2    0    0",
        "? cannot be seen, + not all of it; `leakwatch doctor` says why and what to grant",
    ] {
        assert!(got.contains(line), "{got}");
    }
    snapshot.units.pop();
    let got = status(&api::units(&snapshot), &api::leaks(&snapshot, None), 80);
    assert!(got.contains("\n+ not all of it can be seen; `leakwatch doctor` says"), "{got}");
}

#[test]
fn everything_that_is_known_of_a_verdict_is_told() {
    let snapshot = night();
    let leak = api::leak(&snapshot, "3f9a01c2d4e5").unwrap();
    let got = explain(leak, 80);
    fits(&got, 80);
    for part in [
        "deployer: confirmed fd verdict 3f9a01c2d4e5",
        "cohort      /var/log/agent/agent-{n}.jsonl",
        "held        811 of 1,024",
        "limit hit   2026-11-22 04:30:22 UTC",
        "One more at each of the last 20 restarts",
        "    … 3 frames of libc.so.6, python3.13\n",
        "  > _open_agent_runner_log_file at /srv/deployment_runner.py\n",
        "    start_agent at /srv/deployment_runner.py:118\n",
        "python3[4211]",
        "2026-11-21 21:10:00",
        "What to do next",
        "/proc/4211/fd",
    ] {
        assert!(got.contains(part), "{part} is missing in\n{got}");
    }
}

#[test]
fn a_stack_fits_and_says_what_is_missing() {
    let mut leak = night().leaks.remove(0);
    for frame in &mut leak.opener {
        frame.function = "app::logs::Rotating<app::logs::Daily>::open_the_next_one".into();
        frame.file = Some(format!("/srv/{}/logs.rs", "deep/".repeat(20)));
        frame.line = Some(118);
    }
    leak.opener_note = Some("the stack ends in libc.so.6, before the program's own frames".into());
    let got = explain(&leak, 80);
    fits(&got, 80);
    for part in [
        "  > app::logs::Rotating<app::logs::Daily>::open_the_next_one\n      at /srv",
        "/logs.rs:118\n",
        "    the stack ends in libc.so.6, ",
    ] {
        assert!(got.contains(part), "{part} is missing in\n{got}");
    }
    // Nothing but a reason is worth a heading, too.
    leak.opener.clear();
    assert!(explain(&leak, 80).contains("Opened by"));
}

#[test]
fn every_width_is_kept() {
    let snapshot = night();
    let (units, leaks) = (api::units(&snapshot), api::leaks(&snapshot, None));
    for width in [0, 60, 61, 80, 133, 400] {
        fits(&status(&units, &leaks, width), width.max(60));
        for leak in &leaks.leaks {
            fits(&explain(leak, width), width.max(60));
        }
    }
}

#[test]
fn no_control_code_passes_through() {
    for name in HOSTILE {
        let mut snapshot = hostile(name);
        snapshot.leaks[0].id = name.into();
        let (units, leaks) = (api::units(&snapshot), api::leaks(&snapshot, None));
        for text in [status(&units, &leaks, 80), explain(&leaks.leaks[0], 80)] {
            fits(&text, 80);
            assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'));
        }
    }
}

#[test]
fn a_quiet_host_says_so() {
    let mut snapshot = night();
    snapshot.leaks.clear();
    let got = status(&api::units(&snapshot), &api::leaks(&snapshot, None), 80);
    assert!(got.starts_with("Nothing leaks, as far as can be seen.\n"), "{got}");
}

#[test]
fn the_newest_that_are_over_come_last_and_the_rest_is_counted() {
    let mut snapshot = night();
    let over = snapshot.leaks.pop().unwrap();
    assert_eq!(over.state, State::Resolved);
    for i in 1..=9 {
        // Nothing that any other order could go by.
        let (held, growth_per_hour) = (i % 4, f64::from(u32::try_from(i).unwrap() % 3));
        snapshot.leaks.push(Leak { id: format!("over{i}"), held, growth_per_hour, ..over.clone() });
    }
    let got = status(&api::units(&snapshot), &api::leaks(&snapshot, None), 80);
    fits(&got, 80);
    let ids: Vec<&str> = got.lines().filter_map(|l| l.find("over").map(|at| &l[at..])).collect();
    assert_eq!(ids[..5], ["over1", "over2", "over3", "over4", "over5"], "{got}");
    assert!(got.find("UNIT  ") < got.find("resolved  "), "{got}");
    assert!(got.ends_with("\n4 more are over; `leakwatch status --json` lists them\n"), "{got}");
}
