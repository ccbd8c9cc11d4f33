//! What a method got right: one case is one unit.

use std::time::Duration;

use super::judge::{Alarm, Said};
use super::label::Label;

/// A leak that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// From the first leaked to the alarm.
    pub after: Duration,
    /// The same, in windows.
    pub windows: f64,
    /// Leaked by then.
    pub leaked: u64,
    /// These, as a share of the limit.
    pub used: f64,
    /// Why.
    pub why: String,
    /// Whether a frame of its opener is the function on record; of generated cases, which
    /// have no code, and where none is on record, nothing.
    pub opener: Option<bool>,
}

/// What a method made of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The case leaks.
    pub leaky: bool,
    /// Of what kind.
    pub resource: Option<String>,
    /// It was kept aside.
    pub held_out: bool,
    /// The labelled leak was found.
    pub found: Option<Found>,
    /// Something else was.
    pub wrong: Option<String>,
}

/// A case and what each method made of it.
pub type Row = (Label, [Outcome; 3]);

/// Scores a case whose trace was judged. `leaked` counts from the start of its trace.
pub fn row(label: Label, said: &Said, leaked: Option<&[Duration]>) -> Row {
    let unit = label.unit();
    // The first census of a generated trace is a minute after its start.
    let first = if label.generated() { Duration::from_secs(60) } else { Duration::ZERO };
    let begun = said.seen.get(&unit).copied().unwrap_or_default() + label.begins();
    let leaked: Option<Vec<Duration>> =
        leaked.map(|l| l.iter().map(|t| t.saturating_sub(first)).collect());
    let outcomes = [0, 1, 2].map(|method| {
        let alarms = said.alarms[method].get(&unit).map_or(&[][..], Vec::as_slice);
        score(&label, alarms, begun.saturating_sub(first), leaked.as_deref(), said.window)
    });
    (label, outcomes)
}

/// Judges the alarms of one method on the unit of one case.
///
/// An alarm counts where it comes after the leak has begun and, if it says so, is of its
/// resource and kind; every other alarm is a false one. `begun` and the alarms count from
/// the first census; `leaked` is when each of the leaked was opened, where that is known.
pub fn score(
    label: &Label,
    alarms: &[Alarm],
    begun: Duration,
    leaked: Option<&[Duration]>,
    window: Duration,
) -> Outcome {
    let right = |alarm: &Alarm| {
        let kind = (label.resource.as_deref(), label.kind.as_deref());
        let same = alarm.of.as_ref().is_none_or(|(r, k)| kind == (Some(r), Some(k)));
        label.leaky() && alarm.at >= begun && same
    };
    let found =
        alarms.iter().filter(|a| right(a)).min_by_key(|a| a.at).map(|alarm| {
            let after = alarm.at - begun;
            let leaked = match leaked {
                Some(leaked) => leaked.iter().filter(|t| **t <= alarm.at).count() as u64,
                None => alarm.held.unwrap_or(0),
            };
            Found {
                after,
                windows: after.as_secs_f64() / window.as_secs_f64(),
                leaked,
                used: leaked as f64 / label.limit as f64,
                why: alarm.why.clone(),
                opener: label.opener.as_ref().filter(|_| !label.generated()).map(|function| {
                    alarm.opener.iter().any(|frame| frame.contains(function.as_str()))
                }),
            }
        });
    let wrong = alarms.iter().filter(|a| !right(a)).min_by_key(|a| a.at).map(|alarm| {
        let of = alarm.of.as_ref().map_or("", |(_, kind)| kind);
        format!("{of} after {:.0} s: {}", alarm.at.as_secs_f64(), alarm.why)
    });
    Outcome {
        leaky: label.leaky(),
        resource: label.resource.clone(),
        held_out: label.held_out,
        found,
        wrong,
    }
}

/// Figures of a method over some cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Leaks.
    pub leaky: usize,
    /// Innocents.
    pub innocent: usize,
    /// Leaks that were found.
    pub found: usize,
    /// Cases with a false alarm.
    pub wrong: usize,
    /// Windows until a leak was found, sorted.
    pub windows: Vec<f64>,
    /// Leaked until it was found, sorted.
    pub leaked: Vec<u64>,
    /// Leaks of descriptors.
    pub descriptors: usize,
    /// Of which were found before they had taken a tenth of the limit.
    pub early: usize,
    /// Leaks that were found, are real, and whose opener is on record.
    pub openers: usize,
    /// Of which a frame is that function.
    pub named: usize,
}

