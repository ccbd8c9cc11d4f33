//! The unit that a cgroup path names.
//!
//! The path is read from the root inwards. A systemd manager owns a tree of
//! slices; the first service or scope in it is a unit, and what that unit makes
//! below itself (`Delegate=`) still belongs to it, with three exceptions: a
//! container is a unit of its own wherever it is, a user's manager
//! (`user@UID.service`) has units of its own, and where a second manager starts
//! (`payload`, `init.scope`, `system.slice`…: a machine in a container) its
//! units are named `OUTER/INNER`, because each machine has a `cron.service`.

use super::names::unit_name;
use super::unit::UnitKind;

/// A unit as its cgroup path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name, printable, at most 200 bytes.
    pub name: String,
    /// What the path says it is.
    pub kind: UnitKind,
    /// How much of the path is the unit's own cgroup, bytes; the rest are
    /// groups that the unit made below itself.
    pub own: usize,
}

/// Names the unit of `path`; `None` for the root cgroup, which names nobody.
///
/// Takes paths of v1 and v2 alike, with the kernel's ` (deleted)` and relative
/// to a cgroup namespace (`/../../foo`).
pub fn parse(path: &[u8]) -> Option<Named> {
    let mut walk = Walk { level: Level::Manager, ..Walk::default() };
    let path = live(path);
    let mut end = 0;
    for part in path.split(|b| *b == b'/') {
        // `end` is where this part stops; parts are separated by one slash.
        let start = end;
        end = start + part.len();
        if !part.is_empty() && part != b".." {
            walk.step(part, &path[..end]);
        }
        end += 1;
    }
    match walk.found {
        Some(found) => {
            Some(Named { name: unit_name(&found.name), kind: found.kind, own: found.end })
        }
        None if is_root(path) => None,
        None => Some(Named { name: unit_name(path), kind: UnitKind::Cgroup, own: path.len() }),
    }
}

/// The path is the root of its hierarchy, or above the root of the namespace it
/// was read in.
pub(crate) fn is_root(path: &[u8]) -> bool {
    live(path).split(|b| *b == b'/').all(|part| part.is_empty() || part == b"..")
}

/// The path names a container or something within one.
pub(super) fn is_container(path: &[u8]) -> bool {
    const PREFIXES: [&str; 6] = ["docker:", "containerd:", "crio:", "podman:", "pod:", "lxc:"];
    // What a machine in a container runs is named after the container first.
    parse(path).is_some_and(|n| PREFIXES.iter().any(|p| n.name.starts_with(p)))
}

/// The path without what the kernel adds once the cgroup is removed.
fn live(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// Where the walk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    /// In a manager's tree: slices so far.
    #[default]
    Manager,
    /// Below a unit, or in a tree of nobody's.
    Below,
}

#[derive(Debug)]
struct Found {
    name: Vec<u8>,
    kind: UnitKind,
    end: usize,
}

#[derive(Debug, Default)]
struct Walk<'a> {
    level: Level,
    found: Option<Found>,
    /// Name of the machine around this manager.
    outer: Vec<u8>,
    /// Whose manager this is.
    user: Option<&'a [u8]>,
    /// In the cgroup of this pod.
    pod: Option<Vec<u8>>,
    /// The part before.
    previous: &'a [u8],
    /// Parts so far.
    depth: usize,
}

impl<'a> Walk<'a> {
    /// Goes one part further; `upto` is the path up to its end.
    fn step(&mut self, part: &'a [u8], upto: &'a [u8]) {
        let previous = std::mem::replace(&mut self.previous, part);
        self.depth += 1;
        if let Some(uid) = pod(part) {
            self.enter([&b"pod:"[..], &uid].concat(), UnitKind::Kubepods, upto.len());
            self.pod = Some(uid);
            // Kubernetes' old containerd path has both in one part.
            if !part.contains(&b':') {
                return;
            }
        }
        if let Some(c) = self.container(part, previous) {
            let (name, kind) = c.name(self.pod.take());
            self.enter(name, kind, upto.len());
        } else if let Some(name) = lxc(part, previous) {
            self.enter([&b"lxc:"[..], name].concat(), UnitKind::Cgroup, upto.len());
        } else {
            if self.level == Level::Below && starts_manager(part) {
                self.open_machine(&upto[..upto.len() - part.len() - 1]);
            }
            if self.level == Level::Manager {
                self.managed(part, upto.len());
            }
        }
    }

