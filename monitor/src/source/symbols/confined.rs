//! The inside of the process that reads a symbol file.
//!
//! What an executable, a library or their debug files hold is the work of whoever
//! runs them, and the agent has privileges. So each file is read by a process of
//! its own that was given this one file, may open no other, may write to one pipe,
//! has bounds on memory and time, and no privileges. It dies with what a hostile
//! file does to it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer, cache};
use object::read::{ObjectSegment, ReadCache};
use object::{FileKind, Object};
use rustix::process::{
    Gid, Resource, Rlimit, Signal, Uid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::answer::{Answer, Call, Line, Place};
use super::cfi;
use super::trail::{Question, Trail};
use crate::source::asynctasks::program::{self, TaskProgram};

/// The word on the command line that starts such a process.
pub const COMMAND: &str = "read-symbols";
/// Addresses are as the file counts, not offsets in the file.
pub const VIRTUAL: &str = "--virtual";
/// Which functions are of tokio's tasks, instead of what lies at addresses.
pub const TASKS: &str = "--tasks";
/// Who called, by the call frame information of the file; what to begin with is on the
/// standard error stream, which is a file with one line of JSON.
pub const FOLLOW: &str = "--follow";
/// Names only: what a compiler wrote for debuggers is left alone.
pub const PLAIN: &str = "--plain";

/// The file is standard input.
const FILE: &str = "/proc/self/fd/0";
/// Address space past the size of the file, bytes.
const MEMORY: u64 = 768 << 20;
/// Processor time, seconds.
pub const SECONDS: u64 = 10;
/// Longest question, bytes: 32 KiB of stack take 90 KiB of text.
const MAX_QUESTION: u64 = 1 << 20;
/// The standard streams and the file once more.
const DESCRIPTORS: u64 = 4;
/// The user whom nothing belongs to.
const NOBODY: u32 = 65_534;
/// Longest name that is passed on, bytes. Those of generic code have no limit.
const MAX_NAME: usize = 1_024;
/// Functions dissolved into each other at one address, at most.
const MAX_CALLS: usize = 64;

/// Reads standard input and answers on standard output. True where that worked,
/// also if the answer is that the file is bad.
pub fn run(arguments: &[String]) -> bool {
    let of_tasks = arguments.iter().any(|a| a == TASKS);
    let read = if arguments.iter().any(|a| a == FOLLOW) {
        follow().map(Line::Followed)
    } else if of_tasks {
        tasks(arguments.iter().any(|a| a == PLAIN)).map(Line::Tasks)
    } else {
        answer(arguments).map(Line::Read)
    };
    let line = read.unwrap_or_else(Line::Failed);
    let Ok(mut text) = serde_json::to_vec(&line) else { return false };
    text.push(b'\n');
    io::stdout().write_all(&text).is_ok()
}

fn answer(arguments: &[String]) -> Result<Answer, String> {
    let (mut are_virtual, mut plain, mut addresses) = (false, false, Vec::new());
    for argument in arguments {
        match argument.as_str() {
            VIRTUAL => are_virtual = true,
            PLAIN => plain = true,
            hex => addresses.push(u64::from_str_radix(hex, 16).map_err(|e| e.to_string())?),
        }
    }
    let size = rustix::fs::fstat(io::stdin()).map_err(|e| e.to_string())?.st_size;
    confine(size.unsigned_abs()).map_err(|e| format!("cannot confine itself: {e}"))?;
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let meta = meta(file.map_err(|e| e.to_string())?, &addresses, are_virtual)?;
    let mut answer = Answer {
        build_id: meta.build_id,
        debug_link: meta.debug_link,
        has_lines: false,
        places: meta.addresses.iter().map(|a| Place { address: *a, calls: vec![] }).collect(),
    };
    let symbolizer = open()?;
    lay_down_privileges();
    let wanted: Vec<u64> = meta.addresses.iter().flatten().copied().collect();
    let found = if plain {
        symbols(&symbolizer, &wanted, false)?
    } else {
        // Damaged line tables do not spoil the names.
        symbols(&symbolizer, &wanted, true).or_else(|_| symbols(&symbolizer, &wanted, false))?
    };
    let places = answer.places.iter_mut().filter(|p| p.address.is_some());
    for (place, calls) in places.zip(found) {
        answer.has_lines |= calls.iter().any(|c| c.line.is_some());
        place.calls = calls;
    }
    Ok(answer)
}

fn tasks(plain: bool) -> Result<TaskProgram, String> {
    let size = rustix::fs::fstat(io::stdin()).map_err(|e| e.to_string())?.st_size;
    confine(size.unsigned_abs()).map_err(|e| format!("cannot confine itself: {e}"))?;
    let symbolizer = if plain { None } else { open().ok() };
    lay_down_privileges();
    let mut program = program::read(Stdin)?;
    let Some(symbolizer) = symbolizer else { return Ok(program) };
    let addresses: Vec<u64> = program.types.iter().filter_map(|t| t.address).collect();
    // Without lines, the names are still of use.
    let found = symbols(&symbolizer, &addresses, true).unwrap_or_default();
    for (of, calls) in program.types.iter_mut().filter(|t| t.address.is_some()).zip(found) {
        // The outermost: what is dissolved into it is not the function itself.
        if let Some(call) = calls.into_iter().last() {
            (of.file, of.line) = (call.file, call.line);
        }
    }
    Ok(program)
}

fn follow() -> Result<Trail, String> {
    let failed = |e: io::Error| e.to_string();
    let size = rustix::fs::fstat(io::stdin()).map_err(|e| e.to_string())?.st_size;
    confine(size.unsigned_abs()).map_err(|e| format!("cannot confine itself: {e}"))?;
    lay_down_privileges();
    let asked = io::stderr().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
    let question: Question = serde_json::from_reader(BufReader::new(asked.take(MAX_QUESTION)))
        .map_err(|e| format!("cannot read what is asked: {e}"))?;
    let file = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
    cfi::follow(&ReadCache::new(file), &question)
}

/// The file, by the one descriptor that there is of it: no more may be opened.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), to)?)
    }
}

