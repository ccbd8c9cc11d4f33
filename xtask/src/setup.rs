//! `cargo xtask setup`: installs what the tests need. Quick and silent about what
//! is there already; never touches what it did not install.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};
use crate::toolchain::{self, Toolchain};
use crate::{cross, python, vm};

/// The checker of licences, bans and sources.
const CARGO_DENY: &str = "0.20.2";
/// The driver of libFuzzer.
const CARGO_FUZZ: &str = "0.13.2";
/// The LLVM that the linker is built against.
const LLVM: &str = "/usr/lib/llvm-22";

/// A program that a test, a check or the bench starts, and its Debian package.
const PROGRAMS: [(&str, &str); 19] = [
    ("promtool", "prometheus"),
    ("bpftrace", "bpftrace"),
    ("strace", "strace"),
    ("lsof", "lsof"),
    ("capsh", "libcap2-bin"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("python3", "python3"),
    ("systemctl", "systemd"),
    ("dbus-daemon", "dbus"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("dockerd", "docker.io"),
    ("nginx", "nginx-light"),
    ("redis-server", "redis-server"),
    // Debian keeps it off the search path: looked for each time, installed once.
    ("postgres", "postgresql"),
    ("node", "nodejs"),
    ("xmllint", "libxml2-utils"),
];

/// The same for what the bench alone starts.
const OF_THE_BENCH: [(&str, &str); 4] =
    [("make", "make"), ("gcc", "gcc"), ("wrk", "wrk"), ("opensnoop", "libbpf-tools")];

/// Installs what is missing.
///
/// # Errors
/// When something cannot be installed; says what and how to get it by hand.
pub fn run() -> Result<()> {
    components()?;
    programs()?;
    vm::install_emulator()?;
    packages(&cross::PACKAGES)?;
    python::install()?;
    bpf_linker()?;
    bpf_compiler()?;
    cargo_deny()?;
    say("setup: all there");
    Ok(())
}

/// Installs what the bench starts, besides what the tests need.
///
/// # Errors
/// When something cannot be installed.
pub fn bench() -> Result<()> {
    programs()?;
    packages(&missing(&OF_THE_BENCH))
}

/// Installs the programs that tests and corpus start.
///
/// # Errors
/// When something cannot be installed.
pub fn programs() -> Result<()> {
    packages(&missing(&PROGRAMS))
}

/// rustfmt and clippy of the toolchain in use.
fn components() -> Result<()> {
    for (probe, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if shell::capture(&mut shell::cargo([probe, "--version"])).is_ok() {
            continue;
        }
        say(&format!("setup: rustup component add {component}"));
        shell::run(shell::command("rustup").args(["component", "add", component])).with_context(
            || format!("`cargo {probe}` is missing: install {component} for the toolchain in use"),
        )?;
    }
    Ok(())
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| shell::which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    missing
}

/// The linker, in the version that the record of the object names.
fn bpf_linker() -> Result<()> {
    if toolchain::linker_version()
        .is_some_and(|v| v == format!("bpf-linker {}", toolchain::BPF_LINKER))
    {
        return Ok(());
    }
    // The library is linked dynamically: headers now, the .so at each start.
    if !Path::new(LLVM).join("bin/llvm-config").exists() {
        packages(&["llvm-22-dev"])?;
    }
    say(&format!("setup: cargo install bpf-linker {} (takes a minute)", toolchain::BPF_LINKER));
    let mut install = install("bpf-linker", toolchain::BPF_LINKER);
    install.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LLVM);
    shell::run(&mut install)
}

/// A compiler for the BPF target, with its clippy.
fn bpf_compiler() -> Result<()> {
    let wanted = match Toolchain::find(None) {
        Ok(found) if found.clippy_driver.is_some() => return Ok(()),
        Ok(found) if !found.rustc.starts_with("/usr/bin") => {
            say("setup: rustup component add clippy --toolchain nightly");
            return shell::run(
                shell::command("rustup")
                    .args(["component", "add", "clippy"])
                    .args(["--toolchain", "nightly"]),
            );
        }
        Ok(_) => vec!["rust-web-clippy"],
        Err(_) => vec!["rustc-web", "rust-web-src", "rust-web-clippy"],
    };
    packages(&wanted)?;
    Toolchain::find(None).map(drop)
}

fn cargo_deny() -> Result<()> {
    let version = shell::capture(&mut shell::cargo(["deny", "--version"]));
    if version.is_ok_and(|v| v == format!("cargo-deny {CARGO_DENY}")) {
        return Ok(());
    }
    say(&format!("setup: cargo install cargo-deny {CARGO_DENY} (takes some minutes)"));
    let mut install = install("cargo-deny", CARGO_DENY);
    // It runs for a second; optimising it would take longer than it ever saves.
    for (key, value) in
        [("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")]
    {
        install.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    shell::run(&mut install)
}

/// What `cargo xtask fuzz` needs besides; no test does.
///
/// # Errors
/// It cannot be installed.
pub fn cargo_fuzz() -> Result<()> {
    let version = shell::capture(&mut shell::cargo(["fuzz", "--version"]));
    if version.is_ok_and(|v| v == format!("cargo-fuzz {CARGO_FUZZ}")) {
        return Ok(());
    }
    say(&format!("setup: cargo install cargo-fuzz {CARGO_FUZZ} (takes some minutes)"));
    shell::run(&mut install("cargo-fuzz", CARGO_FUZZ))
}

fn install(name: &str, version: &str) -> Command {
    let mut command = shell::cargo(["install", name, "--version", version, "--locked"]);
    command.args(["--force", "--quiet"]);
    // Flags and directories of the workspace are not those of a foreign tool.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    command
}

/// Installs Debian packages; none is no call.
///
/// # Errors
/// There is no apt-get, or it fails.
pub fn packages(names: &[&str]) -> Result<()> {
    let names: Vec<&str> = names.iter().copied().filter(|name| !installed(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let list = names.join(" ");
    if shell::which("apt-get").is_none() {
        bail!("these are missing, and there is no apt-get: install what your system calls {list}");
    }
    if lists_are_old() {
        say("setup: apt-get update");
        shell::run(apt()?.arg("update").stdout(Stdio::null()))?;
    }
    say(&format!("setup: apt-get install {list}"));
    let install = || -> Result<()> {
        let mut apt = apt()?;
        apt.args(["install", "--yes", "--no-install-recommends", "--quiet=2"]).args(&names);
        shell::run(apt.stdout(Stdio::null()))
    };
    if install().is_err() {
        // A list younger than a day can still name a version that has gone.
        say("setup: apt-get update, and once more");
        shell::run(apt()?.arg("update").stdout(Stdio::null()))?;
        install().with_context(|| format!("cannot install {list}: see above"))?;
    }
    stop_services(&names);
    Ok(())
}

fn installed(package: &str) -> bool {
    shell::capture(shell::command("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// apt-get as root, or through sudo.
///
/// # Errors
/// There is neither.
pub fn apt() -> Result<Command> {
    // Runlevel 1 keeps invoke-rc.d from starting what a package brings.
    const ENV: [&str; 2] = ["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"];
    let mut command = if rustix::process::geteuid().is_root() {
        shell::command("env")
    } else if shell::which("sudo").is_some() {
        let mut sudo = shell::command("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("installing packages needs root: run `cargo xtask setup` as root once");
    };
    command.args(ENV).arg("apt-get").stdin(Stdio::null());
    Ok(command)
}

/// Missing, or not fetched within a day.
fn lists_are_old() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("Packages"))
        .count();
    let fetched = fs::metadata("/var/lib/apt/lists").and_then(|meta| meta.modified());
    let age = fetched.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    lists == 0 || age.is_none_or(|age| age > Duration::from_secs(24 * 3600))
}

/// What packages bring and start: Prometheus listens on every address, docker
/// changes the firewall, nginx serves a page, redis and PostgreSQL take their ports. The
/// tests start their own, on loopback and without networks.
const SERVICES: [(&str, &[&str]); 6] = [
    ("nginx-light", &["nginx.service"]),
    ("redis-server", &["redis-server.service"]),
    ("postgresql", &["postgresql.service"]),
    ("prometheus", &["prometheus.service"]),
    ("podman", &["podman.socket", "podman.service"]),
    ("docker.io", &["docker.socket", "docker.service", "containerd.service"]),
];

fn stop_services(installed_now: &[&str]) {
    let of_these = SERVICES.iter().filter(|(package, _)| installed_now.contains(package));
    let services: Vec<&str> = of_these.flat_map(|(_, services)| *services).copied().collect();
    if services.is_empty() || shell::which("systemctl").is_none() {
        return;
    }
    // Where systemd does not run, it may at the next start of the machine.
    let running = Path::new("/run/systemd/system").exists();
    let how: &[&str] = if running { &["disable", "--now"] } else { &["disable"] };
    say(&format!("setup: systemctl {} {}, which came now", how.join(" "), services.join(" ")));
    let mut systemctl = if rustix::process::geteuid().is_root() {
        shell::command("systemctl")
    } else {
        let mut sudo = shell::command("sudo");
        sudo.arg("systemctl");
        sudo
    };
    systemctl.args(how).args(services);
    if let Err(error) = shell::run(&mut systemctl) {
        say(&format!("setup: {error:#}"));
    }
}
