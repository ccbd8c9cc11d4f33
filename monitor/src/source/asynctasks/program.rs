//! What a program tells of its tasks: found by the confined reader, used by the agent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Read, Seek};

use object::read::{Object, ObjectSegment, ObjectSymbol, ReadCache};
use object::{Architecture, Relocation, RelocationFlags, SymbolKind};
use serde::{Deserialize, Serialize};

use super::calls;
use super::names::{self, Part};
use crate::text;

/// Types of future that are probed at most: each takes probes of its own.
const MAX_TYPES: usize = 2_000;
/// Types that one function is of at most: the compiler makes one of those that are alike.
const MAX_NAMES: usize = 4;
/// So deep a function that tells its type is looked for behind one that does not…
const MAX_DEPTH: usize = 4;
/// …among so many.
const MAX_VISITED: usize = 64;
/// Code of a function that is looked through, bytes.
const MAX_CODE: u64 = 64 << 10;
/// Words of the linker's tables that are looked at, at most.
const MAX_SLOTS: usize = 1 << 21;
/// Longest name that is passed on, bytes.
const MAX_NAME: usize = 200;

/// All that the agent needs of a program. Offsets are in its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskProgram {
    /// Functions that put a task into a list; its second argument is the task.
    pub bind: Vec<u64>,
    /// Functions by which a task ends; the first argument is the task.
    pub complete: Vec<u64>,
    /// Functions that poll a task; the first argument is the task.
    pub poll: Vec<u64>,
    /// By offset of a function that a task's table has: types of future that it may be of.
    pub functions: BTreeMap<u64, Vec<u32>>,
    /// Types of future.
    pub types: Vec<TaskType>,
}

/// A type of future.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskType {
    /// The function whose future it is.
    pub function: String,
    /// It is work of `spawn_blocking`, and no async task.
    pub blocking: bool,
    /// Address of the function's code, as the file counts.
    pub address: Option<u64>,
    /// Where that stands in its source.
    pub file: Option<String>,
    /// Line there.
    pub line: Option<u32>,
}

impl TaskProgram {
    /// The type of a task whose table has functions at these offsets: the one that all of
    /// them can be of.
    pub fn name(&self, table: &[u64]) -> Vec<&TaskType> {
        let sets = table.iter().filter_map(|at| self.functions.get(at)).filter(|s| !s.is_empty());
        let sets: Vec<BTreeSet<u32>> = sets.map(|s| s.iter().copied().collect()).collect();
        let all = sets.iter().cloned().reduce(|a, b| &a & &b).filter(|all| !all.is_empty());
        let best = all.or_else(|| sets.into_iter().min_by_key(BTreeSet::len)).unwrap_or_default();
        best.iter().filter_map(|i| self.types.get(*i as usize)).collect()
    }
}

/// One function of the symbol table.
struct Function<'a> {
    address: u64,
    size: u64,
    mangled: &'a str,
}

/// Reads the symbols of a program.
///
/// # Errors
/// A sentence: it has none, or none of tokio's, or the file is no good.
pub fn read(file: impl Read + Seek) -> Result<TaskProgram, String> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).map_err(|e| e.to_string())?;
    let mut all: Vec<Function<'_>> = elf
        .symbols()
        .filter(|s| s.kind() == SymbolKind::Text && s.is_definition())
        .filter_map(|s| {
            Some(Function { address: s.address(), size: s.size(), mangled: s.name().ok()? })
        })
        .collect();
    if all.is_empty() {
        return Err("it has no symbols: keep them when it is built (in Cargo.toml \
                    `strip = \"none\"`, or \"debuginfo\"; no strip(1) afterwards)"
            .to_owned());
    }
    all.sort_by_key(|f| f.address);
    let slots = slots(&elf);
    Reader { elf: &elf, all: &all, slots, types: Vec::new(), known: BTreeMap::new() }.read()
}

struct Reader<'a, 'd, R: Read + Seek> {
    elf: &'a object::File<'d, &'d ReadCache<R>>,
    all: &'a [Function<'a>],
    /// What the linker has the loader put where.
    slots: HashMap<u64, u64>,
    types: Vec<TaskType>,
    known: BTreeMap<String, u32>,
}

