//! Answers: their headers and their compression.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What every route gives.
pub(crate) type Reply = Response<Bytes>;

/// One that is given instead of what was asked for.
pub(super) type Refusal = Box<Reply>;

/// Smaller bodies are not worth compressing: they fit one packet as they are.
const COMPRESS_FROM: usize = 1400;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// An answer of any type.
pub(super) fn reply(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let mut set = |name: HeaderName, value: &'static str| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_TYPE, content_type);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Everything here is of this very moment, or of the last second.
    set(header::CACHE_CONTROL, "no-store");
    response
}

/// A sentence for people.
pub(super) fn text(status: StatusCode, sentence: &str) -> Reply {
    reply(status, TEXT, format!("{sentence}\n").into_bytes())
}

/// A document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Reply {
    match serde_json::to_vec(document) {
        Ok(mut body) => {
            body.push(b'\n');
            reply(status, JSON, body)
        }
        Err(error) => {
            tracing::error!(%error, "a document cannot be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the document cannot be written as JSON")
        }
    }
}

/// An error of the API.
pub(super) fn json_error(status: StatusCode, sentence: &str) -> Reply {
    #[derive(Serialize)]
    struct ErrorDoc<'a> {
        error: &'a str,
    }
    json(status, &ErrorDoc { error: sentence })
}

/// The answer as it goes out: with its body, or with `small` in its place.
/// Bodies are shared, not copied.
pub(super) fn encoded(plain: &Reply, small: Option<Bytes>) -> Reply {
    let mut reply = plain.clone();
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(small) = small {
        *reply.body_mut() = small;
        let gzip = HeaderValue::from_static("gzip");
        reply.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    }
    reply
}

/// The body compressed, where that is worth it.
pub(super) fn gzip(body: &Bytes) -> Option<Bytes> {
    if body.len() < COMPRESS_FROM {
        return None;
    }
    // The lowest level is within a few percent of the default on such text, for
    // a third of the time.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Reads `Accept-Encoding` (RFC 9110, 12.5.3): what names gzip decides, else
/// `*`; a weight of 0 refuses, and so does one that is none: to send it plain is
/// never wrong.
pub(super) fn takes_gzip(request: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    let values = request.get_all(header::ACCEPT_ENCODING).iter();
    for item in values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let wanted = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .is_none_or(|(_, q)| is_wanted(q.trim()));
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            named = Some(wanted);
        } else if coding == "*" {
            any = Some(wanted);
        }
    }
    named.or(any).unwrap_or(false)
}

/// Whether a weight is above 0. It is `0` or `1`, with at most three decimals,
/// and none but zeros after a one (RFC 9110, 12.4.2).
fn is_wanted(weight: &str) -> bool {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|c| c.is_ascii_digit()) {
        return false;
    }
    let nothing = decimals.bytes().all(|c| c == b'0');
    match whole {
        "0" => !nothing,
        "1" => nothing,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_only_where_it_is_taken() {
        for (value, want) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000, *", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("", false),
            ("gzip;q=rubbish", false),
            ("gzip;q=1", true),
            ("gzip;q=1.000", true),
            ("gzip;q=1.", true),
            ("gzip;q=0.001", true),
            ("gzip;Q=0.8", true),
            ("gzip;q=1.5", false),
            ("gzip;q=1.001", false),
            ("gzip;q=0.0001", false),
            ("gzip;q=-1", false),
            ("gzip;q=+1", false),
            ("gzip;q=2", false),
            ("gzip;q=.5", false),
            ("gzip;q=1e-1", false),
            ("gzip;q=inf", false),
            ("gzip;q=NaN", false),
            ("gzip;q=", false),
            ("gzip;q=1.5, *", false),
            ("*;q=1.5", false),
            ("gzipped", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
            assert_eq!(takes_gzip(&headers), want, "{value:?}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
