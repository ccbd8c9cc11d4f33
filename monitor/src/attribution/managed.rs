//! Which unit of systemd's each of our units is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::unit::{Unit, UnitKind};
use crate::source::model::{KernelStr, Observation, SystemdUnit};
use crate::text::printable;

/// The units of one observation that systemd's manager has, too.
///
/// A unit that is named after its cgroup is systemd's if that is the very cgroup
/// of systemd's unit: a container below `containerd.service` is not that service.
/// A match rule's unit is, if it holds all processes of systemd's unit and no
/// others: then the rule gives it another name and nothing more.
#[derive(Debug, Default)]
pub struct Managed {
    by_cgroup: BTreeMap<String, Arc<SystemdUnit>>,
    by_rule: BTreeMap<Arc<str>, Arc<SystemdUnit>>,
}

impl Managed {
    /// `units[i]` owns `obs.processes[i]`.
    pub fn of(obs: &Observation, units: &[Arc<Unit>]) -> Self {
        if obs.systemd.is_empty() {
            return Self::default();
        }
        let by_cgroup =
            obs.systemd.iter().map(|(cgroup, u)| (printable(cgroup.as_bytes()), Arc::clone(u)));
        Self { by_cgroup: by_cgroup.collect(), by_rule: by_rule(obs, units) }
    }

    /// What systemd says of `unit`.
    pub fn unit(&self, unit: &Unit) -> Option<&Arc<SystemdUnit>> {
        match unit.kind {
            UnitKind::Rule => self.by_rule.get(&unit.name),
            _ => self.by_cgroup.get(&*unit.cgroup),
        }
    }
}

fn by_rule(obs: &Observation, units: &[Arc<Unit>]) -> BTreeMap<Arc<str>, Arc<SystemdUnit>> {
    if !units.iter().any(|unit| unit.kind == UnitKind::Rule) {
        return BTreeMap::new();
    }
    type Homes<'a> = BTreeSet<Option<&'a KernelStr>>;
    let mut homes: BTreeMap<&Arc<str>, Homes<'_>> = BTreeMap::new();
    let mut owners: BTreeMap<&KernelStr, BTreeSet<&Arc<str>>> = BTreeMap::new();
    for (p, unit) in obs.processes.iter().zip(units).filter(|(p, _)| !p.zombie) {
        let home = home(obs, &p.cgroup);
        homes.entry(&unit.name).or_default().insert(home);
        if let Some(home) = home {
            owners.entry(home).or_default().insert(&unit.name);
        }
    }
    let rules = units.iter().filter(|unit| unit.kind == UnitKind::Rule);
    let pairs = rules.filter_map(|unit| {
        let homes = homes.get(&unit.name)?;
        let home = (*homes.first()?)?;
        let alone = homes.len() == 1 && owners.get(home)?.len() == 1;
        alone.then(|| Some((Arc::clone(&unit.name), Arc::clone(obs.systemd.get(home)?))))?
    });
    pairs.collect()
}

/// The cgroup of systemd's unit that `path` is or lies below.
fn home<'a>(obs: &'a Observation, path: &KernelStr) -> Option<&'a KernelStr> {
    let path = path.as_bytes();
    let ends = (1..path.len()).filter(|i| path[*i] == b'/').chain([path.len()]);
    let mut above =
        ends.filter_map(|end| obs.systemd.get_key_value(&KernelStr::from(&path[..end])));
    above.next().map(|(cgroup, _)| cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::testing::World;

    fn service(id: &str) -> Arc<SystemdUnit> {
        Arc::new(SystemdUnit { id: id.into(), ..SystemdUnit::default() })
    }

    #[test]
    fn a_unit_is_systemds_by_its_very_cgroup_or_by_all_its_processes() {
        let mut w = World::new();
        let (a, b) = (("a.service", UnitKind::Service), ("b", UnitKind::Rule));
        let split = ("split", UnitKind::Rule);
        let pod = ("pod:x", UnitKind::Kubepods);
        for (unit, cgroup) in [
            (a, "/system.slice/a.service"),
            (b, "/system.slice/b.service"),
            (b, "/system.slice/b.service/worker"),
            (split, "/system.slice/c.service"),
            (split, "/system.slice/d.service"),
            (("c.service", UnitKind::Service), "/system.slice/c.service"),
            (pod, "/system.slice/a.service/pod"),
        ] {
            let pid = w.spawn(unit, 1, "/opt/x");
            w.process(pid).cgroup = KernelStr::from(cgroup);
        }
        for id in ["a.service", "b.service", "c.service", "d.service"] {
            w.systemd.insert(KernelStr::from(&*format!("/system.slice/{id}")), service(id));
        }
        let (obs, units) = w.observe();
        let managed = Managed::of(&obs, &units);
        let named = |name: &str, kind, cgroup: &str| {
            let unit = Unit { name: name.into(), kind, cgroup: cgroup.into() };
            managed.unit(&unit).map(|u| u.id.to_string())
        };
        let own = "/system.slice/a.service";
        assert_eq!(named("a.service", UnitKind::Service, own).as_deref(), Some("a.service"));
        assert_eq!(named("b", UnitKind::Rule, "").as_deref(), Some("b.service"));
        assert_eq!(named("split", UnitKind::Rule, ""), None);
        assert_eq!(named("pod:x", UnitKind::Kubepods, "/system.slice/a.service/pod"), None);
        assert_eq!(named("exe:x", UnitKind::Exe, ""), None);
        assert!(Managed::of(&World::new().observe().0, &[]).by_cgroup.is_empty());
    }
}
