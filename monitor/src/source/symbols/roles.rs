//! Which frames are of the program itself, and which of what it stands on.

use super::language::Language;
use crate::source::frame::{Frame, Role};

/// The C library and what every program has of its compiler, by the first letters
/// of the name of the file.
const RUNTIMES: [&str; 20] = [
    "[v",
    "ld-",
    "ld.so",
    "libc++",
    "libc-",
    "libc.",
    "libdl",
    "libgcc_s",
    "libgo.",
    "libjava.",
    "libjvm",
    "libm.so",
    "libmusl",
    "libnet.so",
    "libnio.",
    "libnode",
    "libpthread",
    "libpython",
    "librt",
    "libstdc++",
];

/// Packages of Go that come with it, by the first letters of a function's name.
const GO: [&str; 10] = [
    "bufio.",
    "internal/",
    "io.",
    "net.",
    "net/http.",
    "os.",
    "os/exec.",
    "runtime.",
    "sync.",
    "syscall.",
];

/// What a module is to the program.
pub fn of_module(path: &str, is_exe: bool, language: Option<&Language>) -> Role {
    let name = path.rsplit('/').next().unwrap_or(path);
    if RUNTIMES.iter().any(|known| name.starts_with(known)) {
        return Role::Runtime;
    }
    match (is_exe, language) {
        (true, None) => Role::Program,
        // What is executed is the interpreter; the program is what it reads.
        (true, Some(_)) => Role::Runtime,
        (false, _) => Role::Library,
    }
}

/// What a function of the program's own module is, by its name and its source.
pub fn of_function(frame: &Frame) -> Role {
    let file = frame.file.as_deref().unwrap_or("");
    let name = frame.function.trim_start_matches(['<', '&', '*', '(']);
    let starts = |words: &[&str]| words.iter().any(|w| name.starts_with(w));
    let rust = file.starts_with("/rustc/") || file.contains("/rustlib/src/rust/library/");
    let go = file.ends_with(".go") && starts(&GO);
    // C's `main` has a file where anything has; the one that rustc makes has none.
    let start = starts(&["_start", "__libc_start", "__rust_", "rust_begin_unwind"])
        || (name == "main" && frame.file.is_none());
    if rust || go || start || starts(&["std::", "core::", "alloc::", "__gnu_cxx::"]) {
        return Role::Runtime;
    }
    let dependency = file.contains("/.cargo/registry/") || file.contains("/cargo/registry/src/");
    if dependency { Role::Library } else { Role::Program }
}

/// What a function of a perf map is, by the place of its source.
pub fn of_script(frame: &Frame) -> Role {
    let file = frame.file.as_deref().unwrap_or("");
    let packages = ["/site-packages/", "/dist-packages/", "/node_modules/"];
    if packages.iter().any(|p| file.contains(p)) {
        return Role::Library;
    }
    let bundled = file.contains("/lib/python3") || file.contains("/lib64/python3");
    let frozen = file.starts_with("<frozen ") || file.starts_with("node:");
    // Of a JVM: `void java.io.FileInputStream.open0(…)`, or without the type.
    let name = frame.function.split('(').next().unwrap_or("");
    let name = name.rsplit(' ').next().unwrap_or(name);
    let name = name.strip_prefix('L').unwrap_or(name).replace('/', ".");
    let java = ["java.", "javax.", "jdk.", "sun."].iter().any(|p| name.starts_with(p));
    let of_v8 = ["Builtin:", "BytecodeHandler:", "Stub:", "RegExp:", "Handler:"];
    let of_v8 = of_v8.iter().any(|p| frame.function.starts_with(p));
    // Code that has a name without a dot, a colon or a file is the JVM's own.
    let stub = frame.file.is_none() && !name.contains(['.', ':']);
    if bundled || frozen || java || of_v8 || stub { Role::Runtime } else { Role::Program }
}

