//! What tells where code is from: the mappings of a process, which has the say over the
//! names in them, and its perf map, which it writes itself.

use crate::source::symbols::{maps, perfmap, roles};

/// `data` as either.
pub fn openers(data: &[u8]) {
    let addresses = [0, 0x1000, 0x55d0_c0a0_0010, 0x7f00_0000_4001, u64::MAX];
    let seen = maps::read(data, &addresses).expect("a slice can be read");
    for m in &seen.mappings {
        let inside: Vec<u64> =
            addresses.into_iter().filter(|a| (m.start..m.end).contains(a)).collect();
        assert!(!inside.is_empty(), "nobody asked for {m:?}");
        for address in inside {
            assert!(seen.find(address).is_some());
            let _ = m.file_offset(address);
        }
        assert!(!m.of_file() || m.path.starts_with(b"/"));
    }
    let names = perfmap::read(data, &addresses).expect("a slice can be read");
    assert_eq!(names.len(), addresses.len());
    for name in names.into_iter().flatten() {
        assert!(!name.is_empty());
        let frame = perfmap::frame(&name);
        let _ = (roles::of_script(&frame), roles::of_function(&frame));
        // A line of its own names it again.
        let line = format!("1000 10 {}\n", name.trim_ascii());
        let again = perfmap::read(line.as_bytes(), &[0x1001]).expect("a slice can be read");
        let escaped = name.contains(['\n', '\u{fffd}']) || line.len() > 4_000;
        assert!(escaped || again == [Some(name.trim_ascii().to_owned())], "{again:?}");
    }
}