    /// Into a container or the like: whatever is around it no longer matters,
    /// for its name is unique by itself.
    fn enter(&mut self, name: Vec<u8>, kind: UnitKind, end: usize) {
        self.found = Some(Found { name, kind, end });
        self.level = Level::Below;
        self.user = None;
    }

    /// A second manager starts below `around`.
    fn open_machine(&mut self, around: &[u8]) {
        self.outer = match &self.found {
            Some(found) => found.name.clone(),
            None => around.strip_prefix(b"/").unwrap_or(around).to_vec(),
        };
        self.outer.push(b'/');
        self.user = None;
        self.level = Level::Manager;
    }

    /// A part in a manager's tree.
    fn managed(&mut self, part: &'a [u8], end: usize) {
        if part.ends_with(b".slice") || part == b"payload" {
            return;
        }
        self.level = Level::Below;
        // systemd puts `_` before names that the kernel or it has reserved.
        let unit = part.strip_prefix(b"_").unwrap_or(part);
        let is = |suffix: &[u8]| unit.len() > suffix.len() && unit.ends_with(suffix);
        let kind = match () {
            () if is(b".scope") => UnitKind::Scope,
            // The helper processes of these run in a cgroup of the unit's name.
            () if [&b".service"[..], b".socket", b".mount", b".swap"].iter().any(|s| is(s)) => {
                UnitKind::Service
            }
            () => return,
        };
        let mut name = [&self.outer, unit].concat();
        let kind = match self.user {
            Some(uid) => {
                name.push(b'@');
                name.extend_from_slice(uid);
                UnitKind::User
            }
            None => kind,
        };
        self.found = Some(Found { name, kind, end });
        if self.user.is_none()
            && let Some(uid) = unit.strip_prefix(b"user@").and_then(|u| u.strip_suffix(b".service"))
        {
            self.user = Some(uid);
            self.level = Level::Manager;
        }
    }

    /// The container that a part names.
    fn container(&self, part: &'a [u8], previous: &[u8]) -> Option<Container<'a>> {
        let stem = part.strip_suffix(b".scope").unwrap_or(part);
        // runc, told a systemd cgroup (`slice:prefix:id`) by a runtime that does
        // not use systemd, makes a directory of that very name.
        let colons: Vec<&[u8]> = part.split(|b| *b == b':').collect();
        let (prefix, id) = if let [_, prefix, id] = colons[..] {
            (prefix, id)
        } else if let Some(at) = stem.iter().rposition(|b| *b == b'-') {
            (&stem[..at], &stem[at + 1..])
        } else {
            (&b""[..], stem)
        };
        // What ctr and nerdctl run: `/NAMESPACE/ID`, and ctr's ids are any text.
        let namespace = self.depth == 2 && matches!(previous, b"default" | b"k8s.io");
        if namespace && self.found.is_none() && !part.ends_with(b".slice") {
            return Some(Container { runtime: UnitKind::Containerd, id: part, conmon: false });
        }
        if !is_id(id) {
            return None;
        }
        let (runtime, conmon) = match prefix {
            b"" if id.len() == 64 => (UnitKind::Docker, false),
            b"docker" => (UnitKind::Docker, false),
            b"cri-containerd" | b"nerdctl" => (UnitKind::Containerd, false),
            b"crio" => (UnitKind::Crio, false),
            b"crio-conmon" => (UnitKind::Crio, true),
            b"libpod" => (UnitKind::Podman, false),
            b"libpod-conmon" => (UnitKind::Podman, true),
            // A container split over the cgroup of the service that runs it
            // (quadlets): the service keeps its name, the container does not.
            b"libpod-payload" if !self.in_service() => (UnitKind::Podman, false),
            _ => return None,
        };
        Some(Container { runtime, id, conmon })
    }

    /// Below a service, but not one that is a user's manager.
    fn in_service(&self) -> bool {
        self.level == Level::Below
            && self
                .found
                .as_ref()
                .is_some_and(|f| f.name.ends_with(b".service") || f.kind == UnitKind::User)
    }
}

struct Container<'a> {
    runtime: UnitKind,
    id: &'a [u8],
    /// Not the container itself but the process that watches it.
    conmon: bool,
}

