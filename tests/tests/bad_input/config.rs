//! Configs, flags and surroundings.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use leakwatch_tests::agent::{binary, run};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::install;
use tempfile::TempDir;

use crate::{is_harmless, said};

#[test]
fn a_bad_config_names_line_and_key_and_the_nearest_right_one() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("bad.toml");
    let path = file.display().to_string();
    for (text, line, words) in [
        ("\n[watch]\ncensus_intervall = \"5s\"\n", 3, &["census_intervall", "census_interval"][..]),
        ("[wacth]\n", 1, &["wacth", "watch"]),
        ("[watch]\ncensus_interval = 5\n", 2, &["census_interval", "\"5s\""]),
        ("[watch]\ncensus_interval = \"5 parsecs\"\n", 2, &["census_interval", "5 parsecs"]),
        ("[watch]\nprobes = \"allways\"\n", 2, &["probes", "always"]),
        ("[watch]\nmax_units = -3\n", 2, &["max_units", "-3"]),
        ("[detection]\nwindows = \"six\"\n", 2, &["windows"]),
        ("[[unit]]\nname = \"a\"\ncmdline = \"[\"\n", 3, &["cmdline", "["]),
        (
            "[[unit]]\nname = \"a\"\nexe = \"/a\"\n\n[[unit]]\nname = \"a\"\nexe = \"/b\"\n",
            6,
            &["a"],
        ),
        ("[[unit]]\nname = \"a\"\n", 1, &["cgroup", "exe", "cmdline", "user"]),
        ("[[cleanup]]\nrule = \"zombie\"\ndo = \"explode\"\n", 3, &["explode", "notify", "signal"]),
        (
            "[[cleanup]]\nrule = \"orphan\"\ndo = \"kill-orphans\"\nmode = \"enforced\"\n",
            4,
            &["enforce"],
        ),
        ("[watch]\n\x1b[2J = 1\n", 2, &[]),
        ("[watch\n", 1, &[]),
    ] {
        fs::write(&file, text).expect("it can be written");
        for arguments in [&["config", "check", &path][..], &["watch", "--config", &path]] {
            let output = run(arguments);
            let error = said(&output);
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {text:?}: {error}");
            assert!(error.contains(&format!("{path}:{line}:")), "line {line} of {text:?}: {error}");
            for word in words {
                assert!(error.contains(word), "{word:?} on {text:?}: {error}");
            }
            assert!(is_harmless(&output.stderr) && output.stdout.is_empty(), "{error:?}");
        }
    }
}

#[test]
fn the_example_config_is_a_good_one() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("example.toml");
    fs::write(&file, run(&["config", "example"]).stdout).expect("it can be written");
    let output = run(&["config", "check", &file.display().to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    // Every key of it, uncommented, is one that is known.
    let text = fs::read_to_string(&file).expect("it was written");
    let mut keys: Vec<String> = Vec::new();
    for line in text.lines() {
        let bare = line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line);
        keys.push(bare.to_owned());
    }
    fs::write(&file, keys.join("\n")).expect("it can be written");
    let output = run(&["config", "check", &file.display().to_string()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn bad_flags_end_with_2_and_unusable_surroundings_with_1() {
    for flags in
        [&["watch", "--web.listen-adress=:1"][..], &["wacth"], &["watch", "--log-level=loud"]]
    {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", said(&output));
    }
    let dir = TempDir::new().expect("a temporary directory");
    let state = dir.path().join("state").display().to_string();
    let missing = dir.path().join("none.toml").display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let inside_a_file = "/dev/null/state";
    for (flags, word) in [
        (["--state-dir", &state, "--web.listen-address", &address], address.as_str()),
        (["--state-dir", inside_a_file, "--web.listen-address", "127.0.0.1:0"], inside_a_file),
        (["--state-dir", &state, "--config", &missing], missing.as_str()),
        (["--state-dir", &state, "--config", "/"], "directory"),
    ] {
        let begun = Instant::now();
        let output = run(&[&["watch"], &flags[..]].concat());
        let error = said(&output);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {error}");
        let last = error.lines().last().unwrap_or_default();
        assert!(last.contains(word), "{flags:?}: {word:?} is to be named in {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{flags:?} took {:?}", begun.elapsed());
    }
}

#[test]
fn what_another_user_may_not_read_or_write_is_named() {
    if need_root().is_none() || need_program("setpriv").is_none() {
        return;
    }
    let dir = TempDir::new().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let agent = dir.path().join("leakwatch");
    install::copy(binary(), &agent);
    let config = dir.path().join("secret.toml");
    fs::write(&config, "").expect("it can be written");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("it can be made");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let as_nobody = |flag: &str, path: &std::path::Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&agent);
        command.args(["watch", "--web.listen-address", "127.0.0.1:0", flag]).arg(path);
        let output = command.output().expect("setpriv starts");
        let error = said(&output);
        assert_eq!(output.status.code(), Some(1), "{flag}: {error}");
        assert!(error.contains(&path.display().to_string()), "{flag}: {error}");
        assert!(error.to_lowercase().contains("permission denied"), "{flag}: {error}");
    };
    as_nobody("--config", &config);
    as_nobody("--state-dir", &state);
}

#[test]
fn without_an_agent_status_takes_one_census_of_its_own() {
    if need_root().is_none() {
        return;
    }
    let nobody_there = leakwatch_tests::agent::free_address();
    let url = format!("http://{nobody_there}");
    let output = run(&["status", "--json", "--url", &url]);
    assert!(output.status.success(), "{}", said(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(!document["units"].as_array().expect("units").is_empty());
    assert!(run(&["status", "--url", &url]).status.success());
    let output = run(&["explain", "000000000000", "--url", &url]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}