impl<'a, R: Read + Seek> Reader<'a, '_, R> {
    fn read(mut self) -> Result<TaskProgram, String> {
        let (mut bind, mut complete, mut poll) = (Vec::new(), Vec::new(), Vec::new());
        let mut functions: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut table = BTreeMap::new();
        for f in self.all.iter().filter(|f| names::may_matter(f.mangled)) {
            let name = demangled(f.mangled);
            let Some(part) = names::part(&name) else { continue };
            let Some(offset) = self.offset(f.address) else { continue };
            match part {
                Part::Bind => bind.push(offset),
                Part::Complete => complete.push(offset),
                Part::Poll | Part::Table => {
                    if part == Part::Poll {
                        poll.push(offset);
                    }
                    let named = names::of_table(&name).map(|future| self.known_as(future));
                    functions.entry(offset).or_default().extend(named);
                    table.insert(offset, f.address);
                }
            }
        }
        for list in [&mut bind, &mut complete, &mut poll] {
            list.sort_unstable();
            list.dedup();
        }
        if poll.is_empty() {
            return Err("its symbols name no task of tokio: it uses none".to_owned());
        }
        if complete.is_empty() {
            return Err("it has no function by which a task ends (`Harness::complete`): its \
                        tokio is of another version, or built in a way that is not known"
                .to_owned());
        }
        if poll.len() > MAX_TYPES {
            let n = poll.len();
            return Err(format!("it has {n} types of tasks; more than {MAX_TYPES} are not probed"));
        }
        for (offset, address) in table {
            if functions.get(&offset).is_some_and(Vec::is_empty) {
                let found = self.behind(address);
                functions.insert(offset, found);
            }
        }
        for list in functions.values_mut() {
            list.sort_unstable();
            list.dedup();
            list.truncate(MAX_NAMES);
        }
        self.find_code();
        Ok(TaskProgram { bind, complete, poll, functions, types: self.types })
    }

    /// The number of a type.
    fn known_as(&mut self, future: &str) -> u32 {
        let future = names::unwrapped(future);
        if let Some(known) = self.known.get(future) {
            return *known;
        }
        let number = self.types.len() as u32;
        self.known.insert(future.to_owned(), number);
        let mut function = text::printable(names::function(future).as_bytes());
        if function.len() > MAX_NAME {
            let end = (0..=MAX_NAME).rev().find(|at| function.is_char_boundary(*at));
            function.truncate(end.unwrap_or(0));
            function.push('…');
        }
        self.types.push(TaskType {
            function,
            blocking: names::is_blocking(future),
            ..TaskType::default()
        });
        number
    }

    /// Types that functions tell which this one calls, the nearest first.
    fn behind(&mut self, address: u64) -> Vec<u32> {
        let mut visited = HashSet::from([address]);
        let mut level = vec![address];
        for _ in 0..MAX_DEPTH {
            let (mut found, mut next) = (Vec::new(), Vec::new());
            for target in level.iter().flat_map(|at| self.calls(*at)).collect::<Vec<_>>() {
                if visited.len() > MAX_VISITED || !visited.insert(target) {
                    continue;
                }
                let mut follow = false;
                for mangled in self.names(target) {
                    let name = demangled(mangled);
                    match names::of_drop(&name) {
                        Some(future) => found.push(self.known_as(future)),
                        None => follow |= is_way(&name),
                    }
                }
                if follow {
                    next.push(target);
                }
            }
            if !found.is_empty() {
                return found;
            }
            level = next;
        }
        Vec::new()
    }

    /// Names of what begins here.
    fn names(&self, address: u64) -> Vec<&'a str> {
        let all = self.all;
        let first = all.partition_point(|f| f.address < address);
        all[first..].iter().take_while(|f| f.address == address).map(|f| f.mangled).collect()
    }

    /// What a function calls.
    fn calls(&self, address: u64) -> Vec<u64> {
        let first = self.all.partition_point(|f| f.address < address);
        let Some(f) = self.all.get(first).filter(|f| f.address == address) else {
            return Vec::new();
        };
        let next = self.all[first..].iter().find(|g| g.address > address).map(|g| g.address);
        let size = if f.size > 0 { f.size } else { next.map_or(0, |next| next - address) };
        let code = self
            .elf
            .segments()
            .find_map(|s| s.data_range(address, size.min(MAX_CODE)).ok().flatten());
        let slot = |at| self.slots.get(&at).copied();
        let targets = |code| calls::targets(self.elf.architecture(), code, address, slot);
        code.map_or(Vec::new(), targets)
    }

    /// Where in the file an address is.
    fn offset(&self, address: u64) -> Option<u64> {
        self.elf.segments().find_map(|s| {
            let inside = address.checked_sub(s.address()).filter(|at| *at < s.size())?;
            let (start, size) = s.file_range();
            (inside < size).then(|| start.checked_add(inside)).flatten()
        })
    }

    /// Where the code of the futures is that have some of their own.
    fn find_code(&mut self) {
        for f in self.all {
            let closure = f.mangled.contains("closure") || f.mangled.starts_with("_RN");
            if !closure || names::may_matter(f.mangled) {
                continue;
            }
            if let Some(number) = self.known.get(&demangled(f.mangled)) {
                let known = &mut self.types[*number as usize];
                known.address.get_or_insert(f.address);
            }
        }
    }
}

/// Words that are addresses within the file itself.
fn slots<'d>(elf: &impl Object<'d>) -> HashMap<u64, u64> {
    let relative = |r: &Relocation| match (elf.architecture(), r.flags()) {
        (Architecture::X86_64, RelocationFlags::Elf { r_type }) => {
            r_type == object::elf::R_X86_64_RELATIVE
        }
        _ => false,
    };
    let all = elf.dynamic_relocations().into_iter().flatten().take(MAX_SLOTS);
    all.filter(|(_, r)| relative(r)).map(|(at, r)| (at, r.addend() as u64)).collect()
}

/// A function that can lie between one of the table and one that drops the task.
fn is_way(name: &str) -> bool {
    let name = name.trim_start_matches(['<', '&']);
    ["tokio::runtime::task::", "core::", "alloc::", "std::panic"]
        .iter()
        .any(|w| name.starts_with(w))
}

fn demangled(mangled: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(mangled))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn this_very_program_has_tasks_of_its_own() {
        let program = read(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(!program.complete.is_empty() && !program.poll.is_empty());
        let named = |t: &&TaskType| !t.blocking && t.function.starts_with("leakwatch::");
        let own: Vec<&TaskType> = program.types.iter().filter(named).collect();
        assert!(!own.is_empty(), "{:#?}", program.types);
        // Of each type that is polled the table tells the name.
        let told = program.functions.values().filter(|types| !types.is_empty()).count();
        assert!(told >= program.poll.len(), "{told} of {}", program.poll.len());
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        for bytes in [&b""[..], b"\x7fELF", &[0; 4096]] {
            assert!(read(Cursor::new(bytes)).is_err());
        }
        // Its beginning alone has no symbols, whatever it says.
        let whole = std::fs::read("/proc/self/exe").unwrap();
        assert!(read(Cursor::new(&whole[..4096])).is_err());
    }
}
