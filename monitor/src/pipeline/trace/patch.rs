//! What differs between two maps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::weight::Weigh;

/// Entries of one line: even large ones then fit in it.
pub(super) const ENTRIES: usize = 64;

/// What makes one map of another.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>, V: Deserialize<'de>"))]
pub(super) struct Patch<K, V> {
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<K, V>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<K>,
}

impl<K, V> Default for Patch<K, V> {
    fn default() -> Self {
        Self { set: BTreeMap::new(), gone: Vec::new() }
    }
}

impl<K, V> Patch<K, V> {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }
}

impl<K: Ord + Clone + Weigh, V: PartialEq + Clone + Weigh> Patch<K, V> {
    /// What makes `now` of `before`, in parts of a line each.
    pub fn between(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> Vec<Self> {
        let gone: Vec<K> = before.keys().filter(|k| !now.contains_key(*k)).cloned().collect();
        let other: Vec<(&K, &V)> = now.iter().filter(|(k, v)| before.get(*k) != Some(*v)).collect();
        let mut parts: Vec<Self> = gone
            .chunks(ENTRIES)
            .map(|gone| Self { set: BTreeMap::new(), gone: gone.to_vec() })
            .collect();
        parts.extend(other.chunks(ENTRIES).map(|some| Self {
            set: some.iter().map(|(k, v)| ((*k).clone(), (*v).clone())).collect(),
            gone: Vec::new(),
        }));
        parts
    }

    /// Makes of `map` what this tells; adds to `weight` what it weighs more.
    pub fn apply(self, map: &mut BTreeMap<K, V>, weight: &mut usize) {
        for key in &self.gone {
            if let Some(value) = map.remove(key) {
                *weight = weight.saturating_sub(key.weight() + value.weight());
            }
        }
        for (key, value) in self.set {
            let (of_key, of_value) = (key.weight(), value.weight());
            *weight += of_key + of_value;
            if let Some(old) = map.insert(key, value) {
                *weight = weight.saturating_sub(of_key + old.weight());
            }
        }
    }
}
