//! The first line of a trace.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::source::model::BootId;

/// The format that is written, and the latest that is read.
pub const FORMAT: u32 = 1;

/// What a trace says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its format.
    pub format: u32,
    /// Version of leakwatch that wrote it.
    pub version: String,
    /// The life of the machine that it tells of.
    pub boot: BootId,
    /// When it was begun.
    pub started: Timestamp,
}

/// What every format has, to tell which it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Sign {
    pub leakwatch_trace: u32,
    pub version: String,
}

/// The line of this format.
#[derive(Serialize, Deserialize)]
pub(super) struct HeaderLine {
    #[serde(flatten)]
    pub sign: Sign,
    /// 32 hexadecimal digits.
    pub boot: String,
    pub started: Timestamp,
}

impl Header {
    /// Of a trace that is begun now by this version.
    pub fn new(boot: BootId, started: Timestamp) -> Self {
        Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), boot, started }
    }

    pub(super) fn line(&self) -> HeaderLine {
        HeaderLine {
            sign: Sign { leakwatch_trace: self.format, version: self.version.clone() },
            boot: format!("{:032x}", self.boot.0),
            started: self.started,
        }
    }
}

impl TryFrom<HeaderLine> for Header {
    type Error = String;

    fn try_from(line: HeaderLine) -> Result<Self, String> {
        let boot = u128::from_str_radix(&line.boot, 16)
            .map_err(|_| "its boot id is no hexadecimal number".to_owned())?;
        Ok(Self {
            format: line.sign.leakwatch_trace,
            version: line.sign.version,
            boot: BootId(boot),
            started: line.started,
        })
    }
}
