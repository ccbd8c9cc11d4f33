//! What `status` and `explain` show: the agent's word, else one look of our own.

use serde::Serialize;

use super::client::{self, ClientError};
use super::failure::{Failure, say};
use super::flags::AgentFlags;
use super::paths;
use crate::export::api::{self, LeaksDoc, UnitsDoc};
use crate::pipeline;

/// Units and verdicts: `{"units": […], "leaks": […]}`.
#[derive(Debug, Serialize)]
pub(super) struct Documents {
    #[serde(flatten)]
    pub(super) units: UnitsDoc,
    #[serde(flatten)]
    pub(super) leaks: LeaksDoc,
}

/// Asks the agent. Where none listens on this host, takes a census and says so.
pub(super) fn documents(flags: &AgentFlags) -> Result<Documents, Failure> {
    match ask(flags) {
        Ok(documents) => Ok(documents),
        // A census of this host is no answer for another one.
        Err(error @ ClientError::Unreachable { .. }) if flags.url.is_local() => {
            say(&format!("{error}; this is one census of our own, which sees no growth"));
            let (_, config) = paths::read_config(&flags.config)?;
            let snapshot = pipeline::once(&config).map_err(Failure::failed)?;
            Ok(Documents { units: api::units(&snapshot), leaks: api::leaks(&snapshot, None) })
        }
        Err(error) => Err(Failure::failed(error)),
    }
}

fn ask(flags: &AgentFlags) -> Result<Documents, ClientError> {
    Ok(Documents {
        units: client::get(&flags.url, "/api/v1/units")?,
        leaks: client::get(&flags.url, "/api/v1/leaks")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_both_lists_at_its_top() {
        let documents = Documents { units: UnitsDoc::default(), leaks: LeaksDoc::default() };
        let json = serde_json::to_string(&documents).unwrap();
        assert_eq!(json, r#"{"units":[],"leaks":[]}"#);
    }
}
