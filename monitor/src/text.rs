//! Bytes from the kernel as text that is safe to show.

use std::fmt;

/// Shows bytes as text: invalid UTF-8 becomes U+FFFD, control characters become
/// `\u{..}` escapes, so that a name can neither break a line nor drive a terminal.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        // U+2028.. and the bidirectional controls reorder what a person reads.
        let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A duration as people say it: `40 s`, `12 min`, `3.5 h`, `2.1 d`.
pub fn duration(d: std::time::Duration) -> String {
    let s = d.as_secs_f64();
    match s {
        s if s > 0.0 && s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

/// Bytes as people say them, in binary units: `512 B`, `4.0 KiB`, `1.5 GiB`.
pub fn bytes(n: u64) -> impl fmt::Display {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hostile_names_cannot_drive_a_terminal() {
        for (given, want) in [
            (&b"plain"[..], "plain"),
            (b"two\nlines", "two\\u{a}lines"),
            (b"\x1b[2Jgone", "\\u{1b}[2Jgone"),
            (b"bad\xff", "bad\u{fffd}"),
            ("evil\u{202e}txt".as_bytes(), "evil\\u{202e}txt"),
            ("höflich".as_bytes(), "höflich"),
        ] {
            assert_eq!(printable(given), want);
        }
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_micros(40)), "40 µs");
        assert_eq!(duration(Duration::ZERO), "0 ms");
        assert_eq!(duration(Duration::from_millis(40)), "40 ms");
        assert_eq!(duration(Duration::from_secs(40)), "40 s");
        assert_eq!(duration(Duration::from_secs(3 * 3600)), "3.0 h");
        assert_eq!(bytes(512).to_string(), "512 B");
        assert_eq!(bytes(3 << 29).to_string(), "1.5 GiB");
    }
}
