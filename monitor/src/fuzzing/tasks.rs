//! The symbols of a program that is said to use tokio: its file, and names in it.

use std::io::Cursor;

use super::assert_printable;
use crate::source::asynctasks::{names, program};

/// `data` as a program, and as the name of a symbol.
pub fn tasks(data: &[u8]) {
    if let Ok(found) = program::read(Cursor::new(data)) {
        for list in [&found.bind, &found.complete, &found.poll] {
            assert!(list.is_sorted_by(|a, b| a < b), "each once: {list:?}");
        }
        assert!(!found.poll.is_empty() && !found.complete.is_empty());
        let numbers = found.functions.values().flatten();
        assert!(numbers.into_iter().all(|n| (*n as usize) < found.types.len()));
        found.types.iter().for_each(|t| assert_printable(&t.function));
        let table: Vec<u64> = found.functions.keys().copied().collect();
        assert!(found.name(&table).len() <= found.types.len());
    }
    let Ok(name) = std::str::from_utf8(data) else { return };
    let demangled = format!("{:#}", rustc_demangle::demangle(name));
    for name in [name, &demangled] {
        let _ = (names::part(name), names::may_matter(name));
        for future in [names::of_table(name), names::of_drop(name)].into_iter().flatten() {
            assert!(name.contains(future) && !future.is_empty());
            let inner = names::unwrapped(future);
            assert!(future.contains(inner));
            // Folded once, there is nothing left to fold.
            assert_eq!(names::unwrapped(inner), inner);
            let _ = (names::function(future), names::is_blocking(future));
        }
    }
}
