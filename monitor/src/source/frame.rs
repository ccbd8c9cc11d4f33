//! Frames: what the addresses of a stack mean.

use serde::{Deserialize, Serialize};

use super::model::ProcessId;

/// Which part of a program a frame is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The first frame of the program itself: who opened.
    Opener,
    /// The program itself, further out.
    Program,
    /// A library that the program uses.
    Library,
    /// The C library, the dynamic linker, the kernel's vDSO, or what a language brings.
    Runtime,
    /// Not looked up yet, or not to be looked up.
    #[default]
    Unknown,
}

impl Role {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opener => "opener",
            Self::Program => "program",
            Self::Library => "library",
            Self::Runtime => "runtime",
            Self::Unknown => "unknown",
        }
    }
}

/// One frame of the opener's stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Function, demangled. Where it has no name its address in the module
    /// (`0x…`, as `addr2line` takes it), or in the process where the module is
    /// not known either.
    pub function: String,
    /// Source file, where known.
    pub file: Option<String>,
    /// Line, where known.
    pub line: Option<u32>,
    /// Module (executable or library), where known.
    pub module: Option<String>,
    /// Which part of the program it is of.
    #[serde(default)]
    pub role: Role,
}

impl Frame {
    /// A frame of which only the address is known.
    pub fn raw(address: u64) -> Self {
        Self { function: format!("{address:#x}"), ..Self::default() }
    }
}

/// A stack of a process, looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opener {
    /// Whose.
    pub process: ProcessId,
    /// Its number: the index into `Observation::stacks`.
    pub stack: u32,
    /// Innermost first; functions that the compiler dissolved into others, too.
    pub frames: Vec<Frame>,
    /// Why the opener cannot be told, or not by name, and what would help.
    pub note: Option<String>,
}

/// Numbers of stacks from here on are of those that were unwound; below are the kernel's.
pub const UNWOUND: u32 = 1 << 24;

/// Names one: whose, and which stack.
pub type OpenerKey = (ProcessId, u32);

impl Opener {
    /// Its name.
    pub const fn key(&self) -> OpenerKey {
        (self.process, self.stack)
    }
}
