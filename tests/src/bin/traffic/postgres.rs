//! - `pool`: six sessions in turn.
//! - `each`: a session for each request, closed after it.
//! - `forget`: the same, but for a query that fails: its session is not closed. One of
//!   four does, until `--count` requests are done.
//! - `tables`: the pool makes, fills and drops tables and indexes, and there are
//!   vacuums and checkpoints.

use std::io;

use leakwatch_tests::program::say;
use leakwatch_tests::wire::postgres::Session;

use crate::{Orders, unknown};

const POOL: usize = 6;
const FAILS: usize = 4;
const CHECKPOINT: usize = 20;

pub fn run(mut orders: Orders) -> io::Result<()> {
    match orders.mode.as_str() {
        "pool" => pool(&mut orders, work),
        "each" => each(&mut orders),
        "forget" => forget(orders),
        "tables" => pool(&mut orders, tables),
        other => Err(unknown(other)),
    }
}

fn work(session: &mut Session, i: usize) -> io::Result<()> {
    session.query(&format!(
        "CREATE TABLE IF NOT EXISTS jobs (id bigint, done timestamptz);
         INSERT INTO jobs VALUES ({i}, now()); SELECT count(*) FROM jobs"
    ))
}

fn tables(session: &mut Session, i: usize) -> io::Result<()> {
    session.query(&format!(
        "CREATE TABLE batch_{i} AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 2000) n;
         CREATE INDEX ON batch_{i} (n)"
    ))?;
    session.query(&format!("SELECT sum(n) FROM batch_{i} WHERE n > 1000"))?;
    session.query(&format!("DROP TABLE IF EXISTS batch_{}", i.wrapping_sub(POOL)))?;
    if i % CHECKPOINT == CHECKPOINT - 1 {
        session.query("VACUUM")?;
        session.query("CHECKPOINT")?;
    }
    Ok(())
}

fn pool(
    orders: &mut Orders,
    job: impl Fn(&mut Session, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut pool = Vec::new();
    for i in 0.. {
        orders.beat(i);
        if pool.len() < POOL {
            pool.push(Session::connect(&orders.at)?);
        }
        let turn = i % pool.len();
        job(&mut pool[turn], i)?;
    }
    Ok(())
}

fn each(orders: &mut Orders) -> io::Result<()> {
    for i in 0.. {
        orders.beat(i);
        work(&mut Session::connect(&orders.at)?, i)?;
    }
    Ok(())
}

/// Opens the session of one request.
#[inline(never)]
fn connect_for_request(at: &str) -> io::Result<Session> {
    Session::connect(at)
}

fn forget(mut orders: Orders) -> io::Result<()> {
    let mut forgotten = Vec::new();
    for i in 0..orders.count {
        orders.beat(i);
        let mut session = connect_for_request(&orders.at)?;
        let by = i % FAILS;
        if session.query(&format!("SELECT 1 / {by}")).is_err() {
            // Where the error is handled, nobody thinks of the session.
            forgotten.push(session);
        }
    }
    say("ready");
    orders.control.idle()
}
