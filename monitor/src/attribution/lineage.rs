//! Whose process is whose: units of processes, remembered over the death of
//! parents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cgroup;
use super::names::unit_name;
use super::rules::Compiled;
use super::unit::{Unit, UnitKind};
use super::users::Users;
use crate::config::model::UnitRule;
use crate::source::model::{KernelStr, ProcessId, ProcessSample, TaskEvent};
use crate::text::printable;

/// Processes that only task events told of, kept until the census that follows.
/// Beyond this many (a fork storm) the census alone attributes them.
const MAX_UNSEEN: usize = 32_768;

/// Turns processes into units and remembers them.
///
/// A process belongs to the first match rule that holds for it; else to its
/// parent's match rule, unless its own cgroup is another service, scope or
/// container than the parent's; else to what its cgroup names; else (in the
/// root cgroup) to `exe:NAME`. Membership of a rule is kept by [`ProcessId`]:
/// it outlives the parent, and whoever reuses a pid gets nothing of it.
#[derive(Debug)]
pub struct Attribution {
    rules: Vec<Compiled>,
    users: Users,
    known: HashMap<ProcessId, Known>,
    /// Units of cgroup paths; `None` for the root.
    by_cgroup: HashMap<KernelStr, Option<Arc<Unit>>>,
    /// One unit per name, whatever named it first.
    by_name: HashMap<Arc<str>, Arc<Unit>>,
    census: u64,
    unseen: usize,
}

/// What is remembered of a process.
#[derive(Clone, Debug)]
struct Known {
    unit: Arc<Unit>,
    /// The match rule it belongs to, by its own or its parent's merit.
    rule: Option<Arc<Unit>>,
    /// What its cgroup alone makes of it.
    home: Option<Arc<Unit>>,
    /// Who forked it, as far as known. Never who adopted it later.
    parent: Option<ProcessId>,
    /// Last census that saw it.
    seen: u64,
}

impl Attribution {
    /// With the match rules of the config, in file order.
    ///
    /// # Errors
    /// A glob of a rule is malformed.
    pub fn new(rules: &[UnitRule]) -> Result<Self, globset::Error> {
        let mut new = Self {
            rules: Vec::new(),
            users: Users::default(),
            known: HashMap::new(),
            by_cgroup: HashMap::new(),
            by_name: HashMap::new(),
            census: 0,
            unseen: 0,
        };
        new.reconfigure(rules)?;
        Ok(new)
    }

    /// Takes other rules. Members of rules that stay as they were stay members,
    /// even where the parent that made them so is dead; the others are judged
    /// anew by the next [`Self::observe`].
    ///
    /// # Errors
    /// A glob of a rule is malformed; the old rules then stay.
    pub fn reconfigure(&mut self, rules: &[UnitRule]) -> Result<(), globset::Error> {
        let compiled = rules.iter().map(Compiled::new).collect::<Result<Vec<_>, _>>()?;
        let stays = |unit: &Arc<Unit>| {
            self.rules.iter().any(|old| {
                old.unit.name == unit.name && compiled.iter().any(|new| new.given == old.given)
            })
        };
        for known in self.known.values_mut() {
            if known.rule.as_ref().is_some_and(|rule| !stays(rule)) {
                known.rule = None;
            }
        }
        self.rules = compiled;
        // A rule may take or give up the name of a cgroup's unit.
        self.by_cgroup.clear();
        self.by_name =
            self.rules.iter().rev().map(|r| (r.unit.name.clone(), r.unit.clone())).collect();
        Ok(())
    }

    /// Names of user ids from here on, instead of asking the system.
    pub fn tell_users(&mut self, names: BTreeMap<u32, KernelStr>) {
        self.users.tell(names);
    }

    /// The units of `processes` (one census), index by index. Parents may come
    /// after their children.
    pub fn observe(&mut self, processes: &[ProcessSample]) -> Vec<Arc<Unit>> {
        self.census += 1;
        let by_pid: HashMap<u32, usize> =
            processes.iter().enumerate().map(|(i, p)| (p.id.pid, i)).collect();
        let mut done = vec![false; processes.len()];
        let mut chain = Vec::new();
        for start in 0..processes.len() {
            // Up to the first ancestor that is done, then down again: a loop,
            // for chains of processes may be longer than a stack is deep.
            let mut next = Some(start);
            while let Some(i) = next.filter(|i| !done[*i]) {
                // Marked on the way up already, so that pids reused while the
                // census ran cannot make a circle endless.
                done[i] = true;
                chain.push(i);
                next = self.parent(&processes[i], processes, &by_pid);
            }
            while let Some(i) = chain.pop() {
                let parent = self.parent(&processes[i], processes, &by_pid);
                self.judge(&processes[i], parent.map(|at| processes[at].id));
            }
        }
        let units = processes.iter().map(|p| self.known[&p.id].unit.clone()).collect();
        self.forget(processes);
        units
    }

    /// The unit a task event is about: a forked child inherits its parent's, an
    /// exec or exit has what was last known. `None` for a process never seen.
    pub fn task(&mut self, event: &TaskEvent) -> Option<Arc<Unit>> {
        let (parent, child) = match event {
            TaskEvent::Fork { parent, child, .. } => (parent, child),
            TaskEvent::Exec { id, .. } | TaskEvent::Exit { id, .. } => {
                return self.unit_of(id).cloned();
            }
        };
        if let Some(known) = self.known.get(child) {
            return Some(known.unit.clone());
        }
        let of_parent = self.known.get(parent)?;
        let unit = of_parent.unit.clone();
        if self.unseen < MAX_UNSEEN {
            self.unseen += 1;
            let inherited = Known { parent: Some(*parent), seen: self.census, ..of_parent.clone() };
            self.known.insert(*child, inherited);
        }
        Some(unit)
    }

