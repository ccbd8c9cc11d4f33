//! Bad configs, flags, names and clients: a clear word, and nothing else happens.

mod clients;
mod config;
mod names;
mod signals;

use std::process::Output;
use std::time::Duration;

/// For what should hold soon, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// No control character but the end of a line: a terminal cannot be driven.
fn is_harmless(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.chars().all(|c| c == '\n' || (!c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c)))
}
