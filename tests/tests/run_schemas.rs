//! `leakwatch run --format junit|sarif`: reports are valid by the schemas, also where
//! paths, programs and arguments are as bad as the kernel allows.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leakwatch_tests::agent::binary;
use leakwatch_tests::component::need_program;
use serde_json::Value;
use tempfile::TempDir;

/// What may be in a name: everything but `/` and the zero byte. No digit, for numbers
/// make a template.
const NAMES: [&[u8]; 9] = [
    b"plain",
    b"a b",
    b"new\nline",
    b"quote\"and'",
    b"per%cent%zz",
    b"hash#and?query",
    b"<tag>&amp;]]>",
    b"control\x01\x1b[Jm\x7f",
    b"no\xff\xfeutf\xc3",
];

/// Five descriptors of each, which are a finding, and a process and threads besides.
const LEAK: &str = "
import os, sys, threading, time
for name in os.listdir(os.fsencode(sys.argv[1])):
    for _ in range(5):
        os.open(os.path.join(os.fsencode(sys.argv[1]), name), os.O_RDONLY)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
";

struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        // Where no other suite leaves files: beside the binary.
        let target = binary().parent().expect("it is in a directory").to_owned();
        let dir = TempDir::with_prefix_in("leakwatch-test-", target).expect("a directory");
        fs::create_dir(dir.path().join("in")).expect("a directory");
        for name in NAMES {
            fs::write(dir.path().join("in").join(OsStr::from_bytes(name)), "").expect("a file");
        }
        Self { dir }
    }

    fn inside(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    /// The file with the report.
    fn report(&self, format: &str) -> PathBuf {
        let file = self.dir.path().join(format!("report.{format}"));
        let status = Command::new(binary())
            .args(["run", "--format", format, "--report"])
            .arg(&file)
            .args(["--", "python3", "-c", LEAK])
            .arg(self.inside())
            // Arguments that no format may stumble over.
            .args(NAMES.map(OsStr::from_bytes))
            .status()
            .expect("leakwatch starts");
        assert_eq!(status.code(), Some(0));
        file
    }
}

/// Why xmllint finds a document not to be valid by a schema; empty if it does.
fn invalid(schema: &Path, document: &Path) -> String {
    let mut command = Command::new("xmllint");
    command.args(["--noout", "--nonet", "--schema"]).arg(schema).arg(document);
    let output = command.output().expect("it starts");
    if output.status.success() {
        return String::new();
    }
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// The schema of OASIS, which the crate `serde-sarif` brings.
fn schema_of_oasis() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut packages = all["packages"].as_array().expect("packages").iter();
    let package = packages.find(|p| p["name"] == "serde-sarif").expect("it is in Cargo.lock");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    let schema = fs::read_to_string(manifest.with_file_name("src/schema.json"));
    // A bracket too many in the pattern of a language, which is not in use here, is no regular
    // expression for who checks formats.
    let schema = schema.expect("it is there").replace("{2}]?$", "{2}?$");
    serde_json::from_str(&schema).expect("JSON")
}

#[test]
fn junit_is_valid_by_its_schema() {
    if need_program("xmllint").is_none() || need_program("python3").is_none() {
        return;
    }
    let scene = Scene::new();
    let report = scene.report("junit");
    let text = fs::read_to_string(&report).expect("UTF-8");
    assert_eq!(text.matches("<failure ").count(), NAMES.len(), "{text}");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/junit.xsd");
    assert_eq!(invalid(&schema, &report), "", "{text}");
    // It is looked at: what the schema does not know is refused.
    let wrong = scene.dir.path().join("wrong.xml");
    fs::write(&wrong, text.replace("<failure ", "<fault ")).expect("a file");
    assert_ne!(invalid(&schema, &wrong), "");
}

/// As RFC 3986 has it, of bytes.
fn encoded(path: &[u8]) -> String {
    path.iter().fold(String::new(), |text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            text + std::str::from_utf8(&[*byte]).expect("ASCII")
        }
        _ => format!("{text}%{byte:02X}"),
    })
}

#[test]
fn sarif_is_valid_by_the_schema_of_oasis_and_its_uris_are_those_of_the_files() {
    if need_program("python3").is_none() {
        return;
    }
    let scene = Scene::new();
    let report = fs::read(scene.report("sarif")).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema_of_oasis())
        .expect("a schema");
    let errors: Vec<String> = validator.iter_errors(&report).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{report}");
    // It is looked at: what the schema does not know is refused.
    let mut wrong = report.clone();
    wrong["runs"][0]["results"][0]["levels"] = "error".into();
    assert!(!validator.is_valid(&wrong));

    let results = report["runs"][0]["results"].as_array().expect("results").iter();
    let uri = |r: &Value| {
        let place = &r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        place.as_str().expect("a location").to_owned()
    };
    let mut found: Vec<String> = results.filter(|r| r["level"] == "error").map(uri).collect();
    found.sort_unstable();
    let path = |name: &&[u8]| scene.inside().join(OsStr::from_bytes(name));
    let files = NAMES.iter().map(path);
    let mut want: Vec<String> =
        files.map(|file| format!("file://{}", encoded(file.as_os_str().as_bytes()))).collect();
    want.sort_unstable();
    assert_eq!(found, want, "{report}");
}
