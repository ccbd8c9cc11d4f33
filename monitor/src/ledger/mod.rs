//! Stage 3: one balance sheet of what is open, since when and whose.

pub mod view;
