//! `leakwatch explain ID`.

use std::process::ExitCode;

use super::agent;
use super::failure::Failure;
use super::flags::ExplainFlags;
use super::output;
use crate::detection::verdict::Leak;
use crate::export::terminal;

/// Shows one verdict.
pub(super) fn run(flags: &ExplainFlags) -> Result<ExitCode, Failure> {
    let documents = agent::documents(&flags.agent)?;
    let leak = find(&documents.leaks.leaks, &flags.id).map_err(Failure::Failed)?;
    output::write(terminal::explain(leak, output::width()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The verdict of that id, or the only one whose id begins so.
fn find<'l>(leaks: &'l [Leak], id: &str) -> Result<&'l Leak, String> {
    if let Some(leak) = leaks.iter().find(|leak| leak.id == id) {
        return Ok(leak);
    }
    let near: Vec<&Leak> =
        leaks.iter().filter(|leak| !id.is_empty() && leak.id.starts_with(id)).collect();
    match near[..] {
        [leak] => Ok(leak),
        [] if leaks.is_empty() => Err(format!("no verdict has the id `{id}`: there are none now")),
        [] => Err(format!("no verdict has the id `{id}`; there are\n{}", listed(leaks.iter()))),
        _ => Err(format!("several ids begin with `{id}`:\n{}", listed(near.into_iter()))),
    }
}

fn listed<'l>(leaks: impl Iterator<Item = &'l Leak>) -> String {
    let line =
        |leak: &Leak| format!("  {}  {}, {} of {}", leak.id, leak.state, leak.kind, leak.unit);
    leaks.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn leak(id: &str) -> Leak {
        serde_json::from_value(json!({
            "id": id, "unit": "app.service", "unit_kind": "service", "resource": "fd",
            "kind": "log", "cohort": "/var/log/app-{n}.log", "rules": ["unclosed-log-handle"],
            "state": "confirmed", "held": 12, "growth_per_hour": 3.0,
            "first_seen": "2024-01-01T00:00:00Z", "confirmed_at": null,
            "oldest_age_seconds": 40.0, "limit": null, "exhausts_at": null,
            "pinned_bytes": 0, "confidence": 0.9, "evidence": [], "opener": [], "examples": []
        }))
        .unwrap()
    }

    #[test]
    fn ids_are_found_whole_or_by_their_beginning() {
        let leaks = [leak("aa11"), leak("aa22"), leak("bb33")];
        assert_eq!(find(&leaks, "aa22").unwrap().id, "aa22");
        assert_eq!(find(&leaks, "b").unwrap().id, "bb33");
        let of = |id| find(&leaks, id).unwrap_err();
        assert_eq!(
            of("aa"),
            "several ids begin with `aa`:\n  aa11  confirmed, log of app.service\n  \
             aa22  confirmed, log of app.service"
        );
        assert!(of("cc").starts_with("no verdict has the id `cc`; there are\n  aa11  confirmed"));
        assert_eq!(of("").lines().count(), 4);
        assert_eq!(find(&[], "cc").unwrap_err(), "no verdict has the id `cc`: there are none now");
    }
}
