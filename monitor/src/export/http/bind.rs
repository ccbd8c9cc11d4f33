//! Opening the listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// The kernel's buffers of one connection, in bytes. By itself it would give one
/// that does not read its answers many megabytes, times the number of places.
const SEND_BUFFER: u32 = 256 * 1024;
/// Requests are small, and their bodies are not read.
const RECEIVE_BUFFER: u32 = 32 * 1024;
const BACKLOG: u32 = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", why(*address, source))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    source: io::Error,
}

/// Listens on every address.
///
/// # Errors
/// The first address that cannot be had; none is kept then.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        listeners.push(listen(address).map_err(|source| BindError { address, source })?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is free again as soon as the agent before has ended.
    socket.set_reuseaddr(true)?;
    // Each connection inherits them.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn why(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there; find it with `ss -ltnp 'sport = :{port}'` and stop \
             it, or choose another address with --web.listen-address"
        ),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "port {port} needs CAP_NET_BIND_SERVICE; grant it, or choose a port above 1023 with \
             --web.listen-address"
        ),
        io::ErrorKind::AddrNotAvailable => "no interface of this host has that address; choose \
            one that `ip address` shows with --web.listen-address"
            .to_owned(),
        _ => format!("{error}; choose another address with --web.listen-address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_one_sentence_that_says_what_to_do() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = bind(&[loopback]).unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = bind(&[loopback, taken]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {taken}: another program")),
            "{error}"
        );
        assert!(error.contains("--web.listen-address") && !error.contains('\n'));
    }

    #[tokio::test]
    async fn a_foreign_address_is_said_to_be_foreign() {
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(&[foreign]).unwrap_err().to_string();
        assert!(error.contains("no interface of this host has that address"), "{error}");
    }
}
