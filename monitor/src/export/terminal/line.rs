//! Lines that fit. Width is counted in characters.

use crate::text;

/// `s` made printable and cut to `width` with `…`.
pub(super) fn clip(s: &str, width: usize) -> String {
    let s = text::printable(s.as_bytes());
    if s.chars().count() <= width {
        return s;
    }
    let mut out: String = s.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        out.push('…');
    }
    out
}

/// `s` cut in the middle, for paths, whose end says the most.
pub(super) fn clip_middle(s: &str, width: usize) -> String {
    let s = text::printable(s.as_bytes());
    let length = s.chars().count();
    if length <= width {
        return s;
    }
    let (head, tail) = (width.saturating_sub(1) / 3, width.saturating_sub(1));
    let tail = tail - head;
    let start = s.chars().take(head);
    start.chain(['…']).chain(s.chars().skip(length - tail)).collect()
}

/// `s` clipped and filled with spaces on its right.
pub(super) fn left(s: &str, width: usize) -> String {
    format!("{:<width$}", clip(s, width))
}

/// `s` clipped and filled with spaces on its left.
pub(super) fn right(s: &str, width: usize) -> String {
    format!("{:>width$}", clip(s, width))
}

/// Breaks `s` between words into lines of at most `width`; a word that is
/// longer is broken within.
pub(crate) fn wrap(s: &str, width: usize) -> Vec<String> {
    let s = text::printable(s.as_bytes());
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in s.split(' ').filter(|word| !word.is_empty()) {
        let mut chars: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + chars.len() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        while chars.len() > width.max(1) {
            lines.push(chars.drain(..width.max(1)).collect());
        }
        used += chars.len();
        line.extend(chars);
    }
    if used > 0 {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_counts_characters_after_escaping() {
        for (s, width, want) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("höflich", 4, "höf…"),
            ("a\nb", 10, "a\\u{a}b"),
            ("\u{1b}[2J", 4, "\\u{…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(clip(s, width), want);
        }
        assert_eq!(clip_middle("/var/log/agent/agent-12.jsonl", 16), "/var/…t-12.jsonl");
    }

    #[test]
    fn wrapping_breaks_between_words_and_long_words_within() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefgh b", 3), ["a", "abc", "def", "gh", "b"]);
        assert!(wrap("", 5).is_empty());
    }
}
