//! TCP on loopback, both ends in one process.
//!
//! - `--mode pool`: a connection pool that fills to its cap of `--count`, one more
//!   every `--pace` ms, and then uses them in turn for ever.
//! - `--mode load`: clients come and go, each stays about `--stay` ms; their number
//!   rises from zero to `--count` over `--rise` ms, falls again, and so on.
//! - `--mode forget`: `--count` times, one every `--pace` ms, the server answers and
//!   closes, and the client keeps its end: it stays in CLOSE_WAIT.
//! - `--mode close`: the same for ever, and each client closes a beat later.
//!
//! Says `ready` when all are forgotten, when the pool is full, or when the load has risen and
//! fallen once; in the mode `close` after `--count` of them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use leakwatch_tests::program::{Control, Flags, Pace, say};

/// One connection: the client's end and the server's.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn connect(listener: &TcpListener) -> std::io::Result<Self> {
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self { client, server: listener.accept()?.0 })
    }

    /// A question and its answer.
    fn talk(&mut self) -> std::io::Result<()> {
        let mut answer = [0; 4];
        self.client.write_all(b"ping")?;
        self.server.read_exact(&mut answer)?;
        self.server.write_all(b"pong")?;
        self.client.read_exact(&mut answer)
    }
}

fn main() -> std::io::Result<()> {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let count = flags.get("count", 60_usize);
    let pace = flags.millis("pace", 50);
    match flags.get("mode", "pool".to_owned()).as_str() {
        "pool" => pool(&listener, count, pace),
        "forget" => forget(&listener, count, pace, &control),
        "close" => close(&listener, count, pace),
        _ => load(&listener, count, pace, flags.millis("rise", 6_000), flags.millis("stay", 800)),
    }
}

/// The end of a client whose server has answered and gone.
fn answered(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let mut pair = Pair::connect(listener)?;
    pair.talk()?;
    Ok(pair.client)
}

fn forget(
    listener: &TcpListener,
    count: usize,
    pace: Duration,
    control: &Control,
) -> std::io::Result<()> {
    let mut forgotten = Vec::new();
    let mut pace = Pace::new(pace);
    for _ in 0..count {
        pace.beat();
        forgotten.push(answered(listener)?);
    }
    say("ready");
    control.idle()
}

fn close(listener: &TcpListener, count: usize, pace: Duration) -> std::io::Result<()> {
    let mut last = None;
    let mut pace = Pace::new(pace);
    for i in 1.. {
        pace.beat();
        last.replace(answered(listener)?);
        if i == count {
            say("ready");
        }
    }
    Ok(())
}

fn pool(listener: &TcpListener, cap: usize, pace: Duration) -> std::io::Result<()> {
    let mut pool = Vec::new();
    let mut pace = Pace::new(pace);
    for i in 0.. {
        pace.beat();
        if pool.len() < cap {
            pool.push(Pair::connect(listener)?);
            if pool.len() == cap {
                say("ready");
            }
        }
        let turn = i % pool.len();
        pool[turn].talk()?;
    }
    Ok(())
}

fn load(
    listener: &TcpListener,
    peak: usize,
    tick: Duration,
    rise: Duration,
    stay: Duration,
) -> std::io::Result<()> {
    let mut open: VecDeque<Pair> = VecDeque::new();
    let mut pace = Pace::new(tick);
    let ticks_up = (rise.as_millis() / tick.as_millis().max(1)).max(1) as usize;
    let ticks_stay = (stay.as_millis() / tick.as_millis().max(1)).max(1) as usize;
    for i in 0.. {
        pace.beat();
        let phase = i % (2 * ticks_up);
        let wanted = peak * phase.min(2 * ticks_up - phase) / ticks_up;
        // The eldest leave whatever the load does, so that all have left after `stay`.
        let leavers = open.len().div_ceil(ticks_stay);
        for _ in 0..leavers {
            open.pop_front();
        }
        while open.len() > wanted {
            open.pop_front();
        }
        while open.len() < wanted {
            open.push_back(Pair::connect(listener)?);
        }
        if let Some(newest) = open.back_mut() {
            newest.talk()?;
        }
        if i == 2 * ticks_up {
            say("ready");
        }
    }
    Ok(())
}
