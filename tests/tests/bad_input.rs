//! Bad configs, flags, names and clients: a clear word, and nothing else happens.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use leakwatch_tests::agent::{Agent, FAST, Plan, binary, run};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::http;
use leakwatch_tests::prometheus::promtool;
use leakwatch_tests::started::{Started, program};
use leakwatch_tests::wait::wait_until;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No control character but the end of a line: a terminal cannot be driven.
fn is_harmless(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.chars().all(|c| c == '\n' || (!c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c)))
}

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
    fs::copy(binary(), &agent).expect("room for a copy");
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

/// Units with names that look like a flag and like a tag.
const HOSTILE_UNITS: [&str; 2] = ["--help", "<script>alert(1)</script>"];

fn hostile_company(agent: &Agent) -> Vec<Started> {
    let start = |i: usize| {
        let dir = agent.dir().join(format!("hostile-{i}"));
        fs::create_dir(&dir).expect("it can be made");
        let mut command = program("hostile");
        command.arg("--dir").arg(&dir).args(["--tag", &format!("t-hostile-{i}"), "--pace", "500"]);
        // An argument that breaks lines and quotes, and is no UTF-8.
        let wild: &[u8] = b"\n\"}\x1b]0;x\x07<b>\xff\\";
        command.arg(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(wild));
        Started::new(&mut command)
    };
    (0..HOSTILE_UNITS.len()).map(start).collect()
}

#[test]
fn hostile_names_are_shown_and_do_no_harm() {
    if need_root().is_none() {
        return;
    }
    let mut config = FAST.to_owned();
    for (i, unit) in HOSTILE_UNITS.iter().enumerate() {
        config.push_str(&format!(
            "[[unit]]\nname = \"{unit}\"\ncmdline = \"*--tag t-hostile-{i} *\"\n"
        ));
    }
    let agent = Plan::new(config).start();
    let mut company = hostile_company(&agent);
    for program in &mut company {
        program.ready(LIMIT);
    }
    for unit in HOSTILE_UNITS {
        wait_until("verdicts on hostile names", LIMIT, || {
            (agent.confirmed(unit).len() >= 8).then_some(())
        });
    }
    assert_eq!(hostile_company_is_known(&agent), company.len());
}

