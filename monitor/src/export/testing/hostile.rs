//! Names that want to be markup, flags, new lines or control codes.

use super::night::night;
use super::types::Snapshot;

/// Such names; the last is 255 bytes long.
pub(in crate::export) const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "--help",
    "two\nlines",
    "quote\"and'tick",
    "back\\slash",
    "\u{1b}[2Jgone\u{202e}txt",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
];

/// A snapshot with `name` in every place that takes a string. Attribution gives
/// printable names; the exporters must hold even if it once does not.
pub(in crate::export) fn hostile(name: &str) -> Snapshot {
    let mut snapshot = night();
    snapshot.units.truncate(1);
    snapshot.leaks.truncate(1);
    let view = &mut snapshot.units[0];
    let mut unit = (*view.unit).clone();
    unit.name = name.into();
    unit.cgroup = name.into();
    view.unit = unit.into();
    if let Some(worst) = &mut view.worst {
        worst.comm = name.into();
    }
    let leak = &mut snapshot.leaks[0];
    leak.unit = name.into();
    leak.kind = name.into();
    leak.cohort = name.into();
    leak.evidence = vec![name.into()];
    for frame in &mut leak.opener {
        frame.function = name.into();
        frame.file = Some(name.into());
        frame.module = Some(name.into());
    }
    leak.opener_note = Some(name.into());
    for example in &mut leak.examples {
        example.comm = name.into();
        example.path = name.into();
    }
    for action in &mut snapshot.actions {
        action.unit = name.into();
        action.detail = name.into();
    }
    for source in &mut snapshot.sources {
        source.source = name.into();
        source.mechanism = name.into();
        source.reason = name.into();
        source.active = false;
    }
    snapshot.figures.lost = [(name.to_owned(), 1)].into();
    snapshot.figures.programs = [(name.to_owned(), (0.5, 3))].into();
    snapshot.corrections = [(name.to_owned(), 2)].into();
    snapshot.confirmed_total =
        snapshot.confirmed_total.into_iter().map(|(k, v)| ((name.into(), k.1, k.2), v)).collect();
    snapshot.actions_total = snapshot
        .actions_total
        .into_iter()
        .map(|(k, v)| ((name.into(), k.1, k.2, k.3), v))
        .collect();
    snapshot
}

#[test]
fn the_long_name_is_as_long_as_a_name_can_be() {
    assert_eq!(HOSTILE[6].len(), 255);
}
