//! Sizes as people write them.

/// Bytes: a number, with `KiB`, `MiB`, `GiB` or `TiB` where it is not bytes.
pub(super) fn size(given: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((given.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.unwrap_or((given, 0));
    let number: Option<u64> = number.trim_end().parse().ok();
    number
        .filter(|n| *n > 0)
        .and_then(|n| n.checked_mul(1 << bits))
        .ok_or_else(|| "it is no size; write such as 500MiB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (given, want) in [
            ("1", Some(1)),
            ("512B", Some(512)),
            ("4KiB", Some(4096)),
            ("500 MiB", Some(500 << 20)),
            ("1GiB", Some(1 << 30)),
            ("0", None),
            ("", None),
            ("-1", None),
            ("1MB", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size(given).ok(), want, "{given}");
        }
    }
}
