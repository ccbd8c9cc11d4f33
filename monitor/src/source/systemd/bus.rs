//! The questions: one connection to the system bus, one unit at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::ClockId;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Address, Connection, MatchRule, MessageStream};

use crate::source::model::{InvocationId, SystemdUnit};
use crate::time::Boottime;

/// The environment variable of the D-Bus specification.
pub const VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

const SOCKET: &str = "/run/dbus/system_bus_socket";
/// A directory that systemd makes where it is the system's manager
/// (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

pub const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";

/// One answer, connecting included, takes at most so long. PID 1 answers within
/// a millisecond, and within seconds while it reads thousands of unit files.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The bus did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The variable holds something else than a socket's address.
    #[error("{VARIABLE}={0} is not of the form unix:path=… or unix:abstract=…")]
    Address(String),
    /// Nothing there, or nobody listens.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] Box<zbus::Error>),
    /// It took the connection or a question, and said no more.
    #[error("{0} did not answer within 5 s")]
    Silent(String),
    /// It hung up.
    #[error("{0} ended the connection")]
    Ended(String),
    /// The bus is there and systemd is not on it.
    #[error("systemd does not answer on {0}: {1}")]
    Manager(String, #[source] Box<zbus::Error>),
}

/// Where to ask.
pub enum Place {
    /// There.
    At(Address),
    /// Nowhere: no systemd is to be expected.
    Nowhere(String),
}

/// Finds the bus: `DBUS_SYSTEM_BUS_ADDRESS`, else the usual socket.
///
/// # Errors
/// The variable is malformed. Addresses that would run a program or leave the
/// machine are refused: the agent has more rights than whoever set it may have.
pub fn place() -> Result<Place, BusError> {
    if let Some(given) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        let given = given.to_string_lossy().into_owned();
        return match parse(&given) {
            Some(address) => Ok(Place::At(address)),
            None => Err(BusError::Address(given)),
        };
    }
    if Path::new(SOCKET).exists() || Path::new(BOOTED).exists() {
        let socket = UnixSocket::File(PathBuf::from(SOCKET));
        let transport = zbus::address::transport::Unix::new(socket);
        return Ok(Place::At(Transport::Unix(transport).into()));
    }
    Ok(Place::Nowhere(format!(
        "no systemd here: neither {BOOTED} nor {SOCKET} exists; in a container, set {VARIABLE}"
    )))
}

pub(super) fn parse(given: &str) -> Option<Address> {
    let address: Address = given.parse().ok()?;
    let Transport::Unix(unix) = address.transport() else { return None };
    matches!(unix.path(), UnixSocket::File(_) | UnixSocket::Abstract(_)).then_some(address)
}

/// A connection.
pub struct Bus {
    connection: Connection,
    address: String,
}

impl Bus {
    /// Connects and says hello.
    ///
    /// # Errors
    /// See [`BusError`]; never later than [`PATIENCE`].
    pub async fn connect(address: Address) -> Result<Self, BusError> {
        let shown = address.to_string();
        let silent = BusError::Silent(shown.clone());
        let build = async {
            let builder = zbus::connection::Builder::address(address)?;
            builder.method_timeout(PATIENCE).build().await
        };
        match tokio::time::timeout(PATIENCE, build).await {
            Ok(Ok(connection)) => Ok(Self { connection, address: shown }),
            Ok(Err(e)) => Err(BusError::Connect(shown, Box::new(e))),
            Err(_) => Err(silent),
        }
    }

