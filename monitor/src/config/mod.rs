//! The configuration: a TOML file, checked key by key.
//!
//! [`parse`] walks the parsed document by hand instead of leaving it to a
//! derive, so that one run reports every mistake of a file, each with its line,
//! its column, its key and what would be right.

mod cleanup;
mod keys;
mod load;
#[cfg(test)]
mod mistake_tests;
pub mod model;
mod nearest;
mod problem;
mod sections;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod write;

use toml::de::DeTable;

pub use load::{DEFAULT_PATH, LoadError, MAX_BYTES, load, load_from};
pub use model::Config;
pub use problem::{Problem, Problems};
pub use write::to_toml;

/// A commented file that shows every key.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Reads a configuration from `text`; `origin` (a path) names it in problems.
///
/// What the text leaves out has its default, so an empty text is the default
/// configuration.
///
/// # Errors
/// Everything that is wrong with the text, in the order of its lines. A text
/// that is not TOML at all reports only that, since the rest would be guesses.
pub fn parse(text: &str, origin: &str) -> Result<Config, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let sink = problem::Sink::new(text, origin);
    if !errors.is_empty() {
        for error in errors {
            let message =
                format!("not TOML: {}", crate::text::printable(error.message().as_bytes()));
            sink.report(error.span().unwrap_or_default(), "", message);
        }
        return Err(sink.into_problems());
    }
    let config = sections::read(&sink, document.get_ref());
    if sink.is_empty() { Ok(config) } else { Err(sink.into_problems()) }
}
