//! redis, on a port of loopback, with its append-only file; what else the label says is
//! given to it as arguments.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Plan, find};
use crate::agent::free_address;
use crate::corpus::label::Label;
use crate::wire::redis::Client;

pub(super) fn plan(case: &Label, dir: &Path) -> Result<Plan> {
    let address = free_address();
    let config = dir.join("redis.conf");
    fs::write(
        &config,
        format!(
            "bind {}\nport {}\ndir {}\nsave \"\"\nappendonly yes\ndaemonize no\nmaxclients 500\n\
             proc-title-template \"{{title}} {{config-file}}\"\n",
            address.ip(),
            address.port(),
            dir.display(),
        ),
    )?;
    let mut command = Command::new(find("redis-server")?);
    command.arg(&config).args(case.server.iter().skip(1));
    Ok(Plan {
        command,
        address: address.to_string(),
        stop: libc::SIGTERM,
        answers: |address| Client::connect(address).is_ok(),
    })
}
