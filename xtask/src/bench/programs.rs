//! What the modes cost programs of real life.

mod compile;
mod files;
mod serve;

use std::time::Duration;

use anyhow::Result;

use super::mode::Mode;
use super::rounds::{Results, Work};
use crate::shell::say;

/// What a mode that should cost nothing may cost, as a ratio.
const AIM: f64 = 1.02;
/// An agent's first looks are not what a service lives beside.
const SETTLE: Duration = Duration::from_secs(1);

/// A workload as it is made.
type Made = Result<Box<dyn Work>>;

/// Measures all modes in each round, every one right after a bare run.
///
/// # Errors
/// When a workload fails. What a missing program keeps from being made is left out, and
/// said.
pub fn measure(rounds: u32) -> Result<String> {
    let mut works = Vec::new();
    let mut absent = String::new();
    let made: [(&str, Made); 3] = [
        ("The build", compile::Build::new().map(|w| Box::new(w) as Box<dyn Work>)),
        ("nginx", serve::Server::new().map(|w| Box::new(w) as Box<dyn Work>)),
        ("The search", files::Search::new().map(|w| Box::new(w) as Box<dyn Work>)),
    ];
    for (name, made) in made {
        match made {
            Ok(work) => works.push(work),
            Err(error) => {
                say(&format!("  {name} left out: {error:#}"));
                absent.push_str(&format!("\n{name} could not be measured: {error}.\n"));
            }
        }
    }
    // Once for the caches.
    for work in &mut works {
        work.cost(Mode::Nothing)?;
    }
    let results = Results::measure(&mut works, &Mode::PROGRAMS, rounds, SETTLE)?;
    Ok(format!(
        "## Programs\n\n{rounds} rounds, by the wall clock, pinned to no CPU: what runs beside \
         takes its share of the cores.\nIn a round every mode is measured right after a bare run; the \
         ratio is between the two, of nginx that of the times per request.\nA figure below what the \
         noise row spreads over says nothing, and an aim that lies within the middle half of the rounds is undecided.\n\n{}\nTimes the bare run:\n\n{}{}{absent}",
        results.bare(&works),
        results.ratios(&works, &Mode::PROGRAMS, 3),
        results.failures()
    ))
}

/// The aim is the agent's, with nothing suspected and with its probes attached.
fn aim(mode: Mode) -> Option<f64> {
    matches!(mode, Mode::Off | Mode::Auto | Mode::Always).then_some(AIM)
}
