//! Flags of the HTTP server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

/// Paths that are taken, without a slash at the end: the page, and JSON.
const TAKEN: [&str; 4] = ["", "/health", "/-", "/api"];

/// Reads `host:port`, `[::1]:port` or `:port`.
pub(super) fn listen_address(given: &str) -> Result<SocketAddr, String> {
    if given.contains("://") {
        return Err("it is a URL; write an address, such as 127.0.0.1:19970".into());
    }
    let no_port = || format!("it has no port; write such as {}:19970", bracketed(given));
    let (host, port) = given.rsplit_once(':').ok_or_else(no_port)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(no_port)?,
        None if host.contains(':') => {
            return Err("an IPv6 address needs brackets; write such as [::1]:19970".into());
        }
        None => host,
    };
    let port: u16 = port.parse().map_err(|_| "its port is no number from 0 to 65535".to_owned())?;
    if host.is_empty() {
        return Ok(SocketAddr::new(unspecified(), port));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|e| format!("no address for the host: {e}"))?
        .collect();
    // A name such as localhost has several addresses. One flag is one socket,
    // and IPv4 is what the default address uses.
    let first = found.iter().find(|a| a.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "the host has no address".to_owned())
}

fn bracketed(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) if host.is_empty() || host.contains(['[', ']']) => "[::1]".into(),
        Err(_) => host.to_owned(),
    }
}

/// All addresses: of both families where the kernel has IPv6.
fn unspecified() -> IpAddr {
    if Path::new("/proc/net/if_inet6").exists() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// Checks the path of the metrics.
pub(super) fn telemetry_path(given: &str) -> Result<String, String> {
    if !given.starts_with('/') {
        return Err(format!("it must begin with `/`; write \"/{given}\""));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if !given.chars().all(plain) {
        return Err("it may hold letters, digits, and `/`, `-`, `.`, `_`, `~`".into());
    }
    if TAKEN.contains(&given.trim_end_matches('/')) {
        return Err("the agent serves something else there; use such as \"/metrics\"".into());
    }
    if given.starts_with("/api/") || given.starts_with("/-/") {
        return Err("the agent keeps /api/ and /-/ for itself; use such as \"/metrics\"".into());
    }
    Ok(given.to_owned())
}

/// Checks a name that may stand in `Host`.
pub(super) fn host_name(given: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if given.is_empty() || !given.chars().all(plain) {
        return Err("it is no host name; write one without a port, such as web.example.org".into());
    }
    Ok(given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, want) in [
            ("127.0.0.1:19970", Ok("127.0.0.1:19970")),
            ("[::1]:19970", Ok("[::1]:19970")),
            ("0.0.0.0:0", Ok("0.0.0.0:0")),
            ("127.0.0.1", Err("it has no port; write such as 127.0.0.1:19970")),
            ("localhost", Err("it has no port; write such as localhost:19970")),
            ("[::1]", Err("it has no port; write such as [::1]:19970")),
            ("::1:19970", Err("an IPv6 address needs brackets; write such as [::1]:19970")),
            ("127.0.0.1:x", Err("its port is no number from 0 to 65535")),
            ("127.0.0.1:65536", Err("its port is no number from 0 to 65535")),
            ("127.0.0.1:", Err("its port is no number from 0 to 65535")),
            ("", Err("it has no port; write such as [::1]:19970")),
            ("http://h:1", Err("it is a URL; write an address, such as 127.0.0.1:19970")),
        ] {
            let got = listen_address(given);
            match want {
                Ok(address) => assert_eq!(got, Ok(address.parse().unwrap()), "{given}"),
                Err(why) => assert_eq!(got, Err(why.to_owned()), "{given}"),
            }
        }
        let all = listen_address(":19970").unwrap();
        assert!(all.ip().is_unspecified() && all.port() == 19970);
        assert!(listen_address("localhost:1").unwrap().ip().is_loopback());
    }

    #[test]
    fn names() {
        for good in ["web", "web.example.org", "a_b-c."] {
            assert_eq!(host_name(good), Ok(good.to_owned()));
        }
        for bad in ["", "h:80", "http://h", "*", "a b", "höflich", "[::1]"] {
            assert!(host_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(telemetry_path("/metrics"), Ok("/metrics".into()));
        assert_eq!(telemetry_path("/a/b-c.d"), Ok("/a/b-c.d".into()));
        for bad in [
            "", "metrics", "/", "//", "/health", "/health/", "/-/ready", "/-/x", "/api/v1",
            "/api/x", "/a b", "/a?b", "/a#b", "/\n", "/ä",
        ] {
            assert!(telemetry_path(bad).is_err(), "{bad:?}");
        }
    }
}
