//! The report as SARIF 2.1.0 (OASIS, *Static Analysis Results Interchange Format*).

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::findings::{Finding, Report, What};
use super::openers::Site;
use super::report::{pretty, sentence};
use crate::cli::failure::Failure;
use crate::source::model::KernelStr;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// For what shows findings beside the code.
pub(super) fn sarif(report: &Report) -> Result<String, Failure> {
    let rules: Vec<Value> = What::ALL
        .iter()
        .map(|what| json!({"id": what.name(), "shortDescription": {"text": what.title()}}))
        .collect();
    let notes: Vec<Value> = report
        .blind
        .iter()
        .map(|text| json!({"level": "note", "message": {"text": format!("not seen: {text}")}}))
        .collect();
    let ended = report.started + Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    pretty(&json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "leakwatch",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            }},
            "invocations": [{
                "executionSuccessful": true,
                "startTimeUtc": report.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "endTimeUtc": ended.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "toolExecutionNotifications": notes,
            }],
            "results": report.findings.iter().map(result).collect::<Vec<_>>(),
            "properties": {
                "command": report.command,
                "status": report.status,
                "processes": report.processes,
                "known": report.known,
            },
        }],
    }))
}

fn result(finding: &Finding) -> Value {
    let subject = finding.subject();
    let mut location = json!({"logicalLocations": [{"fullyQualifiedName": subject}]});
    let path = finding.example.as_ref().map(KernelStr::as_bytes);
    if let Some(path) = path.filter(|path| path.starts_with(b"/")) {
        location["physicalLocation"] = json!({"artifactLocation": {"uri": uri(path)}});
    }
    let of = What::ALL.iter().position(|what| *what == finding.what);
    let mut result = json!({
        "ruleId": finding.what.name(),
        "ruleIndex": of,
        "level": if finding.leak { "error" } else { "note" },
        "message": {"text": sentence(finding)},
        "locations": [location],
        "occurrenceCount": finding.count.max(1),
        "partialFingerprints": {"subject/v1": format!("{} {subject}", finding.what.name())},
        "properties": {
            "pids": finding.pids,
            "processes": finding.processes,
            "names": finding.names,
        },
    });
    if !finding.openers.is_empty() {
        let started = matches!(finding.what, What::Threads | What::Process);
        let done = if started { "started" } else { "opened" };
        result["stacks"] = finding.openers.iter().map(|site| stack(site, done)).collect();
    }
    result
}

/// A call site, which is a stack of one frame.
fn stack(site: &Site, done: &str) -> Value {
    let mut location = json!({"logicalLocations": [{"fullyQualifiedName": site.function}]});
    if let Some(file) = &site.file {
        // Relative to where it was compiled, for all that is known.
        let file = file.as_bytes();
        let uri = if file.starts_with(b"/") { uri(file) } else { escaped(file) };
        let mut physical = json!({"artifactLocation": {"uri": uri}});
        if let Some(line) = site.line.filter(|line| *line > 0) {
            physical["region"] = json!({"startLine": line});
        }
        location["physicalLocation"] = physical;
    }
    let mut frame = json!({"location": location});
    if let Some(module) = &site.module {
        frame["module"] = json!(module);
    }
    json!({"message": {"text": format!("{done} {} of them", site.count)}, "frames": [frame]})
}

/// An absolute path as a URI.
fn uri(path: &[u8]) -> String {
    format!("file://{}", escaped(path))
}

/// The path of a URI (RFC 3986, 2.3: what needs no escape).
fn escaped(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_is_a_uri() {
        let path = "/a b/{n}%ü#?.dat".as_bytes();
        assert_eq!(uri(path), "file:///a%20b/%7Bn%7D%25%C3%BC%23%3F.dat");
        assert_eq!(uri(b"/\n\xff\"\\"), "file:///%0A%FF%22%5C");
    }
}
