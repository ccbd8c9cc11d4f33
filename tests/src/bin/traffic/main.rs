//! What clients and operators do to a real server, which listens at `--at` (`unix:PATH`
//! or `HOST:PORT`): `--of redis|postgres|http|nginx`, `--mode` as each has them. Something
//! is done every `--pace` ms. Says `ready` after `--count` of them.

mod nginx;
mod postgres;
mod redis;
mod web;

use std::io;

use leakwatch_tests::program::{Control, Flags, Pace, say};

/// What it was told.
struct Orders {
    flags: Flags,
    /// The server's address.
    at: String,
    mode: String,
    count: usize,
    pace: Pace,
    control: Control,
}

impl Orders {
    /// Waits for the next beat; the `i`th, from 0, is where it is `ready`.
    fn beat(&mut self, i: usize) {
        if i == self.count {
            say("ready");
        }
        self.pace.beat();
    }
}

fn main() -> io::Result<()> {
    let control = Control::listen();
    let flags = Flags::of_this_process();
    let of = flags.need("of").to_owned();
    let orders = Orders {
        at: flags.need("at").to_owned(),
        mode: flags.need("mode").to_owned(),
        count: flags.get("count", 60),
        pace: Pace::new(flags.millis("pace", 200)),
        flags,
        control,
    };
    match of.as_str() {
        "redis" => redis::run(orders),
        "postgres" => postgres::run(orders),
        "http" => web::run(orders),
        "nginx" => nginx::run(orders),
        other => Err(unknown(other)),
    }
}

fn unknown(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what:?} is nothing to do"))
}
