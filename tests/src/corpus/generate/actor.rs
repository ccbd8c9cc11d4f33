//! What goes on in a generated service: each actor opens and closes one kind of thing.

use serde::Deserialize;

/// A thing that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A TCP connection.
    Socket,
    /// One whose peer has closed at once.
    CloseWait,
    /// The same regular file again.
    File,
    /// A regular file of its own each time.
    Files,
    /// A file that was removed, and had a name before.
    Deleted,
    /// A write handle on the same log.
    Log,
    /// One on a log of its own each time.
    Logs,
    /// A pipe.
    Pipe,
    /// An eventfd.
    Eventfd,
    /// A timerfd.
    Timerfd,
    /// An epoll set.
    Epoll,
    /// A thread.
    Thread,
    /// A child that has ended and was not waited for.
    Zombie,
}

/// How many there are over time. Times are minutes.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "does", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Actor {
    /// One more every so often, on average; never given back. This is the leak.
    Leak {
        /// What.
        what: What,
        /// The function of the program that opens it, where stacks tell.
        by: Option<String>,
        /// Between two.
        every: f64,
        /// From when on; the label's `begins`.
        #[serde(default)]
        from: f64,
        /// Until when.
        #[serde(default = "never")]
        until: f64,
        /// So many at a time.
        #[serde(default = "one")]
        batch: u32,
        /// Data goes on to move on its connections or logs, where that is what they are.
        #[serde(default)]
        moves: bool,
    },
    /// Requests come at random, and each lasts a random time.
    Requests {
        /// What each of them opens.
        what: What,
        /// The function that does.
        by: Option<String>,
        /// Per minute, on average.
        rate: f64,
        /// A mean life.
        life: f64,
        /// The rate swings by this share of itself…
        #[serde(default)]
        swing: f64,
        /// …in this time.
        #[serde(default = "day")]
        period: f64,
        /// The rate grows from nothing to `rate` in this time, stays so as long and
        /// falls again; 0: it does not.
        #[serde(default)]
        ramp: f64,
        /// From when on.
        #[serde(default)]
        from: f64,
        /// Data moves on its connections or logs, where that is what they are.
        #[serde(default = "yes")]
        moves: bool,
    },
    /// Fills to a cap and stays there.
    Pool {
        /// What it holds.
        what: What,
        /// The function that fills it.
        by: Option<String>,
        /// How many at most.
        cap: u32,
        /// Between two that are added.
        every: f64,
        /// From when on.
        #[serde(default)]
        from: f64,
        /// The oldest is replaced every so often, once it is full; 0: never.
        #[serde(default)]
        replaced: f64,
        /// Data moves on its connections or logs, where that is what they are.
        #[serde(default = "yes")]
        moves: bool,
    },
    /// Many at once, given back together.
    Burst {
        /// What.
        what: What,
        /// The function of the program that opens it, where stacks tell.
        by: Option<String>,
        /// How many.
        count: u32,
        /// Between two bursts.
        every: f64,
        /// How long they stay.
        stays: f64,
        /// From when on.
        #[serde(default)]
        from: f64,
        /// Data moves on its connections or logs, where that is what they are.
        #[serde(default = "yes")]
        moves: bool,
    },
}

impl Actor {
    /// The function that opens what there is of this, where stacks tell.
    pub fn opener(&self) -> Option<&str> {
        match self {
            Self::Leak { by, .. }
            | Self::Requests { by, .. }
            | Self::Pool { by, .. }
            | Self::Burst { by, .. } => by.as_deref(),
        }
    }
}

fn never() -> f64 {
    f64::INFINITY
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn day() -> f64 {
    1440.0
}
