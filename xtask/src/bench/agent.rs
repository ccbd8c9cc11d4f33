//! An agent under measurement, and what it says on /metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::workspace;

/// From start to the first census, at most.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// From SIGTERM to the end, at most, before it is killed.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// A running agent with a config, a state directory and a port of its own.
pub struct Agent {
    child: Child,
    address: SocketAddr,
    files: TempDir,
}

impl Agent {
    /// Starts an agent and waits for its first census.
    ///
    /// # Errors
    /// When it ends or is not ready in time; its log is part of the error.
    pub fn start(config: &str) -> Result<Self> {
        Self::start_program(&workspace::release_agent(), config)
    }

    /// The same with another agent than the one built here.
    ///
    /// # Errors
    /// As above.
    pub fn start_program(program: &Path, config: &str) -> Result<Self> {
        let files = tempfile::tempdir().context("cannot make a temporary directory")?;
        let path = files.path().join("leakwatch.toml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let log = fs::File::create(files.path().join("log"))?;
        // The port is free again the moment the listener is dropped.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new(program)
            .arg("watch")
            .arg("--config")
            .arg(&path)
            .arg("--state-dir")
            .arg(files.path().join("state"))
            .args(["--web.listen-address", &address.to_string(), "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the agent")?;
        let mut agent = Self { child, address, files };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            if self.get("/-/ready").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended at once, {status}:\n{}", self.log());
            }
            if started.elapsed() > READY_WITHIN {
                bail!("the agent was not ready within {READY_WITHIN:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let address = self.address;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        split(&String::from_utf8_lossy(&answer))
    }

    /// User and system time so far, from /proc: to 10 ms on most kernels, where
    /// `process_cpu_seconds_total` may count whole seconds.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("the agent has ended")?;
        // The second field is the name, in brackets, and may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: Vec<u32> =
            fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
        let [user, system] = ticks[..] else { bail!("/proc/PID/stat has another form") };
        #[expect(clippy::cast_precision_loss, reason = "ticks per second: 100 or so")]
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok((f64::from(user) + f64::from(system)) / per_second)
    }

    /// What /metrics says.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.get("/metrics")?;
        if status != 200 {
            bail!("/metrics answered {status}: {body}");
        }
        Ok(Metrics(body))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < STOPS_WITHIN {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn split(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok((status.context("no HTTP status")?, body))
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).context("a chunk is cut short")?);
        body = rest.get(size..).and_then(|rest| rest.strip_prefix("\r\n")).unwrap_or("");
    }
}

/// A page in Prometheus' text format.
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a series without labels.
    ///
    /// # Errors
    /// When the page has no such series.
    pub fn value(&self, name: &str) -> Result<f64> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
            .with_context(|| format!("/metrics has no {name}"))
    }

    /// The values of a series by its one label, `program`.
    pub fn by_program(&self, name: &str) -> BTreeMap<String, f64> {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?.strip_prefix("{program=\"")?;
            let (program, value) = rest.split_once("\"} ")?;
            Some((program.to_owned(), value.trim().parse().ok()?))
        };
        self.0.lines().filter_map(value).collect()
    }

    /// The sum of all series of a name; 0 without any.
    pub fn sum(&self, name: &str) -> f64 {
        let of = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            // Another name may begin like this one.
            (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().ok())?
        };
        self.0.lines().filter_map(of).sum()
    }

    /// `source: mechanism` of what works, sorted.
    pub fn working(&self) -> Vec<String> {
        let mut list: Vec<String> = self
            .0
            .lines()
            .filter_map(|line| line.strip_prefix("leakwatch_source_state{"))
            .filter_map(|rest| rest.split_once("} "))
            .filter(|(_, value)| value.trim() == "1")
            .map(|(labels, _)| {
                let get = |key: &str| {
                    let rest = labels.split(&format!("{key}=\"")).nth(1);
                    rest.and_then(|rest| rest.split('"').next()).unwrap_or("?").to_owned()
                };
                format!("{}: {}", get("source"), get("mechanism"))
            })
            .collect();
        list.sort();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_both_framings() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(split(plain).unwrap(), (200, "hi".to_owned()));
        let chunked =
            "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(split(chunked).unwrap(), (503, "hi!".to_owned()));
    }

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let metrics = Metrics(
            "leakwatch_census_fds_more 1\nleakwatch_census_fds 42\n\
             runs_total{program=\"close\"} 7\nruns_total_more{program=\"close\"} 8\n\
             leakwatch_source_state{source=\"census\",mechanism=\"iter/task_file\"} 1\n\
             leakwatch_source_state{source=\"fd_probes\",mechanism=\"tp_btf\"} 0\n"
                .to_owned(),
        );
        assert!((metrics.value("leakwatch_census_fds").unwrap() - 42.0).abs() < 1e-9);
        assert!(metrics.value("leakwatch_census").is_err());
        let runs = metrics.by_program("runs_total");
        assert_eq!(runs.into_iter().collect::<Vec<_>>(), [("close".to_owned(), 7.0)]);
        assert!((metrics.sum("leakwatch_source_state") - 1.0).abs() < 1e-9);
        assert!(metrics.sum("leakwatch_source").abs() < 1e-9);
        assert_eq!(metrics.working(), ["census: iter/task_file"]);
    }
}
