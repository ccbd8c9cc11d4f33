//! Traces of services that do not exist, as the census and the probes would see them.
//!
//! The same label gives the same bytes, on any machine. A census a minute, at which a
//! window of five minutes still has more than the three that it needs.

pub mod actor;
pub mod plan;
mod things;
mod world;

use std::time::Duration;

use anyhow::Result;
use leakwatch::config::Config;
use leakwatch::pipeline::trace::{Header, Writer};
use leakwatch::time::{Boottime, ClockPair};

use super::label::Label;
use actor::Actor;
use plan::{Life, Numbers};
use world::{BOOT, World};

/// A trace, and what is true of it.
pub struct Trace {
    /// As `leakwatch record` would have written it.
    pub bytes: Vec<u8>,
    /// When each of the leaked was opened, since the start, in order.
    pub leaked: Vec<Duration>,
}

/// Between two censuses.
const INTERVAL: Duration = Duration::from_secs(60);

/// The config of these traces: the defaults, with a slower census.
pub fn config() -> Config {
    let mut config = Config::default();
    config.watch.census_interval = INTERVAL;
    config
}

/// When the first census of every such trace is.
pub fn first_census() -> jiff::Timestamp {
    clock(INTERVAL).wall
}

/// Both clocks, so long after the start of a trace.
fn clock(since: Duration) -> ClockPair {
    let boot = Boottime(0) + Duration::from_secs(100_000) + since;
    let wall = jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + since;
    ClockPair { boot, wall }
}

/// Makes the trace of a generated case.
///
/// # Errors
/// It cannot be written, which memory always can.
pub fn trace(label: &Label) -> Result<Trace> {
    let mut numbers = Numbers::of(&label.name);
    let mut writer = Writer::new(Vec::new(), &Header::new(BOOT, clock(Duration::ZERO).wall))?;
    writer.config(&config())?;
    let mut world = World::new(&label.unit(), label.limit, label.probes, functions(label));
    let mut leaked = Vec::new();
    let length = if label.restarts == 0 { label.minutes } else { label.restarts };
    for (life, begun) in (0..label.minutes).step_by(length.max(1) as usize).enumerate() {
        let lives = lives_of(label, f64::from(length.min(label.minutes - begun)), &mut numbers);
        let start = Duration::from_secs(60) * begun;
        leaked.extend(
            lives
                .iter()
                .filter(|l| l.leaked)
                .map(|l| start + Duration::from_secs_f64(l.from * 60.0)),
        );
        if life > 0 {
            world.stop(clock(start).boot);
        }
        world.start(clock(start).boot);
        let mut pending = lives.into_iter().peekable();
        for minute in 1..=length.min(label.minutes - begun) {
            let now = f64::from(minute);
            let mut births = Vec::new();
            while let Some(life) = pending.next_if(|l| l.from <= now) {
                births.push(life);
            }
            let at = clock(start + INTERVAL * minute);
            let when = |minutes: f64| clock(start + Duration::from_secs_f64(minutes * 60.0)).boot;
            world.step(&births, now, &when);
            let events = world.events();
            if !events.is_empty() {
                writer.tasks(&events)?;
            }
            writer.look(&world.look(at), at)?;
        }
    }
    let (bytes, _) = writer.end("the story is told")?;
    Ok(Trace { bytes, leaked })
}

/// All that is opened in one life of the service, in order.
fn lives_of(label: &Label, minutes: f64, numbers: &mut Numbers) -> Vec<Life> {
    let functions = functions(label);
    let stack = |actor: &Actor| {
        let by = actor.opener()?;
        functions.iter().position(|f| f == by).map(|n| n as u32)
    };
    let of = |actor: &Actor| plan::lives(actor, stack(actor), minutes, numbers);
    let mut lives: Vec<Life> = label.actor.iter().flat_map(of).collect();
    lives.sort_by(|a, b| a.from.total_cmp(&b.from));
    lives
}

/// Functions that open something; their places are the numbers of their stacks.
fn functions(label: &Label) -> Vec<String> {
    let mut functions: Vec<&str> = label.actor.iter().filter_map(Actor::opener).collect();
    functions.sort_unstable();
    functions.dedup();
    functions.into_iter().map(str::to_owned).collect()
}
