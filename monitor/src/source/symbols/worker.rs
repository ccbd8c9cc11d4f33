//! The thread that looks stacks up.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::answer::{Answer, Call, Place as Found};
use super::debug;
use super::follow;
use super::language::Language;
use super::notes;
use super::perfmap;
use super::pin::{FileKey, Module, Pinned, Place};
use super::reader::{self, Counted, ReadError};
use super::roles;
use super::skipped::{self, Called};
use crate::source::copies::Copy;
use crate::source::frame::{Frame, Opener, Role};
use crate::source::model::ProcessId;
use crate::text;
use crate::time::Boottime;

/// Behind the agent, and it behind those whom it watches: who opened is no hurry once
/// the files are held.
const NICER: i32 = 10;
/// Files and addresses in them that are kept, at most; then all are forgotten.
const MAX_FILES: usize = 128;
const MAX_ADDRESSES: usize = 16_384;

/// Frames of a stack, dissolved functions among them; the outermost go first.
const MAX_FRAMES: usize = 128;

/// Looks up what is asked for until nobody asks any more. `beat` is when it was last
/// seen to get on.
pub fn run(jobs: &Receiver<Work>, done: &Sender<Done>, beat: &Beat) {
    // This thread alone, and the processes that it starts.
    // The census, which started it, may be before the others: the agent itself counts.
    let agent = rustix::process::getpriority_process(Some(rustix::process::getpid()));
    let nice = (agent.unwrap_or(0) + NICER).min(19);
    if let Err(e) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!("symbols are read at the priority of the agent: {e}");
    }
    let mut library = Library::default();
    for work in jobs {
        let result = match work {
            Work::Name(pinned) => Done::Named(library.opener(&pinned, beat)),
            Work::Follow(pinned, copy) => Done::Followed(library.unwound(pinned, &copy, beat)),
        };
        if done.send(result).is_err() {
            return;
        }
    }
}

/// What there is to do.
#[derive(Debug)]
pub enum Work {
    /// To name the functions of a stack.
    Name(Pinned),
    /// To unwind a copied one. Its addresses are those that frame pointers tell.
    Follow(Pinned, Copy),
}

/// What has come of it.
#[derive(Debug)]
pub enum Done {
    /// Named.
    Named(Opener),
    /// Unwound.
    Followed(Unwound),
}

/// Of a copied stack.
#[derive(Debug)]
pub struct Unwound {
    /// Whose.
    pub process: ProcessId,
    /// The descriptor that was opened from it.
    pub fd: u32,
    /// When.
    pub at: Boottime,
    /// The stack by frame pointers.
    pub stack: Option<u32>,
    /// Its addresses and functions; none where the frame pointers tell the same opener.
    pub found: Option<(Vec<u64>, Opener)>,
}

/// When the thread was last seen to get on.
#[derive(Clone, Debug, Default)]
pub struct Beat(Arc<AtomicU64>);