/// Names the opener: the innermost frame of the program itself. False where there
/// is none.
pub fn name_opener(frames: &mut [Frame]) -> bool {
    match frames.iter_mut().find(|f| f.role == Role::Program) {
        Some(frame) => {
            frame.role = Role::Opener;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_roles() {
        let python = Language::Python(Some(11));
        for (path, exe, language, want) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", false, None, Role::Runtime),
            ("/lib/x86_64-linux-gnu/libc-2.31.so", false, None, Role::Runtime),
            ("/lib/ld-musl-x86_64.so.1", false, None, Role::Runtime),
            ("/usr/lib64/ld-linux-x86-64.so.2", false, None, Role::Runtime),
            ("[vdso]", false, None, Role::Runtime),
            ("/usr/lib/libstdc++.so.6", false, None, Role::Runtime),
            ("/usr/lib/libcurl.so.4", false, None, Role::Library),
            ("/usr/lib/libssl.so.3", false, None, Role::Library),
            ("/usr/sbin/nginx", true, None, Role::Program),
            ("/usr/bin/python3.11", true, Some(&python), Role::Runtime),
            ("/usr/lib/libpython3.12.so.1.0", false, Some(&python), Role::Runtime),
            ("/usr/lib/python3/dist-packages/x.so", false, Some(&python), Role::Library),
        ] {
            assert_eq!(of_module(path, exe, language), want, "{path}");
        }
    }

    fn frame(function: &str, file: Option<&str>) -> Frame {
        Frame { function: function.into(), file: file.map(Into::into), ..Frame::default() }
    }

    #[test]
    fn functions_have_roles() {
        let std = Some("/rustc/59807616/library/std/src/fs.rs");
        for (function, file, want) in [
            ("std::fs::OpenOptions::_open", None, Role::Runtime),
            ("<std::fs::File as std::io::Write>::write", None, Role::Runtime),
            ("call_once<app::main::{closure_env#0}>", std, Role::Runtime),
            ("app::logs::open_log", Some("src/logs.rs"), Role::Program),
            ("<app::Pool as core::ops::drop::Drop>::drop", Some("src/pool.rs"), Role::Program),
            (
                "rustix::fs::open",
                Some("/home/u/.cargo/registry/src/i/rustix-1/src/fs.rs"),
                Role::Library,
            ),
            ("main", Some("app.c"), Role::Program),
            ("main", None, Role::Runtime),
            ("_start", None, Role::Runtime),
            ("main.openLog", Some("/src/app/main.go"), Role::Program),
            ("os.OpenFile", Some("/usr/local/go/src/os/file.go"), Role::Runtime),
            ("standing_order", None, Role::Program),
            ("0x1136", None, Role::Program),
        ] {
            assert_eq!(of_function(&frame(function, file)), want, "{function}");
        }
    }

    #[test]
    fn scripts_have_roles() {
        for (function, file, want) in [
            ("open_log", Some("/srv/app/run.py"), Role::Program),
            ("basicConfig", Some("/usr/lib/python3.13/logging/__init__.py"), Role::Runtime),
            ("get", Some("/usr/lib/python3/dist-packages/requests/api.py"), Role::Library),
            ("_find_and_load", Some("<frozen importlib._bootstrap>"), Role::Runtime),
            ("emit", Some("node:events"), Role::Runtime),
            ("handle", Some("/srv/node_modules/express/lib/router.js"), Role::Library),
            ("openLog", Some("/srv/app.js"), Role::Program),
            ("Builtin:ArrayMap", None, Role::Runtime),
            ("void java.io.FileInputStream.open0(java.lang.String, int)", None, Role::Runtime),
            ("void app.Main.open()", None, Role::Program),
            ("Lapp/Main;::open", None, Role::Program),
            ("Ljava/io/File;::open", None, Role::Runtime),
            ("Interpreter", None, Role::Runtime),
        ] {
            assert_eq!(of_script(&frame(function, file)), want, "{function}");
        }
    }

    #[test]
    fn the_innermost_frame_of_the_program_is_the_opener() {
        let role = |role| Frame { role, ..Frame::default() };
        let mut frames = [Role::Runtime, Role::Library, Role::Program, Role::Program].map(role);
        assert!(name_opener(&mut frames));
        let roles = frames.map(|f| f.role);
        assert_eq!(roles, [Role::Runtime, Role::Library, Role::Opener, Role::Program]);
        assert!(!name_opener(&mut [Role::Runtime, Role::Unknown].map(role)));
    }
}
