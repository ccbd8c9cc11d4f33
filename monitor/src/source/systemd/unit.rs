//! A unit as systemd tells of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Boottime;

/// One life of a systemd unit: a random id that systemd makes at each start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationId(pub u128);

impl fmt::Display for InvocationId {
    /// 32 hexadecimal digits, as `systemctl show` and the journal have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A unit as systemd has it. What systemd did not say, or says is unlimited, is
/// `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct SystemdUnit {
    /// Its name there: `nginx.service`.
    pub id: Arc<str>,
    /// Its life; `None` where it never started.
    pub invocation_id: Option<InvocationId>,
    /// `ActiveState`: `active`, `activating`, `deactivating`, `inactive`,
    /// `failed`, `reloading`, or what later systemds add.
    pub active_state: Option<Arc<str>>,
    /// When it last left the inactive state.
    pub entered: Option<Boottime>,
    /// Its main process; `Some(0)` where it has none now, `None` where units of
    /// its type never have one.
    pub main_pid: Option<u32>,
    /// Restarts by `Restart=`; services only.
    pub restarts: Option<u32>,
    /// `LimitNOFILE`, the hard limit.
    pub limit_nofile: Option<u64>,
    /// `LimitNOFILESoft`.
    pub limit_nofile_soft: Option<u64>,
    /// `TasksMax`.
    pub tasks_max: Option<u64>,
}
