//! Where the running kernel keeps its members: a reader of
//! `/sys/kernel/btf/vmlinux` for exactly that.
//!
//! The general BTF crates build a table of all 100,000 types with their names,
//! tens of megabytes that a resident agent would never give back, so this walks
//! the bytes once (`Documentation/bpf/btf.rst` describes them).

use std::collections::{BTreeSet, HashMap};

/// Why an offset could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel publishes no type information.
    #[error("cannot read {path}: {source}; the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or cut short.
    #[error("{0} is not valid BTF")]
    Malformed(&'static str),
    /// A member this version relies on is not there.
    #[error(
        "the running kernel has no `{member}` in `struct {of}`; \
         this version of leakwatch does not know this kernel"
    )]
    Missing {
        /// Structure.
        of: String,
        /// Member.
        member: String,
    },
}

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Members looked at for one offset. `task_struct` has some 300; unions that hold
/// themselves, which no compiler makes, would have no end.
const MEMBERS_MAX: u32 = 20_000;

/// The kernel's type information, unparsed but indexed.
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Byte position of each type's header; type ids count from 1.
    types: Vec<u32>,
    structs: HashMap<Vec<u8>, u32>,
}

impl Btf {
    /// Where the kernel publishes it.
    pub const PATH: &'static str = "/sys/kernel/btf/vmlinux";

