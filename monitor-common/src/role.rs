//! The role table: what each system-call number means to the probes.

/// Entries of the role table; every architecture's numbers are below.
pub const MAX_SYSCALLS: u32 = 512;

/// What a system call does to the descriptor table.
///
/// Userspace fills the table for the running architecture, so the object
/// holds no system-call number. An entry of the table is one word, see
/// [`Role::pack`]; 0 is a system call without a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// One of the constants of this type.
    pub what: u8,
    /// [`crate::KernelKind`] of what is acquired.
    pub kind: u8,
    /// Argument number that `what` speaks of.
    pub arg: u8,
}

impl Role {
    /// As the table has it.
    #[must_use]
    pub const fn pack(self) -> u32 {
        u32::from_ne_bytes([self.what, self.kind, self.arg, 0])
    }

    /// From the table.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(word: u32) -> Self {
        let [what, kind, arg, _] = word.to_ne_bytes();
        Self { what, kind, arg }
    }

    /// Returns a new descriptor.
    pub const RETURNS_FD: u8 = 1;
    /// Writes two new descriptors to the array that argument `arg` points at.
    pub const WRITES_PAIR: u8 = 2;
    /// Returns a new descriptor for some commands of `fcntl` only.
    pub const FCNTL: u8 = 3;
    /// dup2, dup3: closes argument 1 if open, then acquires it.
    pub const DUP_ONTO: u8 = 4;
    /// Returns a new descriptor only if argument 0 is -1 (signalfd).
    pub const RETURNS_FD_IF_NEW: u8 = 5;
    /// recvmsg, recvmmsg: may install passed descriptors.
    pub const RECEIVES: u8 = 6;
    /// clone, clone3: may install a pidfd.
    pub const CLONE: u8 = 7;
    /// bpf: returns a descriptor for some commands only.
    pub const BPF: u8 = 8;
    /// Releases argument 0.
    pub const CLOSE: u8 = 9;
    /// Releases arguments 0 to 1 inclusive.
    pub const CLOSE_RANGE: u8 = 10;
}