impl Figures {
    /// Adds up.
    pub fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut sum = Self::default();
        for o in outcomes {
            sum.leaky += usize::from(o.leaky);
            sum.innocent += usize::from(!o.leaky);
            sum.wrong += usize::from(o.wrong.is_some());
            let descriptor = o.resource.as_deref() == Some("fd");
            sum.descriptors += usize::from(descriptor);
            if let Some(found) = &o.found {
                sum.found += 1;
                sum.windows.push(found.windows);
                sum.leaked.push(found.leaked);
                sum.early += usize::from(descriptor && found.used < 0.1);
                sum.openers += usize::from(found.opener.is_some());
                sum.named += usize::from(found.opener == Some(true));
            }
        }
        sum.windows.sort_by(f64::total_cmp);
        sum.leaked.sort_unstable();
        sum
    }

    /// Of the cases with an alarm, the share in which it was right.
    pub fn precision(&self) -> Option<f64> {
        share(self.found, self.found + self.wrong)
    }

    /// Of the leaks, the share that was found.
    pub fn recall(&self) -> Option<f64> {
        share(self.found, self.leaky)
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The middle one of what is sorted, the lower of two.
pub fn median<T: Copy>(sorted: &[T]) -> Option<T> {
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::label;

    fn alarm(at: u64, kind: &str) -> Alarm {
        let of = Some(("fd".to_owned(), kind.to_owned()));
        Alarm { at: Duration::from_secs(at), of, held: None, why: "x".into(), opener: Vec::new() }
    }

    fn case(leaky: bool) -> Label {
        let cases = label::load("generated").unwrap();
        let mut case = cases.into_iter().find(Label::leaky).unwrap();
        if !leaky {
            case.truth = label::Truth::Innocent;
            case.resource = None;
        } else {
            case.resource = Some("fd".into());
        }
        case.kind = leaky.then(|| "socket".into());
        case.limit = 100;
        case
    }

    fn judged(leaky: bool, alarms: &[Alarm]) -> Outcome {
        let leaked: Vec<_> = (10..60).map(Duration::from_secs).collect();
        let begun = Duration::from_secs(10);
        score(&case(leaky), alarms, begun, Some(&leaked), Duration::from_secs(5))
    }

    #[test]
    fn a_leak_is_found_after_it_has_begun_and_by_its_kind() {
        let found = judged(true, &[alarm(30, "socket"), alarm(20, "socket")]);
        let first = found.found.unwrap();
        assert_eq!((first.after.as_secs(), first.windows, first.leaked), (10, 2.0, 11));
        assert!((first.used - 0.11).abs() < 1e-9 && found.wrong.is_none());

        let early = judged(true, &[alarm(9, "socket")]);
        assert!(early.found.is_none() && early.wrong.is_some());
        let other = judged(true, &[alarm(20, "pipe"), alarm(25, "socket")]);
        assert!(other.found.is_some() && other.wrong.is_some());
        let none = judged(true, &[]);
        assert!(none.found.is_none() && none.wrong.is_none());
        // A method that knows no kind is right with any.
        let blind = Alarm { of: None, ..alarm(20, "") };
        assert!(judged(true, std::slice::from_ref(&blind)).found.is_some());
        assert!(judged(false, &[blind]).wrong.is_some());
        assert!(judged(false, &[alarm(20, "socket")]).wrong.is_some());
    }

    #[test]
    fn an_opener_is_named_by_any_frame_of_a_real_case() {
        let mut case = case(true);
        case.opener = Some("open_it".into());
        let mut alarm = alarm(20, "socket");
        alarm.opener = vec!["__GI_socket".into(), "client::open_it".into()];
        let opener = |case: &Label, alarm: &Alarm| {
            let (alarms, second) = (std::slice::from_ref(alarm), Duration::from_secs(1));
            score(case, alarms, second, None, second).found.unwrap().opener
        };
        assert_eq!(opener(&case, &alarm), None, "made up");
        case.run = vec!["client".into()];
        assert_eq!(opener(&case, &alarm), Some(true));
        alarm.opener.pop();
        assert_eq!(opener(&case, &alarm), Some(false));
        case.opener = None;
        assert_eq!(opener(&case, &alarm), None, "not on record");
    }

    #[test]
    fn figures_are_counted_by_case() {
        let outcomes = [
            judged(true, &[alarm(20, "socket")]),
            judged(true, &[alarm(12, "socket"), alarm(13, "pipe")]),
            judged(true, &[]),
            judged(false, &[]),
            judged(false, &[alarm(1, "pipe"), alarm(2, "pipe")]),
        ];
        let figures = Figures::of(outcomes.iter());
        assert_eq!((figures.leaky, figures.innocent), (3, 2));
        assert_eq!((figures.found, figures.wrong, figures.early), (2, 2, 1));
        assert_eq!(figures.precision(), Some(0.5));
        assert_eq!(figures.recall(), Some(2.0 / 3.0));
        assert_eq!((median(&figures.windows), median(&figures.leaked)), (Some(0.4), Some(3)));
        assert_eq!(Figures::default().precision(), None);
        assert_eq!(median::<u64>(&[]), None);
    }
}