    /// What it is called in messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The manager's own cgroup, empty where that is the root. Proves that
    /// systemd answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn root(&self) -> Result<Vec<u8>, BusError> {
        let path = OwnedObjectPath::try_from(MANAGER_PATH).map_err(|e| self.refused(e.into()))?;
        let root = self.ask::<String>(&path, MANAGER_INTERFACE, "ControlGroup").await;
        let root = root.map_err(|e| self.refused(e))?;
        Ok(root.trim_end_matches('/').as_bytes().to_vec())
    }

    /// Asks for signals about units. False where the bus does not grant them.
    ///
    /// # Errors
    /// The connection has failed.
    pub async fn subscribe(&self) -> Result<bool, BusError> {
        let asked = self
            .connection
            .call_method(Some(MANAGER), MANAGER_PATH, Some(MANAGER_INTERFACE), "Subscribe", &())
            .await;
        match asked {
            Ok(_) => Ok(true),
            Err(zbus::Error::MethodError(name, why, _)) => {
                tracing::debug!(%name, ?why, "systemd grants no signals");
                Ok(false)
            }
            Err(e) => Err(self.refused(e)),
        }
    }

    /// The messages that fit a rule. They have to be taken: an unread queue
    /// holds up the answers behind it.
    ///
    /// # Errors
    /// The bus refuses.
    pub async fn stream(&self, rule: MatchRule<'static>) -> Result<MessageStream, BusError> {
        let stream = MessageStream::for_match_rule(rule, &self.connection, Some(1024)).await;
        stream.map_err(|e| self.refused(e))
    }

    /// The object of a loaded unit; `None` where systemd has none of that name.
    ///
    /// # Errors
    /// The bus has failed.
    pub async fn find(&self, name: &str) -> Result<Option<OwnedObjectPath>, BusError> {
        let reply = self
            .connection
            .call_method(Some(MANAGER), MANAGER_PATH, Some(MANAGER_INTERFACE), "GetUnit", &name)
            .await;
        match reply.and_then(|reply| reply.body().deserialize()) {
            Ok(path) => Ok(Some(path)),
            // Most often NoSuchUnit: the cgroup is somebody else's work.
            Err(zbus::Error::MethodError(..)) => Ok(None),
            Err(e) => Err(self.refused(e)),
        }
    }

    /// Reads a unit. `None` where it is not the one with that cgroup.
    ///
    /// Property by property: to answer for all of them systemd would read the
    /// unit's accounts from the kernel.
    ///
    /// # Errors
    /// The bus has failed.
    pub async fn read(
        &self,
        name: &Arc<str>,
        path: &OwnedObjectPath,
        cgroup: &[u8],
    ) -> Result<Option<SystemdUnit>, BusError> {
        let kind = typed_interface(name);
        let service = name.ends_with(".service");
        let (group, invocation, state, entered, main, restarts, hard, soft, tasks) = tokio::try_join!(
            self.get::<String>(path, &kind, "ControlGroup"),
            self.get::<Vec<u8>>(path, UNIT_INTERFACE, "InvocationID"),
            self.get::<String>(path, UNIT_INTERFACE, "ActiveState"),
            self.get::<u64>(path, UNIT_INTERFACE, "InactiveExitTimestampMonotonic"),
            self.get_if::<u32>(service, path, &kind, "MainPID"),
            self.get_if::<u32>(service, path, &kind, "NRestarts"),
            self.get::<u64>(path, &kind, "LimitNOFILE"),
            self.get::<u64>(path, &kind, "LimitNOFILESoft"),
            self.get::<u64>(path, &kind, "TasksMax"),
        )?;
        // Empty while the unit has none; another one's where the bus is that of
        // another machine than the cgroups.
        let elsewhere = |group: &String| !group.is_empty() && group.as_bytes() != cgroup;
        if group.as_ref().is_some_and(elsewhere) {
            return Ok(None);
        }
        let unlimited = |limit: Option<u64>| limit.filter(|limit| *limit != u64::MAX);
        Ok(Some(SystemdUnit {
            id: Arc::clone(name),
            invocation_id: invocation.and_then(|bytes| invocation_id(&bytes)),
            active_state: state.map(Into::into),
            entered: entered.filter(|usec| *usec != 0).map(boottime),
            main_pid: main,
            restarts,
            limit_nofile: unlimited(hard),
            limit_nofile_soft: unlimited(soft),
            tasks_max: unlimited(tasks),
        }))
    }

    async fn get_if<T: Answer>(
        &self,
        wanted: bool,
        path: &OwnedObjectPath,
        interface: &str,
        property: &str,
    ) -> Result<Option<T>, BusError> {
        if wanted { self.get(path, interface, property).await } else { Ok(None) }
    }

    /// A property; `None` where this systemd, or a unit of this type, has none.
    async fn get<T: Answer>(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        property: &str,
    ) -> Result<Option<T>, BusError> {
        match self.ask(path, interface, property).await {
            Ok(value) => Ok(Some(value)),
            Err(zbus::Error::MethodError(..) | zbus::Error::Variant(_)) => Ok(None),
            Err(e) => Err(self.refused(e)),
        }
    }

    async fn ask<T: Answer>(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        property: &str,
    ) -> Result<T, zbus::Error> {
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .connection
            .call_method(Some(MANAGER), path, properties, "Get", &(interface, property))
            .await?;
        let value: OwnedValue = reply.body().deserialize()?;
        Ok(T::try_from(value)?)
    }

    /// What an error means for the connection.
    fn refused(&self, error: zbus::Error) -> BusError {
        use std::io::ErrorKind;
        let address = self.address.clone();
        match &error {
            zbus::Error::InputOutput(e) if e.kind() == ErrorKind::TimedOut => {
                BusError::Silent(address)
            }
            zbus::Error::InputOutput(_) => BusError::Ended(address),
            _ => BusError::Manager(address, Box::new(error)),
        }
    }
}

