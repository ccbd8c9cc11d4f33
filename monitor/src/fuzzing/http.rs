//! Requests, from their first line to the compressed answer.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use jiff::Timestamp;

use crate::attribution::unit::{Unit, UnitKind};
use crate::export::http::kept::Kept;
use crate::export::http::{View, path, route};
use crate::export::snapshot::Snapshot;
use crate::ledger::view::UnitView;
use crate::source::model::SourceFigures;
use crate::text;

/// `data` as `METHOD TARGET` and a line for each `Accept-Encoding`; and as the
/// name of a unit.
pub fn http(data: &[u8]) {
    let view = View::new();
    let name = text::printable(&data[..data.len().min(200)]);
    view.publish(Arc::new(snapshot(&name)));
    request(data, &view);
    let asked = format!("/api/v1/units/{}", encoded(&name));
    let (status, body) = get(&Method::GET, &asked, &HeaderMap::new(), &view);
    let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    assert_eq!((status, parsed["name"].as_str()), (StatusCode::OK, Some(&*name)), "{asked}");

    let given = String::from_utf8_lossy(data);
    assert_eq!(path::decode(&encoded(&given)).as_deref(), Some(&*given), "names come back");
    let query = format!("a=1&state={}&b", encoded(&given));
    assert_eq!(path::parameter(Some(&query), "state"), path::Parameter::Once(given.to_string()));
    if let Some(decoded) = path::decode(&given) {
        assert!(decoded.len() <= given.len());
    }
}

fn request(data: &[u8], view: &View) {
    let mut lines = data.split(|b| *b == b'\n');
    let mut first = lines.next().unwrap_or_default().splitn(2, |b| *b == b' ');
    let (Some(method), Some(target)) = (first.next(), first.next()) else { return };
    let (Ok(method), Ok(target)) = (Method::from_bytes(method), std::str::from_utf8(target)) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for value in lines.take(20).filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(header::ACCEPT_ENCODING, value);
    }
    get(&method, target, &headers, view);
}

/// What is answered, uncompressed.
fn get(method: &Method, target: &str, headers: &HeaderMap, view: &View) -> (StatusCode, Vec<u8>) {
    let Ok(uri) = target.parse::<Uri>() else { return (StatusCode::BAD_REQUEST, Vec::new()) };
    let kept = Kept::default();
    let answer = |headers: &HeaderMap| route::route(method, &uri, headers, view, &kept, "/metrics");
    let plain = answer(&HeaderMap::new());
    let status = plain.status();
    let known = [200, 400, 404, 405, 503].contains(&status.as_u16());
    assert!(known, "{method} {target}: {status}");
    assert_eq!(plain.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let body = plain.body().clone();
    let shown = String::from_utf8_lossy(&body);
    assert!(matches!(shown, std::borrow::Cow::Borrowed(_)), "{target}: an answer not in UTF-8");
    if status != StatusCode::OK {
        // A fixed sentence: nothing of the request comes back.
        assert!(body.len() < 400 && !shown.contains('<'), "{target}: {shown}");
    }
    let answer = answer(headers);
    let compressed = answer.headers().contains_key(header::CONTENT_ENCODING);
    assert!(!compressed || headers.contains_key(header::ACCEPT_ENCODING), "nobody asked for gzip");
    let mut sent = answer.body().to_vec();
    if compressed {
        let packed = std::mem::take(&mut sent);
        let read = GzDecoder::new(&packed[..]).read_to_end(&mut sent);
        assert!(read.is_ok(), "{target}: not gzip");
    }
    // The metrics have the agent's own usage, of the moment they are built.
    assert!(uri.path() == "/metrics" || sent == body, "{target}: something else is sent");
    (status, body.to_vec())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// One unit of that name, with nothing seen of it.
fn snapshot(name: &str) -> Snapshot {
    let at = Timestamp::UNIX_EPOCH;
    let unit = Unit { name: name.into(), kind: UnitKind::Cgroup, cgroup: name.into() };
    Snapshot {
        at,
        started: at,
        unplaced: None,
        units: vec![UnitView {
            unit: Arc::new(unit),
            systemd: None,
            invocation: 1,
            since: at,
            open_fds: None,
            open_fds_total: None,
            denied_processes: 1,
            worst: None,
            threads: 1,
            processes: 1,
            zombies: 0,
            orphans: 0,
            tasks: None,
            deleted_open_bytes: None,
            tasks_max: None,
            flows: None,
            baselines: Vec::new(),
            history: Vec::new(),
        }],
        leaks: Vec::new(),
        confirmed_total: BTreeMap::new(),
        actions: Vec::new(),
        actions_total: BTreeMap::new(),
        sources: Vec::new(),
        figures: SourceFigures::default(),
        corrections: BTreeMap::new(),
        reload_ok: true,
        interval: Duration::from_secs(5),
        whole_interval: Duration::from_secs(5),
    }
}
