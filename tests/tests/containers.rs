//! Real container runtimes under a real systemd: the cgroups that they make are in
//! the table of names, and a leak inside is confirmed under the container's name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use leakwatch_tests::agent::{FAST, Plan};
use leakwatch_tests::component::need_program;
use leakwatch_tests::install;
use leakwatch_tests::started::program_dir;
use leakwatch_tests::systemd::Machine;

const TABLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../monitor/src/attribution/testdata/cgroups.tsv");

/// Without networks: nothing of the host's is touched.
fn dockerd(driver: &str) -> String {
    // Its word for "the root may be a RAM disk": no pivot_root on it.
    format!(
        "[Service]\nType=notify\nDelegate=yes\nKillMode=process\nEnvironment=DOCKER_RAMDISK=1\n\
         ExecStart=dockerd -H unix:///run/{driver}.sock --data-root /run/{driver}/data \
         --exec-root /run/{driver}/exec --pidfile /run/{driver}/pid --storage-driver vfs \
         --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
         --exec-opt native.cgroupdriver={driver}\n"
    )
}

/// The options that a container gets from each runtime, and those of podman itself:
/// what needs controllers or rights that this machine may not have is left out.
const RUN: [&str; 5] = ["run", "--detach", "--interactive", "--network", "none"];
const PODMAN: [&str; 9] = [
    "podman",
    "--root",
    "/run/podman/data",
    "--runroot",
    "/run/podman/run",
    "--storage-driver",
    "vfs",
    "--runtime",
    "runc",
];
const LOOSE: [&str; 4] = ["--ulimit", "host", "--pids-limit", "-1"];

/// A root filesystem with the leaker and what it is linked with, and nothing else.
fn fill(root: &Path) {
    let program = program_dir().join("rotating-logger");
    let list = Command::new("ldd").arg(&program).output().expect("ldd starts");
    let list = String::from_utf8(list.stdout).expect("paths in UTF-8");
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for library in libraries {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file lies in a directory")).expect("a directory");
        fs::copy(library, to).expect("a copy of the library");
    }
    for directory in ["proc", "dev", "sys", "tmp", "etc", "run"] {
        fs::create_dir(root.join(directory)).expect("a directory");
    }
    install::copy(program, &root.join("logger"));
}

/// What runs inside: twenty handles forgotten, or none.
fn logger(leaks: bool) -> [&'static str; 9] {
    let mode = if leaks { "until-hup" } else { "reopen" };
    ["/logger", "--mode", mode, "--log", "/app.log", "--pace", "600", "--count", "20"]
}

#[test]
fn a_leak_inside_is_confirmed_under_its_containers_name() {
    for program in ["podman", "runc", "dockerd", "docker", "containerd", "ldd", "tar"] {
        if need_program(program).is_none() {
            return;
        }
    }
    let quadlet = |leaks: bool| {
        let podman = PODMAN.join(" ").replacen("podman", "/usr/bin/podman", 1);
        format!(
            "[Service]\nType=notify\nNotifyAccess=all\nDelegate=yes\nExecStart={podman} {} {} \
             --sdnotify=conmon --cgroups=split --name %p --rootfs /run/roots/%p {}\n",
            RUN.join(" "),
            LOOSE.join(" "),
            logger(leaks).join(" ")
        )
    };
    let drivers = ["systemd", "cgroupfs"];
    let units = [
        ("docker-systemd.service", dockerd(drivers[0])),
        ("docker-cgroupfs.service", dockerd(drivers[1])),
        ("web.service", quadlet(true)),
        ("innocent-web.service", quadlet(false)),
    ];
    let units = units.each_ref().map(|(name, text)| (*name, &**text));
    let Some(machine) = Machine::boot(&units) else { return };
    let (inner, outer) = (machine.agent(FAST), Plan::new(FAST).start());

    // The roots are made outside, and copied in: each container has its own.
    let image = machine.dir().join("image");
    fs::create_dir(&image).expect("a directory");
    fill(&image);
    let image = image.display().to_string();
    let tar = format!("{image}.tar");
    machine.run(&["tar", "-C", &image, "-cf", &tar, "."]);
    machine.run(&["mkdir", "-p", "/run/roots"]);
    let root = |name: &str| {
        let root = format!("/run/roots/{name}");
        machine.run(&["cp", "-a", &image, &root]);
        root
    };

    // (unit, its container, whether it leaks)
    let mut made: Vec<(String, String, bool)> = Vec::new();
    for driver in drivers {
        let service = format!("docker-{driver}.service");
        machine.run(&["systemctl", "start", &service]);
        let socket = format!("unix:///run/{driver}.sock");
        let docker = ["docker", "-H", &socket];
        machine.run(&[&docker[..], &["import", &tar, "logger:1"]].concat());
        for leaks in [true, false] {
            let id = machine.run(&[&docker[..], &RUN, &["logger:1"], &logger(leaks)].concat());
            made.push((format!("docker:{}", &id[..12]), id, leaks));
        }
    }
    for manager in drivers {
        for leaks in [true, false] {
            let root = root(&format!("{manager}-{leaks}"));
            let manager = ["--cgroup-manager", manager];
            let rootfs = ["--rootfs", &root];
            let line = [&PODMAN[..], &manager, &RUN, &LOOSE, &rootfs, &logger(leaks)].concat();
            let id = machine.run(&line);
            made.push((format!("podman:{}", &id[..12]), id, leaks));
        }
    }
    for (name, leaks) in [("web", true), ("innocent-web", false)] {
        root(name);
        let service = format!("{name}.service");
        machine.run(&["systemctl", "start", &service]);
        let id = [&PODMAN[..], &["inspect", "--format", "{{.Id}}", name]].concat();
        made.push((service, machine.run(&id), leaks));
    }

    // Each cgroup path, but for the container's id, is a row of the table.
    let table = fs::read_to_string(TABLE).expect("the table can be read");
    let rows: BTreeSet<&str> = table.lines().filter_map(|row| row.split('\t').next()).collect();
    let paths = machine.run(&["sh", "-c", "sed -n s/^0:://p /proc/[0-9]*/cgroup"]);
    for (unit, id, _) in &made {
        let of_this = paths.lines().filter(|path| path.contains(&**id));
        let shapes: BTreeSet<String> =
            of_this.map(|path| path.replace(&**id, "<id>").replace("/innocent-", "/")).collect();
        assert!(!shapes.is_empty(), "no cgroup is named after {id}, {unit}: {paths}");
        for shape in shapes {
            assert!(rows.contains(&*shape), "{shape} of {unit} is not in the table of names");
        }
    }

    let mut leaky: Vec<_> =
        made.iter().filter(|(.., leaks)| *leaks).map(|(unit, ..)| (unit.clone(), 20)).collect();
    leaky.sort();
    inner.confirms(|_| true, &leaky);
    // Seen from the host a service is another than the host's own; a container's id
    // says everything.
    let outside = |unit: &str| match unit.split_once(':') {
        Some(_) => unit.to_owned(),
        None => format!("{}/{unit}", machine.cgroup()),
    };
    leaky.iter_mut().for_each(|(unit, _)| *unit = outside(unit));
    leaky.sort();
    let ours = |unit: &str| made.iter().any(|(name, ..)| outside(name) == unit);
    outer.confirms(ours, &leaky);

    // A container in a cgroup that systemd made is a unit of systemd's, too.
    let (unit, id, _) = &made[0];
    let unit = inner.unit(unit).expect("it was seen");
    let scope = format!("docker-{id}.scope");
    assert_eq!(unit["invocation_id"], machine.show(&scope, "InvocationID"), "{unit}");
}
