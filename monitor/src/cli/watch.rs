//! `leakwatch watch`: hands the flags to the pipeline.

use std::net::SocketAddr;
use std::process::ExitCode;

use super::failure::Failure;
use super::flags::WatchFlags;
use super::{logging, paths};
use crate::export::http::Site;
use crate::pipeline;

/// Runs the agent until it is told to stop.
pub(super) fn run(flags: &WatchFlags) -> Result<ExitCode, Failure> {
    let (config_path, config) = paths::read_config(&flags.config)?;
    let state_dir = paths::state_dir(flags.state_dir.as_deref())?;
    logging::start(flags.log_level, flags.log_format).map_err(Failure::Failed)?;
    let listen = distinct(&flags.listen);
    for address in listen.iter().filter(|address| !address.ip().to_canonical().is_loopback()) {
        tracing::warn!(
            %address,
            "whoever reaches this address can read names, paths and command lines of this host"
        );
    }
    pipeline::run(pipeline::Options {
        config_path,
        config,
        state_dir,
        listen,
        site: Site {
            telemetry_path: flags.telemetry_path.clone(),
            allowed_hosts: flags.allowed_hosts.clone(),
        },
    })
    .map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// An address given twice would find its port taken by itself. Port 0 is not an
/// address yet: each is a port of the kernel's choice.
fn distinct(given: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    for address in given {
        if address.port() == 0 || !out.contains(address) {
            out.push(*address);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_given_twice_is_one() {
        let given = ["127.0.0.1:1", "[::1]:1", "127.0.0.1:1", "127.0.0.1:0", "127.0.0.1:0"]
            .map(|a| a.parse().unwrap());
        assert_eq!(distinct(&given).len(), 4);
    }
}
