//! Stage 4: a pure function of (ledger, now) to verdicts.
//!
//! Each rule in [`rules`] turns the ledger into findings of one moment; the
//! [`docket`] makes verdicts of them that last. See `docs/detection.md`.

pub mod docket;
pub mod finding;
mod growth;
mod opened;
mod outcome;
mod patience;
mod rise;
pub mod rules;
mod survival;
mod turns;
mod usage;
pub mod verdict;

pub use docket::{Change, Docket};
pub use finding::Member;
