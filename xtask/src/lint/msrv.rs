//! The stated MSRV against what the dependencies state. Our own code is held to it
//! by clippy's `incompatible_msrv`.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// Checks every package that the default members need to build on this host.
///
/// # Errors
/// Lists the packages that want a later compiler.
pub fn check() -> Result<()> {
    let host = host_triple()?;
    let mut command = shell::cargo(["metadata", "--locked", "--format-version", "1"]);
    command.args(["--filter-platform", &host]);
    let metadata: Value = serde_json::from_str(&shell::capture(&mut command)?)
        .context("cargo metadata is not JSON")?;
    let late = later_than_stated(&metadata).context("cargo metadata has another form")?;
    if !late.is_empty() {
        bail!("these want a later compiler than rust-version states:\n  {}", late.join("\n  "));
    }
    Ok(())
}

fn host_triple() -> Result<String> {
    let text = shell::capture(shell::command("rustc").arg("-vV"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host")
}

/// None when the document has not the form that is expected of it.
fn later_than_stated(metadata: &Value) -> Option<Vec<String>> {
    let packages: HashMap<&str, &Value> = metadata
        .get("packages")?
        .as_array()?
        .iter()
        .filter_map(|package| Some((package.get("id")?.as_str()?, package)))
        .collect();
    let nodes: HashMap<&str, &Value> = metadata
        .get("resolve")?
        .get("nodes")?
        .as_array()?
        .iter()
        .filter_map(|node| Some((node.get("id")?.as_str()?, node)))
        .collect();
    let mut open: Vec<&str> = metadata
        .get("workspace_default_members")?
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let stated = open.iter().filter_map(|id| version(packages.get(id)?)).min()?;
    let mut seen = BTreeSet::new();
    let mut late = Vec::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = packages.get(id)?;
        if version(package).is_some_and(|wanted| wanted > stated) {
            let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or("?");
            late.push(format!("{} {}: {}", text("name"), text("version"), text("rust_version")));
        }
        for dep in nodes.get(id)?.get("deps")?.as_array()? {
            if is_built(dep)? {
                open.push(dep.get("pkg")?.as_str()?);
            }
        }
    }
    late.sort();
    Some(late)
}

/// A normal or a build dependency: what a user's compiler sees.
fn is_built(dep: &Value) -> Option<bool> {
    let kinds = dep.get("dep_kinds")?.as_array()?;
    Some(kinds.iter().any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev")))
}

fn version(package: &Value) -> Option<(u64, u64, u64)> {
    let text = package.get("rust_version")?.as_str()?;
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(rust_version: &str, kind: &str) -> Value {
        serde_json::json!({
            "workspace_default_members": ["own"],
            "packages": [
                {"id": "own", "name": "own", "version": "0.1.0", "rust_version": "1.88"},
                {"id": "dep", "name": "dep", "version": "2.0.0", "rust_version": rust_version},
            ],
            "resolve": {"nodes": [
                {"id": "own", "deps": [{"pkg": "dep", "dep_kinds": [{"kind": kind}]}]},
                {"id": "dep", "deps": []},
            ]},
        })
    }

    #[test]
    fn only_later_ones_that_are_built_are_listed() {
        let cases = [
            ("1.88", "build", vec![]),
            ("1.88.1", "build", vec!["dep 2.0.0: 1.88.1"]),
            ("1.9", "build", vec![]),
            ("1.100.0", "build", vec!["dep 2.0.0: 1.100.0"]),
            ("1.100.0", "dev", vec![]),
        ];
        for (rust_version, kind, expected) in cases {
            let late = later_than_stated(&metadata(rust_version, kind)).unwrap();
            assert_eq!(late, expected, "{rust_version} {kind}");
        }
    }
}
