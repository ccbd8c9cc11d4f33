use super::*;
use crate::export::testing::{HOSTILE, fleet, hostile, night};

fn rendered(snapshot: &Snapshot) -> String {
    render(Some(snapshot), &Ok(()), snapshot.at)
}

/// Every tag is closed in order, every attribute is quoted: what a parser that
/// does not forgive would say. Returns the text between the tags.
fn well_formed(html: &str) -> String {
    let (mut stack, mut text) = (Vec::new(), String::new());
    let body = html.replace(STYLE, "");
    let mut rest = body.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = rest[start..].find('>').unwrap() + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(stack.pop(), Some(name), "</{name}> before {rest:.80}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
        if !matches!(name, "meta" | "br") && !tag.ends_with('/') {
            stack.push(name);
        }
    }
    assert!(stack.is_empty(), "{stack:?}");
    text
}

#[test]
fn the_worst_thing_comes_first() {
    let html = rendered(&night());
    let text = well_formed(&html);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in {text}"));
    assert!(at("1 confirmed leak") < at("fd_probes"));
    assert!(at("CAP_PERFMON is missing") < at("unclosed-log-handle"));
    assert!(at("unclosed-log-handle, rising-floor") < at("tcp to 10.0.0.7:5432"));
    assert!(at("tcp to 10.0.0.7:5432") < at("1 resolved"));
    assert!(at("deployer") < at("vault.service"));
    for part in [
        "811 of 1,024",
        "+146.5/h",
        "78 min",
        "start_agent",
        "deployment_runner.py:118",
        "python3[4211] 833",
        "/var/log/agent/agent-12.jsonl",
        "Would send SIGUSR1",
        "not seen",
        "1.5 GiB",
    ] {
        at(part);
    }
    assert!(html.contains("<polyline points=") && html.contains("width:81.3%"));
}

#[test]
fn no_asset_and_no_script() {
    let html = rendered(&night());
    for forbidden in ["<script", "<img", "<link", "http://", "https://", "url(", "@import", " on"] {
        let found = html.replace(STYLE, "").split('<').any(|tag| {
            tag.split('>').next().is_some_and(|tag| format!("<{tag}").contains(forbidden))
        });
        assert!(!found, "{forbidden}");
    }
}

#[test]
fn hostile_names_stay_text() {
    for name in HOSTILE {
        let html = rendered(&hostile(name));
        let text = well_formed(&html);
        assert!(text.contains(&Safe(name).to_string()), "{name:?}");
        assert!(
            !html.contains("<script") && !html.contains('\u{1b}') && !html.contains('\u{202e}')
        );
    }
}

#[test]
fn a_host_without_leaks_is_calm() {
    let mut snapshot = night();
    snapshot.leaks.clear();
    snapshot.sources.retain(|s| s.active);
    let text = well_formed(&rendered(&snapshot));
    assert!(text.contains("no leaks") && text.contains("Nothing leaks, as far as can be seen."));
    assert!(!text.contains("Watching for"));
    // One that has just begun has seen no growth yet.
    snapshot.started = snapshot.at;
    let text = well_formed(&rendered(&snapshot));
    assert!(text.contains("Watching for 0"), "{text}");
}

#[test]
fn a_loop_that_hangs_and_an_agent_that_starts_say_so() {
    let now = night().at;
    let text = well_formed(&render(None, &Err("the pipeline has not moved".into()), now));
    assert!(text.contains("first census") && text.contains("the pipeline has not moved"));
    let mut snapshot = night();
    snapshot.reload_ok = false;
    assert!(well_formed(&rendered(&snapshot)).contains("last reload of the config failed"));
}

#[test]
fn five_hundred_units_with_many_verdicts_still_make_one_page() {
    let html = rendered(&fleet(500));
    well_formed(&html);
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
}
