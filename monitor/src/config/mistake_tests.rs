//! Every mistake, and what is said about it.

use super::*;

/// The problems of a text, each as it is shown but for the file's name.
fn problems(text: &str) -> Vec<String> {
    match parse(text, "f") {
        Ok(config) => panic!("{text:?} was accepted as {config:?}"),
        Err(found) => found.to_string().lines().map(|l| l.replacen("f:", "", 1)).collect(),
    }
}

fn check(table: &[(&str, &str)]) {
    for (text, want) in table {
        assert_eq!(problems(text).join("\n"), *want, "for {text:?}");
    }
}

#[test]
fn unknown_names_get_the_nearest_right_one() {
    check(&[
        (
            "[watch]\ncensus_intervall = \"5s\"",
            "2:1: unknown key `census_intervall` in `[watch]`; did you mean `census_interval`?",
        ),
        (
            "[watch]\nCensus-Interval = \"5s\"",
            "2:1: unknown key `Census-Interval` in `[watch]`; did you mean `census_interval`?",
        ),
        (
            "[detection]\nxyzzy = 1",
            "2:1: unknown key `xyzzy` in `[detection]`; its keys are `window`, `windows`, \
             `warmup`, `stale_after`, `min_held` and `min_share`",
        ),
        (
            "[watch]\nwarmup = \"5m\"",
            "2:1: unknown key `warmup` in `[watch]`; it belongs in `[detection]`",
        ),
        ("probes = \"off\"", "1:1: `probes` stands outside of any table; it belongs in `[watch]`"),
        ("[wacth]\nprobes = \"off\"", "1:2: unknown table `wacth`; did you mean `[watch]`?"),
        ("[[units]]\nname = \"a\"", "1:3: unknown table `units`; did you mean `[[unit]]`?"),
        (
            "[xyzzy]",
            "1:2: unknown table `xyzzy`; the tables are `[watch]`, `[[unit]]`, `[detection]`, \
             `[[ignore]]` and `[[cleanup]]`",
        ),
        (
            "[watch]\n\"a\\u001b[2J\" = 1",
            "2:1: unknown key `a\\u{1b}[2J` in `[watch]`; its keys are `census_interval`, \
             `census_cpu_budget`, `probes`, `stacks` and `max_units`",
        ),
    ]);
}

