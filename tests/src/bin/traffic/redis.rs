//! - `forget`: a connection for each command, and none is closed; `--count` in all.
//! - `reuse`: four connections in turn.
//! - `grow`: a pool that has one more now and then, up to a hundred, all of which are used.
//! - `renew`: sixteen in turn, each of which is opened anew where the server has closed it.
//! - `come-and-go`: clients stay for a while; their number rises and falls. Now and then
//!   the server is told to write its append-only file anew.

use std::collections::VecDeque;
use std::io;

use leakwatch_tests::program::say;
use leakwatch_tests::wire::redis::Client;

use crate::{Orders, unknown};

const POOL: usize = 4;
const LARGE_POOL: usize = 16;
const GROWN_POOL: usize = 100;
/// Commands between two that make the pool larger.
const DEMAND: usize = 10;
/// Clients at the height of the load, and beats from one height to the next.
const HEIGHT: usize = 40;
const WAVE: usize = 160;
/// Beats between two rewrites.
const REWRITE: usize = 100;

pub fn run(mut orders: Orders) -> io::Result<()> {
    match orders.mode.as_str() {
        "forget" => forget(orders),
        "reuse" => reuse(&mut orders),
        "grow" => grow(&mut orders),
        "renew" => renew(&mut orders),
        "come-and-go" => come_and_go(&mut orders),
        other => Err(unknown(other)),
    }
}

/// The mistake: whoever wants a command done calls this, and nobody closes.
#[inline(never)]
fn connect_for_command(at: &str) -> io::Result<Client> {
    Client::connect(at)
}

fn forget(mut orders: Orders) -> io::Result<()> {
    let mut forgotten = Vec::new();
    for i in 0..orders.count {
        orders.beat(i);
        let mut client = connect_for_command(&orders.at)?;
        client.command("INCR jobs")?;
        forgotten.push(client);
    }
    say("ready");
    orders.control.idle()
}

fn reuse(orders: &mut Orders) -> io::Result<()> {
    let mut pool = Vec::new();
    for i in 0.. {
        orders.beat(i);
        if pool.len() < POOL {
            pool.push(Client::connect(&orders.at)?);
        }
        let turn = i % pool.len();
        pool[turn].command("INCR jobs")?;
    }
    Ok(())
}

fn grow(orders: &mut Orders) -> io::Result<()> {
    let (mut pool, mut turn) = (Vec::new(), 0);
    for i in 0.. {
        orders.beat(i);
        if i % DEMAND == 0 && pool.len() < GROWN_POOL {
            pool.push(Client::connect(&orders.at)?);
        }
        // Not by `i`, which begins anew with each that is added.
        turn = (turn + 1) % pool.len();
        pool[turn].command("INCR jobs")?;
    }
    Ok(())
}

fn renew(orders: &mut Orders) -> io::Result<()> {
    let mut pool = Vec::new();
    for i in 0.. {
        orders.beat(i);
        if pool.len() < LARGE_POOL {
            pool.push(Client::connect(&orders.at)?);
        }
        let turn = i % pool.len();
        if pool[turn].command("INCR jobs").is_err() {
            pool[turn] = Client::connect(&orders.at)?;
            pool[turn].command("INCR jobs")?;
        }
    }
    Ok(())
}

fn come_and_go(orders: &mut Orders) -> io::Result<()> {
    let mut clients: VecDeque<Client> = VecDeque::new();
    for i in 0.. {
        orders.beat(i);
        let phase = i % WAVE;
        let wanted = 1 + HEIGHT * phase.min(WAVE - phase) / (WAVE / 2);
        // The eldest always leaves, whatever the load does.
        clients.pop_front();
        while clients.len() > wanted {
            clients.pop_front();
        }
        while clients.len() < wanted {
            clients.push_back(Client::connect(&orders.at)?);
        }
        // One asks: were it all, a busy machine would be no quicker than they.
        clients[i % wanted].command("INCR jobs")?;
        if i % REWRITE == REWRITE - 1 {
            // Refused while the last one is not finished.
            let _ = clients[0].command("BGREWRITEAOF");
        }
    }
    Ok(())
}
