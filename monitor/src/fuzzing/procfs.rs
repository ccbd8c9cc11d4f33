//! Files of `/proc/PID`, in which a process writes its own name and arguments.

use crate::source::processes::{CMDLINE_MAX, Stat, one_line, parse_stat, real_uid, soft_nofile};
use crate::source::procfd::fdinfo;

/// `data` as each of the files that are read.
pub fn procfs(data: &[u8]) {
    stat(data);
    let line = one_line(data.to_vec());
    let line = line.as_bytes();
    assert!(line.len() <= CMDLINE_MAX && !line.contains(&0), "{} bytes", line.len());
    assert!(line.len() <= data.len());
    let _ = real_uid(data);
    let _ = soft_nofile(&String::from_utf8_lossy(data));
    // What a driver adds behind the kernel's own lines changes nothing of them.
    let (flags, position) = fdinfo(data);
    let own = format!("pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t1\n");
    assert_eq!(fdinfo(&[own.as_bytes(), data].concat()), (flags, position));
}

fn stat(data: &[u8]) {
    if let Some(stat) = parse_stat(data) {
        // A name may be empty, a window may not.
        let name = stat.comm.as_bytes();
        assert!(name.is_empty() || data.windows(name.len()).any(|w| w == name));
        assert_eq!(parse_stat(&written(&stat)), Some(stat), "written again");
    }
    // Whatever its name, the kernel's line gives the fields that the kernel wrote.
    let name = &data[..data.len().min(15)];
    let given = Stat {
        comm: name.into(),
        state: b'S',
        ppid: 7,
        flags: 4_194_560,
        threads: 3,
        start_ticks: 9876,
    };
    assert_eq!(parse_stat(&written(&given)), Some(given), "a hostile name");
}

/// The line as `fs/proc/array.c` writes it.
fn written(stat: &Stat) -> Vec<u8> {
    let Stat { comm, state, ppid, flags, threads, start_ticks } = stat;
    let state = [*state];
    let rest =
        format!(" {ppid} 42 42 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 {threads} 0 {start_ticks} 1 2\n");
    [b"42 (", comm.as_bytes(), b") ", &state, rest.as_bytes()].concat()
}
