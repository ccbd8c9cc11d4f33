//! `leakwatch run --format junit|sarif`: the same findings as in JSON, in documents that
//! hold what the schemas demand and nothing they do not know, whatever the names are.
//!
//! The suite `run_schemas` validates with the schemas themselves. Here it is checked that
//! nothing else is there than what is meant, and what Ant's schema for JUnit (`JUnit.xsd`)
//! demands besides, which may not be carried along.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::process::Command;

use leakwatch_tests::agent::{binary, run};
use roxmltree::{Document, Node};
use serde_json::Value;

/// Five descriptors, which are a finding, and an argument that no format may stumble over.
const LEAK: [&str; 5] = [
    "--",
    "sh",
    "-c",
    "exec 3</etc/passwd 4</etc/passwd 5</etc/passwd 6</etc/passwd 7</etc/passwd",
    "<&\"'\n\u{1}\u{ffff}]]>é",
];

fn report(format: &str, command: &[&str]) -> String {
    // Where no other suite leaves files: beside the binary.
    let target = binary().parent().expect("it is in a directory").to_owned();
    let dir = tempfile::TempDir::with_prefix_in("leakwatch-test-", target).expect("a directory");
    let file = dir.path().join("report");
    let status = Command::new(binary())
        .args(["run", "--format", format, "--report"])
        .arg(&file)
        .args(command)
        .status()
        .expect("leakwatch starts");
    assert_eq!(status.code(), Some(0));
    fs::read_to_string(file).expect("it was written, in UTF-8")
}

/// Exactly these attributes, and these children in this order; `*` after a name: any number.
fn element(node: Node<'_, '_>, attributes: &[&str], children: &[&str]) {
    let mut has: Vec<&str> = node.attributes().map(|a| a.name()).collect();
    has.sort_unstable();
    let mut want = attributes.to_vec();
    want.sort_unstable();
    assert_eq!(has, want, "{node:?}");
    let mut inside = node.children().filter(Node::is_element).peekable();
    for child in children {
        if let Some(any) = child.strip_suffix('*') {
            while inside.next_if(|n| n.has_tag_name(any)).is_some() {}
        } else {
            assert!(inside.next().is_some_and(|n| n.has_tag_name(*child)), "{child} in {node:?}");
        }
    }
    assert_eq!(inside.next(), None, "{node:?}");
}

fn count(node: Node<'_, '_>, attribute: &str) -> usize {
    node.attribute(attribute).expect("it is there").parse().expect("a number")
}

/// Checks a document, and gives the class, name and message of each test case that failed.
fn junit(text: &str) -> Vec<(String, String, String)> {
    let document = Document::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let root = document.root_element();
    assert!(root.has_tag_name("testsuites"));
    element(root, &[], &["testsuite"]);
    let suite = root.first_element_child().expect("a suite");
    element(
        suite,
        &[
            "id",
            "package",
            "name",
            "timestamp",
            "hostname",
            "tests",
            "failures",
            "errors",
            "skipped",
            "time",
        ],
        &["properties", "testcase*", "system-out", "system-err"],
    );
    // Without a zone: the schema's pattern has none.
    let timestamp = suite.attribute("timestamp").expect("it is there");
    let _: jiff::civil::DateTime = timestamp.parse().expect("a date and a time");
    assert_eq!(timestamp.len(), "2000-01-01T00:00:00".len(), "{timestamp}");
    let time: f64 = suite.attribute("time").expect("it is there").parse().expect("seconds");
    assert!(time >= 0.0);
    let of = |name| suite.descendants().filter(move |n| n.has_tag_name(name));
    for (name, attribute) in [
        ("testcase", "tests"),
        ("failure", "failures"),
        ("error", "errors"),
        ("skipped", "skipped"),
    ] {
        assert_eq!(of(name).count(), count(suite, attribute), "{name}");
    }
    let properties = suite.first_element_child().expect("properties");
    element(properties, &[], &["property*"]);
    properties
        .children()
        .filter(Node::is_element)
        .for_each(|p| element(p, &["name", "value"], &[]));
    let mut failed = Vec::new();
    for case in of("testcase") {
        let child = case.first_element_child();
        let children: Vec<&str> = child.iter().map(|n| n.tag_name().name()).collect();
        element(case, &["name", "classname", "time"], &children);
        match child {
            Some(n) if n.has_tag_name("failure") => {
                element(n, &["type", "message"], &[]);
                let text = |n: Node<'_, '_>, a| n.attribute(a).expect("it is there").to_owned();
                failed.push((text(case, "classname"), text(case, "name"), text(n, "message")));
            }
            Some(n) => {
                assert!(n.has_tag_name("skipped"), "{n:?}");
                element(n, &["message"], &[]);
            }
            None => {}
        }
    }
    failed
}

#[test]
fn junit_has_a_failure_for_each_finding() {
    let failed = junit(&report("junit", &LEAK));
    let [(class, name, said)] = failed.as_slice() else { panic!("one: {failed:?}") };
    assert_eq!(
        (class.as_str(), name.as_str()),
        ("leakwatch.descriptors", "regular /etc/passwd sh")
    );
    // Where in the shell is for who is root to know.
    assert!(said.starts_with("5 open at exit: regular /etc/passwd by sh"), "{said}");
    assert_eq!(junit(&report("junit", &["--", "true"])), []);
}

