//! Names of units, processes and files.

use std::fs;

use leakwatch_tests::agent::{Agent, FAST, Plan, run};
use leakwatch_tests::component::need_root;
use leakwatch_tests::http;
use leakwatch_tests::prometheus::promtool;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;

use crate::{LIMIT, is_harmless, said};

/// Units with names that look like a flag and like a tag.
const HOSTILE_UNITS: [&str; 2] = ["--help", "<script>alert(1)</script>"];

fn hostile_company(agent: &Agent) -> Vec<Started> {
    let start = |i: usize| {
        let dir = agent.dir().join(format!("hostile-{i}"));
        fs::create_dir(&dir).expect("it can be made");
        let mut command = program("hostile");
        command.arg("--dir").arg(&dir).args(["--tag", &format!("t-hostile-{i}"), "--pace", "500"]);
        // An argument that breaks lines and quotes, and is no UTF-8.
        let wild: &[u8] = b"\n\"}\x1b]0;x\x07<b>\xff\\";
        command.arg(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(wild));
        Started::new(&mut command)
    };
    (0..HOSTILE_UNITS.len()).map(start).collect()
}

#[test]
fn hostile_names_are_shown_and_do_no_harm() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.to_owned();
    for (i, unit) in HOSTILE_UNITS.iter().enumerate() {
        config.push_str(&format!(
            "[[unit]]\nname = \"{unit}\"\ncmdline = \"*--tag t-hostile-{i} *\"\n"
        ));
    }
    let agent = Plan::new(config).start();
    let mut company = hostile_company(&agent);
    for program in &mut company {
        program.ready(LIMIT);
    }
    for unit in HOSTILE_UNITS {
        wait_until("verdicts on hostile names", LIMIT, || {
            (agent.confirmed(unit).len() >= 12).then_some(())
        });
    }
    assert_eq!(hostile_company_is_known(&agent), company.len());
}

fn hostile_company_is_known(agent: &Agent) -> usize {
    // Metrics: the strict reader takes them, promtool too, and the name is whole.
    let scrape = agent.metrics();
    for unit in HOSTILE_UNITS {
        assert!(scrape.sum("leakwatch_leaks", &[("unit", unit)]).is_some(), "{unit}");
    }
    if let Some(output) = promtool(&["check", "metrics"], &agent.get("/metrics").body) {
        assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    }
    // JSON: parses, paths without control characters, the invalid byte replaced.
    let leaks = agent.leaks();
    let paths: Vec<&str> =
        leaks.iter().flat_map(|l| l.examples.iter().map(|e| e.path.as_str())).collect();
    let wild: Vec<_> =
        paths.iter().filter(|p| !is_harmless(p.as_bytes()) || p.contains('\n')).collect();
    assert!(wild.is_empty(), "{wild:?}");
    // Cohorts too, with whole escapes: their digits are none of the file's.
    let cohorts: Vec<&str> = leaks.iter().map(|l| l.cohort.as_str()).collect();
    assert!(
        cohorts.iter().all(|c| is_harmless(c.as_bytes()) && !c.contains("\\u{{")),
        "{cohorts:?}"
    );
    for part in ["line\\u{a}break.log", "\\u{1b}[{n}J"] {
        assert!(cohorts.iter().any(|c| c.contains(part)), "{part:?} of {cohorts:#?}");
    }
    // Without their directory, and only the start: one is very long.
    let names: std::collections::BTreeSet<String> = paths
        .iter()
        .map(|p| p.rsplit('/').next().unwrap_or_default().chars().take(40).collect())
        .collect();
    for part in ["line\\u{a}break.log", "quote\"s", "back\\slash", "\\u{1b}[2J", "invalid \u{fffd}"]
    {
        assert!(names.iter().any(|n| n.contains(part)), "{part:?} of {names:#?}");
    }
    for part in ["<img src=x", "\\u{202e}", "{braces}=\"x\"", " .log", "--help.log"] {
        assert!(names.iter().any(|n| n.contains(part)), "{part:?} of {names:#?}");
    }
    assert!(paths.iter().any(|p| p.contains(&"x".repeat(251))), "a name of 255 bytes is whole");
    let deep = paths.iter().map(|p| p.len()).max();
    assert!(deep > Some(4_000), "a path near 4,096 bytes is whole, not {deep:?}");
    assert!(leaks.iter().flat_map(|l| &l.examples).all(|e| is_harmless(e.comm.as_bytes())));
    for unit in HOSTILE_UNITS {
        assert_eq!(agent.unit(unit).expect("it is there")["name"], unit);
    }
    // The page: no tag of theirs, no control character.
    for path in ["/".to_owned(), format!("/?unit={}", http::escape(HOSTILE_UNITS[1]))] {
        let page = agent.get(&path);
        let text = page.text();
        assert!(!text.contains("<script>alert") && !text.contains("<img src=x"), "{path}");
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{path}: it is shown");
        assert!(is_harmless(page.body.as_slice()), "{path}");
        assert!(page.header("content-security-policy").is_some(), "{:?}", page.headers);
    }
    // The terminal.
    let url = agent.url();
    let mut shown = vec![run(&["status", "--url", &url])];
    let ids: Vec<String> = leaks.iter().map(|l| l.id.clone()).collect();
    shown.extend(ids.iter().map(|id| run(&["explain", "--url", &url, id])));
    for output in shown {
        assert!(output.status.success(), "{}", said(&output));
        assert!(is_harmless(&output.stdout), "{:?}", String::from_utf8_lossy(&output.stdout));
    }
    let json = run(&["status", "--json", "--url", &url]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let units = document["units"].as_array().expect("units");
    HOSTILE_UNITS.iter().filter(|name| units.iter().any(|u| u["name"] == **name)).count()
}