impl Beat {
    /// It gets on.
    pub fn now(&self) {
        self.0.store(Boottime::now().0, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        Boottime::now().since(Boottime(self.0.load(Ordering::Relaxed)))
    }
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Known {
    build_id: Option<String>,
    /// It cannot be read; nobody tries again.
    bad: Option<ReadError>,
    places: BTreeMap<u64, Found>,
}

/// What has been read.
#[derive(Default)]
pub struct Library {
    files: HashMap<FileKey, Known>,
}

impl Library {
    /// Names the functions of a stack.
    pub fn opener(&mut self, pinned: &Pinned, beat: &Beat) -> Opener {
        self.forget();
        let (mut complaints, mut keys, mut skipped) = (Vec::new(), Vec::new(), None);
        for (number, module) in pinned.modules.iter().enumerate() {
            beat.now();
            let is_here = |p: &Place| matches!(p, Place::InFile(n, _) if *n == number);
            if !pinned.places.iter().any(is_here) {
                keys.push(None);
                continue;
            }
            let opened = module.open(pinned.root.as_ref());
            keys.push(opened.as_ref().ok().map(|(key, _)| *key));
            let read = opened.and_then(|(key, file)| {
                let called = pinned.after_the_c_library(number);
                skipped = skipped.or(called.and_then(|at| skipped::called(&file, at)));
                self.read(number, key, &file, pinned, skipped, beat)
            });
            if let Err(why) = read {
                complaints.push(format!("{}: {why}", module.path));
            }
        }
        beat.now();
        let names = pinned.names().unwrap_or_else(|why| {
            complaints.push(why);
            Vec::new()
        });
        let mut frames = Vec::new();
        for (i, (place, address)) in pinned.places.iter().zip(&pinned.job.addresses).enumerate() {
            if i == 1 {
                let hidden = self.hidden(skipped, pinned, &keys);
                complaints.extend(hidden.as_ref().map(|f| notes::hides_the_line(f, &frames)));
                frames.extend(hidden);
            }
            let name = names.get(i).and_then(Option::as_deref);
            frames.extend(self.frames(place, *address, name, pinned, &keys));
        }
        frames.truncate(MAX_FRAMES);
        let note = if roles::name_opener(&mut frames) {
            self.nameless(&frames, pinned, &keys).or_else(|| {
                let hides = skipped == Some(Called::Anywhere);
                hides.then(|| "the function that called the C library can be missing here".into())
            })
        } else {
            Some(notes::why_none(&frames, pinned))
        };
        let note = note.into_iter().chain(complaints).collect::<Vec<_>>().join("; ");
        Opener {
            process: pinned.job.process,
            stack: pinned.job.stack,
            frames,
            note: (!note.is_empty()).then_some(note),
        }
    }

    /// Unwinds a stack, and says which is to be believed: this one, or the other one.
    ///
    /// Frame pointers can only skip callers, or lead astray where a function uses the
    /// register otherwise; call frame information does neither, but may be missing, and
    /// the copy may end. So: what frame pointers tell stays where it is the beginning of
    /// the unwound stack and goes as far as the opener. Else the unwound one holds if it
    /// names an opener, or if the other one does not.
    fn unwound(&mut self, mut pinned: Pinned, copy: &Copy, beat: &Beat) -> Unwound {
        let by_pointers = std::mem::take(&mut pinned.job.addresses);
        let (addresses, end) = follow::follow(&pinned, copy, beat);
        let process = pinned.job.process;
        let agrees = addresses.starts_with(&by_pointers);
        let named = |o: &Opener| o.frames.iter().any(|f| f.role == Role::Opener);
        pinned.unwound = agrees.then(|| end.clone());
        pinned.locate(by_pointers);
        let before = named(&self.opener(&pinned, beat));
        let stays = agrees && before;
        let found = (!stays).then(|| {
            pinned.unwound = Some(end);
            pinned.locate(addresses.clone());
            self.opener(&pinned, beat)
        });
        let found = found.filter(|after| named(after) || !before).map(|after| (addresses, after));
        Unwound { process, fd: copy.fd, at: copy.at, stack: copy.stack, found }
    }

    fn forget(&mut self) {
        let addresses: usize = self.files.values().map(|k| k.places.len()).sum();
        if self.files.len() > MAX_FILES || addresses > MAX_ADDRESSES {
            self.files.clear();
        }
    }

    /// Has all that this stack needs of a module read, where it is not known yet.
    fn read(
        &mut self,
        number: usize,
        key: FileKey,
        file: &File,
        pinned: &Pinned,
        skipped: Option<Called>,
        beat: &Beat,
    ) -> Result<(), String> {
        let known = self.files.entry(key).or_default();
        if let Some(bad) = &known.bad {
            return Err(bad.to_string());
        }
        let here = |p: &Place| match p {
            Place::InFile(module, at) if *module == number => Some(*at),
            _ => None,
        };
        let wanted = pinned.places.iter().filter_map(here);
        let skipped = skipped.and_then(|s| match s {
            Called::Here(at) if pinned.after_the_c_library(number).is_some() => Some(at),
            _ => None,
        });
        let wanted = wanted.chain(skipped);
        let mut wanted: Vec<u64> = wanted.filter(|at| !known.places.contains_key(at)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let module = &pinned.modules[number];
        match read_whole(module, file, &wanted, pinned.root.as_ref(), beat) {
            Ok(answer) => {
                known.build_id = answer.build_id;
                known.places.extend(wanted.into_iter().zip(answer.places));
                Ok(())
            }
            Err(bad) => {
                let why = bad.to_string();
                // What the host was short of, it may have the next time.
                if !matches!(bad, ReadError::Start(_)) {
                    known.bad = Some(bad);
                }
                Err(why)
            }
        }
    }

    /// The frames of an address, innermost first.
    fn frames(
        &self,
        place: &Place,
        address: u64,
        name: Option<&str>,
        pinned: &Pinned,
        keys: &[Option<FileKey>],
    ) -> Vec<Frame> {
        match (place, name) {
            (Place::InFile(number, at), _) => {
                let known = keys[*number].and_then(|key| self.files.get(&key));
                let found = known.and_then(|k| k.places.get(at));
                in_file(&pinned.modules[*number], found, *at, pinned.language.as_ref())
            }
            (Place::Named(module), _) => {
                let module = Some(module.clone());
                vec![Frame { module, role: Role::Runtime, ..Frame::raw(address) }]
            }
            (Place::Made, Some(name)) => {
                let mut frame = perfmap::frame(name);
                frame.role = roles::of_script(&frame);
                frame.function = text::printable(frame.function.as_bytes());
                frame.file = frame.file.map(|f| text::printable(f.as_bytes()));
                vec![frame]
            }
            (Place::Made | Place::Nowhere, _) => vec![Frame::raw(address)],
        }
    }

    /// The frame that the C library hides, where it is one of the file that calls it. A
    /// table of other files' functions has no name.
    fn hidden(
        &self,
        skipped: Option<Called>,
        pinned: &Pinned,
        keys: &[Option<FileKey>],
    ) -> Option<Frame> {
        let Some(Called::Here(at)) = skipped else { return None };
        let Some(Place::InFile(number, _)) = pinned.places.get(1) else { return None };
        let found = self.files.get(&keys[*number]?)?.places.get(&at)?;
        found.calls.last()?;
        in_file(&pinned.modules[*number], Some(found), at, pinned.language.as_ref()).pop()
    }

    /// The opener is known by its address alone: what would name it.
    fn nameless(
        &self,
        frames: &[Frame],
        pinned: &Pinned,
        keys: &[Option<FileKey>],
    ) -> Option<String> {
        let opener = frames.iter().find(|f| f.role == Role::Opener)?;
        if !opener.function.starts_with("0x") {
            return None;
        }
        let module = opener.module.as_deref()?;
        let number = pinned.modules.iter().position(|m| m.path == module)?;
        let known = keys[number].and_then(|key| self.files.get(&key));
        let build_id = known.and_then(|k| k.build_id.as_deref());
        let of = build_id.map_or_else(String::new, |id| format!(" (build id {id})"));
        Some(format!(
            "{module} has no symbols{of}: install its debug symbols, or do not strip it; \
             `addr2line -e` takes the address"
        ))
    }
}

/// Reads a module, and its debug file where that knows more.
fn read_whole(
    module: &Module,
    file: &File,
    wanted: &[u64],
    root: Option<&OwnedFd>,
    beat: &Beat,
) -> Result<Answer, ReadError> {
    let mut answer = reader::read(file, wanted, Counted::InFile)?;
    if answer.has_lines {
        return Ok(answer);
    }
    let addresses: Vec<u64> = answer.places.iter().map(|p| p.address.unwrap_or(0)).collect();
    for (_, file) in debug::find(&module.raw_path, &answer, root) {
        beat.now();
        let Ok(more) = reader::read(&file, &addresses, Counted::Virtually) else { continue };
        if more.build_id != answer.build_id {
            continue;
        }
        let better = |found: &Found| !found.calls.is_empty();
        for (known, found) in answer.places.iter_mut().zip(more.places) {
            if known.address.is_some() && better(&found) {
                known.calls = found.calls;
            }
        }
        break;
    }
    Ok(answer)
}

fn in_file(
    module: &Module,
    found: Option<&Found>,
    at: u64,
    language: Option<&Language>,
) -> Vec<Frame> {
    let of_module = roles::of_module(&module.path, module.is_exe, language);
    let named = |mut frame: Frame| {
        frame.module = Some(module.path.clone());
        frame.role = match of_module {
            Role::Program => roles::of_function(&frame),
            other => other,
        };
        frame
    };
    match found {
        Some(found) if !found.calls.is_empty() => {
            found.calls.iter().map(|c| named(call(c))).collect()
        }
        // As the file counts, or if even that is not known where in the file.
        _ => vec![named(Frame::raw(found.and_then(|f| f.address).unwrap_or(at)))],
    }
}

fn call(call: &Call) -> Frame {
    Frame {
        function: text::printable(call.function.as_bytes()),
        file: call.file.as_ref().map(|f| text::printable(f.as_bytes())),
        line: call.line,
        ..Frame::default()
    }
}
