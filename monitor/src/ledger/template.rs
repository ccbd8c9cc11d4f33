//! Path templates: what the members of a cohort have in common.

use core::net::IpAddr;
use std::borrow::Cow;

use crate::ledger::patterns::log_family;
use crate::source::model::{FdKind, FdSample, SocketState};
use crate::text;

/// From here on ports are given out to whoever asks, one after the other, and say nothing
/// (`ip_local_port_range` begins here unless somebody has changed it).
const EPHEMERAL: u16 = 32_768;

/// What descriptors that should behave alike share; `listens` says on which ports their
/// process listens.
pub(crate) fn template(kind: FdKind, sample: &FdSample, listens: &[u16]) -> Cow<'static, str> {
    let path = sample.path.as_bytes();
    match kind {
        FdKind::Log => Cow::Owned(of_path(log_family(path))),
        FdKind::Socket => of_socket(sample.socket, listens),
        _ if path.first() == Some(&b'/') => Cow::Owned(of_path(path)),
        _ => kind.as_str().into(),
    }
}

/// Its peer where this side has connected, its port where it was accepted: one call site
/// each, most often. The state is not in it: it moves.
fn of_socket(socket: Option<SocketState>, listens: &[u16]) -> Cow<'static, str> {
    let Some(s) = socket else { return "socket".into() };
    let protocol = match (s.family, s.sock_type) {
        (1, _) => return "unix".into(),
        (16, _) => return "netlink".into(),
        (17, _) => return "packet".into(),
        (2 | 10, 1) => "tcp",
        (2 | 10, 2) => "udp",
        _ => return "socket".into(),
    };
    let Some(peer) = s.peer else { return protocol.into() };
    // Who has accepted may have closed what it listens on, or never had it.
    let accepted = listens.contains(&s.port) || (s.port < EPHEMERAL && peer.port() >= EPHEMERAL);
    let port = |port: u16| {
        if port < EPHEMERAL { port.to_string() } else { "{n}".to_owned() }
    };
    Cow::Owned(match (accepted, peer.ip()) {
        (true, _) => format!("{protocol} on :{}", port(s.port)),
        (false, IpAddr::V4(ip)) => format!("{protocol} to {ip}:{}", port(peer.port())),
        (false, IpAddr::V6(ip)) => format!("{protocol} to [{ip}]:{}", port(peer.port())),
    })
}

/// The directory of a template, for collapsing, and of a peer its protocol; none for what
/// has neither.
pub(crate) fn directory(template: &str) -> Option<&str> {
    if template.starts_with('/') {
        return Some(template.rsplit_once('/').map_or("", |(dir, _)| dir));
    }
    ["tcp to", "udp to"].into_iter().find(|protocol| template.starts_with(protocol))
}

/// What stands for all templates of a directory.
pub(crate) fn collapsed(directory: &str) -> String {
    let peers = !directory.is_empty() && !directory.starts_with('/');
    if peers { format!("{directory} {{*}}") } else { format!("{directory}/{{*}}") }
}

/// Numbers become `{n}`, hexadecimal runs and uuids `{hex}`, random names `{x}`.
///
/// What is in the name comes first and its escapes after that: the digits of
/// `\u{1b}` are not the file's.
pub(crate) fn of_path(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut out = String::with_capacity(text.len());
    for (i, component) in text.split('/').enumerate() {
        if i > 0 {
            out.push('/');
        }
        push_component(&mut out, component);
    }
    if out.bytes().all(|c| (32..127).contains(&c)) { out } else { text::printable(out.as_bytes()) }
}

fn push_component(out: &mut String, component: &str) {
    if is_python_temporary(component) {
        out.push_str("tmp{x}");
        return;
    }
    let mut rest = component;
    while !rest.is_empty() {
        if is_uuid(rest) {
            out.push_str("{hex}");
            rest = &rest[UUID_LEN..];
            continue;
        }
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if word == 0 {
            let sep = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..sep]);
            rest = &rest[sep..];
        } else {
            push_word(out, &rest[..word]);
            rest = &rest[word..];
        }
    }
}

