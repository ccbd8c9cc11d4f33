//! The page.

use std::fmt::Write as _;

/// Markdown, built section by section.
pub struct Page(String);

impl Page {
    /// The head, with the facts of the machine.
    pub fn new(facts: &[(&str, String)]) -> Self {
        let mut text = String::from(
            "# What leakwatch costs\n\n\
             Written by `cargo xtask bench` (as root), from one run. Ratios are between\n\
             measurements that follow each other in the same round; figures are medians, with\n\
             the least and the most in brackets. A run never fails on a figure: PASS and over\n\
             stand beside the aims.\n\n| machine | |\n|---|---|\n",
        );
        for (name, value) in facts {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        Self(text)
    }

    /// Adds a section.
    pub fn add(&mut self, section: &str) {
        self.0.push('\n');
        self.0.push_str(section.trim_end());
        self.0.push('\n');
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// A table.
pub struct Table(String);

impl Table {
    /// With these columns.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(columns);
        table.row(&vec!["---"; columns.len()]);
        table
    }

    /// Adds a row.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        for cell in cells {
            let _ = write!(self.0, "| {} ", cell.as_ref().replace('|', "\\|"));
        }
        self.0.push_str("|\n");
    }

    /// As Markdown.
    pub fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_columns() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1|2", "3"]);
        assert_eq!(table.text(), "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n");
    }
}
