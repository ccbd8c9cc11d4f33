//! Programs without frame pointers, as distributions build them: unwound by their call
//! frame information.

use leakwatch::detection::verdict::{Leak, Role};
use leakwatch_tests::component::{need_program, need_root};
use leakwatch_tests::fixture::{line, line_in_c, put, put_forgets};
use leakwatch_tests::started::{newer_python, python_inside};
use leakwatch_tests::wait::wait_until;

use super::scene::{LIMIT, Scene, of_program, opener};

/// The verdict, once it names an opener.
fn named(scene: &Scene, name: &str, function: &str) -> Leak {
    wait_until(&format!("{function} to be named as the opener of {name}"), LIMIT, || {
        scene
            .leak(name)
            .filter(|l| l.opener.iter().any(|f| f.role == Role::Opener && f.function == function))
    })
}

#[test]
fn without_frame_pointers_the_opener_is_named_all_the_same() {
    if need_root().is_none() {
        return;
    }
    let mut scene = Scene::set();
    let dir = scene.dir();
    scene.start("forgets", put_forgets(&dir, "forgets", true));
    scene.start("nolines", put_forgets(&dir, "nolines", false));
    scene.start("plain", put(&dir, "plain"));
    scene.go_all();

    // With what debuggers want: function, file and line, of all four.
    let leak = named(&scene, "forgets", "open_part");
    let want = [
        ("open_part", "OPENS"),
        ("load_index", "LOADS"),
        ("refresh", "REFRESHES"),
        ("main", "MAIN"),
    ];
    let frames = of_program(&leak);
    assert!(frames.len() >= want.len(), "{leak:#?}");
    for (frame, (function, comment)) in frames.iter().zip(want) {
        assert_eq!(frame.function, function, "{leak:#?}");
        assert_eq!(frame.line, Some(line_in_c(comment)), "{leak:#?}");
        let file = frame.file.as_deref().unwrap_or("");
        assert!(file.ends_with("fixtures/forgets.c"), "{leak:#?}");
    }
    assert_eq!(leak.opener_note, None, "{leak:#?}");
    let innermost = leak.opener.first().and_then(|f| f.module.as_deref()).unwrap_or("");
    assert!(innermost.ends_with("/libc.so.6"), "{leak:#?}");

    // With symbols alone: the functions.
    let leak = named(&scene, "nolines", "open_part");
    let frames: Vec<&str> = of_program(&leak).iter().map(|f| f.function.as_str()).collect();
    assert_eq!(frames[..3], ["open_part", "load_index", "refresh"], "{leak:#?}");
    assert!(of_program(&leak).iter().all(|f| f.line.is_none()), "{leak:#?}");

    // One that has frame pointers: what they tell stays.
    let leak = scene.looked_up("plain");
    assert_eq!(opener(&leak).function, "opener_fixture::event_descriptor", "{leak:#?}");
    assert_eq!(opener(&leak).line, Some(line("OPENS")), "{leak:#?}");
}

#[test]
fn the_deployer_is_named_in_python_by_its_own_function() {
    if need_root().and(need_program("unshare")).is_none() {
        return;
    }
    let Some(python) = newer_python() else { return };
    let mut scene = Scene::set();
    let dir = scene.dir().join("deployer");
    std::fs::create_dir(&dir).expect("it is ours");
    let mut deployer = python_inside(&python, &dir, "deployment_runner.py");
    deployer.args(["--tag", "~perf ", "--log", "/srv/agent_runner.log"]);
    scene.start_command("perf", &mut deployer);
    scene.go_all();
    let leak = wait_until("the deployer's function to be named", LIMIT, || {
        scene.leak("perf").filter(|l| l.opener.iter().any(|f| f.role == Role::Opener))
    });
    let frame = opener(&leak);
    let function = frame.function.rsplit('.').next();
    assert_eq!(function, Some("_open_agent_runner_log_file"), "{leak:#?}");
    assert_eq!(frame.file.as_deref(), Some("/srv/deployment_runner.py"), "{leak:#?}");
    // Its callers are Python's, too: code without any description lies between them.
    let callers: Vec<&str> =
        of_program(&leak)[1..].iter().filter_map(|f| f.function.rsplit('.').next()).collect();
    assert_eq!(callers, ["_start_agent", "restart", "deploy", "main", "<module>"], "{leak:#?}");
    assert_eq!(leak.opener_note, None, "{leak:#?}");
}

#[test]
fn a_ring_without_room_is_counted_and_frame_pointers_do() {
    if need_root().is_none() {
        return;
    }
    // A page, where a record takes nine.
    let mut scene = Scene::set_under(&["env", "LEAKWATCH_MAP_ENTRIES=COPIES=4096"]);
    let dir = scene.dir();
    scene.start("roomless", put_forgets(&dir, "roomless", true));
    scene.start("plain", put(&dir, "plain"));
    scene.go_all();
    wait_until("losses to be counted", LIMIT, || {
        scene.lost("stack_copies").filter(|lost| *lost >= 1.0)
    });
    let leak = scene.looked_up("plain");
    assert_eq!(opener(&leak).line, Some(line("OPENS")), "{leak:#?}");
    // A name that is missing is no doubt about what leaks.
    let doubted = |l: &Leak| l.evidence.iter().any(|e| e.contains("stack_copies"));
    assert!(!doubted(&leak), "{leak:#?}");
    let leak = scene.looked_up("roomless");
    assert!(!leak.opener.iter().any(|f| f.function == "open_part"), "{leak:#?}");
}
