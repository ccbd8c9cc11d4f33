//! Units: managed services as leakwatch knows them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where a unit's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitKind {
    /// A `[[unit]]` match rule of the config.
    Rule,
    /// A service of the system's systemd.
    Service,
    /// A scope of the system's systemd.
    Scope,
    /// A service or scope of a user's systemd; the name ends in `@UID`.
    User,
    /// A docker container.
    Docker,
    /// A containerd container.
    Containerd,
    /// A CRI-O container.
    Crio,
    /// A podman container.
    Podman,
    /// A container of a Kubernetes pod.
    Kubepods,
    /// A plain cgroup.
    Cgroup,
    /// Processes of the root cgroup that share an executable.
    Exe,
}

impl UnitKind {
    /// The name in labels and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Service => "service",
            Self::Scope => "scope",
            Self::User => "user",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Kubepods => "kubepods",
            Self::Cgroup => "cgroup",
            Self::Exe => "exe",
        }
    }

    /// Its processes are one service with a life of its own. Not so for a plain
    /// cgroup or a group of like-named programs, which have no main process.
    pub const fn has_invocations(self) -> bool {
        !matches!(self, Self::Cgroup | Self::Exe | Self::Scope)
    }
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A unit. Equal names are the same unit, over any number of restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    /// Name, printable (control characters escaped), unique.
    pub name: Arc<str>,
    /// Where the name comes from.
    pub kind: UnitKind,
    /// Its cgroup path, printable; empty for [`UnitKind::Exe`] and for rules
    /// that span several.
    pub cgroup: Arc<str>,
}
