//! Which of a process's cgroups names its unit.

use super::cgroup;
use crate::source::model::KernelStr;

/// Picks from the content of `/proc/PID/cgroup` the path that names the unit.
///
/// Each line is `id:controllers:path`. In order of preference: the v2 hierarchy
/// (`0::`), systemd's named v1 hierarchy, the deepest v1 path. The first of them
/// that names a container wins, else the first that is not the root. Containers
/// come first because on hybrid hosts older runtimes put a container into its
/// own v1 cgroups only: the v2 line then names the runtime's own service.
///
/// A cgroup's name never holds a newline: the kernel refuses to make such a
/// cgroup (`cgroup_mkdir` in `kernel/cgroup/cgroup.c`) for the sake of this very
/// file, so nothing is escaped here and a backslash is just that.
pub fn choose(proc_pid_cgroup: &[u8]) -> KernelStr {
    let mut v2 = None;
    let mut systemd = None;
    let mut deepest: Option<(usize, &[u8])> = None;
    for line in proc_pid_cgroup.split(|b| *b == b'\n') {
        // The path may hold colons itself.
        let mut fields = line.splitn(3, |b| *b == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if cgroup::is_root(path) {
            continue;
        }
        if id == b"0" && controllers.is_empty() {
            v2 = Some(path);
        } else if controllers.split(|b| *b == b',').any(|c| c == b"name=systemd") {
            systemd = Some(path);
        } else {
            // Hierarchy ids differ between boots, so ties go by the path.
            let depth = path.iter().filter(|b| **b == b'/').count();
            if deepest.is_none_or(|(d, p)| (depth, p) > (d, path)) {
                deepest = Some((depth, path));
            }
        }
    }
    let candidates = [v2, systemd, deepest.map(|(_, path)| path)];
    let mut known = candidates.into_iter().flatten();
    let Some(first) = known.next() else { return KernelStr::from("/") };
    if cgroup::is_container(first) {
        return first.into();
    }
    known
        .filter(|path| *path != first)
        .find(|path| cgroup::is_container(path))
        .unwrap_or(first)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_path_that_names_the_unit() {
        let id = "0123456789abcdef".repeat(4);
        for (what, content, want) in [
            ("v2 only", "0::/system.slice/nginx.service\n".to_owned(), "/system.slice/nginx.service"),
            ("v2 root", "0::/\n".into(), "/"),
            (
                "hybrid, systemd in both",
                "12:pids:/system.slice/cron.service\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service\n".into(),
                "/system.slice/cron.service",
            ),
            (
                "hybrid, v2 unused",
                "4:memory:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/\n".into(),
                "/user.slice/user-0.slice/session-1.scope",
            ),
            (
                "hybrid, an older runtime leaves the container out of v2",
                format!("11:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"),
                &format!("/docker/{id}"),
            ),
            (
                "v1 only",
                "5:cpu,cpuacct:/system.slice/sshd.service\n1:name=systemd:/system.slice/sshd.service\n".into(),
                "/system.slice/sshd.service",
            ),
            (
                "v1 without systemd: the deepest",
                "9:name=systemd:/\n8:pids:/\n4:memory:/jobs/17\n3:cpuset:/jobs\n0::/\n".into(),
                "/jobs/17",
            ),
            (
                "v1, equally deep: by name, not by number",
                "9:pids:/b\n8:memory:/a\n".into(),
                "/a",
            ),
            (
                "v1, equally deep, other order",
                "9:memory:/a\n8:pids:/b\n".into(),
                "/a",
            ),
            (
                "a path with colons",
                format!("0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}\n"),
                &format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}"),
            ),
            ("above the namespace's root", "0::/../../init.scope\n".into(), "/../../init.scope"),
            ("nothing above the root", "2:cpu:/job\n0::/..\n".into(), "/job"),
            ("a named hierarchy of another manager", "1:name=elogind:/c1\n".into(), "/c1"),
            ("escapes are left alone", "0::/a\\012b\n".into(), "/a\\012b"),
            ("garbage", "no colons\n:\n::\n7\n".into(), "/"),
            ("nothing", String::new(), "/"),
        ] {
            assert_eq!(choose(content.as_bytes()), KernelStr::from(want), "{what}");
        }
    }

    #[test]
    fn any_bytes_may_be_in_a_name() {
        assert_eq!(choose(b"0::/a\xff\x1b").as_bytes(), b"/a\xff\x1b");
    }
}
