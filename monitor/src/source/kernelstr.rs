//! Byte strings from the kernel, and how they are written as text without loss.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// A byte string from the kernel (path, name, command line): any bytes but NUL.
///
/// `Display` escapes what could harm a terminal; `as_bytes` gives the truth. As
/// JSON it is a string, in which a byte that is not UTF-8 is a NUL character and
/// two hexadecimal digits: the kernel's strings have no NUL of their own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelStr(pub Arc<[u8]>);

impl KernelStr {
    /// The bytes as the kernel gave them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for KernelStr {
    fn from(b: &[u8]) -> Self {
        Self(b.into())
    }
}

impl From<&str> for KernelStr {
    fn from(s: &str) -> Self {
        Self(s.as_bytes().into())
    }
}

impl fmt::Display for KernelStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::printable(&self.0))
    }
}

impl fmt::Debug for KernelStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", text::printable(&self.0))
    }
}

impl Serialize for KernelStr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(s) if !s.contains('\0') => to.serialize_str(s),
            _ => to.serialize_str(&escaped(&self.0)),
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for (i, part) in chunk.valid().split('\0').enumerate() {
            out.push_str(if i > 0 { "\x0000" } else { "" });
            out.push_str(part);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\0{byte:02x}"));
        }
    }
    out
}

fn bytes(escaped: &str) -> Option<Vec<u8>> {
    let mut parts = escaped.split('\0');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(out)
}

impl<'de> Deserialize<'de> for KernelStr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = KernelStr;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, s: &str) -> Result<KernelStr, E> {
                if !s.contains('\0') {
                    return Ok(s.into());
                }
                let bytes = bytes(s).ok_or_else(|| E::custom("a NUL without two digits"))?;
                Ok(KernelStr::from(bytes.as_slice()))
            }
        }
        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_as_text() {
        for (given, text) in [
            (&b"/var/log/a.log"[..], "\"/var/log/a.log\""),
            (b"", "\"\""),
            ("höflich\n".as_bytes(), "\"höflich\\n\""),
            (b"bad\xff\xfe7", "\"bad\\u0000ff\\u0000fe7\""),
            (b"nul\0x", "\"nul\\u000000x\""),
            (b"\xf0\x9f", "\"\\u0000f0\\u00009f\""),
        ] {
            let there = serde_json::to_string(&KernelStr::from(given)).unwrap();
            assert_eq!(there, text);
            let back: KernelStr = serde_json::from_str(&there).unwrap();
            assert_eq!(back.as_bytes(), given);
        }
        for wrong in ["\"\\u0000\"", "\"\\u00000\"", "\"\\u0000zz\"", "\"\\u0000ü\"", "7"] {
            assert!(serde_json::from_str::<KernelStr>(wrong).is_err(), "{wrong}");
        }
    }
}
