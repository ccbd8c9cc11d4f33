//! Who opened it: function, file and line of leakers whose frames are known, however
//! their files are hidden, damaged or gone. One agent watches them all at once, so
//! that a hostile one would be seen to disturb the others.

mod frameless;
mod hostile;
mod scene;

use std::process::Command;

use leakwatch::detection::verdict::{Frame, Leak, Role, State};
use leakwatch_tests::agent::run;
use leakwatch_tests::component::{need_program, need_root, say};
use leakwatch_tests::fixture::{line, put};
use leakwatch_tests::wait::wait_until;

use scene::{LIMIT, Scene, of_program, opener};

/// What the fixture's frames are, innermost first, where everything is known.
fn told(leak: &Leak) {
    let want = [
        ("opener_fixture::event_descriptor", "OPENS", Role::Opener),
        ("opener_fixture::pool::new_handle", "NEW HANDLE", Role::Program),
        ("opener_fixture::pool::check_out", "CHECK OUT", Role::Program),
        ("opener_fixture::serve", "SERVE", Role::Program),
        ("opener_fixture::main", "MAIN", Role::Program),
    ];
    let frames = of_program(leak);
    assert!(frames.len() >= want.len(), "{leak:#?}");
    for (frame, (function, comment, role)) in frames.iter().zip(want) {
        let file = frame.file.as_deref().unwrap_or("");
        assert_eq!((frame.function.as_str(), frame.role), (function, role), "{leak:#?}");
        assert_eq!(frame.line, Some(line(comment)), "{leak:#?}");
        assert!(file.ends_with("fixtures/opener.rs"), "{leak:#?}");
    }
    assert_eq!(leak.opener_note, None, "{leak:#?}");
}

fn module(frame: &Frame) -> &str {
    frame.module.as_deref().unwrap_or("")
}

#[test]
fn the_function_that_leaks_is_named_with_its_file_and_line() {
    if need_root().is_none() {
        return;
    }
    let Some(_) = need_program("objcopy").and(need_program("strip")).and(need_program("unshare"))
    else {
        return;
    };
    let mut scene = Scene::set();
    let dir = scene.dir();
    let tool = |program: &str, arguments: &[&str]| {
        let ended = Command::new(program).args(arguments).current_dir(&dir).status();
        assert!(ended.expect("it starts").success(), "{program} {arguments:?}");
    };

    scene.start("plain", put(&dir, "plain"));
    scene.start_mode("innocent", put(&dir, "innocent"), "close");
    scene.start_mode("library", put(&dir, "library"), "library");

    // Without a symbol, and the same with its symbols in a file beside it.
    let stripped = put(&dir, "stripped");
    tool("strip", &["stripped"]);
    scene.start("stripped", stripped.clone());
    let linked = put(&dir, "linked");
    std::fs::create_dir(dir.join(".debug")).expect("it is ours");
    tool("objcopy", &["--only-keep-debug", "linked", ".debug/linked.debug"]);
    tool("strip", &["linked"]);
    tool("objcopy", &["--add-gnu-debuglink=.debug/linked.debug", "linked"]);
    scene.start("linked", linked);

    // Deleted, and replaced by something else, before the first one is leaked.
    let deleted = scene.start("deleted", put(&dir, "deleted"));
    std::fs::remove_file(dir.join("deleted")).expect("it is there");
    scene.go(deleted);
    let replaced = scene.start("replaced", put(&dir, "replaced"));
    std::fs::write(dir.join("new"), "no program").expect("it is ours");
    std::fs::rename(dir.join("new"), dir.join("replaced")).expect("it is ours");
    scene.go(replaced);

    // In a file system that only its own namespace has.
    put(&dir, "hidden");
    let script = "mount -t tmpfs none /mnt && cp \"$1\" /mnt/hidden && exec /mnt/hidden leak 250";
    let from = dir.join("hidden").display().to_string();
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &from]);
    scene.start_command("hidden", &mut hidden);
    scene.go_all();

    let plain = scene.looked_up("plain");
    told(&plain);
    assert_eq!(module(opener(&plain)), dir.join("plain").display().to_string());
    let last = plain.opener.last().expect("frames");
    assert_eq!(last.role, Role::Runtime, "what comes before main is Rust's: {plain:#?}");
    for name in ["linked", "deleted", "replaced", "hidden"] {
        told(&scene.looked_up(name));
    }
    assert_eq!(module(opener(&scene.looked_up("hidden"))), "/mnt/hidden");

    // The C library may hide who called it; then its function is known, not the line.
    let leak = scene.looked_up("library");
    let frame = opener(&leak);
    assert_eq!(frame.function, "opener_fixture::by_library", "{leak:#?}");
    let exact = leak.opener_note.is_none();
    let comment = if exact { "CALLS THE LIBRARY" } else { "BY LIBRARY" };
    assert_eq!(frame.line, Some(line(comment)), "{leak:#?}");
    assert_eq!(of_program(&leak)[1].line, Some(line("HAS THE LIBRARY")), "{leak:#?}");

    // Its address is all that a stripped one says, and it is the right one.
    let leak = scene.looked_up("stripped");
    let frame = opener(&leak);
    let note = leak.opener_note.as_deref().unwrap_or("");
    assert!(note.contains("stripped has no symbols (build id "), "{leak:#?}");
    assert_eq!(module(frame), stripped.display().to_string());
    let plain = dir.join("plain").display().to_string();
    let named =
        Command::new("addr2line").args(["-f", "-C", "-e", &plain, &frame.function]).output();
    let named = String::from_utf8(named.expect("binutils has it").stdout).expect("text");
    assert!(named.contains(&format!("opener.rs:{}", line("OPENS"))), "{named} {leak:#?}");

    // What people see.
    let id = scene.looked_up("plain").id;
    let shown = run(&["explain", &id, "--url", &scene.url()]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("\n  > opener_fixture::event_descriptor"), "{shown}");
    assert!(shown.contains(&format!("opener.rs:{}\n", line("OPENS"))), "{shown}");
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");

    // It is known when the process is not there any more.
    scene.kill("plain");
    let over = wait_until("the verdict to be over", LIMIT, || {
        scene.leak("plain").filter(|l| l.state == State::Resolved)
    });
    told(&over);
    assert!(scene.leak("innocent").is_none());
}

