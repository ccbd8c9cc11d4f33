//! nginx that serves small files: each request opens one and closes it.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::aim;
use crate::bench::mode::Mode;
use crate::bench::rounds::Work;
use crate::bench::stats::Sample;
use crate::shell;

const FILES: usize = 100;
/// wrk takes whole seconds.
const SECONDS: u32 = 2;
const READY_WITHIN: Duration = Duration::from_secs(10);

/// One request after the other, made beforehand: wrk is to cost little.
const REQUESTS: &str = "local all, next = {}, 0\n\
    init = function() for i = 0, 99 do all[i] = wrk.format(nil, '/f' .. i) end end\n\
    request = function() next = (next + 1) % 100; return all[next] end\n";

/// A server with a config, a directory and a port of its own; it ends with this value.
pub struct Server {
    child: Child,
    address: SocketAddr,
    files: TempDir,
}

impl Server {
    /// Starts nginx and waits until it answers.
    ///
    /// # Errors
    /// When nginx or wrk is missing, or nginx does not start.
    pub fn new() -> Result<Self> {
        let nginx = shell::which("nginx").context("`nginx` is missing: install nginx-light")?;
        shell::which("wrk").context("`wrk` is missing: install wrk")?;
        let files = tempfile::tempdir().context("cannot make a temporary directory")?;
        // The worker is another user.
        fs::set_permissions(files.path(), Permissions::from_mode(0o755))?;
        for file in 0..FILES {
            fs::write(files.path().join(format!("f{file}")), [b'x'; 1024])?;
        }
        fs::write(files.path().join("requests.lua"), REQUESTS)?;
        // The port is free again the moment the listener is dropped.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = files.path().join("nginx.conf");
        let root = files.path().display();
        fs::write(
            &config,
            format!(
                "daemon off;\nworker_processes 1;\nuser nobody nogroup;\npid {root}/pid;\n\
                 error_log stderr;\nevents {{ worker_connections 256; }}\nhttp {{\n\
                 access_log off;\nkeepalive_requests 1000000000;\nsendfile on;\n\
                 client_body_temp_path {root}/body;\nproxy_temp_path {root}/proxy;\n\
                 fastcgi_temp_path {root}/fastcgi;\nuwsgi_temp_path {root}/uwsgi;\n\
                 scgi_temp_path {root}/scgi;\n\
                 server {{ listen {address}; root {root}; }}\n}}\n"
            ),
        )?;
        // nginx ends with the bench, however that ends.
        let child = Command::new(shell::need("setpriv")?)
            .args(["--pdeathsig", "TERM"])
            .arg(nginx)
            .args(["-e", "stderr", "-c"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        let mut server = Self { child, address, files };
        let asked = Instant::now();
        while TcpStream::connect(address).is_err() {
            if server.child.try_wait()?.is_some() || asked.elapsed() > READY_WITHIN {
                bail!("nginx does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL would leave its worker behind.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Work for Server {
    fn title(&self) -> &'static str {
        "nginx, small files"
    }

    /// Seconds per request.
    fn cost(&mut self, _: Mode) -> Result<f64> {
        let mut wrk = shell::command("wrk");
        wrk.args(["-t1", "-c16", &format!("-d{SECONDS}s"), "-s"]);
        wrk.arg(self.files.path().join("requests.lua")).arg(format!("http://{}", self.address));
        Ok(1.0 / per_second(&shell::capture(&mut wrk)?)?)
    }

    fn bare(&self, costs: Vec<f64>) -> String {
        let rates = costs.into_iter().map(|seconds| 1.0 / seconds).collect();
        Sample::new(rates).spread(" requests/s", 0)
    }

    fn aim(&self, mode: Mode) -> Option<f64> {
        aim(mode)
    }
}

/// The rate of requests in what wrk says; one that failed is an error.
fn per_second(said: &str) -> Result<f64> {
    let lines = || said.lines().map(str::trim);
    if let Some(failed) = lines()
        .find(|l| l.starts_with("Non-2xx or 3xx responses:") || l.starts_with("Socket errors:"))
    {
        bail!("wrk was not served: {failed}");
    }
    let rate = lines().find_map(|l| l.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok());
    rate.filter(|rate| *rate > 0.0).with_context(|| format!("wrk said no rate: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:8080\n  1 threads and 16 connections\n\
        \x20 Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   512.00us  1.00ms\n\
        \x20 61234 requests in 2.00s, 73.61MB read\nRequests/sec:  30612.45\nTransfer/sec:     36.80MB\n";

    #[test]
    fn the_rate_is_read() {
        assert!((per_second(SAID).unwrap() - 30612.45).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_served_is_no_figure() {
        let failed = format!("{SAID}  Non-2xx or 3xx responses: 7\n");
        let error = per_second(&failed).unwrap_err().to_string();
        assert_eq!(error, "wrk was not served: Non-2xx or 3xx responses: 7");
        assert!(per_second("unable to connect").is_err());
        assert!(per_second("Requests/sec: 0.00").is_err());
    }
}