fn hostile_company_is_known(agent: &Agent) -> usize {
    // Metrics: the strict reader takes them, promtool too, and the name is whole.
    let scrape = agent.metrics();
    for unit in HOSTILE_UNITS {
        assert!(scrape.sum("leakwatch_leaks", &[("unit", unit)]).is_some(), "{unit}");
    }
    if let Some(output) = promtool(&["check", "metrics"], &agent.get("/metrics").body) {
        assert!(output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    }
    // JSON: parses, paths without control characters, the invalid byte replaced.
    let leaks = agent.leaks();
    let paths: Vec<&str> =
        leaks.iter().flat_map(|l| l.examples.iter().map(|e| e.path.as_str())).collect();
    assert!(paths.iter().all(|p| is_harmless(p.as_bytes()) && !p.contains('\n')), "{paths:?}");
    for part in ["line\\u{a}break.log", "quote\"s", "\\u{1b}[2J", "invalid \u{fffd}", "\\u{202e}"] {
        assert!(paths.iter().any(|p| p.contains(part)), "{part:?} of {paths:#?}");
    }
    assert!(paths.iter().any(|p| p.contains(&"x".repeat(251))), "a name of 255 bytes is whole");
    assert!(
        paths.iter().any(|p| p.len() > 4_000 && p.ends_with("/deep.log")),
        "a path of 4,096 bytes"
    );
    assert!(leaks.iter().flat_map(|l| &l.examples).all(|e| is_harmless(e.comm.as_bytes())));
    for unit in HOSTILE_UNITS {
        assert_eq!(agent.unit(unit).expect("it is there")["name"], unit);
    }
    // The page: no tag of theirs, no control character.
    for path in ["/".to_owned(), format!("/?unit={}", http::escape(HOSTILE_UNITS[1]))] {
        let page = agent.get(&path);
        let text = page.text();
        assert!(!text.contains("<script>alert") && !text.contains("<img src=x"), "{path}");
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{path}: it is shown");
        assert!(is_harmless(page.body.as_slice()), "{path}");
        assert!(page.header("content-security-policy").is_some(), "{:?}", page.headers);
    }
    // The terminal.
    let url = agent.url();
    let mut shown = vec![run(&["status", "--url", &url])];
    let ids: Vec<String> = leaks.iter().map(|l| l.id.clone()).collect();
    shown.extend(ids.iter().map(|id| run(&["explain", "--url", &url, id])));
    for output in shown {
        assert!(output.status.success(), "{}", said(&output));
        assert!(is_harmless(&output.stdout), "{:?}", String::from_utf8_lossy(&output.stdout));
    }
    let json = run(&["status", "--json", "--url", &url]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let units = document["units"].as_array().expect("units");
    HOSTILE_UNITS.iter().filter(|name| units.iter().any(|u| u["name"] == **name)).count()
}

#[test]
fn hostile_clients_do_not_stop_the_scrape_of_another() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    let to = agent.address;
    let scrape = |who: &str| {
        let begun = Instant::now();
        let answer = http::get(to, "/metrics").unwrap_or_else(|e| panic!("beside {who}: {e}"));
        assert_eq!(answer.status, 200, "beside {who}");
        assert!(begun.elapsed() < Duration::from_secs(2), "beside {who}: {:?}", begun.elapsed());
    };

    let mut many = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for i in 0..10_000 {
        many.extend_from_slice(format!("X-{i}: {i}\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    for (who, bytes) in [
        ("garbage", &b"\x16\x03\x01\x02\x00\x01\xff\xfe\0\0\0\r\n\r\n"[..]),
        ("10,000 headers", &many),
        ("an endless path", long.as_bytes()),
        ("half a request", b"GET / HT"),
        ("a body that never comes", b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(to).expect("it listens");
        // It may hang up on us before we are done.
        let _ = stream.write_all(bytes);
        scrape(who);
    }
    // Those who say nothing and stay.
    let silent: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(to).ok()).collect();
    assert!(silent.len() >= 200, "{} connected", silent.len());
    scrape("300 silent clients");
    drop(silent);

    for (method, path, wanted) in [
        ("POST", "/metrics", 405),
        ("DELETE", "/api/v1/leaks", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/api/v1/leaks/none", 404),
        ("GET", "/api/v1/units/none", 404),
        ("GET", "/-/healthy", 200),
        ("GET", "/-/ready", 200),
        ("HEAD", "/metrics", 200),
    ] {
        let answer = http::request(to, method, path, &[]).expect("it answers");
        assert_eq!(answer.status, wanted, "{method} {path}");
    }
}

/// Ids of programs, links and maps of BPF that a process holds.
fn bpf_ids_of(pid: u32) -> Vec<String> {
    let prefix = format!("pid {pid}: ");
    let all = leakwatch_tests::procfs::bpf_ids();
    all.into_iter().filter_map(|id| id.strip_prefix(&prefix).map(str::to_owned)).collect()
}

/// Ids of all programs that the kernel has loaded, whoever holds or pins them.
fn loaded_programs() -> Vec<u32> {
    const BPF_PROG_GET_NEXT_ID: std::ffi::c_long = 11;
    let mut ids = Vec::new();
    // union bpf_attr: start_id, next_id, open_flags.
    let mut attributes = [0_u32; 4];
    loop {
        let address = attributes.as_mut_ptr() as std::ffi::c_long;
        // SAFETY: 16 bytes at that address.
        let next = unsafe {
            leakwatch_tests::raw::call(libc::SYS_bpf, &[BPF_PROG_GET_NEXT_ID, address, 16])
        };
        if next.is_err() {
            return ids;
        }
        ids.push(attributes[1]);
        attributes[0] = attributes[1];
    }
}

#[test]
fn sigterm_stops_it_within_two_seconds_and_leaves_nothing_behind() {
    if need_root().is_none() {
        return;
    }
    let fast = FAST.replace("[watch]", "[watch]\nprobes = \"always\"");
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut agent = Plan::new(fast.clone()).start();
        agent.census();
        let held = bpf_ids_of(agent.pid());
        let programs: Vec<u32> = held
            .iter()
            .filter_map(|l| l.strip_prefix("prog_id:").and_then(|id| id.trim().parse().ok()))
            .collect();
        assert!(programs.len() >= 3, "it probes with several programs: {held:?}");
        let begun = Instant::now();
        agent.signal(signal);
        let status = wait_until("the agent to stop", LIMIT, || agent.ended());
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
        assert!(status.success(), "{status}\n{}", agent.log());
        wait_until("its programs to be gone from the kernel", Duration::from_secs(5), || {
            let left = loaded_programs();
            programs.iter().all(|id| !left.contains(id)).then_some(())
        });
        assert!(TcpListener::bind(agent.address).is_ok(), "the port is free");
    }
}

#[test]
fn sighup_reloads_a_good_config_and_keeps_the_old_one_over_a_bad_one() {
    if need_root().is_none() {
        return;
    }
    let agent = Plan::new(FAST).start();
    let mut target = Started::new(program("connections").args(["--tag", "t-reload"]));
    target.ready(LIMIT);
    let reloaded = || agent.metrics().one("leakwatch_config_last_reload_successful", &[]);
    assert_eq!(reloaded(), Some(1.0));
    assert!(agent.unit("reloaded").is_none());

    let unit =
        |name: &str| format!("[[unit]]\nname = \"{name}\"\ncmdline = \"*--tag t-reload*\"\n");
    fs::write(agent.config(), format!("{FAST}{}", unit("reloaded"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the new unit", LIMIT, || agent.unit("reloaded"));
    assert_eq!(reloaded(), Some(1.0));

    fs::write(agent.config(), format!("{}\nnmae = 1\n", unit("again"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the bad config to be noticed", LIMIT, || reloaded().filter(|v| *v == 0.0));
    assert!(agent.unit("reloaded").is_some() && agent.unit("again").is_none());
    let log = agent.log();
    assert!(log.contains("nmae") && log.contains("name"), "the log says why: {log}");

    fs::write(agent.config(), format!("{FAST}{}", unit("again"))).expect("it is ours");
    agent.signal(libc::SIGHUP);
    wait_until("the next unit", LIMIT, || agent.unit("again"));
    assert_eq!(reloaded(), Some(1.0));
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