    /// The unit of one process between two censuses, by what it is now.
    pub fn glimpse(&mut self, p: &ProcessSample) -> Arc<Unit> {
        let parent = self.known.get(&p.id).and_then(|known| known.parent);
        self.judge(p, parent);
        self.known[&p.id].unit.clone()
    }

    /// The unit of a process, as last known.
    pub fn unit_of(&self, id: &ProcessId) -> Option<&Arc<Unit>> {
        self.known.get(id).map(|k| &k.unit)
    }

    /// Where the parent of `p` is in this census. Once known it is the one that
    /// forked it: a process that adopts an orphan passes nothing on.
    fn parent(
        &self,
        p: &ProcessSample,
        processes: &[ProcessSample],
        by_pid: &HashMap<u32, usize>,
    ) -> Option<usize> {
        if let Some(known) = self.known.get(&p.id) {
            let id = known.parent?;
            return by_pid.get(&id.pid).copied().filter(|at| processes[*at].id == id);
        }
        let at = *by_pid.get(&p.ppid)?;
        // Younger than its child: another process under the parent's old pid.
        (processes[at].id.start_ticks <= p.id.start_ticks && processes[at].id != p.id).then_some(at)
    }

    /// Decides on one process, its parent being done.
    fn judge(&mut self, p: &ProcessSample, parent: Option<ProcessId>) {
        let before = self.known.get(&p.id);
        if p.zombie
            && let Some(known) = before
        {
            // No executable, no arguments, on v1 no cgroup: nothing to judge by.
            let known = Known { seen: self.census, ..known.clone() };
            self.known.insert(p.id, known);
            return;
        }
        let before = before.cloned();
        let home = self.home(&p.cgroup);
        let rule = self.rules.iter().find(|r| r.holds(p, &mut self.users)).map(|r| r.unit.clone());
        let rule = rule
            .or_else(|| {
                let parent = self.known.get(&parent?)?;
                parent.rule.clone().filter(|_| stays_with(home.as_ref(), parent.home.as_ref()))
            })
            .or_else(|| {
                let before = before.as_ref()?;
                before.rule.clone().filter(|_| stays_with(home.as_ref(), before.home.as_ref()))
            });
        let unit = match rule.as_ref().or(home.as_ref()) {
            Some(unit) => unit.clone(),
            None => self.by_executable(p),
        };
        let parent = before.as_ref().map_or(parent, |b| b.parent);
        self.known.insert(p.id, Known { unit, rule, home, parent, seen: self.census });
    }

    /// What a cgroup alone names.
    fn home(&mut self, path: &KernelStr) -> Option<Arc<Unit>> {
        if let Some(unit) = self.by_cgroup.get(path) {
            return unit.clone();
        }
        let unit = cgroup::parse(path.as_bytes()).map(|named| {
            let own = printable(&path.as_bytes()[..named.own]);
            self.unit(Unit { name: named.name.into(), kind: named.kind, cgroup: own.into() })
        });
        self.by_cgroup.insert(path.clone(), unit.clone());
        unit
    }

    /// `exe:NAME`, by the program file, else by what the process calls itself.
    fn by_executable(&mut self, p: &ProcessSample) -> Arc<Unit> {
        let exe = p.exe.as_ref().and_then(|e| e.as_bytes().rsplit(|b| *b == b'/').next());
        let name = exe.filter(|n| !n.is_empty()).unwrap_or(p.comm.as_bytes());
        let name = unit_name(&[b"exe:", name].concat());
        self.unit(Unit { name: name.into(), kind: UnitKind::Exe, cgroup: "".into() })
    }

    /// The one unit of this name.
    fn unit(&mut self, unit: Unit) -> Arc<Unit> {
        let entry = self.by_name.entry(unit.name.clone());
        entry.or_insert_with(|| Arc::new(unit)).clone()
    }

    /// Drops what no process of this census or the one before needs.
    fn forget(&mut self, processes: &[ProcessSample]) {
        self.unseen = 0;
        let census = self.census;
        self.known.retain(|_, k| k.seen + 1 >= census);
        if self.by_cgroup.len() > processes.len() {
            let used: std::collections::HashSet<&KernelStr> =
                processes.iter().map(|p| &p.cgroup).collect();
            self.by_cgroup.retain(|path, _| used.contains(path));
        }
        let rules = &self.rules;
        self.by_name.retain(|_, unit| {
            Arc::strong_count(unit) > 1 || rules.iter().any(|r| r.unit.name == unit.name)
        });
        self.users.turn();
    }
}

/// A process whose cgroup names `home` stays with the rule of one whose cgroup
/// names `from`: unless it has moved to another service, scope or container.
/// Plain cgroups say nothing, for services sort their own processes into those.
fn stays_with(home: Option<&Arc<Unit>>, from: Option<&Arc<Unit>>) -> bool {
    home.is_none_or(|home| {
        home.kind == UnitKind::Cgroup || from.is_some_and(|from| from.name == home.name)
    })
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
