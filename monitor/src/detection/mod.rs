//! Stage 4: a pure function of (ledger, now) to verdicts.

pub mod docket;
pub mod verdict;

pub use docket::{Change, Docket, Member};
