//! What runs beside a workload.

use anyhow::Result;

use super::agent::Agent;
use super::floor::Floor;
use super::tools::Tool;
use crate::shell;

/// What runs beside a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing, which shows the noise: bare beside bare
    Nothing,
    /// The agent without descriptor probes
    Off,
    /// The agent as it comes
    Auto,
    /// Its descriptor probes, attached all the time
    Always,
    /// The same with one stack in 64
    Sampled,
    /// The same with the stack of every opening
    AlwaysStacks,
    /// A program on `sys_exit` that does nothing
    Floor,
    /// bpftrace that counts
    Counting,
    /// bpftrace that pairs openings with closes
    Pairing,
    /// opensnoop
    Opensnoop,
    /// strace; the workload itself runs under it
    Strace,
}

impl Mode {
    /// Those whose cost a loop of system calls shows.
    pub const LOOPS: [Self; 11] = [
        Self::Nothing,
        Self::Off,
        Self::Auto,
        Self::Always,
        Self::Sampled,
        Self::AlwaysStacks,
        Self::Floor,
        Self::Counting,
        Self::Pairing,
        Self::Opensnoop,
        Self::Strace,
    ];

    /// Those that stand beside programs of real life.
    pub const PROGRAMS: [Self; 8] = [
        Self::Nothing,
        Self::Off,
        Self::Auto,
        Self::Always,
        Self::Sampled,
        Self::AlwaysStacks,
        Self::Pairing,
        Self::Opensnoop,
    ];

    /// The name on the page.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing (noise)",
            Self::Off => "`probes = \"off\"` (census only)",
            Self::Auto => "`probes = \"auto\"` (default)",
            Self::Always => "`probes = \"always\"`",
            Self::Sampled => "`probes = \"always\"`, `stacks = \"sampled\"`",
            Self::AlwaysStacks => "`probes = \"always\"`, `stacks = \"always\"`",
            Self::Floor => "a program on `sys_exit` that returns at once",
            Self::Counting => "bpftrace, counts per pid",
            Self::Pairing => "bpftrace, opens paired with closes",
            Self::Opensnoop => "opensnoop",
            Self::Strace => "strace -c",
        }
    }

    /// The agent's config, where the mode is one. Stacks stay off where they are not
    /// what is measured.
    pub fn config(self) -> Option<String> {
        let (probes, stacks) = match self {
            Self::Off => ("off", "off"),
            Self::Auto => ("auto", "on-suspicion"),
            Self::Always => ("always", "off"),
            Self::Sampled => ("always", "sampled"),
            Self::AlwaysStacks => ("always", "always"),
            Self::Nothing
            | Self::Floor
            | Self::Counting
            | Self::Pairing
            | Self::Opensnoop
            | Self::Strace => return None,
        };
        Some(format!("[watch]\nprobes = \"{probes}\"\nstacks = \"{stacks}\"\n"))
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it is missing or the host refuses it.
    pub fn start(self) -> Result<Beside> {
        if let Some(config) = self.config() {
            return Ok(Beside::Agent(Agent::start(&config)?));
        }
        Ok(match self {
            Self::Floor => Beside::Floor { _attached: Floor::attach()? },
            Self::Counting => Beside::Tool { _running: Tool::counting()? },
            Self::Pairing => Beside::Tool { _running: Tool::pairing()? },
            Self::Opensnoop => Beside::Tool { _running: Tool::opensnoop()? },
            Self::Strace => {
                shell::need("strace")?;
                Beside::Nothing
            }
            _ => Beside::Nothing,
        })
    }
}

/// What stays alive while a mode is measured; it ends with this value.
pub enum Beside {
    /// Nothing
    Nothing,
    /// An agent
    Agent(Agent),
    /// The empty program
    Floor {
        /// Held for its end
        _attached: Floor,
    },
    /// Another tool
    Tool {
        /// Held for its end
        _running: Tool,
    },
}
