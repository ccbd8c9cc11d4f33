//! What a request is for.

use hyper::{StatusCode, Uri};

use super::path::{self, Parameter};
use super::reply::{self, Refusal};
use crate::detection::verdict::State;

pub(super) const UNITS: &str = "/api/v1/units";
pub(super) const LEAKS: &str = "/api/v1/leaks";
pub(super) const ACTIONS: &str = "/api/v1/actions";

const STATES: [State; 3] = [State::Suspected, State::Confirmed, State::Resolved];

/// Everything that can be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Metrics,
    Page,
    Healthy,
    Ready,
    Health,
    Units,
    Unit(String),
    Leaks(Option<State>),
    Leak(String),
    Actions,
}

impl Target {
    /// How many have a [`slot`](Self::slot).
    pub(super) const KEPT: usize = 9;

    /// Reads a request target.
    ///
    /// # Errors
    /// The answer where there is nothing, or where it is malformed.
    pub(super) fn read(uri: &Uri, telemetry_path: &str) -> Result<Self, Refusal> {
        let path = uri.path();
        // First, since the user may have chosen any path.
        if path == telemetry_path {
            return Ok(Self::Metrics);
        }
        match path {
            "/" => Ok(Self::Page),
            "/-/healthy" => Ok(Self::Healthy),
            "/-/ready" => Ok(Self::Ready),
            "/health" => Ok(Self::Health),
            _ if path == "/api" || path.starts_with("/api/") => Self::of_api(path, uri.query()),
            _ => Err(Box::new(reply::text(
                StatusCode::NOT_FOUND,
                &format!(
                    "nothing is here; there is / and {telemetry_path}, /health, /-/healthy, \
                     /-/ready, {UNITS}, {LEAKS} and {ACTIONS}"
                ),
            ))),
        }
    }

    fn of_api(path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let bad = |sentence| Box::new(reply::json_error(StatusCode::BAD_REQUEST, sentence));
        let below = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('/');
        let name = |encoded: &str| {
            let escape = "the path has a broken percent escape, or is not UTF-8";
            path::decode(encoded).ok_or_else(|| bad(escape))
        };
        if let Some(unit) = below(UNITS) {
            return name(unit).map(Self::Unit);
        }
        if let Some(id) = below(LEAKS) {
            return name(id).map(Self::Leak);
        }
        match path {
            UNITS => Ok(Self::Units),
            ACTIONS => Ok(Self::Actions),
            LEAKS => match path::parameter(query, "state") {
                Parameter::Absent => Ok(Self::Leaks(None)),
                Parameter::Once(wanted) => match STATES.iter().find(|s| s.as_str() == wanted) {
                    Some(state) => Ok(Self::Leaks(Some(*state))),
                    None => Err(bad("state must be suspected, confirmed or resolved")),
                },
                Parameter::Again => Err(bad("state is given more than once; give it once")),
                Parameter::Broken => {
                    Err(bad("the query has a broken percent escape, or is not UTF-8"))
                }
            },
            _ => Err(Box::new(reply::json_error(
                StatusCode::NOT_FOUND,
                &format!("nothing is here; there is {UNITS}, {LEAKS} and {ACTIONS}"),
            ))),
        }
    }

    /// A number of its own for each document that shows the whole snapshot;
    /// `None` for what is small, or one of many.
    pub(super) const fn slot(&self) -> Option<usize> {
        Some(match self {
            Self::Metrics => 0,
            Self::Page => 1,
            Self::Health => 2,
            Self::Units => 3,
            Self::Actions => 4,
            Self::Leaks(None) => 5,
            Self::Leaks(Some(State::Suspected)) => 6,
            Self::Leaks(Some(State::Confirmed)) => 7,
            Self::Leaks(Some(State::Resolved)) => 8,
            Self::Healthy | Self::Ready | Self::Unit(_) | Self::Leak(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_one_state_or_none() {
        for (target, want) in [
            ("/api/v1/leaks", Ok(None)),
            ("/api/v1/leaks?", Ok(None)),
            ("/api/v1/leaks?other=1&other=2", Ok(None)),
            ("/api/v1/leaks?state=resolved", Ok(Some(State::Resolved))),
            ("/api/v1/leaks?x=1&st%61te=%72esolved&y", Ok(Some(State::Resolved))),
            ("/api/v1/leaks?state=gone", Err("must be")),
            ("/api/v1/leaks?state=", Err("must be")),
            ("/api/v1/leaks?state", Err("must be")),
            ("/api/v1/leaks?state=Resolved", Err("must be")),
            ("/api/v1/leaks?state=resolved&state=confirmed", Err("more than once")),
            ("/api/v1/leaks?state=resolved&state=resolved", Err("more than once")),
            ("/api/v1/leaks?state=resolved&st%61te", Err("more than once")),
            ("/api/v1/leaks?state=%zz", Err("broken percent escape")),
            ("/api/v1/leaks?state=%ff", Err("broken percent escape")),
        ] {
            match (Target::read(&target.parse().unwrap(), "/metrics"), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, Target::Leaks(want), "{target}"),
                (Err(reply), Err(part)) => {
                    assert_eq!(reply.status(), StatusCode::BAD_REQUEST, "{target}");
                    let body = String::from_utf8_lossy(reply.body());
                    assert!(body.contains(part), "{target}: {body}");
                }
                (got, _) => panic!("{target}: {got:?}"),
            }
        }
    }

    #[test]
    fn every_slot_is_within_the_bound_and_has_one_target() {
        let mut slots: Vec<usize> = [
            Target::Metrics,
            Target::Page,
            Target::Health,
            Target::Units,
            Target::Actions,
            Target::Leaks(None),
        ]
        .into_iter()
        .chain(STATES.map(|state| Target::Leaks(Some(state))))
        .filter_map(|target| target.slot())
        .collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..Target::KEPT).collect::<Vec<_>>());
    }
}
