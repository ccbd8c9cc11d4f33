//! Stage 5: acts on verdicts, verifies that it worked, keeps an audit.

pub mod record;
