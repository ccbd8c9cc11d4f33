//! The Prometheus rules of `dashboards/`, by promtool.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::{self, say};
use crate::workspace;

/// Checks rule files and runs rule tests.
///
/// # Errors
/// When promtool is missing or a file fails.
pub fn check() -> Result<()> {
    let dir = workspace::root().join("dashboards");
    if !dir.is_dir() {
        say("  no dashboards/ here: nothing to check");
        return Ok(());
    }
    let promtool = shell::need("promtool")?;
    let (mut rules, mut tests): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for file in workspace::files_below(&dir)? {
        if !file.extension().is_some_and(|ext| ext == "yml" || ext == "yaml") {
            continue;
        }
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // A key at the left edge tells the two kinds of file apart.
        if text.lines().any(|line| line.starts_with("rule_files:")) {
            tests.push(file);
        } else if text.lines().any(|line| line.starts_with("groups:")) {
            rules.push(file);
        }
    }
    for (action, files) in [("check", rules), ("test", tests)] {
        for file in files {
            let said =
                shell::capture(shell::command(&promtool).args([action, "rules"]).arg(&file))?;
            say(&format!("  promtool {action} rules {}: {}", file.display(), last_line(&said)));
        }
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no output")
}
