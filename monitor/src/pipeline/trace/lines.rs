//! Lines of a text that may be compressed, none longer than a bound.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// Longest line, bytes. The writer's are below a quarter of it.
pub(super) const LONGEST: usize = 8 << 20;

/// The first bytes of what gzip has packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads line by line.
pub(super) struct Lines<'a> {
    from: Box<dyn BufRead + Send + 'a>,
    line: Vec<u8>,
    number: u64,
}

/// Why there is no further line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The text is over where a line begins.
    Over,
    /// It is over within a line, or within what is packed.
    Torn,
    /// The line is too long.
    Long,
    /// What is packed is not what was packed.
    Damaged(io::Error),
    /// It cannot be read.
    Io(io::Error),
}

impl<'a> Lines<'a> {
    /// Of a text that gzip has packed, or of the text itself.
    pub fn new(mut from: impl BufRead + Send + 'a) -> io::Result<Self> {
        let packed = from.fill_buf()?.starts_with(&GZIP);
        let from: Box<dyn BufRead + Send + 'a> =
            if packed { Box::new(BufReader::new(GzDecoder::new(from))) } else { Box::new(from) };
        Ok(Self { from, line: Vec::new(), number: 0 })
    }

    /// Number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line, without its end.
    pub fn next_line(&mut self) -> Result<&[u8], NoLine> {
        self.line.clear();
        self.number += 1;
        let mut bounded = (&mut self.from).take(LONGEST as u64 + 1);
        match bounded.read_until(b'\n', &mut self.line) {
            Ok(0) => Err(NoLine::Over),
            Ok(_) if self.line.last() == Some(&b'\n') => {
                self.line.pop();
                Ok(&self.line)
            }
            Ok(_) if self.line.len() > LONGEST => Err(NoLine::Long),
            Ok(_) => Err(NoLine::Torn),
            Err(e) => Err(match e.kind() {
                io::ErrorKind::UnexpectedEof => NoLine::Torn,
                // That is what flate2 says of both its own checks.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => NoLine::Damaged(e),
                _ => NoLine::Io(e),
            }),
        }
    }
}
