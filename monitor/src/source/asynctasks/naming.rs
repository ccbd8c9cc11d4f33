//! Which future each task of a process is of.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use leakwatch_common::AsyncCounts;

use super::program::{TaskProgram, TaskType};
use crate::source::model::TaskCount;
use crate::source::symbols::maps;
use crate::source::symbols::pin::FileKey;
use crate::text;

/// Types of one process that are told at most.
const MAX_KINDS: usize = 1_000;
/// Functions in a task's table.
const TABLE: usize = 7;

/// A process whose tasks are asked for.
#[derive(Default)]
pub struct Process {
    /// What it runs, once that is known.
    pub program: Option<FileKey>,
    /// By address of a table: the name of its type, where it is one of tasks.
    names: HashMap<u64, Option<Named>>,
    /// Why its tasks cannot be counted, whatever it runs.
    pub blind: Option<String>,
}

/// A type of task.
#[derive(Clone)]
struct Named {
    name: Arc<str>,
    file: Option<Arc<str>>,
    line: Option<u32>,
}

impl Process {
    /// The counts by the names of types.
    pub fn kinds(
        &mut self,
        pid: u32,
        counts: &[(u64, AsyncCounts)],
        tasks: &TaskProgram,
    ) -> BTreeMap<Arc<str>, TaskCount> {
        let new: Vec<u64> = counts.iter().map(|(v, _)| *v).collect();
        let new: Vec<u64> = new.into_iter().filter(|v| !self.names.contains_key(v)).collect();
        if !new.is_empty() {
            self.names.extend(resolve(pid, &new, tasks));
        }
        let mut kinds: BTreeMap<Arc<str>, TaskCount> = BTreeMap::new();
        for (vtable, counts) in counts {
            let Some(Some(named)) = self.names.get(vtable) else { continue };
            if kinds.len() >= MAX_KINDS && !kinds.contains_key(&named.name) {
                continue;
            }
            let kind = kinds.entry(Arc::clone(&named.name)).or_default();
            // The two are read one after the other.
            kind.alive += counts.spawned.saturating_sub(counts.ended);
            kind.spawned += counts.spawned;
            kind.ended += counts.ended;
            kind.unseen += counts.unseen;
            kind.file = kind.file.take().or_else(|| named.file.clone());
            kind.line = kind.line.or(named.line);
        }
        kinds
    }
}

/// Which types of tasks these tables are of.
fn resolve(pid: u32, tables: &[u64], tasks: &TaskProgram) -> Vec<(u64, Option<Named>)> {
    let memory = File::open(format!("/proc/{pid}/mem"));
    let words = |table: u64| -> Vec<u64> {
        let mut bytes = [0; TABLE * 8];
        let read = memory.as_ref().ok().and_then(|m| m.read_exact_at(&mut bytes, table).ok());
        let chunks = bytes.chunks_exact(8).filter(|_| read.is_some());
        chunks.map(|w| w.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))).collect()
    };
    let read: Vec<(u64, Vec<u64>)> = tables.iter().map(|table| (*table, words(*table))).collect();
    let all: Vec<u64> = read.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    let file = File::open(format!("/proc/{pid}/maps"));
    let maps = file.and_then(|f| maps::read(BufReader::new(f), &all)).unwrap_or_default();
    let offset = |at: &u64| maps.find(*at).map(|m| m.file_offset(*at));
    let named = |(table, words): (u64, Vec<u64>)| {
        let offsets: Vec<u64> = words.iter().filter_map(offset).collect();
        (table, named(&tasks.name(&offsets), offsets.first().copied()))
    };
    read.into_iter().map(named).collect()
}

/// One name for all that it may be; none for what is no async task.
fn named(types: &[&TaskType], first: Option<u64>) -> Option<Named> {
    if types.iter().any(|t| t.blocking) {
        return None;
    }
    let mut names: Vec<&str> = types.iter().map(|t| t.function.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let name: Arc<str> = match (names.as_slice(), first) {
        ([], Some(at)) => format!("a task polled at {at:#x} of the program").into(),
        ([], None) => "a task of an unknown type".into(),
        (names, _) => names.join(" or ").into(),
    };
    let told = types.iter().find(|t| t.file.is_some());
    Some(Named {
        name,
        file: told.and_then(|t| t.file.as_deref()).map(|f| text::printable(f.as_bytes()).into()),
        line: told.and_then(|t| t.line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: &str, blocking: bool) -> TaskType {
        TaskType { function: function.into(), blocking, ..TaskType::default() }
    }

    #[test]
    fn the_type_is_the_one_that_all_functions_can_be_of() {
        let functions = BTreeMap::from([(16, vec![0, 1]), (32, vec![]), (48, vec![1, 2])]);
        let types = vec![of("a", false), of("b", false), of("c", false)];
        let program = TaskProgram { functions, types, ..TaskProgram::default() };
        let names = |table: &[u64]| {
            let types = program.name(table).into_iter();
            types.map(|t| t.function.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[16, 32, 48, 64]), ["b"]);
        assert_eq!(names(&[16, 32]), ["a", "b"]);
        assert_eq!(names(&[32, 64]), [""; 0]);
    }

    #[test]
    fn what_is_alike_has_both_names_and_what_is_unknown_has_its_place() {
        let name = |types: &[TaskType], at| {
            let types: Vec<&TaskType> = types.iter().collect();
            named(&types, at).map(|named| named.name.to_string())
        };
        let both = [of("b", false), of("a", false), of("b", false)];
        assert_eq!(name(&both, None).as_deref(), Some("a or b"));
        assert_eq!(name(&[of("a", false), of("x", true)], None), None);
        let unknown = name(&[], Some(0x30));
        assert_eq!(unknown.as_deref(), Some("a task polled at 0x30 of the program"));
        assert!(name(&[], None).is_some());
    }

    #[test]
    fn a_table_that_cannot_be_read_is_of_an_unknown_type() {
        let named = resolve(std::process::id(), &[8], &TaskProgram::default());
        let (table, named) = &named[0];
        assert_eq!((*table, &*named.as_ref().unwrap().name), (8, "a task of an unknown type"));
    }
}
