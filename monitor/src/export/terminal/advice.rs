//! What to do next, rule by rule.

use crate::detection::verdict::{Leak, Rule};

/// Sentences, the most useful first. Pids are those of the examples: they were
/// true when the census saw them.
pub(super) fn next(leak: &Leak) -> Vec<String> {
    let mut out = Vec::new();
    for rule in &leak.rules {
        for sentence in of_rule(*rule, leak) {
            if !out.contains(&sentence) {
                out.push(sentence);
            }
        }
    }
    out
}

fn of_rule(rule: Rule, leak: &Leak) -> Vec<String> {
    let pid = leak.examples.first().map_or_else(|| "PID".to_owned(), |e| e.pid.to_string());
    let look = format!("Look at it: `ls -l /proc/{pid}/fd`.");
    let mut sentences = match rule {
        Rule::UnclosedLogHandle => vec![
            "Close each log after its writer has it: in the parent, right after the child is \
             started; in Python, `with open(...)` around `subprocess.Popen`."
                .to_owned(),
            look,
            "If the service reopens its logs on a signal, a `[[cleanup]]` rule with `do = \
             \"signal\"` gains time; else restart it before the limit is hit."
                .to_owned(),
        ],
        Rule::DeletedFileHeld => vec![
            "Make the service reopen its file after rotation (`postrotate` of logrotate, or a \
             `[[cleanup]]` rule with `do = \"signal\"`); a restart frees the space at once."
                .to_owned(),
            look,
        ],
        Rule::RisingFloor => vec![
            "Find what opens and does not close; a pool without a cap does the same.".to_owned(),
            look,
            "If this is a known pool, name it in `[[ignore]]`.".to_owned(),
        ],
        Rule::ThreadGrowth => vec![
            format!("See what the threads are: `cat /proc/{pid}/task/*/comm | sort | uniq -c`."),
            "Join or detach every thread, or start them from a pool with a cap.".to_owned(),
        ],
        Rule::Zombie => vec![
            "The living parent must wait for its children (waitpid, or SIGCHLD ignored). A signal \
             to a zombie does nothing: end or restart the parent."
                .to_owned(),
        ],
        Rule::Orphan => vec![
            "Stop the children with the service: one cgroup for all of them (`KillMode=control-\
             group` in systemd), or PR_SET_PDEATHSIG in the child."
                .to_owned(),
            "A `[[cleanup]]` rule with `do = \"kill-orphans\"` ends them; it is a dry run until \
             `mode = \"enforce\"`."
                .to_owned(),
        ],
        Rule::Headroom => vec![
            format!(
                "Gain time: `prlimit --pid {pid} --nofile=SOFT:HARD` now, `LimitNOFILE=` (or \
                 `TasksMax=`) in the unit for good."
            ),
            "See whether another verdict of this unit says why.".to_owned(),
        ],
    };
    let statistical = matches!(rule, Rule::UnclosedLogHandle | Rule::RisingFloor);
    if statistical && leak.opener.is_empty() {
        sentences.push(
            "The opener is unknown: set `probes = \"always\"` and `stacks = \"always\"` to have \
             it named."
                .to_owned(),
        );
    }
    sentences
}
