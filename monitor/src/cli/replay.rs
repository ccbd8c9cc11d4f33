//! `leakwatch replay`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter};
use std::process::ExitCode;

use super::failure::{Failure, say};
use super::flags::ReplayFlags;
use crate::config;
use crate::pipeline::trace::{self, Format, Reader, ReplayError, Replayed, Teller};
use crate::text;

/// Judges a trace.
pub(super) fn run(flags: &ReplayFlags) -> Result<ExitCode, Failure> {
    let config = flags.config.as_deref().map(config::load).transpose()?;
    let refused =
        |why: &dyn std::fmt::Display| Failure::Failed(format!("{}: {why}", flags.file.display()));
    let from: Box<dyn BufRead + Send> = if flags.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&flags.file).map_err(|e| refused(&format!("cannot read it: {e}")))?;
        Box::new(BufReader::with_capacity(1 << 17, file))
    };
    let reader = Reader::new(from).map_err(|e| refused(&e))?;
    let format = if flags.json { Format::Json } else { Format::Text };
    let mut teller = Teller::new(BufWriter::new(io::stdout()), format);
    let (replayed, result) = trace::replay(reader, config.as_ref(), &mut teller);
    match result {
        Ok(()) => {
            say(&summary(&replayed));
            Ok(ExitCode::SUCCESS)
        }
        Err(ReplayError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::ClosedPipe)
        }
        Err(e) => {
            if replayed.looks > 0 {
                say(&summary(&replayed));
            }
            Err(refused(&e))
        }
    }
}

fn summary(replayed: &Replayed) -> String {
    let Replayed { looks, span, took, ended } = replayed;
    let times = span.as_secs_f64() / took.as_secs_f64().max(1e-9);
    let ended = ended.as_ref().map_or(String::new(), |why| format!("; it ended: {why}"));
    let (span, took) = (text::duration(*span), text::duration(*took));
    format!("{looks} censuses over {span} in {took}, {times:.0} times as fast{ended}")
}
