//! Opening the listening sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

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
pub async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener =
            TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
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
        let first = bind(&[loopback]).await.unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = bind(&[loopback, taken]).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {taken}: another program")),
            "{error}"
        );
        assert!(error.contains("--web.listen-address") && !error.contains('\n'));
    }

    #[tokio::test]
    async fn a_foreign_address_is_said_to_be_foreign() {
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = bind(&[foreign]).await.unwrap_err().to_string();
        assert!(error.contains("no interface of this host has that address"), "{error}");
    }
}