impl Container<'_> {
    fn name(&self, pod: Option<Vec<u8>>) -> (Vec<u8>, UnitKind) {
        let (mut name, kind) = match pod {
            Some(uid) => ([&b"pod:"[..], &uid, b"/"].concat(), UnitKind::Kubepods),
            None => (format!("{}:", self.runtime).into_bytes(), self.runtime),
        };
        // Runtimes show twelve digits of an id, and people paste those.
        let shown = if is_id(self.id) { &self.id[..12] } else { self.id };
        name.extend_from_slice(shown);
        if self.conmon {
            name.extend_from_slice(b"/conmon");
        }
        (name, kind)
    }
}

/// A container id: hexadecimal, 64 digits from the runtimes, at least 12.
fn is_id(text: &[u8]) -> bool {
    (12..=64).contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The uid of the pod whose cgroup this is: `podUID` of the cgroupfs driver,
/// `kubepods-burstable-podUID.slice` of the systemd driver (`_` for `-`), also
/// below a prefix of the cluster (`kubelet-kubepods-…`).
fn pod(part: &[u8]) -> Option<Vec<u8>> {
    let part = part.split(|b| *b == b':').next()?;
    let uid = match part.strip_suffix(b".slice") {
        Some(slice) => {
            let at = slice.windows(4).rposition(|w| w == b"-pod")?;
            slice[..at].ends_with(b"kubepods").then_some(()).or_else(|| {
                [&b"-burstable"[..], b"-besteffort", b"-guaranteed"]
                    .iter()
                    .any(|class| slice[..at].ends_with(class))
                    .then_some(())
            })?;
            &slice[at + 4..]
        }
        None => part.strip_prefix(b"pod")?,
    };
    let uid: Vec<u8> = uid.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect();
    // A UUID, or the hash that static pods (of a file on the node) have.
    let digits: Vec<u8> = uid.iter().copied().filter(|b| *b != b'-').collect();
    (digits.len() == 32 && is_hex(&digits)).then_some(uid)
}

/// The LXC container (or its monitor) that a part names: `lxc.payload.NAME`,
/// before LXC 4 `lxc/NAME` and `lxc.payload/NAME`.
fn lxc<'a>(part: &'a [u8], previous: &[u8]) -> Option<&'a [u8]> {
    let name = match previous {
        b"lxc" | b"lxc.payload" => part,
        _ => part.strip_prefix(b"lxc.payload.")?,
    };
    (!name.is_empty()).then_some(name)
}

/// A manager's tree starts here, where another unit's should be.
fn starts_manager(part: &[u8]) -> bool {
    matches!(part, b"payload" | b"init.scope" | b"system.slice" | b"user.slice" | b"machine.slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths as they were seen on real hosts, `ID` and `UID` for the long ids.
    const GOLDEN: &str = include_str!("testdata/cgroups.tsv");

    const ID: &str = "4c01db0b339c1e0e6a9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e";
    const OTHER: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0";
    const POD: &str = "0bb4eb80-3b9d-4e2f-8a6c-1d2e3f405162";

    fn expand(text: &str) -> String {
        text.replace("<id>", ID)
            .replace("<id12>", &ID[..12])
            .replace("<other>", OTHER)
            .replace("<other12>", &OTHER[..12])
            .replace("<pod>", POD)
            .replace("<pod_>", &POD.replace('-', "_"))
    }

    #[test]
    fn golden_paths_have_their_names() {
        let mut rows = 0;
        for line in GOLDEN.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let fields: Vec<String> = line.split('\t').map(expand).collect();
            let [path, name, kind, own] = &fields[..] else { panic!("four fields: {line}") };
            let got = parse(path.as_bytes());
            let shown = got.as_ref().map_or_else(
                || ("-".to_owned(), "-", "-".to_owned()),
                |n| (n.name.clone(), n.kind.as_str(), path[..n.own].to_owned()),
            );
            let own = if own == "=" { path } else { own };
            assert_eq!(shown, (name.clone(), kind.as_str(), own.clone()), "{path}");
            rows += 1;
        }
        assert!(rows > 60, "only {rows} rows were read");
    }

    #[test]
    fn any_bytes_make_a_printable_name() {
        for path in [&b"/a\xff\n\x1b[2J"[..], b"/system.slice/a\xff\x07.service", b"//", b"", b"a"]
        {
            if let Some(named) = parse(path) {
                assert!(!named.name.chars().any(char::is_control));
                assert!(named.name.len() <= 200 && named.own <= path.len());
            }
        }
        let long = [b"/".to_vec(), vec![b'x'; 4095]].concat();
        assert_eq!(parse(&long).unwrap().name.len(), 200);
    }
}
