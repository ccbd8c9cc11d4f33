//! Stage 4: a pure function of (ledger, now) to verdicts.

pub mod verdict;
