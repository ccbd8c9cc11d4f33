//! The configuration file.

use super::assert_printable;
use crate::config::{parse, to_toml};

/// `data` as the text of a configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse(text, "leakwatch.toml") {
        Ok(config) => {
            let written = to_toml(&config);
            match parse(&written, "written") {
                Ok(again) => assert_eq!(again, config, "read again:\n{written}"),
                Err(problems) => panic!("`config show` writes what is refused: {problems}"),
            }
        }
        Err(problems) => {
            assert!(!problems.kept.is_empty() && problems.kept.len() <= 50);
            let lines = text.split('\n').count();
            for problem in &problems.kept {
                assert_printable(&problem.message);
                assert_printable(&problem.key);
                assert!((1..=lines).contains(&problem.line), "{problem} of {lines} lines");
                assert!(problem.column >= 1 && problem.column <= text.len() + 1, "{problem}");
                // A sentence, not a copy of the file.
                assert!(problem.message.len() <= 4096, "{} bytes", problem.message.len());
            }
        }
    }
}
