//! Names in request targets.

/// Undoes percent encoding; `+` stays itself, as in any path.
/// `None` where an escape is broken or the bytes are no UTF-8, which no unit
/// name is.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (&[high, low], tail) = rest.split_first_chunk::<2>()?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        bytes.push(digit(high)? << 4 | digit(low)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The first value of `key` in a query, decoded.
pub(super) fn parameter(query: Option<&str>, key: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == key).find_map(|(_, value)| decode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for (given, want) in [
            ("nginx.service", Some("nginx.service")),
            ("/system.slice/a%20b", Some("/system.slice/a b")),
            ("%2Fa%2fb", Some("/a/b")),
            ("a+b", Some("a+b")),
            ("h%C3%B6flich", Some("höflich")),
            ("%3Cscript%3E", Some("<script>")),
            ("", Some("")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(given).as_deref(), want, "{given}");
        }
    }

    #[test]
    fn parameters_are_found_by_name() {
        assert_eq!(parameter(Some("a=1&state=confirmed"), "state").as_deref(), Some("confirmed"));
        assert_eq!(parameter(Some("statement=x"), "state"), None);
        assert_eq!(parameter(None, "state"), None);
    }
}
