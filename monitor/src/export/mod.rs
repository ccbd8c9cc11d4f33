//! Stage 6: read-only views of what the pipeline knows.

pub mod api;
mod count;
pub mod health;
pub mod http;
pub mod metrics;
pub mod page;
mod rank;
pub mod snapshot;
mod stack;
pub mod terminal;
#[cfg(test)]
mod testing;
