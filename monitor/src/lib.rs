//! leakwatch: finds the resources that services forget to give back.
//!
//! The modules are the pipeline, in the order the data takes:
//!
//! ```text
//! source ──► attribution ──► ledger ──► detection ──► cleanup
//! (kernel)    (whose is it)  (balance)   (verdicts)     │
//!                               └───────────┴───────────┴──► export
//! ```
//!
//! A module uses those before it, never those after it. [`pipeline`] is the one
//! loop that moves data along; [`cli`] and [`config`] stand outside it.

pub mod attribution;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod detection;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;
pub mod glob;
pub mod ledger;
pub mod pipeline;
pub mod source;
pub mod text;
pub mod time;
