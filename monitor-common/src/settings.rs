//! What the agent tells all programs at once, and may change while they run.

/// Groups of the paths that are sent anew: one of them with each pass, so that
/// a directory that was renamed is heard of after this many.
pub const PATH_EPOCHS: usize = 8;

/// Of so many births one is a sample. A cohort of a hundred that leaked before any
/// suspicion has its opener with a probability of 0.8, one of three hundred of 0.99.
pub const STACK_SAMPLE: u32 = 64;

/// The one value of the map `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// 1: births are kept for every process, listed in `PROCESSES` or not.
    pub watch_all: u8,
    /// 1: every birth takes a user stack.
    pub stacks_all: u8,
    /// 1: some fd probe is attached, so that the census looks for births.
    pub births: u8,
    /// 1: one birth in [`STACK_SAMPLE`] takes a user stack, whosever it is.
    pub stacks_sample: u8,
    /// Changes with every word about a process: what a birth remembers of its
    /// process holds as long as this is the same.
    pub generation: u32,
    /// 1: the census is of the processes in `CHOSEN` alone, with all paths.
    pub chosen: u32,
    /// Changing one makes the census send the paths of its group again.
    pub path_epochs: [u32; PATH_EPOCHS],
}

const _: () = assert!(size_of::<Settings>() == 12 + 4 * PATH_EPOCHS);
