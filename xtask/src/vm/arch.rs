//! The machines there are: what differs between their kernels, emulators and boots.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::cross;

/// A processor's architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// With what `cargo xtask test` builds
    #[default]
    #[value(name = "x86_64")]
    X86,
    /// With what is cross-built for it
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    /// Debian's word for it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The program that emulates it.
    pub const fn emulator(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86_64",
            Self::Arm => "qemu-system-aarch64",
        }
    }

    /// The package of that program.
    pub const fn emulator_package(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86",
            Self::Arm => "qemu-system-arm",
        }
    }

    /// What the emulator is told of the machine. Pointer authentication by its own
    /// algorithm would take an emulator half of its time.
    pub const fn machine(self) -> &'static [&'static str] {
        match self {
            Self::X86 => &["-cpu", "max"],
            Self::Arm => &["-M", "virt", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// The first serial line, as the kernel calls it.
    pub const fn console(self) -> &'static str {
        match self {
            Self::X86 => "ttyS0",
            Self::Arm => "ttyAMA0",
        }
    }

    /// The program that takes symbols away.
    pub const fn strip(self) -> &'static str {
        match self {
            Self::X86 => "strip",
            Self::Arm => cross::STRIP,
        }
    }

    /// The end of all patience with one machine. On an idle host the suite takes a
    /// third of it; two at a time beside other work took nine minutes.
    pub const fn limit(self) -> Duration {
        match self {
            Self::X86 => Duration::from_secs(900),
            Self::Arm => Duration::from_secs(1200),
        }
    }

    /// Of names of files: nothing for the usual one.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::X86 => "",
            Self::Arm => "-aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        })
    }
}
