//! What is in the BPF maps of an agent, read past the agent.

use std::fs;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};

/// Entries of the hash map called `name` that the process holds; `None` where it
/// holds none of that name.
///
/// # Panics
/// The map is no hash map of these types.
pub fn population<K: Pod, V: Pod>(pid: u32, name: &str) -> Option<usize> {
    Some(open::<K, V>(pid, name)?.keys().filter(Result::is_ok).count())
}

/// The value of `key` in such a map, where there is one.
///
/// # Panics
/// The map is no hash map of these types.
pub fn value<K: Pod, V: Pod>(pid: u32, name: &str, key: &K) -> Option<V> {
    open::<K, V>(pid, name)?.get(key, 0).ok()
}

/// All of the array called `name` that the process holds; nothing where it holds none.
///
/// # Panics
/// The map is no array of this type.
pub fn array<V: Pod>(pid: u32, name: &str) -> Vec<V> {
    let Some(data) = held(pid, name) else { return Vec::new() };
    let array: Array<_, V> = Map::Array(data).try_into().unwrap_or_else(|e| panic!("{name}: {e}"));
    array.iter().filter_map(Result::ok).collect()
}

fn open<K: Pod, V: Pod>(pid: u32, name: &str) -> Option<HashMap<MapData, K, V>> {
    let data = held(pid, name)?;
    Some(Map::HashMap(data).try_into().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn held(pid: u32, name: &str) -> Option<MapData> {
    let is = |id: &u32| MapInfo::from_id(*id).is_ok_and(|i| i.name_as_str() == Some(name));
    let id = ids(pid).into_iter().find(is)?;
    Some(MapData::from_id(id).expect("the map is still there"))
}

/// Ids of the maps that the process holds descriptors of.
fn ids(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let id = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse().ok()
    };
    entries.flatten().filter_map(|e| fs::read_to_string(e.path()).ok()).filter_map(id).collect()
}
