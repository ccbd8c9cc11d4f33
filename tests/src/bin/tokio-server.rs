//! A server object that spawns a loop when it starts, on tokio. `--mode leak`: the next one is
//! started and the loop of the last one forgotten. `--mode abort`: its handle is aborted.
//!
//! `--count N` starts, one every `--pace` ms, after the command `go`, each with a few short
//! tasks besides; says `ready` after the last.
//!
//! `--mode cost`: after each `go`, `--count` tasks that end at once, each awaited before the
//! next; says `took NANOSECONDS`.

use std::time::{Duration, Instant};

use leakwatch_tests::program::{Control, Flags, say};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

/// Short tasks of each start.
const ANSWERS: u64 = 3;

struct Server {
    heart: JoinHandle<()>,
}

impl Server {
    fn start() -> Self {
        Self { heart: tokio::spawn(Self::heartbeat(Duration::from_millis(50))) }
    }

    async fn heartbeat(period: Duration) {
        let mut beat = interval(period);
        loop {
            beat.tick().await;
        }
    }

    async fn answer(question: u64) -> u64 {
        sleep(Duration::from_millis(question)).await;
        question + 1
    }

    async fn serve(&self) {
        let answers: Vec<_> = (0..ANSWERS).map(|n| tokio::spawn(Self::answer(n))).collect();
        for answer in answers {
            answer.await.expect("a task that answers");
        }
    }
}

fn main() {
    let flags = Flags::of_this_process();
    let control = Control::listen();
    let count = flags.get("count", 40_usize);
    let pace = flags.millis("pace", 150);
    let aborts = flags.get("mode", "leak".to_owned()) == "abort";
    if flags.get("mode", String::new()) == "cost" {
        cost(&control, count as u64)
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    // The probes are to be there first.
    control.wait_for("go");
    runtime.block_on(async {
        let mut server: Option<Server> = None;
        for _ in 0..count {
            sleep(pace).await;
            if let Some(last) = server.take().filter(|_| aborts) {
                last.heart.abort();
                let _ = last.heart.await;
            }
            let new = Server::start();
            new.serve().await;
            server = Some(new);
        }
        say("ready");
        // The last one goes on.
        std::mem::forget(server);
    });
    control.idle()
}

/// On one thread: what waking another one costs is no cost of a task.
fn cost(control: &Control, count: u64) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    loop {
        control.wait_for("go");
        let begun = Instant::now();
        runtime.block_on(async {
            for n in 0..count {
                let _ = tokio::spawn(std::future::ready(n)).await;
            }
        });
        say(format_args!("took {}", begun.elapsed().as_nanos()));
    }
}
