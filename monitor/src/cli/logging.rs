//! The agent's log: stderr, one event per line.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use super::flags::{LogFormat, LogLevel};
use crate::text::printable;

/// Starts logging for the life of the process, that of `log` users included.
///
/// # Errors
/// Something else logs already.
pub(super) fn start(level: LogLevel, format: LogFormat) -> Result<(), String> {
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Stderr(format));
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets(level)))
        .try_init()
        .map_err(|e| format!("cannot start logging: {e}"))
}

/// Libraries speak of their insides; they get as much room only at `trace`.
fn targets(level: LogLevel) -> Targets {
    let (own, others) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_target("leakwatch", own).with_default(others)
}

#[derive(Clone, Copy)]
struct Stderr(LogFormat);

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { to: io::stderr(), format: self.0 }
    }
}

/// Escapes what could forge a line or drive a terminal: names of processes and
/// files go into events, and whoever chose them may be hostile.
struct Line<W> {
    to: W,
    format: LogFormat,
}

impl<W: Write> Write for Line<W> {
    /// Takes one event whole, as the layer gives it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = printable(body);
        if self.format == LogFormat::Json {
            line = json_escapes(&line);
        }
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Turns the `\u{9b}` of [`printable`] into JSON's `\u009b`. The JSON writer has
/// escaped backslashes, so an unescaped `\u{` can only come from `printable`.
fn json_escapes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = rest.strip_prefix("\\u{").and_then(|tail| tail.split_once('}'));
        if let Some((digits, tail)) = code {
            out.push_str("\\u");
            out.push_str(&format!("{digits:0>4}"));
            rest = tail;
        } else {
            // An escape of the JSON writer's: the backslash and what it escapes.
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, event: &str) -> String {
        let mut line = Line { to: Vec::new(), format };
        line.write_all(event.as_bytes()).unwrap();
        String::from_utf8(line.to).unwrap()
    }

    #[test]
    fn a_hostile_name_stays_in_its_line() {
        assert_eq!(
            line(LogFormat::Text, "INFO a\nERROR forged \u{1b}[2J\n"),
            "INFO a\\u{a}ERROR forged \\u{1b}[2J\n"
        );
    }

    #[test]
    fn json_stays_json() {
        let given = serde_json::json!({ "m": "a\n\u{1b}\u{9b}\u{202e}\\u{9b}\\\u{7f}\"ü" });
        let shown = line(LogFormat::Json, &format!("{given}\n"));
        assert!(!shown.trim_end().chars().any(char::is_control), "{shown:?}");
        assert!(!shown.contains('\u{202e}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), given);
    }
}