#[test]
fn wrong_types_say_what_to_write() {
    check(&[
        (
            "[watch]\ncensus_interval = 5",
            "2:19: `census_interval` is an integer; use a number with a unit, such as \"5s\"",
        ),
        (
            "[watch]\nmax_units = \"500\"",
            "2:13: `max_units` is a string; use a whole number from 1 to 100000",
        ),
        (
            "[watch]\ncensus_cpu_budget = \"1%\"",
            "2:21: `census_cpu_budget` is a string; use a number above 0 and at most 1, such as \
             0.01",
        ),
        (
            "[watch]\nprobes = true",
            "2:10: `probes` is a boolean; use one of `auto`, `always`, `on-suspicion` and `off`",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\nlogs = \"/var/log/a.log\"",
            "4:8: `logs` is a string; use a list of strings, such as [\"/var/log/deployer/*.log\"]",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\norphans = [\"x\", 1, \"\"]",
            "4:17: `orphans` holds an integer; use a list of strings, such as \
             [\"*agent-runner*\"]\n\
             4:20: `orphans` holds an empty string; use a list of strings, such as \
             [\"*agent-runner*\"]",
        ),
        (
            "[[unit]]\nname = \"a\"\nuser = 1000",
            "3:8: `user` is an integer; use a string, such as \"svc\"",
        ),
        ("[unit]\nname = \"a\"", "1:1: `unit` may be given many times; write `[[unit]]`"),
        ("[[watch]]\nprobes = \"off\"", "1:1: `watch` is given once; write `[watch]`"),
        ("watch = 5", "1:9: `watch` is an integer; write a table, `[watch]`"),
        ("unit = [1]", "1:9: `unit` holds an integer; write `[[unit]]`"),
    ]);
}

#[test]
fn values_out_of_range_name_the_range() {
    check(&[
        (
            "[watch]\ncensus_interval = \"5 parsecs\"",
            "2:19: `census_interval` is \"5 parsecs\", which is no duration; use a number with a \
             unit, such as \"5s\"",
        ),
        (
            "[watch]\ncensus_interval = \"\"",
            "2:19: `census_interval` is \"\", which is no duration; use a number with a unit, such \
             as \"5s\"",
        ),
        (
            "[watch]\ncensus_interval = \"99ms\"",
            "2:19: `census_interval` is \"99ms\"; it must be from 100ms to 1h",
        ),
        (
            "[watch]\ncensus_interval = \"61m\"",
            "2:19: `census_interval` is \"61m\"; it must be from 100ms to 1h",
        ),
        (
            "[watch]\ncensus_cpu_budget = 0",
            "2:21: `census_cpu_budget` is 0; it must be above 0 and at most 1",
        ),
        (
            "[watch]\ncensus_cpu_budget = 1.5",
            "2:21: `census_cpu_budget` is 1.5; it must be above 0 and at most 1",
        ),
        (
            "[watch]\ncensus_cpu_budget = nan",
            "2:21: `census_cpu_budget` is nan; it must be above 0 and at most 1",
        ),
        (
            "[watch]\nmax_units = 0",
            "2:13: `max_units` is 0; it must be a whole number from 1 to 100000",
        ),
        (
            "[watch]\nmax_units = 99999999999999999999",
            "2:13: `max_units` is 99999999999999999999; it must be a whole number from 1 to 100000",
        ),
        (
            "[detection]\nwindows = 1",
            "2:11: `windows` is 1; it must be a whole number from 2 to 1000",
        ),
        (
            "[detection]\nmin_held = 0",
            "2:12: `min_held` is 0; it must be a whole number, 1 or more",
        ),
        ("[detection]\nmin_share = 1.5", "2:13: `min_share` is 1.5; it must be from 0 to 1"),
        (
            "[detection]\nwindow = \"0s\"",
            "2:10: `window` is \"0s\"; it must be above 0 and at most 7days",
        ),
        (
            "[watch]\nstacks = \"on_suspicion\"",
            "2:10: `stacks` is \"on_suspicion\"; did you mean `on-suspicion`?",
        ),
    ]);
}

#[test]
fn units_have_a_name_of_their_own_and_a_matcher() {
    let long = format!("[[unit]]\nexe = \"/a\"\nname = \"{}\"", "a".repeat(201));
    check(&[
        (
            "[[unit]]\nexe = \"/a\"",
            "1:1: `[[unit]]` has no `name`; add such as name = \"deployer\"",
        ),
        ("[[unit]]\nname = \"\"\nexe = \"/a\"", "2:8: `name` is empty; write such as \"deployer\""),
        (&long, "3:8: `name` has 201 bytes; it may have 200"),
        (
            "[[unit]]\nname = \"a\\n\"\nexe = \"/a\"",
            "2:8: `name` holds control characters; use printable ones",
        ),
        (
            "[[unit]]\nname = \"other\"\nexe = \"/a\"",
            "2:8: `name` is \"other\", which stands for the units past `max_units`; use another",
        ),
        (
            "[[unit]]\nname = \"a\"\nlogs = [\"/x\"]",
            "1:1: `[[unit]]` matches nothing; give it one or more of `cgroup`, `exe`, `cmdline` \
             and `user`",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\n[[unit]]\nname = \"a\"\nexe = \"/b\"",
            "5:8: `name` is \"a\" again, as on line 2; every unit needs its own",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/usr/[bin\"",
            "3:7: `exe` is \"/usr/[bin\", a bad glob: unclosed character class; missing ']'",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"python3*\"",
            "3:7: `exe` is \"python3*\", a bad glob: paths begin with `/`; write \"**/python3*\" \
             or the whole path",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\ntasks = \"async-std\"",
            "4:9: `tasks` is \"async-std\"; use one of `tokio`",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\ntasks = true",
            "4:9: `tasks` is a boolean; use one of `tokio`",
        ),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\norphans = [\"{a\"]",
            "4:12: `orphans` is \"{a\", a bad glob: unclosed alternate group; missing '}' \
             (maybe escape '{' with '[{]'?)",
        ),
    ]);
}

#[test]
fn rules_and_actions_are_known_ones() {
    check(&[
        (
            "[[ignore]]",
            "1:1: `[[ignore]]` names nothing; give it one or more of `unit`, `path` and `rule`",
        ),
        (
            "[[ignore]]\nrule = \"raising-floor\"",
            "2:8: `rule` is \"raising-floor\"; did you mean `rising-floor`?",
        ),
        (
            "[[cleanup]]\nrule = \"orfan\"\ndo = \"notify\"",
            "2:8: `rule` is \"orfan\", which no rule is; did you mean `orphan`?",
        ),
        (
            "[[cleanup]]\ndo = \"notify\"",
            "1:1: `[[cleanup]]` says not for what; give it `rule` or `unit` or both (rule = \"*\" \
             is every rule)",
        ),
        (
            "[[cleanup]]\nrule = \"*\"",
            "1:1: `[[cleanup]]` has no `do`; use one of `notify`, `signal` and `kill-orphans`",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"restart\"",
            "3:6: `do` is \"restart\", which this version does not have; it has `notify`, \
             `signal` and `kill-orphans`",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"kill-orphan\"",
            "3:6: `do` is \"kill-orphan\"; did you mean `kill-orphans`?",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"signal\"",
            "1:1: `do = \"signal\"` needs `signal`; add such as signal = \"SIGHUP\"",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"signal\"\nsignal = \"SIGHUB\"",
            "4:10: `signal` is \"SIGHUB\", which is no signal; did you mean `SIGHUP`?",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"signal\"\nsignal = 65",
            "4:10: `signal` is 65; it must be a whole number from 1 to 64",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"notify\"\nsignal = \"SIGHUP\"",
            "4:10: `signal` has no meaning for `do = \"notify\"`; remove it, or use `do = \
             \"signal\"`",
        ),
        (
            "[[cleanup]]\nrule = \"*\"\ndo = \"notify\"\nmode = \"enforced\"\nbudget = 0",
            "4:8: `mode` is \"enforced\"; did you mean `enforce`?\n\
             5:10: `budget` is 0; it must be a whole number from 1 to 3600",
        ),
    ]);
}

#[test]
fn all_mistakes_of_a_file_come_at_once_in_order() {
    let text =
        "[detection]\nwindow = 5\n\n[watch]\nprobe = \"x\"\nstacks = 1\n\n[[unit]]\nnaem = 1\n";
    let found = parse(text, "/etc/x.toml").unwrap_err();
    let lines: Vec<(usize, &str)> = found.kept.iter().map(|p| (p.line, p.key.as_str())).collect();
    assert_eq!(
        lines,
        [
            (2, "detection.window"),
            (5, "watch.probe"),
            (6, "watch.stacks"),
            (8, "unit.name"),
            (8, "unit."),
            (9, "unit.naem")
        ]
    );
    assert!(found.to_string().starts_with("/etc/x.toml:2:10: `window` is an integer;"));
}

#[test]
fn bad_toml_is_placed_and_bounded() {
    let found = problems("[watch]\nprobes = \n");
    assert!(found[0].starts_with("2:10: not TOML: "), "{found:?}");
    let found = problems("[watch]\nprobes = \"off\"\nprobes = \"off\"\n");
    assert!(found[0].starts_with("3:1: not TOML: duplicate key"), "{found:?}");
    let found = parse(&"= =\n".repeat(10_000), "f").unwrap_err();
    assert_eq!(found.kept.len(), 50);
    assert!(found.to_string().ends_with(" more"));
    // Columns count characters, not bytes.
    assert!(problems("[watch]\n\"ä\" = 1").join("").starts_with("2:1: unknown key `ä`"));
    let found = problems("watch = { stacks = \"ä\", x = 1 }");
    assert!(found[1].starts_with("1:25: unknown key `x`"), "{found:?}");
}

#[test]
fn deep_nesting_is_refused_rather_than_followed() {
    let text = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&text, "f").is_err());
}
