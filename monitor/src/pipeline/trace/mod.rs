//! Records of what the stages are fed, and their replay.
//!
//! A trace is a compressed text: a header, then one JSON object a line
//! ([`line`](self) has them), each of them a change of what was known before.
//! Whatever enters [`Turn`](super::turn::Turn) is in it, with the clocks that were
//! read for it, so the same verdicts come out. See `docs/traces.md`.
//!
//! - [`Recording`] is the loop of `leakwatch record`, [`replay()`] that of `replay`;
//! - [`Writer`] and [`Reader`] turn entries into lines and back; both keep what the
//!   lines so far make known (`known`), and only what differs is written;
//! - [`Entry`] is one thing that the stages were fed.
//!
//! Names told (lines, kinds, fields) are a format: a change that an older reader
//! would misunderstand needs another [`FORMAT`].

mod anonymous;
mod descriptor;
mod entry;
mod header;
mod known;
mod line;
mod lines;
mod patch;
mod read;
mod record;
mod replay;
mod session;
mod tell;
#[cfg(test)]
mod tests;
mod weight;
mod write;

pub use entry::Entry;
pub use header::{FORMAT, Header};
pub use read::{ReadError, Reader};
pub use record::{RecordError, Recorded, Recording, record};
pub use replay::{ReplayError, Replayed, replay};
pub use tell::{Format, Teller};
pub use write::{WriteError, Writer};