fn push_word(out: &mut String, word: &str) {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if digits == word.len() {
        out.push_str("{n}");
    } else if word.len() >= 8 && digits > 0 && word.bytes().all(|c| c.is_ascii_hexdigit()) {
        out.push_str("{hex}");
    } else if is_random(word) {
        out.push_str("{x}");
    } else {
        let mut in_number = false;
        for c in word.chars() {
            if c.is_ascii_digit() {
                if !in_number {
                    out.push_str("{n}");
                }
                in_number = true;
            } else {
                out.push(c);
                in_number = false;
            }
        }
    }
}

const UUID_LEN: usize = 36;

fn is_uuid(s: &str) -> bool {
    s.len() >= UUID_LEN
        && s.bytes().take(UUID_LEN).enumerate().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => c == b'-',
            _ => c.is_ascii_hexdigit(),
        })
        && s.as_bytes().get(UUID_LEN).is_none_or(|c| !c.is_ascii_alphanumeric())
}

/// Python's `tempfile`: `tmp` and eight of `[a-z0-9_]`.
fn is_python_temporary(s: &str) -> bool {
    s.len() == 11
        && s.starts_with("tmp")
        && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// Names like `aB3xZ9`, as mkstemp(3) makes them: words change between lower
/// case, upper case and digits at most twice (`CamelCase2`), random ones more.
pub(crate) fn is_random(word: &str) -> bool {
    let class = |c: u8| match c {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let bytes = word.as_bytes();
    word.len() >= 6 && bytes.windows(2).filter(|w| class(w[0]) != class(w[1])).count() >= 3 && {
        let has = |k| bytes.iter().any(|c| class(*c) == k);
        has(1) && has(2) && (has(0) || word.len() == 6)
    }
}

/// Files that are deleted by design while in use: `O_TMPFILE` shows as
/// `/dir/#INODE`, mkstemp's have a random name in a directory for such things.
pub(crate) fn is_scratch(path: &[u8]) -> bool {
    let text = String::from_utf8_lossy(path);
    let (dir, name) = text.rsplit_once('/').unwrap_or(("", &text));
    if name.strip_prefix('#').is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit())) {
        return true;
    }
    let temporary = ["/tmp", "/var/tmp", "/dev/shm", "/run"]
        .iter()
        .any(|t| dir == *t || dir.strip_prefix(t).is_some_and(|rest| rest.starts_with('/')));
    let random = |w: &str| {
        // The last six characters of mkstemp's names are the random ones.
        let tail = w.get(w.len().saturating_sub(6)..).unwrap_or(w);
        is_random(w) || (tail.len() == 6 && is_random(tail))
    };
    temporary
        && (is_python_temporary(name)
            || name.split(|c: char| !c.is_ascii_alphanumeric()).any(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        for (path, want) in [
            (&b"/var/log/agent-12.jsonl"[..], "/var/log/agent-{n}.jsonl"),
            (b"/srv/deadbeef01/x", "/srv/{hex}/x"),
            (b"/srv/facade/x", "/srv/facade/x"),
            (b"/srv/0b0e1996-975c-02c9-8c51-0123456789ab.db", "/srv/{hex}.db"),
            (b"/tmp/tmpab_c12de", "/tmp/tmp{x}"),
            (b"/tmp/ibAb3xZ9", "/tmp/{x}"),
            (b"/data/base/16384/2619_vm", "/data/base/{n}/{n}_vm"),
            (b"/opt/python3/CamelCase", "/opt/python{n}/CamelCase"),
            ("/x/höflich7".as_bytes(), "/x/höflich{n}"),
            (b"/", "/"),
            // Escapes are of what the name has become, and whole.
            (b"/x/a\nb", "/x/a\\u{a}b"),
            (b"/x/1\n2", "/x/{n}\\u{a}{n}"),
            (b"/x/\x1b[2Jgone.log", "/x/\\u{1b}[{n}Jgone.log"),
            (b"/x/\x1b]0;7\x07", "/x/\\u{1b}]{n};{n}\\u{7}"),
            ("/x/\u{202e}gol.7".as_bytes(), "/x/\\u{202e}gol.{n}"),
            ("/x/\u{85}\u{200f}3".as_bytes(), "/x/\\u{85}\\u{200f}{n}"),
            (b"/x/bad\xff12", "/x/bad\u{fffd}{n}"),
            // What only looks like an escape has a number of its own.
            (b"/x/\\u{1b}", "/x/\\u{{n}b}"),
            (b"/x\n/deadbeef01\t", "/x\\u{a}/{hex}\\u{9}"),
            (b"/x/0b0e1996-975c-02c9-8c51-0123456789ab\n", "/x/{hex}\\u{a}"),
            (b"/x/tmpab_c12de\n", "/x/tmpab_c{n}de\\u{a}"),
        ] {
            assert_eq!(of_path(path), want, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn sockets_are_told_apart_by_their_peer() {
        let socket = |family, kind, port, peer: Option<&str>| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            Some(SocketState { port, peer, ..SocketState::new(family, kind, 1) })
        };
        for (socket, want) in [
            (None, "socket"),
            (socket(1, 1, 0, None), "unix"),
            (socket(16, 3, 0, None), "netlink"),
            (socket(2, 1, 0, None), "tcp"),
            (socket(2, 1, 45_000, Some("10.0.0.7:5432")), "tcp to 10.0.0.7:5432"),
            (socket(10, 1, 45_000, Some("[fd00::7]:443")), "tcp to [fd00::7]:443"),
            (socket(10, 2, 45_000, Some("10.0.0.7:53")), "udp to 10.0.0.7:53"),
            // It listens there.
            (socket(2, 1, 8080, Some("10.0.0.9:700")), "tcp on :8080"),
            (socket(2, 1, 60_001, Some("10.0.0.9:50000")), "tcp on :{n}"),
            // Whoever has connected from a port that was given out has been accepted.
            (socket(2, 1, 22, Some("10.0.0.9:50000")), "tcp on :22"),
            (socket(2, 1, 45_000, Some("10.0.0.7:50051")), "tcp to 10.0.0.7:{n}"),
        ] {
            assert_eq!(of_socket(socket, &[8080, 60_001]), want, "{socket:?}");
        }
        assert_eq!(directory("tcp to 10.0.0.7:5432").map(collapsed).unwrap(), "tcp to {*}");
        assert_eq!(directory("/srv/x").map(collapsed).unwrap(), "/srv/{*}");
        assert_eq!(directory("/x").map(collapsed).unwrap(), "/{*}");
        assert_eq!(directory("tcp on :80"), None);
    }

    #[test]
    fn scratch_files_are_known() {
        for (path, want) in [
            ("/tmp/#1234", true),
            ("/data/#99", true),
            ("/tmp/ibAb3xZ9", true),
            ("/tmp/tmpab_c12de", true),
            ("/tmp/app.log", false),
            ("/var/lib/x/aB3xZ9", false),
            ("/var/log/a.log", false),
        ] {
            assert_eq!(is_scratch(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn a_socket_that_is_given_another_peer_is_told_by_that() {
        use crate::attribution::unit::UnitKind;
        use crate::ledger::testing::World;

        let mut w = World::new();
        let p = w.spawn(("app.service", UnitKind::Service), 1, "/usr/bin/app");
        let fd = w.connect(p);
        let mut told = Vec::new();
        for peer in [None, Some("10.0.0.7:53"), Some("10.0.0.8:53"), None] {
            w.fd(p, fd).socket.as_mut().unwrap().peer = peer.map(|peer| peer.parse().unwrap());
            w.look();
            let process = w.ledger.processes().find(|q| q.id.pid == p).unwrap();
            let held = &process.held[0];
            let cohort = &process.cohorts[held.slot as usize];
            assert_eq!((process.held.len(), cohort.track.count), (1, 1));
            told.push(cohort.template.to_string());
        }
        assert_eq!(told, ["tcp", "tcp to 10.0.0.7:53", "tcp to 10.0.0.8:53", "tcp"]);
    }
}
