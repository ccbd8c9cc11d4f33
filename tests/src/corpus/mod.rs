//! The labelled corpus: how good the verdicts are, beside two simpler methods.
//!
//! A case is one unit, leaky or innocent, with a [`label`]. Its trace comes from a
//! [`generate`]d world or from [`real`] programs and [`server`]s that were recorded; [`judge`] replays
//! it, [`baseline`] has the two other methods, [`score`] counts, [`report`] writes the
//! tables. See `docs/corpus.md`.

pub mod baseline;
pub mod generate;
pub mod judge;
pub mod label;
pub mod real;
pub mod report;
pub mod score;
pub mod server;
