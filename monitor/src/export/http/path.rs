//! Names in request targets.

/// Undoes percent encoding; `+` stays itself, as in any path.
/// `None` where an escape is broken or the bytes are no UTF-8, which no unit
/// name is.
pub(crate) fn decode(encoded: &str) -> Option<String> {
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

/// What a query says of one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// Nothing.
    Absent,
    /// Its value, decoded; empty where there is no `=`.
    Once(String),
    /// Two things or more: which one is meant, nobody knows.
    Again,
    /// Something that cannot be decoded.
    Broken,
}

/// The value of `key` in a query. Keys are compared decoded, and other keys are
/// nobody's business.
pub(crate) fn parameter(query: Option<&str>, key: &str) -> Parameter {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| decode(name).as_deref() == Some(key))
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Parameter::Absent,
        (Some(value), None) => decode(value).map_or(Parameter::Broken, Parameter::Once),
        (Some(_), Some(_)) => Parameter::Again,
    }
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
        let once = |value: &str| Parameter::Once(value.to_owned());
        for (query, want) in [
            (Some("a=1&state=confirmed"), once("confirmed")),
            (Some("state=a=b"), once("a=b")),
            (Some("state"), once("")),
            (Some("statement=x"), Parameter::Absent),
            (Some("%zz=x"), Parameter::Absent),
            (Some(""), Parameter::Absent),
            (None, Parameter::Absent),
            (Some("state=a&state=b"), Parameter::Again),
            (Some("state=%"), Parameter::Broken),
        ] {
            assert_eq!(parameter(query, "state"), want, "{query:?}");
        }
    }
}
