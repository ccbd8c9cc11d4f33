//! Round trips, replays, and traces that are not whole.

mod damage;
mod roundtrip;
mod story;

use std::io::Read;

use flate2::read::GzDecoder;

use super::{Entry, Format, Header, Reader, ReplayError, Replayed, Teller, Writer, replay};
use crate::config::Config;

/// What entries are as a trace.
pub(super) fn written(header: &Header, entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.end("the test is over").unwrap().0
}

/// The lines of a trace.
pub(super) fn unpacked(trace: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(trace).read_to_string(&mut text).unwrap();
    text
}

/// What a replay prints and how it ends.
pub(super) fn replayed(
    trace: &[u8],
    format: Format,
    config: Option<&Config>,
) -> (String, Replayed, Result<(), ReplayError>) {
    let mut out = Vec::new();
    let reader = match Reader::new(trace) {
        Ok(reader) => reader,
        Err(e) => return (String::new(), Replayed::default(), Err(e.into())),
    };
    let mut teller = Teller::new(&mut out, format);
    let (replayed, result) = replay(reader, config, &mut teller);
    drop(teller);
    (String::from_utf8(out).unwrap(), replayed, result)
}
