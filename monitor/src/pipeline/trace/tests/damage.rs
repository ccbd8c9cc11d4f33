use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::story::{header, story};
use super::{replayed, unpacked, written};
use crate::pipeline::trace::{Format, ReadError, Reader, ReplayError};

/// How reading to the end ends.
fn end_of(trace: &[u8]) -> Result<(), ReadError> {
    let mut reader = Reader::new(trace)?;
    while reader.next_entry()?.is_some() {}
    Ok(())
}

#[test]
fn a_trace_cut_anywhere_is_replayed_as_far_as_it_goes() {
    for (looks, step) in [(3, 1), (25, 173)] {
        let trace = written(&header(), &story(looks));
        let (whole, ..) = replayed(&trace, Format::Text, None);
        let mut most = 0;
        for end in (0..trace.len()).rev().step_by(step) {
            let (text, replay, result) = replayed(&trace[..end], Format::Text, None);
            most = most.max(replay.looks);
            match result {
                Err(ReplayError::Read(ReadError::NoTrace)) => assert_eq!(text, "", "at {end}"),
                Err(ReplayError::Read(ReadError::BreaksOff { .. })) => {
                    let told = text.lines().filter(|l| !l.starts_with("at the end"));
                    assert!(told.zip(whole.lines()).all(|(a, b)| a == b), "at {end}");
                }
                other => panic!("at {end}: {other:?}"),
            }
        }
        assert_eq!(most, looks as u64, "the last look lies before the end");
    }
    // The same of the text, where each byte shows.
    let text = unpacked(&written(&header(), &story(3)));
    for end in (0..text.len()).step_by(3) {
        assert!(end_of(&text.as_bytes()[..end]).is_err(), "at {end}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_no_matter_but_never_a_panic() {
    let trace = written(&header(), &story(4));
    let (whole, ..) = replayed(&trace, Format::Json, None);
    for at in 0..trace.len() {
        let mut bad = trace.clone();
        bad[at] ^= 1 << (at % 8);
        let (text, _, result) = replayed(&bad, Format::Json, None);
        // gzip has bits that mean nothing: its time, what fills up a byte.
        assert!(result.is_err() || text == whole, "at {at}: {text}");
    }
    let text = unpacked(&trace);
    for at in (0..text.len()).step_by(5) {
        let mut bad = text.clone().into_bytes();
        bad[at] ^= 1 << (at % 7);
        let _ = replayed(&bad, Format::Json, None);
    }
}

#[test]
fn other_files_and_other_formats_are_refused_in_a_sentence() {
    let of = |line: &str| end_of(line.as_bytes()).unwrap_err().to_string();
    for other in ["", "\n", "{}", "{}\n", "no trace\n", "\x7fELF", "{\"leakwatch_trace\":\"1\"}\n"]
    {
        assert_eq!(of(other), ReadError::NoTrace.to_string(), "{other:?}");
    }
    let newer = of("{\"leakwatch_trace\":2,\"version\":\"9.1.0\\u001b[2J\"}\n");
    assert!(newer.contains("its format is 2"), "{newer}");
    assert!(newer.contains("leakwatch 9.1.0\\u{1b}[2J, which wrote it, or later"), "{newer}");
    let odd = of("{\"leakwatch_trace\":1,\"version\":\"1\",\"boot\":\"x\",\"started\":\"x\"}\n");
    assert!(odd.starts_with("line 1 is damaged"), "{odd}");
}

/// A header and these lines.
fn with(lines: &str) -> String {
    let text = unpacked(&written(&header(), &[]));
    format!("{}\n{lines}", text.lines().next().unwrap())
}

#[test]
fn lines_that_nobody_wrote_are_named() {
    let about = "\"about\":{\"ppid\":1,\"comm\":\"x\",\"cmdline\":\"\",\"cgroup\":\"/\"}";
    for (lines, want) in [
        ("\n".to_owned(), "line 2 is damaged"),
        ("{\"unheard_of\":1}\n".into(), "unknown variant"),
        ("{\"process\":{\"pid\":7,\"start\":1}}\n".into(), "process 7 has not been told of before"),
        (
            format!(
                "{{\"process\":{{\"pid\":7,\"start\":1,{about},\"fds\":{{\"full\":{{\"set\":[{{\"fd\":3}}]}}}}}}}}\n"
            ),
            "process 7: descriptor 3 has not been told of before",
        ),
        (
            format!(
                "{{\"process\":{{\"pid\":7,\"start\":1,{about},\"fds\":{{\"full\":{{\"closed\":[3,1]}}}}}}}}\n"
            ),
            "are not sorted",
        ),
        ("{\"glimpse\":{\"at\":1,\"of\":[{\"pid\":1,\"start\":1}]}}\n".into(), "without a name"),
        ("{\"end\":\"x\"}\n{\"end\":\"x\"}\n".into(), "line 3 is damaged (something follows)"),
        ("{\"config\":\"[watch]\\nunknown = 1\"}\n".into(), "name one with --config"),
    ] {
        let error = end_of(with(&lines).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{lines}: {error}");
    }
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(with("").as_bytes()).unwrap();
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let error = end_of(&bomb.finish().unwrap()).unwrap_err().to_string();
    assert!(error.contains("longer than 8.0 MiB"), "{error}");
}
