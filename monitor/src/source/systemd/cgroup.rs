//! Which unit of the system's manager a cgroup belongs to.

/// The cgroup types of units: what else a slice holds is no unit.
const UNITS: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

/// The unit whose processes `path` holds: its name, and how much of the path is
/// its own cgroup. `root` is the manager's own cgroup, empty where that is the
/// root. `None` for what systemd has not made.
///
/// The first part that is no slice is the unit's (`cg_path_decode_unit` in
/// systemd's `src/basic/cgroup-util.c`). What lies below is the unit's own
/// affair: `Delegate=`, a user's manager, a container with a systemd inside.
pub fn unit<'a>(path: &'a [u8], root: &[u8]) -> Option<(&'a str, usize)> {
    let mut at = path.starts_with(root).then_some(root.len())?;
    loop {
        let rest = path[at..].strip_prefix(b"/")?;
        let part = rest.split(|b| *b == b'/').next()?;
        at += 1 + part.len();
        if part.ends_with(b".slice") && part.len() > b".slice".len() {
            continue;
        }
        // systemd puts `_` before names that the kernel or it has reserved.
        let name = part.strip_prefix(b"_").unwrap_or(part);
        let known = UNITS.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
        // Names of units are ASCII; nothing else is a question for systemd.
        let name = std::str::from_utf8(name).ok().filter(|n| n.is_ascii() && n.len() < 256)?;
        return known.then_some((name, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_that_is_no_slice_is_the_unit() {
        for (path, root, want) in [
            ("/system.slice/a.service", "", Some(("a.service", "/system.slice/a.service"))),
            ("/system.slice/a.service/job", "", Some(("a.service", "/system.slice/a.service"))),
            ("/system.slice/_cpu.service", "", Some(("cpu.service", "/system.slice/_cpu.service"))),
            ("/init.scope", "", Some(("init.scope", "/init.scope"))),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "",
                Some(("getty@tty1.service", "/system.slice/system-getty.slice/getty@tty1.service")),
            ),
            (
                "/user.slice/user-0.slice/user@0.service/app.slice/b.service",
                "",
                Some(("user@0.service", "/user.slice/user-0.slice/user@0.service")),
            ),
            (
                "/machine.slice/libpod-12ab.scope/container",
                "",
                Some(("libpod-12ab.scope", "/machine.slice/libpod-12ab.scope")),
            ),
            (
                "/lab/system.slice/a.service",
                "/lab",
                Some(("a.service", "/lab/system.slice/a.service")),
            ),
            ("/lab/system.slice/a.service", "", None),
            ("/system.slice/a.service", "/lab", None),
            ("/laboratory/system.slice/a.service", "/lab", None),
            ("/system.slice", "", None),
            ("/jobs/a.service", "", None),
            ("/.service", "", None),
            ("/.slice/a.service", "", None),
            ("/system.slice/\u{fc}.service", "", None),
            ("/", "", None),
            ("", "", None),
            ("/../../system.slice/a.service", "", None),
        ] {
            let got =
                unit(path.as_bytes(), root.as_bytes()).map(|(name, end)| (name, &path[..end]));
            assert_eq!(got, want, "{path} under {root:?}");
        }
        assert_eq!(unit(b"/system.slice/\xff.service", b""), None);
    }
}
