//! The function that the C library hides.
//!
//! Where its functions keep no frame pointer, the one that is followed from them is
//! their caller's, and so the first return address is that of the caller's caller:
//! whoever called `socket` is missing. But the call that is to be returned to tells
//! whom it called.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// What a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// Code of the same file, by its offset there.
    Here(u64),
    /// Code of another file, by a table of addresses. Elsewhere than on x86-64 the call
    /// goes to a stub of this file first.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "calls there have no such form")
    )]
    Elsewhere,
    /// Where a register or a table of functions says.
    Anywhere,
}

/// Whether the functions of a module may hide their caller.
pub fn hides(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ["libc.", "libc-", "libpthread", "ld-musl"].iter().any(|known| name.starts_with(known))
}

/// What the call goes to that ends at this offset of a file; `None` where there is
/// none, or the file cannot be read.
pub fn called(file: &File, end: u64) -> Option<Called> {
    let mut code = [0; 6];
    file.read_exact_at(&mut code, end.checked_sub(6)?).ok()?;
    called_by(&code, end)
}

#[cfg(target_arch = "x86_64")]
fn called_by(code: &[u8; 6], end: u64) -> Option<Called> {
    match *code {
        // call [rip + disp32]
        [0xff, 0x15, ..] => Some(Called::Elsewhere),
        // call rel32
        [_, 0xe8, a, b, c, d] => {
            let distance = i32::from_le_bytes([a, b, c, d]);
            end.checked_add_signed(distance.into()).map(Called::Here)
        }
        // call r/m64 in its shorter forms: FF /2
        [.., 0xff, m] | [.., 0xff, m, _] if m >> 3 & 7 == 2 => Some(Called::Anywhere),
        _ => None,
    }
}

#[cfg(target_arch = "aarch64")]
fn called_by(code: &[u8; 6], end: u64) -> Option<Called> {
    let word = u32::from_le_bytes([code[2], code[3], code[4], code[5]]);
    // bl imm26, in words, from where it stands
    if word >> 26 == 0b10_0101 {
        let distance = i64::from((word << 6) as i32 >> 6) * 4 - 4;
        return end.checked_add_signed(distance).map(Called::Here);
    }
    // blr Xn
    (word & 0xffff_fc1f == 0xd63f_0000).then_some(Called::Anywhere)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn called_by(_code: &[u8; 6], _end: u64) -> Option<Called> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_hides_its_caller() {
        for path in ["/usr/lib/libc.so.6", "/lib/libc-2.31.so", "/lib/ld-musl-x86_64.so.1"] {
            assert!(hides(path), "{path}");
        }
        for path in ["/usr/lib/libcurl.so.4", "/usr/bin/app", "/usr/lib/libcrypto.so.3"] {
            assert!(!hides(path), "{path}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_call_tells_whom_it_calls() {
        for (code, want) in [
            ([0x90, 0xe8, 0xe2, 0xff, 0xff, 0xff], Some(Called::Here(0x1149))),
            ([0x90, 0xe8, 0x10, 0, 0, 0], Some(Called::Here(0x1177))),
            ([0xff, 0x15, 1, 2, 3, 4], Some(Called::Elsewhere)),
            ([0x90, 0x90, 0x90, 0x90, 0xff, 0xd0], Some(Called::Anywhere)),
            ([0x90, 0x90, 0x90, 0xff, 0x50, 0x18], Some(Called::Anywhere)),
            ([0x90; 6], None),
            // Further than the file can reach.
            ([0x90, 0xe8, 0, 0, 0, 0x80], None),
        ] {
            assert_eq!(called_by(&code, 0x1167), want, "{code:x?}");
        }
    }
}
