//! Stage 6: read-only views of what the pipeline knows.

pub mod snapshot;
