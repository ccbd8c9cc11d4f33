//! Strings as HTML text, attributes and path segments.

use std::fmt::{self, Write};

use crate::text;

/// A string that stays text wherever it is put, between tags or in a quoted
/// attribute; what could not be seen is made visible.
pub(super) struct Safe<'a>(pub(super) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in text::printable(self.0.as_bytes()).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A string as one percent-encoded segment of a path; safe in an attribute too.
pub(super) struct Segment<'a>(pub(super) &'a str);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~@:".contains(&byte) {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_stays_text() {
        let given = "<a href=\"x\" onclick='y'>&\n\u{1b}";
        let want = "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;\\u{a}\\u{1b}";
        assert_eq!(Safe(given).to_string(), want);
        assert_eq!(Segment("/a b\"<ö").to_string(), "%2Fa%20b%22%3C%C3%B6");
    }
}
