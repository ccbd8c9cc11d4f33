//! What is read, shown and read back; what no file can do.

use std::time::Duration;

use super::model::{
    ActionKind, Cleanup, Ignore, Mode, ProbeMode, StackMode, TaskRuntime, UnitRule,
};
use super::*;

#[test]
fn the_config_of_the_documentation_is_read_in_full() {
    let text = r#"
        [watch]
        census_interval = "250ms"
        census_cpu_budget = 1
        probes = "on-suspicion"
        stacks = "off"
        max_units = 0x10
        [[unit]]
        name = "deployer"
        cgroup = "/system.slice/deployer.service"
        exe = "/usr/bin/python3*"
        cmdline = "*deployment_runner.py*"
        user = "svc"
        logs = ["/var/log/deployer/*.log", "**/*.jsonl"]
        orphans = ["*agent-runner*"]
        tasks = "tokio"
        [[unit]]
        name = "--help <script>"
        user = "1000"
        [detection]
        window = "1h 30m"
        windows = 2
        warmup = "0s"
        stale_after = "5m"
        min_held = 1
        [[ignore]]
        unit = "postgresql.service"
        path = "socket:*"
        rule = "headroom"
        [[cleanup]]
        rule = "{orphan,zombie}"
        do = "signal"
        signal = "hup"
        mode = "enforce"
        cooldown = "0s"
        budget = 7
        protect = ["ssh*"]
        grace = "2s"
        timeout = "1m"
        [[cleanup]]
        unit = "*"
        do = "signal"
        signal = 35
    "#;
    let config = parse(text, "f").unwrap();
    assert_eq!(config.watch.census_interval, Duration::from_millis(250));
    assert_eq!(config.watch.census_cpu_budget, 1.0);
    assert_eq!(
        (config.watch.probes, config.watch.stacks),
        (ProbeMode::OnSuspicion, StackMode::Off)
    );
    assert_eq!(config.watch.max_units, 16);
    assert_eq!(
        config.units[0],
        UnitRule {
            name: "deployer".into(),
            cgroup: Some("/system.slice/deployer.service".into()),
            exe: Some("/usr/bin/python3*".into()),
            cmdline: Some("*deployment_runner.py*".into()),
            user: Some("svc".into()),
            logs: vec!["/var/log/deployer/*.log".into(), "**/*.jsonl".into()],
            orphans: vec!["*agent-runner*".into()],
            tasks: Some(TaskRuntime::Tokio),
        }
    );
    assert_eq!(config.units[1].name, "--help <script>");
    assert_eq!(config.detection.window, Duration::from_secs(5400));
    assert_eq!(config.detection.warmup, Duration::ZERO);
    assert_eq!(
        config.ignore,
        [Ignore {
            unit: Some("postgresql.service".into()),
            path: Some("socket:*".into()),
            rule: Some("headroom".into()),
        }]
    );
    assert_eq!(
        config.cleanup[0],
        Cleanup {
            rule: Some("{orphan,zombie}".into()),
            unit: None,
            action: ActionKind::Signal,
            signal: Some(1),
            mode: Mode::Enforce,
            cooldown: Duration::ZERO,
            budget: 7,
            protect: vec!["ssh*".into()],
            grace: Duration::from_secs(2),
            timeout: Duration::from_secs(60),
        }
    );
    assert_eq!(config.cleanup[1].signal, Some(35));
    assert_eq!(config.cleanup[1].mode, Mode::DryRun);
    assert_eq!(config.cleanup[1].budget, 3);
    assert_eq!(parse(&to_toml(&config), "again"), Ok(config));
}

#[test]
fn what_is_shown_reads_back() {
    let mut config = Config::default();
    assert_eq!(parse("", "f"), Ok(Config::default()));
    assert_eq!(parse(&to_toml(&config), "f"), Ok(Config::default()));
    for name in ["q\"uote", "back\\slash", "'''", "#", "[x]", "ünï"] {
        config.units.push(UnitRule {
            name: name.into(),
            cmdline: Some(format!("*{}*\n\u{1}", name.replace(['\\', '['], "."))),
            ..UnitRule::default()
        });
    }
    assert_eq!(parse(&to_toml(&config), "f"), Ok(config));
}