impl io::Seek for Stdin {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let to = match to {
            io::SeekFrom::Start(at) => rustix::fs::SeekFrom::Start(at),
            io::SeekFrom::End(at) => rustix::fs::SeekFrom::End(at),
            io::SeekFrom::Current(at) => rustix::fs::SeekFrom::Current(at),
        };
        Ok(rustix::fs::seek(io::stdin(), to)?)
    }
}

/// From here on this process can do little.
fn confine(size: u64) -> io::Result<()> {
    leave_open_nothing_else();
    // Should the agent die, nobody reads the answer.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    for (resource, most) in [
        (Resource::As, size.saturating_add(MEMORY)),
        (Resource::Cpu, SECONDS),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        // What is less already cannot be more.
        let most = Some(getrlimit(resource).maximum.map_or(most, |given| given.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    Ok(())
}

/// Closes what the agent was started with and does not know of.
fn leave_open_nothing_else() {
    // SAFETY: takes no address, and what is closed is nobody's in this process, which has
    // opened nothing but the standard streams so far. Before Linux 5.9 nothing happens.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Once the file is open, nothing needs them.
fn lay_down_privileges() {
    // The user first, which takes a privilege; a failure of either leaves what
    // rlimits and no_new_privs allow.
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let _ = rustix::thread::set_thread_groups(&[]);
        let _ = rustix::thread::set_thread_res_gid(group, group, group);
        let _ = rustix::thread::set_thread_res_uid(user, user, user);
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let _ = rustix::thread::set_capabilities(None, none);
}

struct Meta {
    build_id: Option<String>,
    debug_link: Option<String>,
    /// As the file counts; `None` where no part of it is loaded there.
    addresses: Vec<Option<u64>>,
}

fn meta(file: File, addresses: &[u64], are_virtual: bool) -> Result<Meta, String> {
    let bad = |e: object::Error| e.to_string();
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).map_err(bad)? {
        FileKind::Elf32 | FileKind::Elf64 => {}
        _ => return Err("it is no ELF file".to_owned()),
    }
    let elf = object::File::parse(&cache).map_err(bad)?;
    let hex = |id: &[u8]| id.iter().take(64).map(|b| format!("{b:02x}")).collect();
    let loaded = |offset: u64| {
        let mut segments = elf.segments();
        segments.find_map(|s| {
            let (start, size) = s.file_range();
            let inside = offset.checked_sub(start).filter(|at| *at < size)?;
            s.address().checked_add(inside)
        })
    };
    Ok(Meta {
        build_id: elf.build_id().ok().flatten().map(hex),
        debug_link: elf
            .gnu_debuglink()
            .ok()
            .flatten()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .filter(|name| name.len() <= 255 && !name.is_empty()),
        addresses: addresses
            .iter()
            .map(|a| if are_virtual { Some(*a) } else { loaded(*a) })
            .collect(),
    })
}

/// Opens the file for good: the last thing that is opened.
fn open() -> Result<Symbolizer, String> {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .set_debug_dirs(Some::<[&Path; 0]>([]))
        .build();
    symbolizer.cache(&cache::Elf::new(FILE).into()).map_err(|e| e.to_string())?;
    Ok(symbolizer)
}

fn symbols(
    symbolizer: &Symbolizer,
    addresses: &[u64],
    lines: bool,
) -> Result<Vec<Vec<Call>>, String> {
    let mut elf = Elf::new(FILE);
    elf.debug_syms = lines;
    let found = symbolizer
        .symbolize(&Source::from(elf), Input::VirtOffset(addresses))
        .map_err(|e| e.to_string())?;
    Ok(found
        .into_iter()
        .map(|s| match s {
            Symbolized::Sym(sym) => calls(&sym),
            Symbolized::Unknown(_) => Vec::new(),
        })
        .collect())
}

/// Innermost first; the library gives the outermost first.
fn calls(sym: &Sym<'_>) -> Vec<Call> {
    let call = |name: &str, code: Option<&CodeInfo<'_>>| Call {
        function: clipped(name),
        file: code.map(|c| clipped(&c.to_path().to_string_lossy())),
        line: code.and_then(|c| c.line),
    };
    let inlined = sym.inlined.iter().rev().map(|f| call(&f.name, f.code_info.as_ref()));
    let outer = call(&sym.name, sym.code_info.as_deref());
    inlined.take(MAX_CALLS).chain([outer]).collect()
}

fn clipped(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let end = (0..=MAX_NAME).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &name[..end])
}
