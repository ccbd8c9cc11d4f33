//! Which request gives what.

use std::time::Instant;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use jiff::Timestamp;

use super::kept::Kept;
use super::reply::{self, HTML, Reply};
use super::target::{LEAKS, Target, UNITS};
use super::view::View;
use crate::export::snapshot::Snapshot;
use crate::export::{api, health, metrics, page};

/// No script, no image, no font, no frame: the page is text and its style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Answers one request. The body, if it has one, is nobody's business.
pub(crate) fn route(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    view: &View,
    kept: &Kept,
    telemetry_path: &str,
) -> Reply {
    if method != Method::GET && method != Method::HEAD {
        let sentence = "this server is read only: use GET or HEAD";
        let mut reply = reply::text(StatusCode::METHOD_NOT_ALLOWED, sentence);
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return reply;
    }
    match Target::read(uri, telemetry_path) {
        Ok(target) => {
            let gzip = reply::takes_gzip(headers);
            kept.get(&target, view, gzip, Instant::now(), || build(&target, view))
        }
        Err(refusal) => *refusal,
    }
}

fn build(target: &Target, view: &View) -> Reply {
    match target {
        Target::Metrics => {
            let body = view.snapshot().map_or_else(metrics::render_without_snapshot, |snapshot| {
                metrics::render(&snapshot)
            });
            reply::reply(StatusCode::OK, metrics::CONTENT_TYPE, body)
        }
        Target::Page => status_page(view),
        Target::Healthy => verdict(view.alive(), "leakwatch is healthy."),
        Target::Ready => verdict(view.ready(), "leakwatch is ready."),
        Target::Health => {
            let snapshot = view.snapshot();
            let fresh = view.ready().is_ok();
            let document = health::document(snapshot.as_deref(), fresh, health::own_usage());
            reply::json(StatusCode::OK, &document)
        }
        Target::Units => of_snapshot(view, |s| reply::json(StatusCode::OK, &api::units(s))),
        Target::Unit(name) => of_snapshot(view, |s| one_unit(s, name)),
        Target::Leaks(state) => {
            of_snapshot(view, |s| reply::json(StatusCode::OK, &api::leaks(s, *state)))
        }
        Target::Leak(id) => of_snapshot(view, |s| one_leak(s, id)),
        Target::Actions => of_snapshot(view, |s| reply::json(StatusCode::OK, &api::actions(s))),
    }
}

fn status_page(view: &View) -> Reply {
    let html = page::render(view.snapshot().as_deref(), &view.alive(), Timestamp::now());
    let mut reply = reply::reply(StatusCode::OK, HTML, html.into_bytes());
    let policy = HeaderValue::from_static(POLICY);
    reply.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    let referrer = HeaderValue::from_static("no-referrer");
    reply.headers_mut().insert(header::REFERRER_POLICY, referrer);
    reply
}

