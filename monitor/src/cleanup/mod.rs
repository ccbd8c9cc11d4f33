//! Stage 5: acts on verdicts, verifies that it worked, keeps an audit.
//!
//! [`Engine`] decides (no I/O but the audit line), an [`Act`] does (blocking, so
//! off the pipeline), and a later census tells the engine whether it helped.
//! Everything is a dry run unless a rule says `mode = "enforce"`.

mod act;
pub(crate) mod audit;
mod engine;
mod kill;
mod notify;
pub mod record;
mod rules;
mod signal;
mod tally;
mod target;

#[cfg(test)]
mod process_tests;

pub use act::{Act, Report};
pub use audit::{Audit, AuditError};
pub use engine::{Engine, Totals};
pub use target::Target;