/// The example with its keys uncommented: prose begins with `# `, keys with `#`.
fn uncommented() -> String {
    let keep =
        |line: &str| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).map(str::to_owned);
    EXAMPLE.lines().map(|line| keep(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    assert_eq!(parse(EXAMPLE, "example"), Ok(Config::default()));
    let text = uncommented();
    let config = parse(&text, "example").unwrap();
    assert_eq!(config.watch, model::Watch::default());
    assert_eq!(config.detection, model::Detection::default());
    let bare = parse(
        "[[cleanup]]\nrule = \"unclosed-log-handle\"\nunit = \"deployer*\"\ndo = \"signal\"\n\
         signal = 1\nprotect = [\"postgresql*\"]",
        "f",
    );
    assert_eq!(config.cleanup, bare.unwrap().cleanup);
    for spec in keys::TABLES {
        assert!(text.contains(&spec.header()), "{}", spec.header());
        for key in spec.keys {
            assert!(text.lines().any(|l| l.starts_with(&format!("{key} ="))), "{key}");
        }
    }
}

#[test]
fn the_manual_names_every_key_and_its_example_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let manual = std::fs::read_to_string(path).unwrap();
    for spec in keys::TABLES {
        let section = manual.split_once(&format!("## `{}`", spec.header())).unwrap().1;
        let section = section.split("\n## ").next().unwrap();
        for key in spec.keys {
            assert!(section.contains(&format!("\n| `{key}` |")), "{key} in {}", spec.header());
        }
    }
    for rule in crate::detection::verdict::Rule::ALL {
        assert!(manual.contains(&format!("`{rule}`")), "{rule}");
    }
    let example = manual.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(parse(example, "f").unwrap().cleanup.len(), 2);
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let error = |path: &std::path::Path| {
        load(path).unwrap_err().to_string().replace(&path.display().to_string(), "F")
    };
    assert_eq!(load(&write("empty", b"")).unwrap(), Config::default());
    assert_eq!(load(std::path::Path::new("/dev/null")).unwrap(), Config::default());
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert_eq!(error(&pipe), "cannot read the configuration F: it is a pipe; name a file");
    assert_eq!(
        error(&dir.path().join("none")),
        "cannot read the configuration F: there is no such file"
    );
    assert_eq!(
        error(dir.path()),
        "cannot read the configuration F: it is a directory; name the file inside it"
    );
    assert_eq!(
        error(&write("large", &vec![b'\n'; 10 << 20])),
        "cannot read the configuration F: it is larger than 1 MiB, so it is hardly a configuration"
    );
    assert_eq!(
        error(&write("latin1", b"[watch]\n# \xe4\n")),
        "F:2:3: the byte 0xe4 is not UTF-8; save the file as UTF-8"
    );
    assert!(matches!(load(&write("bad", b"x = 1")), Err(LoadError::Invalid(_))));
    let piped = |bytes: &[u8]| load_from(bytes, "standard input");
    assert_eq!(piped(b"").unwrap(), Config::default());
    let wrong = piped(b"[watch]\ncensus_intervall = 1\n").unwrap_err().to_string();
    assert!(wrong.starts_with("standard input:2:1: unknown key `census_intervall`"), "{wrong}");
    assert_eq!(
        piped(&vec![b'\n'; 10 << 20]).unwrap_err().to_string(),
        "cannot read the configuration standard input: it is larger than 1 MiB, so it is hardly a \
         configuration"
    );
}

#[test]
fn no_damage_to_a_file_brings_the_reader_down() {
    // Without globs, whose compiling would be nearly all of the time.
    let good = "watch = { census_cpu_budget = 1e-2, probes = 'off' }\n[detection]\nwindow = \"5s\"\n\
                [[unit]]\nname = \"\"\"ä\"\"\"\nuser = \"\\u0061\"\n[[ignore]]\nrule = \"orphan\"\n";
    assert!(parse(good, "f").is_ok());
    for at in 0..good.len() {
        for damage in ["", "\"", "[", "]", "=", "\n", "\\", "ä", "\0", "-"] {
            let (Some(before), Some(after)) = (good.get(..at), good.get(at + 1..)) else {
                continue;
            };
            if let Err(found) = parse(&format!("{before}{damage}{after}"), "f") {
                assert!(!found.kept.is_empty() && found.kept.iter().all(|p| p.line > 0));
            }
        }
    }
}
