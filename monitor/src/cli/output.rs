//! The command's output: one text on stdout.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;

/// Narrower than this tables cannot be drawn, wider they cannot be read.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=500;

/// Writes all of `bytes`, and a newline where they lack one.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_to(&mut io::stdout().lock(), bytes)
}

fn write_to(out: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    let newline: &[u8] = if bytes.ends_with(b"\n") { b"" } else { b"\n" };
    out.write_all(bytes).and_then(|()| out.write_all(newline)).and_then(|()| out.flush()).map_err(
        |e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Failed(format!("cannot write the output: {e}")),
        },
    )
}

/// Writes a document as indented JSON.
pub(super) fn write_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(document)
        .map_err(|e| Failure::Failed(format!("cannot write the document as JSON: {e}")))?;
    write(&text)
}

/// Columns of the terminal that stdout is, else of `COLUMNS`, else 80.
pub(super) fn width() -> usize {
    let terminal =
        rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    choose_width(terminal, std::env::var("COLUMNS").ok().as_deref())
}

/// Columns of the terminal that stderr is; `None` where it is none.
pub(super) fn width_of_stderr() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some(choose_width(Some(size.ws_col.into()), std::env::var("COLUMNS").ok().as_deref()))
}

fn choose_width(terminal: Option<usize>, columns: Option<&str>) -> usize {
    // A terminal without a size, such as a serial line, says 0.
    terminal
        .filter(|width| *width > 0)
        .or_else(|| columns?.parse().ok())
        .unwrap_or(80)
        .clamp(*WIDTHS.start(), *WIDTHS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refuses(io::ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let closed = write_to(&mut Refuses(io::ErrorKind::BrokenPipe), b"x").unwrap_err();
        assert_eq!(closed.status(), 0);
        let full = write_to(&mut Refuses(io::ErrorKind::StorageFull), b"x").unwrap_err();
        assert_eq!(full.status(), 1);
        let mut out = Vec::new();
        write_to(&mut out, b"x").unwrap();
        write_to(&mut out, b"y\n").unwrap();
        assert_eq!(out, b"x\ny\n");
    }

    #[test]
    fn widths() {
        assert_eq!(choose_width(Some(120), Some("90")), 120);
        assert_eq!(choose_width(Some(0), Some("90")), 90);
        assert_eq!(choose_width(None, Some("90")), 90);
        assert_eq!(choose_width(None, Some("x")), 80);
        assert_eq!(choose_width(None, None), 80);
        assert_eq!(choose_width(Some(3), None), 40);
    }
}
