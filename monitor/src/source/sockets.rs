//! States of TCP sockets where no iterator tells them: `/proc/PID/net/tcp` and `tcp6`,
//! which list the network namespace of that process.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::Process;

use super::model::{FdKind, FdTable, SocketState};

const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// What one census has read so far: each namespace once.
#[derive(Default)]
pub struct Sockets {
    /// By the inode of the namespace, then by that of the socket.
    namespaces: HashMap<u64, HashMap<u64, SocketState>>,
}

impl Sockets {
    /// Tells the TCP sockets of `table`, which is that of `pid`, their states. One that
    /// is not found, or may not be looked at, stays without.
    pub fn describe(&mut self, proc: &Path, pid: u32, table: &mut FdTable) {
        let FdTable::Full(fds) = table else { return };
        let mut sockets = fds.iter_mut().filter(|f| f.kind == FdKind::Socket).peekable();
        if sockets.peek().is_none() {
            return;
        }
        let dir = proc.join(pid.to_string());
        let Ok(namespace) = fs::metadata(dir.join("ns/net")) else { return };
        let known = self.namespaces.entry(namespace.ino()).or_insert_with(|| read(&dir));
        for socket in sockets {
            socket.socket = known.get(&socket.inode).copied();
        }
    }
}

fn read(dir: &Path) -> HashMap<u64, SocketState> {
    let Ok(process) = Process::new_with_root(dir.to_path_buf()) else { return HashMap::new() };
    let mut all = HashMap::new();
    // A kernel without IPv6 has no second table.
    for (family, table) in [(AF_INET, process.tcp()), (AF_INET6, process.tcp6())] {
        // Inode 0 is what has no socket any more, such as TIME_WAIT.
        for entry in table.into_iter().flatten().filter(|entry| entry.inode != 0) {
            let sock_type = libc::SOCK_STREAM as u16;
            let peer = Some(entry.remote_address).filter(|peer| peer.port() != 0);
            let state = SocketState {
                port: entry.local_address.port(),
                peer: peer.map(plain),
                ..SocketState::new(family, sock_type, entry.state as u8)
            };
            all.insert(entry.inode, state);
        }
    }
    all
}

/// What came by IPv4 as such, also where the socket is of IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::source::procfd;

    #[test]
    fn a_peer_that_has_gone_is_seen_in_either_family() {
        let proc = Path::new("/proc");
        let pid = std::process::id();
        for (address, family) in [("127.0.0.1:0", AF_INET), ("[::1]:0", AF_INET6)] {
            // A machine without IPv6 has no such address.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (unix, _other) = UnixStream::pair().unwrap();
            let state_of = |fd: i32| {
                let mut table = procfd::table(proc, pid).unwrap();
                Sockets::default().describe(proc, pid, &mut table);
                let FdTable::Full(fds) = table else { panic!("not seen") };
                fds.iter().find(|f| f.fd == fd as u32).unwrap().socket
            };
            let (here, there) = (client.local_addr().unwrap(), listener.local_addr().unwrap());
            let stream = |state, port, peer| {
                Some(SocketState { port, peer, ..SocketState::new(family, 1, state) })
            };
            let listens = stream(10, there.port(), None);
            assert_eq!(state_of(listener.as_raw_fd()), listens, "{address}");
            let connected = stream(1, here.port(), Some(there));
            assert_eq!(state_of(client.as_raw_fd()), connected, "{address}");
            let accepted = stream(1, there.port(), Some(here));
            assert_eq!(state_of(server.as_raw_fd()), accepted, "{address}");
            assert_eq!(state_of(unix.as_raw_fd()), None, "no TCP");
            drop(server);
            let waits = stream(8, here.port(), Some(there));
            assert_eq!(state_of(client.as_raw_fd()), waits, "{address}");
            assert!(state_of(client.as_raw_fd()).is_some_and(SocketState::close_wait));
        }
    }

    #[test]
    fn a_process_that_has_gone_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut table = procfd::table(Path::new("/proc"), std::process::id()).unwrap();
        let before = table.clone();
        Sockets::default().describe(Path::new("/no/proc"), 1, &mut table);
        assert!(table == before);
        drop(listener);
    }
}
