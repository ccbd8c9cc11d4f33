//! Has a symbol file read by a confined process, and waits for it for so long.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::answer::{Answer, Line};
use super::confined::{COMMAND, FOLLOW, PLAIN, SECONDS, TASKS, VIRTUAL};
use super::trail::{Question, Trail};
use crate::source::asynctasks::program::TaskProgram;
use crate::text;

/// Larger files are not read: the largest that are known, those of browsers with
/// all that a debugger wants, come near it.
pub const MAX_FILE: u64 = 1 << 30;
/// On a busy host the process waits for its ten seconds of processor time.
const PATIENCE: Duration = Duration::from_secs(30);
/// A stack has 32 addresses, and each at most 64 functions.
const MAX_ANSWER: usize = 16 << 20;

/// A symbol file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is too large.
    #[error("it has {}; more than {} is not read", text::bytes(*.0), text::bytes(MAX_FILE))]
    Large(u64),
    /// The process could not be had, or its answer not be read.
    #[error("cannot have it read: {0}")]
    Start(String),
    /// It took too long.
    #[error("reading it took more than {} s", PATIENCE.as_secs())]
    Slow,
    /// The process died of it.
    #[error("reading it {0}")]
    Died(String),
    /// It said what is wrong.
    #[error("it cannot be read: {0}")]
    Bad(String),
}

/// What the addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Offsets in the file.
    InFile,
    /// As the file itself counts.
    Virtually,
}

/// Reads what `file` has at these addresses.
///
/// # Errors
/// See [`ReadError`]; it says something of this file and nothing of others.
pub fn read(file: &File, addresses: &[u64], counted: Counted) -> Result<Answer, ReadError> {
    let size = file.metadata().map_err(|e| ReadError::Start(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(ReadError::Large(size));
    }
    match try_once(file, addresses, counted, false) {
        // What debuggers want is the most of a file; the names may do without.
        Err(ReadError::Slow | ReadError::Died(_)) => try_once(file, addresses, counted, true),
        other => other,
    }
}

/// Reads which functions of a program are of tokio's tasks.
///
/// # Errors
/// See [`ReadError`].
pub fn read_tasks(file: &File) -> Result<TaskProgram, ReadError> {
    let size = file.metadata().map_err(|e| ReadError::Start(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(ReadError::Large(size));
    }
    let once = |flags: &[&str]| match ask(file, flags.iter().map(ToString::to_string))? {
        (Some(Line::Tasks(program)), _) => Ok(program),
        (Some(Line::Failed(why)), _) => Err(ReadError::Bad(why)),
        (_, status) => Err(ReadError::Died(ending(status))),
    };
    match once(&[TASKS]) {
        Err(ReadError::Slow | ReadError::Died(_)) => once(&[TASKS, PLAIN]),
        other => other,
    }
}

/// Follows a stack by what `file` says of its functions.
///
/// # Errors
/// See [`ReadError`].
pub fn read_trail(file: &File, question: &Question) -> Result<Trail, ReadError> {
    let size = file.metadata().map_err(|e| ReadError::Start(e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(ReadError::Large(size));
    }
    let asked = written(question).map_err(|e| ReadError::Start(e.to_string()))?;
    match ask_with(file, [FOLLOW.to_owned()].into_iter(), asked.into())? {
        // No more than was wanted, whatever it says.
        (Some(Line::Followed(trail)), _) if trail.addresses.len() <= question.most => Ok(trail),
        (Some(Line::Failed(why)), _) => Err(ReadError::Bad(why)),
        (_, status) => Err(ReadError::Died(ending(status))),
    }
}

/// Memory that holds it. A pipe would have to be written while the answer is waited for,
/// and everybody may read an argument; a stack holds secrets.
fn written(question: &Question) -> io::Result<File> {
    let held = memfd_create("question", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut held = File::from(held);
    held.write_all(&serde_json::to_vec(question)?)?;
    held.rewind()?;
    fcntl_add_seals(&held, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(held)
}

fn try_once(
    file: &File,
    addresses: &[u64],
    counted: Counted,
    plain: bool,
) -> Result<Answer, ReadError> {
    let mut arguments = Vec::new();
    if counted == Counted::Virtually {
        arguments.push(VIRTUAL.to_owned());
    }
    if plain {
        arguments.push(PLAIN.to_owned());
    }
    arguments.extend(addresses.iter().map(|a| format!("{a:x}")));
    match ask(file, arguments.into_iter())? {
        (Some(Line::Read(answer)), _) if answer.places.len() == addresses.len() => Ok(answer),
        (Some(Line::Failed(why)), _) => Err(ReadError::Bad(why)),
        (_, status) => Err(ReadError::Died(ending(status))),
    }
}

/// What the process says, if it is something, and how it ended.
fn ask(
    file: &File,
    arguments: impl Iterator<Item = String>,
) -> Result<(Option<Line>, ExitStatus), ReadError> {
    ask_with(file, arguments, Stdio::null())
}

/// The same, with something as its standard error stream.
fn ask_with(
    file: &File,
    arguments: impl Iterator<Item = String>,
    beside: Stdio,
) -> Result<(Option<Line>, ExitStatus), ReadError> {
    let failed = |e: io::Error| ReadError::Start(e.to_string());
    // The running binary, also where it was replaced by a newer one meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("leakwatch").arg(COMMAND).args(arguments);
    command.env_clear().current_dir("/");
    command.stdin(file.try_clone().map_err(failed)?).stdout(Stdio::piped()).stderr(beside);
    let mut reader = Reader(command.spawn().map_err(failed)?);
    let text = reader.hear()?;
    let status = reader.0.wait().map_err(failed)?;
    Ok((serde_json::from_slice(&text).ok(), status))
}

/// The process; ended when dropped.
struct Reader(Child);

impl Reader {
    /// All that it says.
    fn hear(&mut self) -> Result<Vec<u8>, ReadError> {
        let failed = |e: io::Error| ReadError::Start(e.to_string());
        let deadline = Instant::now() + PATIENCE;
        let mut text = Vec::new();
        let Some(pipe) = &mut self.0.stdout else { return Ok(text) };
        let mut part = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| ReadError::Slow)?;
            match poll(&mut [PollFd::new(&*pipe, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(ReadError::Slow),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(failed(e.into())),
            }
            match pipe.read(&mut part).map_err(failed)? {
                0 => return Ok(text),
                n => text.extend_from_slice(&part[..n]),
            }
            if text.len() > MAX_ANSWER {
                return Err(ReadError::Died("gave too long an answer".to_owned()));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Not reaped yet, or reaped and known to be: std keeps count.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ending(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => {
            format!("took more than {SECONDS} s of processor time")
        }
        Some(libc::SIGABRT) => "took more memory than it may".to_owned(),
        Some(signal) => format!("ended with signal {signal}"),
        None => format!("ended with {status}"),
    }
}