/// What the value of a property can be read as.
trait Answer: TryFrom<OwnedValue, Error = zbus::zvariant::Error> {}

impl<T: TryFrom<OwnedValue, Error = zbus::zvariant::Error>> Answer for T {}

/// `nginx.service` is a `…systemd1.Service`.
fn typed_interface(name: &str) -> String {
    let suffix = name.rsplit('.').next().unwrap_or_default();
    let mut letters = suffix.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let kind: String = first.into_iter().chain(letters).collect();
    format!("{MANAGER}.{kind}")
}

/// 16 bytes, or none for a unit that never started.
fn invocation_id(bytes: &[u8]) -> Option<InvocationId> {
    let id = u128::from_be_bytes(bytes.try_into().ok()?);
    (id != 0).then_some(InvocationId(id))
}

/// A point on `CLOCK_MONOTONIC`, in microseconds, as boot time. The two drift
/// apart by the time the machine was suspended.
fn boottime(usec: u64) -> Boottime {
    let t = rustix::time::clock_gettime(ClockId::Monotonic);
    let monotonic = t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
    let suspended = Boottime::now().0.saturating_sub(monotonic);
    Boottime(usec.saturating_mul(1000).saturating_add(suspended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_this_machine_are_addresses() {
        for good in ["unix:path=/run/bus", "unix:abstract=bus", "unix:path=/proc/7/root/run/a%20b"]
        {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "/run/bus",
            "unix:",
            "unix:dir=/tmp",
            "unix:path=/a,abstract=b",
            "tcp:host=localhost,port=1",
            "unixexec:path=/bin/sh",
            "autolaunch:",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn answers_are_read_as_systemd_means_them() {
        assert_eq!(typed_interface("a.b.service"), "org.freedesktop.systemd1.Service");
        assert_eq!(typed_interface("x.scope"), "org.freedesktop.systemd1.Scope");
        let id: Vec<u8> = (1..=16).collect();
        let shown = invocation_id(&id).map(|id| id.to_string());
        assert_eq!(shown.as_deref(), Some("0102030405060708090a0b0c0d0e0f10"));
        assert_eq!(invocation_id(&[]), None);
        assert_eq!(invocation_id(&[0; 16]), None);
        assert!(boottime(0) <= Boottime::now() && boottime(5).0 >= 5000);
    }
}
