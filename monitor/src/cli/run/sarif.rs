//! The report as SARIF 2.1.0 (OASIS, *Static Analysis Results Interchange Format*).

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::findings::{Finding, Report, What};
use super::report::{pretty, sentence};
use crate::cli::failure::Failure;

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
    if let Some(path) = finding.path.as_deref().filter(|path| path.starts_with('/')) {
        location["physicalLocation"] = json!({"artifactLocation": {"uri": uri(path)}});
    }
    let of = What::ALL.iter().position(|what| *what == finding.what);
    json!({
        "ruleId": finding.what.name(),
        "ruleIndex": of,
        "level": if finding.leak { "error" } else { "note" },
        "message": {"text": sentence(finding)},
        "locations": [location],
        "occurrenceCount": finding.count.max(1),
        "partialFingerprints": {"subject/v1": format!("{} {subject}", finding.what.name())},
        "properties": {"pids": finding.pids, "processes": finding.processes},
    })
}

/// An absolute path as a URI (RFC 3986, 2.3: what needs no escape).
fn uri(path: &str) -> String {
    let mut out = String::from("file://");
    for byte in path.bytes() {
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
        assert_eq!(uri("/a b/{n}%ü.dat"), "file:///a%20b/%7Bn%7D%25%C3%BC.dat");
    }
}
