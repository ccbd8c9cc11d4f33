//! Servers in Python and JavaScript, of `tests/python` and `tests/node`. They say
//! `ready HOST:PORT`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Plan, find, tag};
use crate::corpus::label::{Judged, Label};
use crate::started::python;
use crate::wire::http;

pub(super) fn is(word: &str) -> bool {
    word.ends_with(".py") || word.ends_with(".js")
}

pub(super) fn needs(word: &str) -> &'static [&'static str] {
    if word.ends_with(".js") { &["node"] } else { &["python3"] }
}

pub(super) fn plan(case: &Label, dir: &Path) -> Result<Plan> {
    let dir = dir.display().to_string();
    let words: Vec<String> = case.server.iter().map(|word| word.replace("{dir}", &dir)).collect();
    let (first, arguments) = words.split_first().context("no server is named")?;
    let mut command = if first.ends_with(".js") {
        let mut node = Command::new(find("node")?);
        node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("node").join(first));
        node
    } else {
        python(first)
    };
    if case.judged == Some(Judged::Server) {
        command.args(["--tag", &tag(case)]);
    }
    command.args(arguments).args(["--end", "1"]);
    Ok(Plan {
        command,
        address: String::new(),
        stop: libc::SIGTERM,
        answers: |address| http::get(address, "/").is_ok(),
    })
}
