//! A client for the agent's API: one request, plain http.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::url::BaseUrl;
use crate::text::printable;

/// For the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An agent with 500 units says a few MiB.
const MAX_BODY: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nothing listens there, or nothing answers.
    #[error("no agent answers at {url}: {why}")]
    Unreachable { url: BaseUrl, why: String },
    /// Something answers that is no leakwatch.
    #[error("what answers at {url} is not leakwatch ({why}); name the agent's address with --url")]
    NotLeakwatch { url: BaseUrl, why: String },
    /// The agent says that it cannot answer.
    #[error("the agent at {url} cannot answer now: {why}")]
    Refused { url: BaseUrl, why: String },
}

/// Gets a JSON document.
///
/// # Errors
/// See [`ClientError`].
pub(super) fn get<T: DeserializeOwned>(url: &BaseUrl, path: &str) -> Result<T, ClientError> {
    get_within(url, path, TIMEOUT)
}

fn get_within<T: DeserializeOwned>(
    url: &BaseUrl,
    path: &str,
    timeout: Duration,
) -> Result<T, ClientError> {
    let unreachable = |why: String| ClientError::Unreachable { url: url.clone(), why };
    let not_leakwatch = |why: String| ClientError::NotLeakwatch { url: url.clone(), why };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| unreachable(e.to_string()))?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(timeout, exchange(url, path)).await.map_err(|_| {
            unreachable(format!("no answer within {}", crate::text::duration(timeout)))
        })?
    });
    // A name lookup that hangs would hold the runtime's end back.
    runtime.shutdown_background();
    let (status, body) = answer?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|e| not_leakwatch(format!("its {path} does not read: {e}"))),
        StatusCode::SERVICE_UNAVAILABLE => {
            Err(ClientError::Refused { url: url.clone(), why: first_line(&body) })
        }
        other => Err(not_leakwatch(format!("HTTP status {} for {path}", other.as_u16()))),
    }
}

async fn exchange(url: &BaseUrl, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let unreachable = |e: io::Error| ClientError::Unreachable {
        url: url.clone(),
        why: match e.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".into(),
            _ => e.to_string(),
        },
    };
    let not_leakwatch = |why: String| ClientError::NotLeakwatch { url: url.clone(), why };
    let not_http = |e: hyper::Error| not_leakwatch(format!("it does not speak http: {e}"));
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_http)?;
    let request = Request::get(format!("{}{path}", url.prefix))
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, concat!("leakwatch/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|e| not_leakwatch(e.to_string()))?;
    // Its errors come out of `send_request` and of the body too.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(not_http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|e| {
        if e.is::<LengthLimitError>() {
            not_leakwatch("its answer is larger than 64 MiB".into())
        } else {
            not_leakwatch(format!("its answer broke off: {e}"))
        }
    })?;
    Ok((status, body.to_bytes()))
}

/// The first line of a body that is meant to be a reason; at most 200 characters.
fn first_line(body: &[u8]) -> String {
    let line = body.split(|b| *b == b'\n').next().unwrap_or_default();
    let line: String = printable(line).chars().take(200).collect();
    if line.is_empty() { "it does not say why".into() } else { line }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use serde_json::Value;

    use super::*;

    /// Serves one connection with fixed bytes and gives back what was asked.
    fn serve(answer: &'static [u8]) -> (BaseUrl, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/p", listener.local_addr().unwrap()).parse().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            // The client may have gone already.
            let _ = stream.write_all(answer);
            String::from_utf8(asked).unwrap()
        });
        (url, asked)
    }

    fn error(answer: &'static [u8]) -> String {
        let (url, asked) = serve(answer);
        let error = get::<Value>(&url, "/x").unwrap_err().to_string();
        asked.join().unwrap();
        error.replace(&url.to_string(), "URL")
    }

    #[test]
    fn a_document_is_read() {
        let (url, asked) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
        assert_eq!(get::<Value>(&url, "/api/v1/units").unwrap()["a"], 1);
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("GET /p/api/v1/units HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {}\r\n", url.authority())), "{asked}");
    }

    #[test]
    fn errors_say_what_is_there_instead() {
        let end = "; name the agent's address with --url";
        assert_eq!(
            error(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            format!("what answers at URL is not leakwatch (HTTP status 404 for /x){end}")
        );
        assert_eq!(
            error(b"HTTP/1.1 503 No\r\nContent-Length: 12\r\n\r\nno\x1b census\n."),
            "the agent at URL cannot answer now: no\\u{1b} census"
        );
        assert!(
            error(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>").contains("does not read")
        );
        assert!(error(b"SSH-2.0-OpenSSH\r\n").contains("does not speak http"));
        assert!(error(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").contains("broke off"));
    }

    #[test]
    fn silence_and_refusal_are_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: BaseUrl = listener.local_addr().unwrap().to_string().parse().unwrap();
        let silent = get_within::<Value>(&url, "/x", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(silent, ClientError::Unreachable { .. }), "{silent}");
        assert!(silent.to_string().ends_with("no answer within 50 ms"), "{silent}");
        drop(listener);
        let refused = get::<Value>(&url, "/x").unwrap_err();
        assert_eq!(refused.to_string(), format!("no agent answers at {url}: connection refused"));
    }
}
