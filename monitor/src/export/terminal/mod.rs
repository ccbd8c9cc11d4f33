//! `status` and `explain`: text for a terminal, of any width, without colour.
//!
//! Documents may come from another machine's agent: whatever they hold, no
//! control code passes through to the terminal.

mod advice;
mod explain;
mod line;
mod status;

pub use explain::explain;
pub(crate) use line::wrap;
pub use status::status;

/// Nothing useful fits fewer columns.
const MIN_WIDTH: usize = 60;

#[cfg(test)]
mod tests;
