//! What to do next, rule by rule.

use crate::detection::verdict::{Leak, Resource, Rule};

/// Sentences, the most useful first: those of the one rule that knows best what
/// is wrong, for two advices in one list contradict each other. Pids are those of
/// the examples: they were true when the census saw them.
pub(super) fn next(leak: &Leak) -> Vec<String> {
    leading(&leak.rules).map_or_else(Vec::new, |rule| of_rule(rule, leak))
}

/// The first near-certain rule, else the first that speaks of a leak, else the
/// first.
fn leading(rules: &[Rule]) -> Option<Rule> {
    let first = |wanted: fn(Rule) -> bool| rules.iter().copied().find(|rule| wanted(*rule));
    first(is_near_certain)
        .or_else(|| first(|rule| rule != Rule::Headroom))
        .or_else(|| first(|_| true))
}

const fn is_near_certain(rule: Rule) -> bool {
    match rule {
        Rule::UnclosedLogHandle
        | Rule::DeletedFileHeld
        | Rule::CloseWait
        | Rule::InheritedUnused
        | Rule::Zombie
        | Rule::Orphan => true,
        Rule::RisingFloor
        | Rule::Outlived
        | Rule::Excess
        | Rule::ThreadGrowth
        | Rule::TaskGrowth
        | Rule::Headroom => false,
    }
}

