//! The agent's address as a client gives it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;

/// A plain-http URL without query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    /// Name or address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// What a proxy put before the agent's paths; does not end in `/`.
    pub(super) prefix: String,
}

impl BaseUrl {
    /// It can only mean this host.
    pub(super) fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// `host:port`, with brackets where IPv6 needs them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let example = "write such as http://127.0.0.1:19970";
        let full = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let uri: Uri = full.parse().map_err(|e| format!("it is no URL ({e}); {example}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("https is not supported; use the agent's plain http address, \
                            such as http://127.0.0.1:19970"
                    .into());
            }
            _ => return Err(format!("only http is supported; {example}")),
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(format!("a user name is not supported; {example}"));
        }
        if uri.query().is_some() {
            return Err(format!("it has a query; {example}"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(format!("it has no host; {example}"));
        }
        let authority = uri.authority().map_or("", |a| a.as_str());
        let port = match uri.port() {
            Some(port) => port.as_u16(),
            // hyper reads a port it cannot hold as none at all.
            None if authority.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                return Err("its port is no number from 0 to 65535".into());
            }
            None => 80,
        };
        Ok(Self { host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (given, want) in [
            ("http://127.0.0.1:19970", Ok("http://127.0.0.1:19970")),
            ("http://127.0.0.1:19970/", Ok("http://127.0.0.1:19970")),
            ("127.0.0.1:19970", Ok("http://127.0.0.1:19970")),
            ("http://[::1]:1/leak/", Ok("http://[::1]:1/leak")),
            ("http://host", Ok("http://host:80")),
            ("ftp://h", Err("only http is supported")),
            ("https://h", Err("https is not supported")),
            ("http://u:p@h", Err("a user name is not supported")),
            ("http://h/?a=b", Err("it has a query")),
            ("http://h:99999", Err("port")),
            ("http://", Err("it is no URL")),
            ("", Err("it is no URL")),
            ("http://a b", Err("it is no URL")),
        ] {
            match (given.parse::<BaseUrl>(), want) {
                (Ok(url), Ok(want)) => assert_eq!(url.to_string(), want),
                (Err(why), Err(want)) => assert!(why.contains(want), "{given}: {why}"),
                (got, _) => panic!("{given}: {got:?}"),
            }
        }
    }

    #[test]
    fn only_loopback_is_local() {
        for (given, want) in [
            ("localhost:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("node7:1", false),
        ] {
            assert_eq!(given.parse::<BaseUrl>().unwrap().is_local(), want, "{given}");
        }
    }
}