    /// Reads that of the running kernel.
    ///
    /// # Errors
    /// No such file, or it is malformed.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        let data = std::fs::read(Self::PATH)
            .map_err(|source| BtfError::Unreadable { path: Self::PATH, source })?;
        Self::parse(data, Self::PATH)
    }

    pub(crate) fn parse(data: Vec<u8>, origin: &'static str) -> Result<Self, BtfError> {
        let bad = || BtfError::Malformed(origin);
        let word = |at: usize| -> Result<u32, BtfError> {
            let b = data.get(at..at + 4).ok_or_else(bad)?;
            Ok(u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        if word(0)? & 0xffff != 0xeb9f {
            return Err(bad());
        }
        let header = word(4)? as usize;
        let (type_off, type_len) = (header + word(8)? as usize, word(12)? as usize);
        let strings = header + word(16)? as usize;
        let mut btf =
            Self { strings, types: Vec::new(), structs: HashMap::new(), data: Vec::new() };
        let (mut at, end) = (type_off, type_off + type_len);
        while at < end {
            let (name, info) = (word(at)? as usize, word(at + 4)?);
            let (kind, vlen) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            btf.types.push(at as u32);
            if kind == KIND_STRUCT {
                let bytes = data.get(strings + name..).ok_or_else(bad)?;
                let len = bytes.iter().position(|b| *b == 0).ok_or_else(bad)?;
                if len > 0 {
                    btf.structs.entry(bytes[..len].to_vec()).or_insert(btf.types.len() as u32);
                }
            }
            at += 12
                + match kind {
                    KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                    KIND_ARRAY => 12,
                    KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * vlen,
                    KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen,
                    _ => 0,
                };
        }
        btf.data = data;
        Ok(btf)
    }

    /// Byte offset of a member, by its path (`__sk_common.skc_family`).
    /// Anonymous structs and unions are looked through.
    ///
    /// # Errors
    /// No such structure or member, or the member is a bit field.
    pub fn offset(&self, of: &str, member: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing { of: of.into(), member: member.into() };
        let mut ty = *self.structs.get(of.as_bytes()).ok_or_else(missing)?;
        let (mut bits, mut left) = (0_u32, MEMBERS_MAX);
        for part in member.split('.') {
            let found = self.member(ty, part.as_bytes(), 0, &mut left).ok_or_else(missing)?;
            bits = bits.checked_add(found.0).ok_or_else(missing)?;
            ty = found.1;
        }
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(missing()) }
    }

    /// Bytes of a structure.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn size(&self, of: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing { of: of.into(), member: String::new() };
        let ty = *self.structs.get(of.as_bytes()).ok_or_else(missing)?;
        let at = *self.types.get(ty as usize - 1).ok_or_else(missing)?;
        self.word(at as usize + 8).ok_or_else(missing)
    }

    /// Names of functions, of those that are `wanted`.
    pub fn functions(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let is_function = |at: &&u32| {
            self.word(**at as usize + 4).is_some_and(|info| info >> 24 & 0x1f == KIND_FUNC)
        };
        let names = self.types.iter().filter(is_function).filter_map(|at| {
            let name = self.data.get(self.strings + self.word(*at as usize)? as usize..)?;
            let len = name.iter().position(|b| *b == 0)?;
            std::str::from_utf8(&name[..len]).ok().filter(|name| wanted(name))
        });
        names.map(str::to_owned).collect()
    }

    /// Bit offset and type of a member.
    fn member(&self, ty: u32, name: &[u8], depth: u32, left: &mut u32) -> Option<(u32, u32)> {
        let ty = self.resolve(ty)?;
        let at = *self.types.get(ty as usize - 1)? as usize;
        let info = self.word(at + 4)?;
        if depth > 8 || !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for i in 0..(info & 0xffff) as usize {
            *left = left.checked_sub(1)?;
            let m = at + 12 + 12 * i;
            let (member, inner, mut offset) = (self.word(m)?, self.word(m + 4)?, self.word(m + 8)?);
            if info >> 31 != 0 {
                offset &= 0xff_ffff;
            }
            let named = self.data.get(self.strings + member as usize..)?;
            if named.first() == Some(&0) {
                if let Some((deeper, ty)) = self.member(inner, name, depth + 1, left) {
                    return Some((offset.checked_add(deeper)?, ty));
                }
            } else if named.starts_with(name) && named.get(name.len()) == Some(&0) {
                return Some((offset, inner));
            }
        }
        None
    }

    /// Looks through typedefs and qualifiers.
    fn resolve(&self, mut ty: u32) -> Option<u32> {
        for _ in 0..32 {
            let at = *self.types.get((ty as usize).checked_sub(1)?)? as usize;
            match self.word(at + 4)? >> 24 & 0x1f {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    ty = self.word(at + 8)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn word(&self, at: usize) -> Option<u32> {
        let b = self.data.get(at..at + 4)?;
        Some(u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused_not_read() {
        assert!(matches!(Btf::parse(b"hello".to_vec(), "x"), Err(BtfError::Malformed("x"))));
        assert!(matches!(Btf::parse(vec![0x9f, 0xeb, 1, 0], "x"), Err(BtfError::Malformed("x"))));
    }

    fn made(types: &[u32], names: &[u8]) -> Btf {
        let len = types.len() as u32 * 4;
        let header = [0x1_eb9f, 24, 0, len, len, names.len() as u32];
        let words = header.iter().chain(types).flat_map(|w| u32::to_ne_bytes(*w));
        Btf::parse(words.chain(names.iter().copied()).collect(), "x").unwrap()
    }

    /// Found by fuzzing: no compiler makes either of them.
    #[test]
    fn nonsense_ends_as_a_member_that_is_not_there() {
        let names = b"\0a\0x\0";
        let int = [0, KIND_INT << 24, 4, 32];
        let union_of_itself = [&[0, KIND_UNION << 24 | 9, 4][..], &[0, 2, 0].repeat(9)].concat();
        let holder = [1, KIND_STRUCT << 24 | 1, 8, 0, 2, 0];
        let btf = made(&[&int[..], &union_of_itself, &holder].concat(), names);
        assert!(matches!(btf.offset("a", "x"), Err(BtfError::Missing { .. })));

        let inner = [0, KIND_STRUCT << 24 | 1, 4, 3, 1, u32::MAX];
        let holder = [1, KIND_STRUCT << 24 | 1, 8, 0, 2, 16];
        let btf = made(&[&int[..], &inner, &holder].concat(), names);
        assert!(matches!(btf.offset("a", "x"), Err(BtfError::Missing { .. })));
    }

    /// A hand-made `struct a { int x; union { int y; struct { int z; }; }; }`.
    #[test]
    fn anonymous_members_are_looked_through() {
        let names = b"\0a\0x\0y\0z\0int\0";
        let name = |s: &[u8]| names.windows(s.len()).position(|w| w == s).unwrap() as u32;
        let (s4, u5) = (KIND_STRUCT << 24, KIND_UNION << 24);
        let mut types: Vec<u32> = Vec::new();
        types.extend([name(b"int\0"), KIND_INT << 24, 4, 32]);
        types.extend([0, s4 | 1, 4, name(b"z\0"), 1, 0]);
        types.extend([0, u5 | 2, 4, name(b"y\0"), 1, 0, 0, 2, 0]);
        types.extend([name(b"a\0"), s4 | 2, 8, name(b"x\0"), 1, 0, 0, 3, 32]);
        types.extend([name(b"int\0"), KIND_FUNC << 24, 0]);
        let btf = made(&types, names);
        for (member, want) in [("x", 0), ("y", 4), ("z", 4)] {
            assert_eq!(btf.offset("a", member).unwrap(), want, "{member}");
        }
        assert_eq!(btf.functions(|_| true), ["int".to_string()].into());
        assert_eq!(
            btf.offset("a", "nope").unwrap_err().to_string(),
            "the running kernel has no `nope` in `struct a`; \
             this version of leakwatch does not know this kernel"
        );
    }
}
