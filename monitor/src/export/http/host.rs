//! Whom a request takes this server for.
//!
//! The API has no password: on loopback, who may connect may read. A web page
//! must not be able to borrow that right. It can make a browser on this host
//! connect here under a name of its own that resolves to loopback (DNS
//! rebinding), but the browser then says that name in `Host`. So what arrives
//! over loopback must name an address, localhost, this host, or a name that the
//! user allowed.

use std::net::Ipv6Addr;

use hyper::header::{self, HeaderMap};
use hyper::{StatusCode, Uri, Version};

use super::reply::{self, Refusal};

/// Names that may be asked for over loopback, in lower case.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// This host's, and those that the user allowed.
    pub(super) fn new(allowed: &[String]) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::of(&host, allowed)
    }

    fn of(host: &str, allowed: &[String]) -> Self {
        let short = host.split('.').next().unwrap_or_default();
        let own = [host, short].into_iter().filter(|name| !name.is_empty());
        Self(own.chain(allowed.iter().map(String::as_str)).map(plain).collect())
    }

    /// Checks the head of a request; `loopback` where it arrived there.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(super) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        loopback: bool,
    ) -> Result<(), Refusal> {
        let bad = |sentence| Err(Box::new(reply::text(StatusCode::BAD_REQUEST, sentence)));
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => return bad("the request has several Host headers; send one"),
            // RFC 9112, 3.2. Before 1.1, nobody had to say it.
            (None, _) if version >= Version::HTTP_11 => {
                return bad("the request has no Host header; HTTP/1.1 demands one");
            }
            (None, _) => None,
            (Some(value), None) => match value.to_str().ok().and_then(host_of) {
                Some(host) => Some(host),
                None => return bad("the Host header is malformed; send NAME or NAME:PORT"),
            },
        };
        // A target in absolute form is what counts then.
        let host = uri.host().or(host).unwrap_or_default();
        if !loopback || self.has(host) {
            return Ok(());
        }
        Err(Box::new(reply::text(
            StatusCode::MISDIRECTED_REQUEST,
            "over loopback, the agent answers to an address, to localhost and to the name of \
             this host, and not to the name in Host, so that no web page can read it under a \
             name of its own; if a proxy passes that name on, allow it with --web.allowed-host",
        )))
    }

    fn has(&self, host: &str) -> bool {
        let name = plain(host);
        let is_address = host.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
        // No name at all is none that a page could choose.
        name.is_empty()
            || is_address
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.0.contains(&name)
    }
}

/// Names are the same in any case, and with or without the dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The host of `host` or `host:port` (RFC 3986, 3.2.2), brackets kept.
fn host_of(value: &str) -> Option<&str> {
    let end = match value.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => value.find(':').unwrap_or(value.len()),
    };
    let (host, port) = value.split_at(end);
    if !port.is_empty() && !port.strip_prefix(':')?.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let good = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&c)),
    };
    good.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200, or the status of the refusal.
    fn status(version: Version, target: &str, hosts: &[&[u8]], loopback: bool) -> u16 {
        let names = Names::of("Web1.example.net", &["metrics.corp.".to_owned()]);
        let mut headers = HeaderMap::new();
        for host in hosts {
            let value = header::HeaderValue::from_bytes(host).unwrap();
            headers.append(header::HOST, value);
        }
        let checked = names.check(version, &target.parse().unwrap(), &headers, loopback);
        checked.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn over_loopback_only_names_of_this_host_are_answered() {
        for (host, want) in [
            ("localhost", 200),
            ("LocalHost:19970", 200),
            ("localhost.:1", 200),
            ("a.localhost", 200),
            ("127.0.0.1:19970", 200),
            ("192.0.2.7", 200),
            ("[::1]:19970", 200),
            ("web1", 200),
            ("web1.example.net:80", 200),
            ("WEB1.EXAMPLE.NET.", 200),
            ("metrics.corp", 200),
            ("", 200),
            (":19970", 200),
            ("evil.example", 421),
            ("evil.example:19970", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("notlocalhost", 421),
            ("web1.evil.example", 421),
            ("127.0.0.1x", 421),
        ] {
            assert_eq!(status(Version::HTTP_11, "/", &[host.as_bytes()], true), want, "{host}");
            // Whoever listens elsewhere has chosen who may come.
            assert_eq!(status(Version::HTTP_11, "/", &[host.as_bytes()], false), 200, "{host}");
        }
    }

    #[test]
    fn a_request_has_one_well_formed_host() {
        let one = |host: &'static str| vec![host.as_bytes()];
        for (version, target, hosts, want) in [
            (Version::HTTP_11, "/", vec![], 400),
            (Version::HTTP_10, "/", vec![], 200),
            (Version::HTTP_11, "/", vec![&b"localhost"[..], b"localhost"], 400),
            (Version::HTTP_10, "/", vec![b"localhost", b"evil.example"], 400),
            (Version::HTTP_11, "/", one("local host"), 400),
            (Version::HTTP_11, "/", one("localhost:80:80"), 400),
            (Version::HTTP_11, "/", one("localhost:x"), 400),
            (Version::HTTP_11, "/", one("me@localhost"), 400),
            (Version::HTTP_11, "/", one("localhost/x"), 400),
            (Version::HTTP_11, "/", one("[::1"), 400),
            (Version::HTTP_11, "/", one("[evil.example]"), 400),
            (Version::HTTP_11, "/", one("::1"), 400),
            (Version::HTTP_11, "/", vec![b"h\xc3\xb6flich"], 400),
            // In absolute form the target decides, and Host must be there.
            (Version::HTTP_11, "http://evil.example/", one("localhost"), 421),
            (Version::HTTP_11, "http://localhost:19970/", one("evil.example"), 200),
            (Version::HTTP_11, "http://localhost/", vec![], 400),
            (Version::HTTP_10, "http://evil.example/", vec![], 421),
            (Version::HTTP_10, "/", one("evil.example"), 421),
        ] {
            assert_eq!(
                status(version, target, &hosts, true),
                want,
                "{version:?} {target} {hosts:?}"
            );
        }
    }
}
