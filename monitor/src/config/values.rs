//! What a single value may be.

use std::time::Duration;

use toml::de::DeValue;

use crate::glob::{Glob, Subject};

/// Least and greatest duration, and both in words.
pub(super) struct Limits {
    pub(super) min: Duration,
    pub(super) max: Duration,
    pub(super) words: &'static str,
}

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Between two censuses: faster costs too much, slower sees too little.
pub(super) const INTERVAL: Limits = Limits {
    min: Duration::from_millis(100),
    max: Duration::from_secs(3_600),
    words: "from 100ms to 1h",
};

/// A span that has to last.
pub(super) const SOME: Limits =
    Limits { min: Duration::from_millis(1), max: WEEK, words: "above 0 and at most 7days" };

/// A span that may be nothing.
pub(super) const ANY: Limits = Limits { min: Duration::ZERO, max: WEEK, words: "at most 7days" };

/// A wait inside one act of cleanup, which must not hold up the next.
pub(super) const WAIT: Limits = Limits {
    min: Duration::from_millis(1),
    max: Duration::from_secs(3_600),
    words: "above 0 and at most 1h",
};

/// "an integer", "a string", as a sentence needs it.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether a glob compiles and can match anything of its subject at all.
pub(super) fn check_glob(pattern: &str, subject: Subject) -> Result<(), String> {
    Glob::new(pattern, subject).map_err(|e| e.kind().to_string())?;
    let first = pattern.chars().next();
    let relative = first.is_some_and(|c| c.is_alphanumeric() || c == '.' || c == '_');
    // Paths of the kernel are absolute, so a relative glob would silently never
    // match; but `socket:[7]` and `anon_inode:bpf-map` are names too.
    if subject == Subject::Path && relative && !pattern.contains(':') {
        return Err(format!("paths begin with `/`; write \"**/{pattern}\" or the whole path"));
    }
    Ok(())
}

/// The signals that have names.
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of `SIGHUP` or `HUP`, in any case.
pub(super) fn signal_number(name: &str) -> Option<i32> {
    let name = name.to_ascii_uppercase();
    let short = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS.iter().find(|(known, _)| *known == short).map(|(_, number)| *number)
}

/// `SIGHUP` for 1; none for the real-time signals, which have only numbers.
pub(super) fn signal_name(number: i32) -> Option<String> {
    SIGNALS.iter().find(|(_, n)| *n == number).map(|(name, _)| format!("SIG{name}"))
}

/// Every signal's full name.
pub(super) fn signal_names() -> Vec<String> {
    SIGNALS.iter().map(|(name, _)| format!("SIG{name}")).collect()
}
