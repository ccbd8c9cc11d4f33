//! SHIM: stands in for stages that are not merged yet. To integrate, replace
//! the whole body of this file by
//!
//! ```text
//! pub(super) use crate::export::{api, terminal};
//! pub(super) use crate::pipeline;
//! pub(super) use crate::source::doctor;
//! ```

#![allow(dead_code, reason = "shim")]

pub(super) mod pipeline {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use crate::config::Config;
    use crate::export::snapshot::Snapshot;

    pub(in crate::cli) struct Options {
        pub(in crate::cli) config_path: Option<PathBuf>,
        pub(in crate::cli) config: Config,
        pub(in crate::cli) state_dir: PathBuf,
        pub(in crate::cli) listen: Vec<SocketAddr>,
        pub(in crate::cli) telemetry_path: String,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("this build has no pipeline")]
    pub(in crate::cli) struct Error;

    #[allow(clippy::needless_pass_by_value, reason = "shim")]
    pub(in crate::cli) fn run(_: Options) -> Result<(), Error> {
        Err(Error)
    }

    pub(in crate::cli) fn once(_: &Config) -> Result<Snapshot, Error> {
        Err(Error)
    }
}

pub(super) mod api {
    use serde::{Deserialize, Serialize};

    use crate::detection::verdict::{Leak, State};
    use crate::export::snapshot::Snapshot;

    #[derive(Debug, Serialize, Deserialize)]
    pub(in crate::cli) struct UnitsDoc {
        units: Vec<serde_json::Value>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    pub(in crate::cli) struct LeaksDoc {
        pub(in crate::cli) leaks: Vec<Leak>,
    }

    pub(in crate::cli) fn units(_: &Snapshot) -> UnitsDoc {
        UnitsDoc { units: Vec::new() }
    }

    pub(in crate::cli) fn leaks(snapshot: &Snapshot, _: Option<State>) -> LeaksDoc {
        LeaksDoc { leaks: snapshot.leaks.clone() }
    }
}

pub(super) mod terminal {
    use super::api::{LeaksDoc, UnitsDoc};
    use crate::detection::verdict::Leak;

    pub(in crate::cli) fn status(_: &UnitsDoc, leaks: &LeaksDoc, _: usize) -> String {
        format!("{} verdicts", leaks.leaks.len())
    }

    pub(in crate::cli) fn explain(leak: &Leak, _: usize) -> String {
        leak.id.clone()
    }
}

pub(super) mod doctor {
    use serde::Serialize;

    use crate::config::Config;

    #[derive(Serialize)]
    pub(in crate::cli) struct Report;

    impl Report {
        pub(in crate::cli) fn render(&self, _: usize) -> String {
            String::new()
        }

        pub(in crate::cli) fn is_blind(&self) -> bool {
            true
        }
    }

    pub(in crate::cli) fn examine(_: &Config) -> Report {
        Report
    }
}
