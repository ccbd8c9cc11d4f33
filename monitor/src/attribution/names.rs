//! Unit names that are safe to show, unique and short.

use crate::text::printable;

/// Longest unit name, bytes.
pub(super) const MAX_NAME: usize = 200;

/// `raw` as a unit name: printable, at most [`MAX_NAME`] bytes.
///
/// Two different byte strings can look alike once escaped, replaced or cut, so
/// whatever does not survive unchanged gets `~` and a hash of the original.
pub(super) fn unit_name(raw: &[u8]) -> String {
    let shown = printable(raw);
    if shown.as_bytes() == raw && shown.len() <= MAX_NAME {
        return shown;
    }
    let suffix = format!("~{:016x}", fnv1a(raw));
    let mut cut = shown.len().min(MAX_NAME - suffix.len());
    while !shown.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &shown[..cut])
}

/// FNV-1a, 64 bits: the same on every machine and in every release, which a
/// name that ends up in a time series must be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["nginx.service", r"dev-disk-by\x2duuid.service", "/a/b", "exe:höflich"] {
            assert_eq!(unit_name(name.as_bytes()), name);
        }
    }

    #[test]
    fn names_that_would_look_alike_stay_apart() {
        let names = [
            unit_name(b"a\xff"),
            unit_name(b"a\xfe"),
            unit_name("a\u{fffd}".as_bytes()),
            unit_name(b"a\n"),
            unit_name(b"a\\u{a}"),
        ];
        for (i, a) in names.iter().enumerate() {
            assert!(!a.chars().any(char::is_control));
            assert!(names[i + 1..].iter().all(|b| a != b), "{names:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters_and_stay_unique() {
        let a = unit_name("ä".repeat(300).as_bytes());
        let b = unit_name(format!("{}x", "ä".repeat(299)).as_bytes());
        assert!(a.len() <= MAX_NAME && b.len() <= MAX_NAME);
        assert_ne!(a, b);
        assert_eq!(unit_name("x".repeat(200).as_bytes()).len(), 200);
    }
}
