//! nginx: a master and one worker, on a Unix socket.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Plan, find};
use crate::wire::http;

/// Larger than what socket buffers take: whoever asks for it and reads nothing stays.
const LARGE: u64 = 32 << 20;

/// Hosts with a log of their own, `host-1` and so on.
pub const HOSTS: usize = 6;

pub(super) fn prepare(dir: &Path) -> Result<()> {
    for folder in ["logs", "tmp", "www"] {
        fs::create_dir(dir.join(folder))?;
    }
    fs::write(dir.join("www/index.html"), "<p>It is there.</p>")?;
    fs::File::create(dir.join("www/large.dat"))?.set_len(LARGE)?;
    fs::write(dir.join("nginx.conf"), config(dir))?;
    Ok(())
}

fn socket(dir: &Path) -> String {
    format!("{}/nginx.sock", dir.display())
}

/// Paths are relative to the prefix, which is `dir`. Workers stay root, for nobody else
/// may enter it.
fn config(dir: &Path) -> String {
    let socket = socket(dir);
    let hosts = (1..=HOSTS).map(|n| {
        format!(
            "server {{ listen unix:{socket}; server_name host-{n}; access_log logs/host-{n}.log; }}\n"
        )
    });
    format!(
        "daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log logs/error.log;
events {{ worker_connections 256; }}
http {{
    access_log logs/access.log;
    client_body_temp_path tmp/body;
    proxy_temp_path tmp/proxy;
    fastcgi_temp_path tmp/fastcgi;
    uwsgi_temp_path tmp/uwsgi;
    scgi_temp_path tmp/scgi;
    send_timeout 10m;
    root www;
    server {{ listen unix:{socket}; }}
    {hosts}
}}
",
        hosts = hosts.collect::<String>(),
    )
}

pub(super) fn plan(dir: &Path) -> Result<Plan> {
    let mut command = Command::new(find("nginx")?);
    // The log of before the config is read would else be the machine's.
    command.arg("-p").arg(format!("{}/", dir.display()));
    command.args(["-e", "logs/error.log", "-c", "nginx.conf"]);
    Ok(Plan {
        command,
        address: format!("unix:{}", socket(dir)),
        stop: libc::SIGTERM,
        answers: |address| http::get(address, "/").is_ok(),
    })
}
