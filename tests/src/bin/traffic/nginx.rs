//! The operator of an nginx whose process id is `--pid`, and whose access log in `--logs`
//! is rotated every few requests: renamed, and deleted at the next rotation.
//!
//! - `reopen`: then nginx is told to open its logs again (USR1), as its manual says. Every
//!   third time its config is reloaded besides.
//! - `silent`: nginx is told nothing. The log is deleted at once.
//! - `hosts`: the same happens, once, to the logs of all hosts, for which nobody asks
//!   afterwards.
//! - `reload`: its config is reloaded (HUP) instead. The old worker ends when its last
//!   client has gone; three clients, who came one after each reload, do not.

use std::fs;
use std::io;
use std::path::Path;

use leakwatch_tests::corpus::server::nginx::HOSTS;
use leakwatch_tests::procfs::children_of;
use leakwatch_tests::wait::{SOON, wait_until};
use leakwatch_tests::wire::http::{begin, get, get_of};

use crate::{Orders, unknown};

/// Requests between two rotations.
const ROTATE: usize = 6;
/// Clients that stay.
const STAY: usize = 3;
/// Rotations between two reloads.
const RELOAD: usize = 3;

struct Operator {
    pid: u32,
    log: std::path::PathBuf,
    rotated: std::path::PathBuf,
}

pub fn run(mut orders: Orders) -> io::Result<()> {
    let logs = Path::new(orders.flags.need("logs")).to_owned();
    let operator = Operator {
        pid: orders.flags.get("pid", 0),
        log: logs.join("access.log"),
        rotated: logs.join("access.log.1"),
    };
    let mut staying = Vec::new();
    for i in 0.. {
        orders.beat(i);
        get(&orders.at, "/")?;
        if i % ROTATE != ROTATE - 1 {
            continue;
        }
        let rotation = i / ROTATE;
        match orders.mode.as_str() {
            "reopen" => {
                operator.rename()?;
                operator.tell(libc::SIGUSR1)?;
                if rotation % RELOAD == RELOAD - 1 {
                    operator.reload()?;
                }
            }
            "silent" => delete(&operator.log)?,
            "hosts" if rotation == 0 => {
                for n in 1..=HOSTS {
                    get_of(&format!("host-{n}"), &orders.at, "/")?;
                    delete(&logs.join(format!("host-{n}.log")))?;
                }
            }
            "hosts" => {}
            "reload" => {
                if staying.len() < STAY {
                    staying.push(begin(&orders.at, "/large.dat")?);
                }
                operator.rename()?;
                operator.reload()?;
            }
            other => return Err(unknown(other)),
        }
    }
    Ok(())
}

/// Renames a log and deletes it. From the second time on there is none: nginx still
/// writes the first.
fn delete(log: &Path) -> io::Result<()> {
    if !log.exists() {
        return Ok(());
    }
    let rotated = log.with_extension("log.1");
    fs::rename(log, &rotated)?;
    fs::remove_file(&rotated)
}

impl Operator {
    fn rename(&self) -> io::Result<()> {
        fs::rename(&self.log, &self.rotated)
    }

    /// Signals nginx, and waits until the log is there again.
    fn tell(&self, signal: i32) -> io::Result<()> {
        // SAFETY: takes no address.
        if unsafe { libc::kill(self.pid as libc::pid_t, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        wait_until("nginx to open its log", SOON, || self.log.exists().then_some(()));
        Ok(())
    }

    /// Has it read its config again, and waits for the new worker.
    fn reload(&self) -> io::Result<()> {
        let before = children_of(self.pid);
        self.tell(libc::SIGHUP)?;
        wait_until("a new worker", SOON, || {
            children_of(self.pid).iter().any(|pid| !before.contains(pid)).then_some(())
        });
        Ok(())
    }
}
