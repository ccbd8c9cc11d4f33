//! Soak: a real agent under churn for a while, and nothing of it may grow, drift
//! or get lost without a word.
//!
//! About 20 s here; `cargo xtask soak --minutes 30` runs the same for longer, by
//! way of `LEAKWATCH_SOAK_SECONDS`.

mod judge;
mod load;
mod slope;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use leakwatch_tests::agent::Plan;
use leakwatch_tests::cgroup::{Cgroup, mount};
use leakwatch_tests::component::{need_root, say};

use judge::Course;
use load::Load;

/// Seconds of churn, unless the variable says otherwise.
const SHORT: u64 = 20;

/// The unit of the churn itself, by a name of this run: another may go on beside it.
static CHURN: LazyLock<String> =
    LazyLock::new(|| format!("leakwatch-churn-{}.service", std::process::id()));

/// Between two looks at the agent, each of them a scrape.
const EVERY: Duration = Duration::from_millis(500);

/// The agent watches itself by the rules it applies to others: a window is a
/// twentieth of the whole.
fn config(seconds: u64) -> String {
    let window = (seconds / 20).max(1);
    format!(
        "[watch]\ncensus_interval = \"500ms\"\ncensus_cpu_budget = 1.0\nprobes = \"always\"\n\
         [detection]\nwindow = \"{window}s\"\nwindows = 4\nwarmup = \"{window}s\"\n\
         stale_after = \"{}s\"\nmin_held = 5\nmin_share = 0\n",
        window * 2
    )
}

fn seconds() -> u64 {
    let given = std::env::var("LEAKWATCH_SOAK_SECONDS").ok();
    given.map_or(SHORT, |text| {
        text.parse().ok().filter(|n| *n >= SHORT).unwrap_or_else(|| {
            panic!("LEAKWATCH_SOAK_SECONDS={text:?}: give a whole number from {SHORT} on")
        })
    })
}

#[test]
fn nothing_of_the_agent_grows_drifts_or_gets_lost() {
    if need_root().is_none() {
        return;
    }
    let seconds = seconds();
    let name = format!("leakwatch-soak-{}", std::process::id());
    let Some(home) = Cgroup::make(&format!("/{name}.slice/{name}.service")) else { return };
    let Some(mount) = mount() else { return };
    // Into its own cgroup, so that it is a unit of its own beside other agents.
    let procs = format!("{}{}/cgroup.procs", mount.display(), home.path);
    let enter = format!("echo 0 > {procs}; exec \"$@\"");
    let config = config(seconds);
    let agent = Plan::new(&*config).under(&["sh", "-c", &enter, "sh"]).start();
    let own_unit = format!("{name}.service");
    let slice = mount.join(format!("{name}.slice"));
    let Some(work) = Cgroup::make(&format!("/{name}.slice/{}", *CHURN)) else { return };
    let mut load =
        Load::start(&slice, &work, &format!("{name}-unit"), Duration::from_secs(seconds));
    agent.census();

    load.go();
    let (begun, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut course = Course::new(time);
    let mut reloads = 0_u64;
    while begun.elapsed() < time {
        course.look(&agent, begun.elapsed());
        if begun.elapsed().as_secs() / 3 > reloads {
            reloads += 1;
            // A unit rule more, and one fewer again.
            let more = "[[unit]]\nname = \"nobody\"\ncmdline = \"*no such program*\"\n";
            let text = format!("{config}{}", if reloads.is_multiple_of(2) { "" } else { more });
            std::fs::write(agent.config(), text).expect("the config is ours");
            agent.signal(libc::SIGHUP);
        }
        std::thread::sleep(EVERY);
    }
    let did = load.still();
    agent.census();
    course.look(&agent, begun.elapsed());

    say(format_args!("{did:?}, {reloads} reloads\n{course}"));
    let mut wrong = course.complaints();
    wrong.extend(judge::verdicts(&agent, &own_unit));
    wrong.extend(judge::losses(&agent));
    wrong.extend(judge::counted(&agent, &did));
    wrong.extend(judge::ledger(&agent, &load));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
