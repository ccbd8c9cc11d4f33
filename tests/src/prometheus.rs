//! A real Prometheus that scrapes a real agent.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::free_address;
use crate::component::{need_program, say};
use crate::http;
use crate::started::inherit_nothing;
use crate::wait::{SOON, wait_until};

/// A file of this workspace's `dashboards/`.
pub fn dashboard(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(name)
}

/// Runs promtool with `input` on its standard input; `None` where there is none.
///
/// # Panics
/// It cannot be started.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &[u8]) -> Option<Output> {
    let program = need_program("promtool")?;
    let mut file = tempfile::tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, input).expect("room for it");
    std::io::Seek::rewind(&mut file).expect("a file can be rewound");
    Some(Command::new(program).args(arguments).stdin(file).output().expect("promtool starts"))
}

/// A running Prometheus; ended when dropped.
pub struct Prometheus {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes `target` once per second as job `leakwatch` and
    /// loads this workspace's rules. `None` where there is no Prometheus.
    ///
    /// # Panics
    /// It does not get ready.
    #[track_caller]
    pub fn start(target: SocketAddr) -> Option<Self> {
        let program = need_program("prometheus")?;
        let dir = TempDir::with_prefix("leakwatch-prometheus-").expect("a temporary directory");
        let rules = fs::canonicalize(dashboard("leakwatch.rules.yml")).expect("the rules exist");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: leakwatch\n\
             \x20 static_configs: [{{targets: ['{target}']}}]\n",
            rules.display()
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).expect("the config can be written");
        let log = File::create(dir.path().join("log")).expect("the log can be written");
        let address = free_address();
        let mut command = Command::new(program);
        inherit_nothing(&mut command);
        let child = command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let mut started = Self { child, dir, address };
        wait_until("prometheus to be ready", SOON, || {
            let status = started.child.try_wait().expect("a child can be waited for");
            assert!(status.is_none(), "prometheus ended: {}", started.log());
            let answer = http::get(address, "/-/ready").ok()?;
            (answer.status == 200).then_some(())
        });
        Some(started)
    }

    /// What an instant query gives: the `result` list.
    ///
    /// # Panics
    /// The query is refused.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Value> {
        let mut answer = self.ask(&format!("/api/v1/query?query={}", http::escape(query)));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        match answer["data"]["result"].take() {
            Value::Array(result) => result,
            other => panic!("{query}: a list was to come, not {other}"),
        }
    }

    /// As [`Self::query`], the value of the one sample; `None` where there is none.
    #[track_caller]
    pub fn value(&self, query: &str) -> Option<f64> {
        let result = self.query(query);
        assert!(result.len() < 2, "{query}: {result:?}");
        result.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Alerts that are pending or firing: name and state.
    #[track_caller]
    pub fn alerts(&self) -> Vec<(String, String, Value)> {
        let answer = self.ask("/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        alerts
            .into_iter()
            .map(|a| (text(&a["labels"]["alertname"]), text(&a["state"]), a["labels"].clone()))
            .collect()
    }

    /// GET of its API.
    ///
    /// # Panics
    /// It does not answer, or not in JSON.
    #[track_caller]
    pub fn ask(&self, path: &str) -> Value {
        http::get(self.address, path)
            .unwrap_or_else(|e| panic!("prometheus, {path}: {e}\n{}", self.log()))
            .json()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            say(format_args!("--- prometheus logged:\n{}\n---", self.log()));
        }
    }
}