/// Exactly the keys of an object, as `required` and `?optional`.
fn object<'a>(value: &'a Value, keys: &[&str]) -> &'a serde_json::Map<String, Value> {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for key in object.keys() {
        assert!(keys.iter().any(|k| k.trim_start_matches('?') == key), "{key} in {value}");
    }
    for key in keys.iter().filter(|k| !k.starts_with('?')) {
        assert!(object.contains_key(*key), "no {key} in {value}");
    }
    object
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn message(value: &Value) -> &str {
    object(value, &["text"])["text"].as_str().expect("text")
}

/// Checks a document, and gives rule and message of each result that is an error.
fn sarif(text: &str) -> Vec<(String, String)> {
    let log: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    object(&log, &["$schema", "version", "runs"]);
    assert_eq!(log["version"], "2.1.0");
    let [run] = list(&log["runs"]) else { panic!("one run: {log}") };
    object(run, &["tool", "invocations", "results", "properties"]);
    let driver = &object(&run["tool"], &["driver"])["driver"];
    object(driver, &["name", "version", "informationUri", "rules"]);
    let rules = list(&driver["rules"]);
    for rule in rules {
        object(rule, &["id", "shortDescription"]);
        assert!(!message(&rule["shortDescription"]).is_empty());
    }
    let [invocation] = list(&run["invocations"]) else { panic!("one invocation: {run}") };
    object(
        invocation,
        &["executionSuccessful", "startTimeUtc", "endTimeUtc", "toolExecutionNotifications"],
    );
    let time = |key: &str| -> jiff::Timestamp {
        invocation[key].as_str().expect("text").parse().expect("a time")
    };
    assert!(time("startTimeUtc") <= time("endTimeUtc"));
    for notification in list(&invocation["toolExecutionNotifications"]) {
        object(notification, &["level", "message"]);
        assert_eq!(notification["level"], "note");
        assert!(message(&notification["message"]).starts_with("not seen: "));
    }
    let mut errors = Vec::new();
    for result in list(&run["results"]) {
        object(
            result,
            &[
                "ruleId",
                "ruleIndex",
                "level",
                "message",
                "locations",
                "occurrenceCount",
                "partialFingerprints",
                "properties",
                "?stacks",
            ],
        );
        let rule = result["ruleIndex"].as_u64().and_then(|i| rules.get(i as usize));
        assert_eq!(rule.expect("it is listed")["id"], result["ruleId"]);
        assert!(result["occurrenceCount"].as_u64().is_some_and(|n| n > 0), "{result}");
        let prints = result["partialFingerprints"].as_object().expect("an object");
        assert!(prints.values().all(Value::is_string), "{result}");
        for location in list(&result["locations"]) {
            object(location, &["logicalLocations", "?physicalLocation"]);
            for place in list(&location["logicalLocations"]) {
                assert!(object(place, &["fullyQualifiedName"])["fullyQualifiedName"].is_string());
            }
            if let Some(place) = location.get("physicalLocation") {
                let file = &object(place, &["artifactLocation"])["artifactLocation"];
                let uri = object(file, &["uri"])["uri"].as_str().expect("text");
                assert!(uri.starts_with("file:///"), "{uri}");
                assert!(
                    uri.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"{}".contains(&b)),
                    "{uri}"
                );
            }
        }
        match result["level"].as_str() {
            Some("error") => errors.push((
                result["ruleId"].as_str().expect("text").to_owned(),
                message(&result["message"]).to_owned(),
            )),
            level => assert_eq!(level, Some("note"), "{result}"),
        }
    }
    errors
}

#[test]
fn sarif_has_an_error_for_each_finding() {
    let errors = sarif(&report("sarif", &LEAK));
    let [(rule, said)] = errors.as_slice() else { panic!("one: {errors:?}") };
    assert_eq!(rule, "descriptors");
    assert!(said.starts_with("5 open at exit: regular /etc/passwd by sh"), "{said}");
    assert_eq!(sarif(&report("sarif", &["--", "true"])), []);
}

/// A terminal of 80 columns; the command's side is its standard error.
fn terminal() -> (File, File) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: room for two descriptors; the size is a living value; no name is asked for.
    unsafe {
        let made = libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        );
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        (File::from_raw_fd(ours), File::from_raw_fd(theirs))
    }
}

#[test]
fn the_lines_on_a_terminal_end_where_it_does_and_those_in_a_file_do_not() {
    let (mut ours, theirs) = terminal();
    let mut command = Command::new(binary());
    command.arg("run").args(LEAK).stderr(theirs);
    let status = command.status().expect("leakwatch starts");
    assert_eq!(status.code(), Some(0));
    // Its side of the terminal is open as long as this is.
    drop(command);
    let mut said = Vec::new();
    // The end of a terminal is an error.
    let _ = ours.read_to_end(&mut said);
    let said = String::from_utf8(said).expect("text");
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{said}");
    let joined = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    assert!(joined.contains("5 open at exit: regular /etc/passwd by sh"), "{said}");
    let file = report("text", &LEAK);
    assert!(file.lines().any(|line| line.chars().count() > 80), "{file}");
}

#[test]
fn a_format_that_is_unknown_is_refused_before_the_command_runs() {
    let output = run(&["run", "--format=html", "--", "echo", "ran"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]));
}
