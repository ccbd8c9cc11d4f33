//! Traces: files that come from elsewhere.

use super::assert_printable;
use crate::pipeline::trace::{Entry, Format, Header, Reader, Teller, Writer, replay};

/// Longest text whose entries are written again as well.
const SHORT: usize = 8192;

/// `data` as a trace, packed or not: replayed as far as it goes.
pub fn trace(data: &[u8]) {
    let Ok(reader) = Reader::new(data) else { return };
    let mut out = Vec::new();
    let mut teller = Teller::new(&mut out, Format::Text);
    let (replayed, result) = replay(reader, None, &mut teller);
    drop(teller);
    let text = String::from_utf8(out);
    for line in text.iter().flat_map(|text| text.lines()) {
        assert_printable(line);
    }
    assert!(text.is_ok_and(|text| text.ends_with("resolved\n")), "no last line");
    assert!(result.is_err() || replayed.ended.is_some(), "no end, and no word of it");
    if data.len() <= SHORT
        && let Some((header, entries)) = looks(data)
    {
        let again = written(&header, &entries).and_then(|again| looks(&again));
        assert!(again == Some((header, entries)), "what was read is not what is written");
    }
}

/// The header, and what is whole of the censuses.
fn looks(data: &[u8]) -> Option<(Header, Vec<Entry>)> {
    let mut reader = Reader::new(data).ok()?;
    let header = reader.header().clone();
    let entries = std::iter::from_fn(|| reader.next_entry().ok()?);
    Some((header, entries.filter(|e| matches!(e, Entry::Look(..))).collect()))
}

fn written(header: &Header, entries: &[Entry]) -> Option<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), header).ok()?;
    entries.iter().try_for_each(|entry| writer.entry(entry)).ok()?;
    Some(writer.end("").ok()?.0)
}