fn verdict(outcome: Result<(), String>, good: &str) -> Reply {
    match outcome {
        Ok(()) => reply::text(StatusCode::OK, good),
        Err(why) => reply::text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn of_snapshot(view: &View, document: impl FnOnce(&Snapshot) -> Reply) -> Reply {
    view.snapshot().map_or_else(
        || {
            let why = view.ready().err().unwrap_or_default();
            reply::json_error(StatusCode::SERVICE_UNAVAILABLE, &why)
        },
        |snapshot| document(&snapshot),
    )
}

fn one_unit(snapshot: &Snapshot, name: &str) -> Reply {
    api::unit(snapshot, name).map_or_else(
        || not_found(&format!("no unit has that name; {UNITS} lists them")),
        |unit| reply::json(StatusCode::OK, &unit),
    )
}

fn one_leak(snapshot: &Snapshot, id: &str) -> Reply {
    api::leak(snapshot, id).map_or_else(
        || not_found(&format!("no verdict has that id; {LEAKS} lists them")),
        |leak| reply::json(StatusCode::OK, leak),
    )
}

fn not_found(sentence: &str) -> Reply {
    reply::json_error(StatusCode::NOT_FOUND, sentence)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::export::testing::{HOSTILE, hostile, night};

    fn at(method: &Method, target: &str, view: &View, telemetry_path: &str) -> Reply {
        let (uri, kept) = (target.parse().unwrap(), Kept::default());
        route(method, &uri, &HeaderMap::new(), view, &kept, telemetry_path)
    }

    fn get(view: &View, target: &str) -> (u16, String) {
        let reply = at(&Method::GET, target, view, "/metrics");
        assert_eq!(reply.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        (reply.status().as_u16(), String::from_utf8(reply.into_body().to_vec()).unwrap())
    }

    fn full() -> View {
        let view = View::new();
        view.publish(night().into());
        view
    }

    #[test]
    fn every_path_answers() {
        let view = full();
        for (target, status, part) in [
            ("/", 200, "<!DOCTYPE html>"),
            ("/metrics", 200, "leakwatch_unit_info{"),
            ("/-/healthy", 200, "leakwatch is healthy."),
            ("/-/ready", 200, "leakwatch is ready."),
            ("/health", 200, "\"is_healthy\":false"),
            ("/api/v1/units", 200, "{\"units\":["),
            ("/api/v1/units/nginx.service", 200, "\"name\":\"nginx.service\""),
            ("/api/v1/units/nope", 404, "{\"error\":\"no unit"),
            ("/api/v1/units/%zz", 400, "{\"error\":"),
            ("/api/v1/leaks", 200, "{\"leaks\":["),
            ("/api/v1/leaks?state=resolved", 200, "c0ffee000001"),
            ("/api/v1/leaks?state=gone", 400, "must be suspected, confirmed or resolved"),
            ("/api/v1/leaks/3f9a01c2d4e5", 200, "\"id\":\"3f9a01c2d4e5\""),
            ("/api/v1/leaks/0", 404, "{\"error\":\"no verdict"),
            ("/api/v1/actions", 200, "{\"actions\":["),
            ("/api/v2", 404, "{\"error\":"),
            ("/api/v1/unitsx", 404, "{\"error\":"),
            ("/nope", 404, "nothing is here"),
        ] {
            let (got, body) = get(&view, target);
            assert_eq!(got, status, "{target}: {body}");
            assert!(body.contains(part), "{target}: {body}");
        }
        let (_, resolved) = get(&view, "/api/v1/leaks?state=resolved");
        assert!(!resolved.contains("confirmed\",\"held"), "{resolved}");
    }

    #[test]
    fn before_the_first_snapshot_the_agent_says_so() {
        let view = View::new();
        for (target, status, part) in [
            ("/", 200, "first census"),
            ("/metrics", 200, "leakwatch_build_info"),
            ("/-/healthy", 200, "healthy"),
            ("/-/ready", 503, "the first census is still under way"),
            ("/health", 200, "\"is_healthy\":false"),
            ("/api/v1/units", 503, "{\"error\":\"the first census"),
        ] {
            let (got, body) = get(&view, target);
            assert_eq!(got, status, "{target}: {body}");
            assert!(body.contains(part), "{target}: {body}");
        }
    }

    #[test]
    fn units_are_found_by_hostile_names() {
        for name in HOSTILE.into_iter().chain(["/system.slice/a b/c"]) {
            let view = View::new();
            view.publish(hostile(name).into());
            let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
            let (status, body) = get(&view, &format!("/api/v1/units/{encoded}"));
            assert_eq!(status, 200);
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["name"], name);
        }
        let view = View::new();
        view.publish(hostile("/system.slice/x").into());
        assert_eq!(get(&view, "/api/v1/units//system.slice/x").0, 200);
    }

    #[test]
    fn only_get_and_head() {
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            let reply = at(&method, "/health", &full(), "/metrics");
            assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(reply.headers()[header::ALLOW], "GET, HEAD");
        }
    }

    #[test]
    fn the_telemetry_path_is_the_one_that_was_asked_for() {
        let status = |path| at(&Method::GET, path, &full(), "/own").status();
        assert_eq!(status("/own"), StatusCode::OK);
        assert_eq!(status("/metrics"), StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_page_forbids_everything_but_its_style() {
        let reply = at(&Method::GET, "/", &full(), "/metrics");
        let policy = reply.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'unsafe-inline'"), "{policy}");
    }
}
