//! What leakwatch and the two baselines say of a trace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use leakwatch::attribution::Attribution;
use leakwatch::detection::verdict::{Leak, Rule, State};
use leakwatch::pipeline::trace::{Entry, Format, Reader, Teller, replay};
use leakwatch::source::model::ProcessSample;
use serde::Deserialize;

use super::baseline::{Fdleak, Predict};

/// Somebody says: this unit leaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// Since the first census.
    pub at: Duration,
    /// Resource and kind; the baselines know neither.
    pub of: Option<(String, String)>,
    /// How many are held, by the verdict; of a baseline, how many more are open than when
    /// the process was first seen.
    pub held: Option<u64>,
    /// Why, in short.
    pub why: String,
    /// Functions of the verdict's opener, as it is at the end of the trace: its stack may
    /// come after its confirmation. Of a baseline none.
    pub opener: Vec<String>,
}

/// The three methods.
pub const METHODS: [&str; 3] = ["leakwatch", "predict_linear", "fdleak"];

/// What the methods say of a trace, in the order of [`METHODS`], by unit.
pub struct Said {
    /// By unit.
    pub alarms: [BTreeMap<String, Vec<Alarm>>; 3],
    /// When each unit was first seen, since the first census.
    pub seen: BTreeMap<String, Duration>,
    /// A window of its config.
    pub window: Duration,
}

#[derive(Deserialize)]
struct Line {
    at: Option<Timestamp>,
    leak: Option<Leak>,
    /// Of the last line: all that there are.
    #[serde(default)]
    leaks: Vec<Leak>,
}

/// Has a trace judged by all three.
///
/// # Errors
/// It cannot be read.
pub fn judge(trace: &[u8]) -> Result<Said> {
    let (mut said, first) = baselines(trace)?;
    said.alarms[0] = verdicts(trace, first)?;
    Ok(said)
}

/// What leakwatch confirms in a trace whose first census was at `first`, by unit.
///
/// # Errors
/// It cannot be read.
pub fn verdicts(trace: &[u8], first: Timestamp) -> Result<BTreeMap<String, Vec<Alarm>>> {
    let mut found: Vec<(Leak, Alarm)> = Vec::new();
    let mut openers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut teller = Teller::new(&mut out, Format::Json);
    let (_, result) = replay(Reader::new(trace)?, None, &mut teller);
    result?;
    drop(teller);
    for line in out.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line: Line = serde_json::from_slice(line).context("a line of the replay")?;
        for leak in line.leaks {
            let functions = leak.opener.into_iter().map(|frame| frame.function).collect();
            openers.insert(leak.id.to_string(), functions);
        }
        let (Some(at), Some(leak)) = (line.at, line.leak) else { continue };
        // A process near its limit is a warning, and says of itself that it is no leak.
        if leak.state != State::Confirmed || leak.rules == [Rule::Headroom] {
            continue;
        }
        let rules: Vec<_> = leak.rules.iter().map(|r| r.as_str()).collect();
        let alarm = Alarm {
            at: Duration::try_from(at.duration_since(first)).unwrap_or_default(),
            of: Some((leak.resource.to_string(), leak.kind.clone())),
            held: Some(leak.held),
            why: rules.join(", "),
            opener: Vec::new(),
        };
        found.push((leak, alarm));
    }
    let mut alarms: BTreeMap<String, Vec<Alarm>> = BTreeMap::new();
    for (leak, mut alarm) in found {
        alarm.opener = openers.get(&leak.id.to_string()).cloned().unwrap_or_default();
        alarms.entry(leak.unit.to_string()).or_default().push(alarm);
    }
    Ok(alarms)
}

/// What the baselines say, with the time of the first census.
fn baselines(trace: &[u8]) -> Result<(Said, Timestamp)> {
    let mut reader = Reader::new(trace)?;
    let mut attribution = Attribution::new(&[])?;
    attribution.tell_users(BTreeMap::new());
    let mut said =
        Said { alarms: Default::default(), seen: BTreeMap::new(), window: Duration::ZERO };
    let mut predicts: BTreeMap<Arc<str>, Predict> = BTreeMap::new();
    let mut fdleaks = BTreeMap::new();
    let mut opened = BTreeMap::new();
    let mut first: Option<Timestamp> = None;
    while let Some(entry) = reader.next_entry()? {
        match entry {
            Entry::Config(config) => {
                attribution.reconfigure(&config.units)?;
                said.window = config.detection.window;
            }
            Entry::Tasks(events) => events.iter().for_each(|e| drop(attribution.task(e))),
            Entry::Glimpse(seen, _) => seen.iter().for_each(|p| drop(attribution.glimpse(p))),
            Entry::Look(seen, judged) => {
                let since = judged.wall.duration_since(*first.get_or_insert(judged.wall));
                let at = Duration::try_from(since).unwrap_or_default();
                let units = attribution.observe(&seen.processes);
                let mut worst: BTreeMap<Arc<str>, (f64, f64, f64)> = BTreeMap::new();
                for (p, unit) in seen.processes.iter().zip(&units) {
                    said.seen.entry(unit.name.to_string()).or_insert(at);
                    let Some((open, limit)) = usage(p) else { continue };
                    let grown = open - *opened.entry(p.id).or_insert(open);
                    let most = worst.entry(unit.name.clone()).or_insert((open, limit, grown));
                    if open / limit > most.0 / most.1 {
                        *most = (open, limit, grown);
                    }
                    if fdleaks.entry(p.id).or_insert_with(|| Fdleak::new(open)).update(open, limit)
                    {
                        let why = "the least number has risen";
                        alarm(&mut said, 2, &unit.name, at, (why, grown));
                    }
                }
                for (unit, (open, limit, grown)) in worst {
                    let predict =
                        predicts.entry(unit.clone()).or_insert_with(|| Predict::new(said.window));
                    if let Some(why) = predict.update(at, open, limit) {
                        alarm(&mut said, 1, &unit, at, (why, grown));
                    }
                }
            }
            Entry::Users(names) => attribution.tell_users(names),
            Entry::Judge(_) => {}
        }
    }
    Ok((said, first.context("a trace without a census")?))
}

fn alarm(said: &mut Said, method: usize, unit: &str, at: Duration, (why, grown): (&str, f64)) {
    let held = Some(grown.max(0.0) as u64);
    let alarm = Alarm { at, of: None, held, why: why.to_owned(), opener: Vec::new() };
    said.alarms[method].entry(unit.to_owned()).or_default().push(alarm);
}

/// Open descriptors of a process, and how many it may have.
fn usage(p: &ProcessSample) -> Option<(f64, f64)> {
    let open = p.fds.len().filter(|_| !p.zombie)?;
    Some((f64::from(open), p.max_fds? as f64))
}
