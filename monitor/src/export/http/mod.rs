//! The HTTP server: read only, loopback by default.
//!
//! It must go on answering whatever a client does. So every wait has an end
//! (headers, idleness, a reader that does not read), every buffer and the
//! number of connections have a bound, request bodies are never read, and a
//! connection runs in a task of its own. Where all places are taken, somebody
//! has to go, not the newcomer ([`guests`]); and what many ask for is built
//! once ([`kept`]).

mod bind;
mod guests;
mod host;
pub(crate) mod kept;
pub(crate) mod path;
mod patient;
pub(crate) mod reply;
pub(crate) mod route;
mod serve;
mod target;
#[cfg(test)]
mod tests;
mod view;

pub use bind::{BindError, bind};
pub use serve::{Site, serve};
pub use view::View;
