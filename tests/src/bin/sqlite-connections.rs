//! `--mode leak`: a new SQLite connection per operation, kept for ever.
//! `--mode pool`: eight connections, opened when needed, used in turn.
//!
//! `--count N` operations, one every `--pace` ms, on `--db FILE`; says `ready`
//! after the last. The pool goes on with its work after that.

use leakwatch_tests::program::{Control, Flags, Pace, say};
use rusqlite::Connection;

const POOL: usize = 8;

fn main() -> rusqlite::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let leak = flags.get("mode", "leak".to_owned()) == "leak";
    let count = flags.get("count", 40_usize);
    let db = flags.need("db");

    let mut kept: Vec<Connection> = Vec::new();
    let mut pace = Pace::new(flags.millis("pace", 150));
    for i in 0.. {
        pace.beat();
        if leak || kept.len() < POOL {
            kept.push(Connection::open(db)?);
        }
        let connection = &kept[if leak { i } else { i % kept.len() }];
        connection.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER, what TEXT)", ())?;
        connection.execute("INSERT INTO jobs VALUES (?1, 'done')", (i,))?;
        if i + 1 == count {
            say("ready");
            if leak {
                break;
            }
        }
    }
    control.idle()
}