fn of_rule(rule: Rule, leak: &Leak) -> Vec<String> {
    let pid = leak.examples.first().map_or_else(|| "PID".to_owned(), |e| e.pid.to_string());
    let look = format!("Look at it: `ls -l /proc/{pid}/fd`.");
    let mut sentences = match rule {
        Rule::UnclosedLogHandle => vec![
            "Close each log when nothing more is written to it. One that a child writes: in the \
             parent, right after the child is started. In Python, both are `with open(...)`."
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
        Rule::CloseWait => vec![
            "Close each connection when its peer has: after a read of 0 bytes or an error, and of \
             an answer that is not read to its end. Most often it is an HTTP client whose response \
             nobody closes."
                .to_owned(),
            format!("See the peers: `ss -tnp state close-wait | grep pid={pid},`."),
        ],
        Rule::InheritedUnused => vec![
            "Open with O_CLOEXEC (`e` in fopen, `SOCK_CLOEXEC`), or close in the child before it \
             executes: Python's `close_fds=True`, close_range(2)."
                .to_owned(),
            look,
        ],
        Rule::RisingFloor => vec![
            "Find what opens and does not close; a pool without a cap does the same.".to_owned(),
            look,
            "If this is a known pool, name it in `[[ignore]]`.".to_owned(),
        ],
        Rule::Outlived => vec![
            "Find the path that returns without closing: most are closed, so it is an error, a \
             timeout or a rare branch, and not the usual way."
                .to_owned(),
            look,
            "If these are sessions that last, name them in `[[ignore]]`.".to_owned(),
        ],
        Rule::Excess => vec![
            "Find what keeps some of them while the load comes and goes: a worker that waits for \
             ever, a task that nobody ends, a connection that is not given back."
                .to_owned(),
            match leak.resource {
                Resource::Thread => format!(
                    "See what the threads are: `cat /proc/{pid}/task/*/comm | sort | uniq -c`."
                ),
                _ => look,
            },
        ],
        Rule::ThreadGrowth => vec![
            format!("See what the threads are: `cat /proc/{pid}/task/*/comm | sort | uniq -c`."),
            "Join or detach every thread, or start them from a pool with a cap.".to_owned(),
        ],
        Rule::TaskGrowth => vec![
            "Keep the handle of each task that loops, and abort it with what it serves: a dropped \
             `JoinHandle` leaves its task running; a `JoinSet`, or a guard that aborts, does not."
                .to_owned(),
            "See who spawns it: the opener is the function that runs, not its caller.".to_owned(),
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
        Rule::Headroom => {
            let gain = match leak.resource {
                Resource::Fd | Resource::File => format!(
                    "Gain time: `prlimit --pid {pid} --nofile=SOFT:HARD` now, `LimitNOFILE=` in \
                     the unit for good."
                ),
                Resource::Thread | Resource::Process | Resource::Task => {
                    "Gain time: write a higher number into \
                     `pids.max` of the cgroup now, `TasksMax=` in the unit for good."
                        .to_owned()
                }
            };
            vec![gain, "See whether another verdict of this unit says why.".to_owned()]
        }
    };
    let wants_opener = matches!(
        rule,
        Rule::UnclosedLogHandle
            | Rule::CloseWait
            | Rule::RisingFloor
            | Rule::Outlived
            | Rule::Excess
    );
    if wants_opener && leak.resource == Resource::Fd && leak.opener.is_empty() {
        sentences.push(
            "The opener is not known yet: the probes come with the suspicion and see only what is \
             opened from then on. To have it at once next time, set `probes = \"always\"` and \
             `stacks = \"always\"`."
                .to_owned(),
        );
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::night;

    /// A verdict by these rules, its opener known, without an example.
    fn by(rules: &[Rule]) -> Leak {
        let mut leak = night().leaks.remove(0);
        leak.examples.clear();
        leak.opener.push(crate::detection::verdict::Frame {
            function: "open".to_owned(),
            ..crate::detection::verdict::Frame::default()
        });
        leak.resource = Resource::Fd;
        leak.rules = rules.to_vec();
        leak
    }

    #[test]
    fn each_rule_has_advice_of_its_own() {
        for (rule, part) in [
            (Rule::UnclosedLogHandle, "Close each log"),
            (Rule::DeletedFileHeld, "reopen its file after rotation"),
            (Rule::CloseWait, "when its peer has"),
            (Rule::InheritedUnused, "O_CLOEXEC"),
            (Rule::RisingFloor, "opens and does not close"),
            (Rule::Outlived, "returns without closing"),
            (Rule::Excess, "while the load comes and goes"),
            (Rule::ThreadGrowth, "Join or detach every thread"),
            (Rule::TaskGrowth, "Keep the handle of each task"),
            (Rule::Zombie, "wait for its children"),
            (Rule::Orphan, "Stop the children with the service"),
            (Rule::Headroom, "LimitNOFILE="),
        ] {
            for other in Rule::ALL {
                let text = next(&by(&[other])).join("\n");
                assert_eq!(text.contains(part), other == rule, "{rule} of {other}: {text}");
            }
        }
    }

    #[test]
    fn the_first_near_certain_rule_is_the_one_that_advises() {
        use Rule::{
            CloseWait, DeletedFileHeld, Headroom, Orphan, RisingFloor, ThreadGrowth,
            UnclosedLogHandle, Zombie,
        };
        for (rules, want) in [
            (&[UnclosedLogHandle, RisingFloor][..], UnclosedLogHandle),
            (&[RisingFloor, UnclosedLogHandle], UnclosedLogHandle),
            (&[UnclosedLogHandle, DeletedFileHeld, RisingFloor], UnclosedLogHandle),
            (&[DeletedFileHeld, UnclosedLogHandle], DeletedFileHeld),
            (&[RisingFloor, DeletedFileHeld], DeletedFileHeld),
            (&[CloseWait, RisingFloor], CloseWait),
            (&[ThreadGrowth, Zombie], Zombie),
            (&[Zombie, Orphan], Zombie),
            (&[RisingFloor, Headroom], RisingFloor),
            (&[Headroom, ThreadGrowth], ThreadGrowth),
            (&[Headroom, Orphan], Orphan),
            (&[RisingFloor], RisingFloor),
        ] {
            assert_eq!(next(&by(rules)), next(&by(&[want])), "{rules:?}");
        }
        assert!(next(&by(&[])).is_empty());
    }

    #[test]
    fn a_limit_is_raised_where_it_is() {
        let mut leak = by(&[Rule::Headroom]);
        leak.resource = Resource::Thread;
        let text = next(&leak).join("\n");
        assert!(text.contains("TasksMax=") && !text.contains("nofile"), "{text}");
    }
}
