//! The inside of a leaker or innocent: flags, phases, and an end.
//!
//! A program's standard input is its lifeline and its control channel. Whoever
//! starts it keeps the write end: a line on it is a command, its end (the suite
//! was killed, say) ends the program. Children inherit the read end, so the
//! lifeline holds for them too, and for theirs after their parent has died.

use std::fmt::Display;
use std::io::{BufRead, Write};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// `--key value` flags of the command line. Unknown ones are kept: `--tag T`,
/// which no program reads, is how a match rule tells two of a kind apart.
pub struct Flags(Vec<String>);

impl Flags {
    /// Those this process was started with.
    pub fn of_this_process() -> Self {
        // Lossily: some are given wild arguments on purpose.
        Self(std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect())
    }

    /// The value of `--key`, or `default` where it is not given.
    ///
    /// # Panics
    /// The value cannot be read as a `T`.
    pub fn get<T: FromStr>(&self, key: &str, default: T) -> T {
        self.find(key).unwrap_or(default)
    }

    /// The value of `--key`, where it is given.
    ///
    /// # Panics
    /// The value cannot be read as a `T`.
    pub fn find<T: FromStr>(&self, key: &str) -> Option<T> {
        let value = self.text(key)?;
        Some(value.parse().unwrap_or_else(|_| panic!("--{key} {value:?} cannot be read")))
    }

    /// The value of `--key` in milliseconds.
    pub fn millis(&self, key: &str, default: u64) -> Duration {
        Duration::from_millis(self.get(key, default))
    }

    /// The value of `--key`, which must be given.
    ///
    /// # Panics
    /// It is not.
    pub fn need(&self, key: &str) -> &str {
        self.text(key).unwrap_or_else(|| panic!("--{key} is missing"))
    }

    fn text(&self, key: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a.strip_prefix("--") == Some(key))?;
        self.0.get(at + 1).map(String::as_str)
    }
}

/// The lifeline: see the module.
pub struct Control(Receiver<String>);

impl Control {
    /// Starts to listen. Costs the process one thread, which waits in read(2).
    pub fn listen() -> Self {
        let (to, from) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
            leave();
        });
        Self(from)
    }

    /// Waits for the command `word`; others are passed over.
    pub fn wait_for(&self, word: &str) {
        while self.next() != word {}
    }

    /// Waits for the next command.
    pub fn next(&self) -> String {
        // The sender is gone only when the process is on its way out.
        self.0.recv().unwrap_or_else(|_| leave())
    }

    /// The next command, if there is one already.
    pub fn poll(&self) -> Option<String> {
        match self.0.try_recv() {
            Ok(word) => Some(word),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => leave(),
        }
    }

    /// Does nothing until the program is ended from outside.
    pub fn idle(&self) -> ! {
        loop {
            self.next();
        }
    }
}

/// Ends this process.
#[expect(clippy::exit, reason = "a thread that sees the lifeline cut ends the whole program")]
fn leave() -> ! {
    std::process::exit(0)
}

/// Says which phase has been reached: one line on standard output.
pub fn say(phase: impl Display) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: then the lifeline is about to end us.
    let _ = writeln!(out, "{phase}").and_then(|()| out.flush());
}

/// Beats at a steady pace however long the work between beats takes, so that
/// `count` beats always last `count * pace`.
pub struct Pace {
    next: Instant,
    every: Duration,
}

impl Pace {
    /// The first beat is now.
    pub fn new(every: Duration) -> Self {
        Self { next: Instant::now(), every }
    }

    /// Sleeps until the next beat; at once if it is past.
    pub fn beat(&mut self) {
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next += self.every;
    }
}

/// The program of this package called `name`, which lies beside this one.
///
/// # Panics
/// The path of the running program cannot be read.
pub fn sibling(name: &str) -> std::path::PathBuf {
    std::env::current_exe().expect("/proc/self/exe can be read").with_file_name(name)
}
