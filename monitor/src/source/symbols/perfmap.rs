//! Perf maps: what a language runtime publishes of the code that it makes while it
//! runs, one line per function (`tools/perf/Documentation/jit-interface.txt` of
//! Linux): `START SIZE NAME`, both numbers hexadecimal.
//!
//! The file is written by whoever runs the program, so nothing in it is believed to
//! be more than a name.

use std::io::{self, BufRead, Read};

use crate::source::frame::Frame;

/// Of a longer file the end is not read.
pub const MAX_BYTES: u64 = 256 << 20;
/// Of a longer line the end is not read.
const MAX_LINE: u64 = 4_096;

/// The names of these addresses. Takes memory for those alone. Where several lines
/// claim an address the last one holds, for code is made anew at the same place.
///
/// # Errors
/// The reader's; an odd line is passed over.
pub fn read(from: impl BufRead, addresses: &[u64]) -> io::Result<Vec<Option<String>>> {
    read_part(from, MAX_BYTES, addresses)
}

fn read_part(from: impl BufRead, bytes: u64, addresses: &[u64]) -> io::Result<Vec<Option<String>>> {
    let mut from = from.take(bytes);
    let mut names: Vec<Option<String>> = vec![None; addresses.len()];
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut from).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(names);
        }
        if !line.ends_with(b"\n") {
            from.skip_until(b'\n')?;
        }
        let Some((start, size, name)) = parse(&line) else { continue };
        for (address, found) in addresses.iter().zip(&mut names) {
            if address.checked_sub(start).is_some_and(|at| at < size) {
                *found = Some(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut words = line.trim_ascii().splitn(3, |b| *b == b' ');
    let mut hex = || {
        let word = std::str::from_utf8(words.next()?).ok()?;
        u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
    };
    let (start, size) = (hex()?, hex()?);
    let name = words.next()?.trim_ascii();
    (!name.is_empty()).then_some((start, size, name))
}

/// A name of a perf map as a frame: those of CPython and V8 hold a file, too.
pub fn frame(name: &str) -> Frame {
    python(name)
        .or_else(|| javascript(name))
        .unwrap_or_else(|| Frame { function: name.to_owned(), ..Frame::default() })
}

/// `py::open_log:/srv/app/logs.py`
fn python(name: &str) -> Option<Frame> {
    let (function, file) = name.strip_prefix("py::")?.split_once(':')?;
    let (function, file) = (function.to_owned(), Some(file.to_owned()));
    Some(Frame { function, file, ..Frame::default() })
}

/// `JS:*openLog file:///srv/app/logs.mjs:12:5`; the line is where the function
/// begins. Before the name stands how far it is compiled.
fn javascript(name: &str) -> Option<Frame> {
    let kinds = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];
    let rest = kinds.iter().find_map(|kind| name.strip_prefix(kind))?;
    let rest = rest.trim_start_matches(['~', '^', '*', '+', '\'', '.']);
    let (function, at) = rest.split_once(' ')?;
    let (file, line) = place(at);
    let function = if function.is_empty() { "(anonymous)" } else { function };
    Some(Frame { function: function.to_owned(), file: Some(file), line, ..Frame::default() })
}

fn place(at: &str) -> (String, Option<u32>) {
    let at = at.strip_prefix("file://").unwrap_or(at);
    let mut parts = at.rsplitn(3, ':');
    match (parts.next().map(str::parse::<u32>), parts.next().map(str::parse::<u32>), parts.next()) {
        (Some(Ok(_)), Some(Ok(line)), Some(file)) => (file.to_owned(), Some(line)),
        _ => (at.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[u8], addresses: &[u64]) -> Vec<Option<String>> {
        read(text, addresses).unwrap()
    }

    #[test]
    fn an_address_has_the_name_of_the_last_line_that_claims_it() {
        let text = b"1000 10 first one\n1008 10 second\n0x2000 0x8 with prefix\n";
        let got = names(text, &[0x1000, 0x1008, 0x1017, 0x1018, 0x2007, 0xfff]);
        let want = ["first one", "second", "second", "", "with prefix", ""];
        let want: Vec<_> = want.map(|n| (!n.is_empty()).then(|| n.to_owned())).into();
        assert_eq!(got, want);
    }

    #[test]
    fn a_hostile_map_costs_nothing_but_its_own_names() {
        for text in [
            &b"\xff\xfe 10 x\n"[..],
            b"10\n",
            b"10 10\n10 10 \n",
            b"zz 10 x\n",
            b"-1 10 x\n",
            b"ffffffffffffffffff 1 x\n",
            b"\n\n\n",
        ] {
            assert_eq!(names(text, &[0x15]), [None], "{text:?}");
        }
        // One that claims all there is, and a name that is no text.
        let text = b"0 ffffffffffffffff \xff\xfeevil\x1b[2J\n";
        assert_eq!(names(text, &[7]), [Some("\u{fffd}\u{fffd}evil\u{1b}[2J".to_owned())]);
        // A line without an end, then a good one.
        let mut long = b"10 10 ".to_vec();
        long.extend(vec![b'n'; 1 << 20]);
        long.extend(b"\n30 10 good\n");
        let got = names(&long, &[0x12, 0x31]);
        assert_eq!(got[0].as_ref().map(|n| n.len() < 4_200), Some(true));
        assert_eq!(got[1].as_deref(), Some("good"));
        // A file without an end.
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                into.fill(b'\n');
                Ok(into.len())
            }
        }
        assert_eq!(read_part(io::BufReader::new(Endless), 1 << 20, &[1]).unwrap(), [None]);
    }

    #[test]
    fn names_of_runtimes_are_taken_apart() {
        for (name, function, file, line) in [
            ("py::_open_log:/srv/run.py", "_open_log", Some("/srv/run.py"), None),
            ("py::<module>:/srv/a:b.py", "<module>", Some("/srv/a:b.py"), None),
            ("JS:*openLog /srv/app.js:12:5", "openLog", Some("/srv/app.js"), Some(12)),
            ("LazyCompile:~ file:///srv/a.mjs:3:9", "(anonymous)", Some("/srv/a.mjs"), Some(3)),
            ("JS:^emit node:events:466:44", "emit", Some("node:events"), Some(466)),
            ("Function:~x nowhere", "x", Some("nowhere"), None),
            ("Builtin:ArrayMap", "Builtin:ArrayMap", None, None),
            ("void app.Main.open()", "void app.Main.open()", None, None),
            ("py::x", "py::x", None, None),
        ] {
            let got = frame(name);
            assert_eq!(
                (got.function.as_str(), got.file.as_deref(), got.line),
                (function, file, line),
                "{name}"
            );
        }
    }
}
