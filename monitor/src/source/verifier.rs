//! What the kernel's verifier has to say against a program.

use std::error::Error;

use aya::programs::ProgramError;

/// The verifier does not accept a program.
#[derive(Debug, thiserror::Error)]
#[error("the verifier of this kernel does not accept `{program}`: {complaint}")]
pub struct Refused {
    program: String,
    complaint: String,
}

/// What the verifier says, where it was asked; else the error as it is.
pub(super) fn program_error(name: &str, e: ProgramError) -> Box<dyn Error> {
    if let ProgramError::LoadError { verifier_log, .. } = &e {
        // The last lines say what the verifier did not accept.
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        if !tail.is_empty() {
            tracing::debug!(%name, verifier = %tail, "BPF program refused");
        }
        // Statistics follow the complaint.
        let is_statistic = |line: &&&str| {
            ["processed ", "verification time ", "stack depth "].iter().any(|s| line.starts_with(s))
        };
        if let Some(complaint) =
            lines.iter().rev().filter(|l| !l.is_empty()).find(|l| !is_statistic(l))
        {
            return Box::new(Refused { program: name.into(), complaint: (*complaint).into() });
        }
    }
    Box::new(e)
}
