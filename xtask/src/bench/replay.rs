//! Traces, replayed.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell;

/// Times real time.
const AIM: f64 = 1000.0;

/// Measures by the agent's own bench, which makes the trace up and needs no privilege.
///
/// # Errors
/// When that cannot be built or run.
pub fn measure() -> Result<String> {
    let mut bench = shell::cargo(["bench", "--locked", "--package", "leakwatch"]);
    let said = shell::capture(bench.args(["--bench", "replay"]))?;
    let line = said.lines().last().unwrap_or_default();
    let figures: Value = serde_json::from_str(line)
        .with_context(|| format!("the bench said `{line}` instead of JSON"))?;
    let figure = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    let times = figure("times_real_time");
    Ok(format!(
        "## Replay\n\nA trace of {} censuses, 5 s apart, of a made-up host with {} descriptors of which a tenth is \
         written to\nand a hundredth replaced between two censuses; {:.1} MiB ({:.0} bytes per \
         census), median of three replays:\n\n| | figure | aim | |\n|---|---|---|---|\n\
         | times as fast as real time | {times:.0} | {AIM} | {} |\n\
         | processor time per census, of both threads | {:.1} ms | | |\n",
        figure("censuses"),
        figure("descriptors"),
        figure("bytes") / f64::from(1 << 20),
        figure("bytes") / figure("censuses"),
        if times >= AIM { "PASS" } else { "over" },
        figure("cpu_ms_per_census"),
    ))
}