#[test]
fn a_process_that_dies_at_once_leaves_its_opener() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set();
    let dir = scene.dir();
    scene.start("short", put(&dir, "short"));
    scene.go_all();
    wait_until("a suspicion", LIMIT, || scene.leak("short").filter(|l| !l.opener.is_empty()));
    // Its stack has been captured, whether or not it is looked up by now.
    scene.kill("short");
    std::fs::remove_file(dir.join("short")).expect("it is there");
    let over = wait_until("the opener of one that is gone", LIMIT, || {
        let looked_up = |l: &Leak| l.opener.iter().any(|f| f.role == Role::Opener);
        scene.leak("short").filter(|l| l.state == State::Resolved && looked_up(l))
    });
    told(&over);
}

#[test]
fn code_without_a_file_is_named_by_the_perf_map_of_its_owner() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set();
    let dir = scene.dir();
    let mut maps = Vec::new();
    for name in ["mapped", "foreign", "unmapped", "endless"] {
        let (started, pid, made) = scene.start_jit(name, put(&dir, name));
        let map = format!("/tmp/perf-{pid}.map");
        let text = format!("ffff zz\n{made} py::open_log:/srv/app/logs.py\n");
        match name {
            "unmapped" => {}
            _ => std::fs::write(&map, text).expect("/tmp can be written"),
        }
        match name {
            "foreign" => std::os::unix::fs::chown(&map, Some(12_345), None).expect("we are root"),
            "endless" => {
                let file = std::fs::OpenOptions::new().write(true).open(&map).expect("it is there");
                file.set_len(8 << 30).expect("holes cost nothing");
            }
            _ => {}
        }
        maps.push(map);
        scene.go(started);
    }
    let leak = scene.looked_up("mapped");
    let frame = opener(&leak);
    assert_eq!((&*frame.function, frame.file.as_deref()), ("open_log", Some("/srv/app/logs.py")));
    assert_eq!(of_program(&leak)[1].function, "opener_fixture::serve", "{leak:#?}");
    assert_eq!(of_program(&leak)[1].line, Some(line("RUNS MADE CODE")), "{leak:#?}");
    for (name, part) in [("foreign", "it belongs to user 12345"), ("endless", "8.0 GiB")] {
        let leak = scene.looked_up(name);
        assert_eq!(opener(&leak).function, "opener_fixture::serve", "{leak:#?}");
        let note = leak.opener_note.as_deref().unwrap_or("");
        assert!(note.contains("its perf map") && note.contains(part), "{leak:#?}");
    }
    let leak = scene.looked_up("unmapped");
    assert_eq!(
        (opener(&leak).function.as_str(), leak.opener_note.as_ref()),
        ("opener_fixture::serve", None)
    );
    for map in maps {
        let _ = std::fs::remove_file(map);
    }
}

#[test]
fn python_before_3_12_says_how_to_see_more() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set();
    let log = scene.dir().join("deployer.log").display().to_string();
    scene.start_python(&["--tag", "~python ", "--log", &log, "--count", "400", "--pace", "200"]);
    // Its own functions are those of the interpreter, down to the outermost.
    let leak = wait_until("the stack of Python", LIMIT, || {
        let outermost = |f: &Frame| f.function == "Py_BytesMain";
        scene.leak("python").filter(|l| l.opener.iter().any(outermost))
    });
    let note = leak.opener_note.as_deref().unwrap_or("");
    say(format_args!("{note}\n{:#?}", leak.opener));
    assert!(note.contains("Python") && note.contains("PYTHONPERFSUPPORT=1"), "{leak:#?}");
    assert!(leak.opener.iter().all(|f| f.role != Role::Opener), "{leak:#?}");
    assert!(leak.opener.iter().all(|f| f.role == Role::Runtime), "{leak:#?}");
    assert!(leak.opener.len() >= 10, "{leak:#?}");
    assert!(!note.contains("frame pointers"), "{leak:#?}");
}
