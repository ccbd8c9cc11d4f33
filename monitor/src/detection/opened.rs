//! Who opened the members of a finding.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::detection::verdict::{Leak, Role};
use crate::ledger::Ledger;
use crate::ledger::process::{Held, Process};
use crate::source::model::{Frame, OpenerKey, UNWOUND};

/// Functions that are named, at most, where several have opened.
const SHARES: usize = 3;

/// A stack, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Under which it can be asked for again.
    pub key: Option<OpenerKey>,
    /// It has been looked up, with whatever success.
    pub looked_up: bool,
    /// Innermost first; addresses until it is looked up.
    pub frames: Vec<Frame>,
    /// Why the opener cannot be told, or not by name.
    pub note: Option<String>,
}

impl Opened {
    /// The stack of most members, preferably in a process where it was looked up. Where
    /// some were unwound, it is one of those: what frame pointers tell of the others is
    /// then known to be less.
    pub(crate) fn most_frequent(ledger: &Ledger, members: &[(&Process, &Held)]) -> Self {
        let mut stacks: BTreeMap<&[u64], ((bool, usize), OpenerKey)> = BTreeMap::new();
        for (process, held) in members {
            let Some(id) = held.birth.and_then(|b| b.stack) else { continue };
            let Some(stack) = ledger.stack(held) else { continue };
            let key = (process.id, id);
            let (count, known) = stacks.entry(stack).or_insert(((id >= UNWOUND, 0), key));
            count.1 += 1;
            if ledger.opener(*known).is_none() && ledger.opener(key).is_some() {
                *known = key;
            }
        }
        let most = stacks.into_iter().max_by_key(|(_, (count, _))| *count);
        most.map_or_else(Self::default, |(stack, (_, key))| {
            Self::looked_up(ledger, key).unwrap_or_else(|| Self {
                key: Some(key),
                frames: stack.iter().map(|a| Frame::raw(*a)).collect(),
                ..Self::default()
            })
        })
    }

    /// What needs no stack to be told.
    pub(crate) fn named(frame: Frame) -> Self {
        Self { key: None, looked_up: true, frames: vec![frame], note: None }
    }

    fn looked_up(ledger: &Ledger, key: OpenerKey) -> Option<Self> {
        let opener = ledger.opener(key)?;
        Some(Self {
            key: Some(key),
            looked_up: true,
            frames: opener.frames.clone(),
            note: opener.note.clone(),
        })
    }

    fn is_known(&self) -> bool {
        !self.frames.is_empty()
    }
}

/// Which functions of the program opened them, where they are several: one leak may hide
/// behind another one of the same files.
pub(crate) fn shares(ledger: &Ledger, members: &[(&Process, &Held)]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (process, held) in members {
        let Some(id) = held.birth.and_then(|b| b.stack) else { continue };
        let Some(opener) = ledger.opener((process.id, id)) else { continue };
        let own = opener.frames.iter().find(|f| f.role == Role::Opener);
        *counts.entry(&own?.function).or_default() += 1;
    }
    if counts.len() < 2 {
        return None;
    }
    let mut all: Vec<(&str, usize)> = counts.into_iter().collect();
    all.sort_by_key(|(function, n)| (Reverse(*n), *function));
    let others: usize = all.iter().skip(SHARES).map(|(_, n)| n).sum();
    let of = format!(" of these {} were opened", members.len());
    let named = all.iter().take(SHARES).enumerate().map(|(i, (function, n))| {
        let of = if i == 0 { of.as_str() } else { "" };
        format!("{n}{of} by {function}")
    });
    let others = (others > 0).then(|| format!("{others} by others"));
    let by: Vec<String> = named.chain(others).collect();
    Some(format!("as far as is known, {}", by.join(", ")))
}

/// The opener of a verdict that was found anew: the probes that told it before may
/// be gone since, and it was so all the same. One that has been looked up is not
/// given up for one that has not.
pub(crate) fn choose<'a>(
    found: impl Iterator<Item = &'a Opened> + Clone,
    before: Option<&'a Opened>,
) -> Opened {
    let mut all = found.chain(before).filter(|o| o.is_known());
    let first = all.clone().find(|o| o.looked_up).or_else(|| all.next());
    first.cloned().unwrap_or_default()
}

/// Brings a verdict up to date once its stack has been looked up, also when its
/// process has died meanwhile.
pub(crate) fn refresh(leak: &mut Leak, opened: &mut Opened, ledger: &Ledger) {
    if !opened.looked_up
        && let Some(now) = opened.key.and_then(|key| Opened::looked_up(ledger, key))
    {
        *opened = now;
        (leak.opener, leak.opener_note) = (opened.frames.clone(), opened.note.clone());
    }
}
