//! Where the code of a function calls or jumps to.

use object::Architecture;

/// Addresses that the code at `start` may call; `slot` gives what the linker has put into a
/// word of its tables. What is no call can look like one: of use are only those where a
/// function begins.
pub fn targets(
    architecture: Architecture,
    code: &[u8],
    start: u64,
    slot: impl Fn(u64) -> Option<u64>,
) -> Vec<u64> {
    match architecture {
        // E8 and E9 with a distance from the next instruction: CALL and JMP. FF 15 and FF 25:
        // the same through a word that lies so far.
        Architecture::X86_64 => (0..code.len().saturating_sub(4))
            .filter_map(|at| {
                let (length, through) = match (code[at], code[at + 1]) {
                    (0xe8 | 0xe9, _) => (1, false),
                    (0xff, 0x15 | 0x25) => (2, true),
                    _ => return None,
                };
                let from = at + length;
                let distance = code.get(from..from + 4)?.try_into().ok()?;
                let next = start.checked_add(from as u64 + 4)?;
                let to = next.checked_add_signed(i32::from_le_bytes(distance).into())?;
                if through { slot(to) } else { Some(to) }
            })
            .collect(),
        // B and BL: 26 bits that count instructions, from this one.
        Architecture::Aarch64 => code
            .chunks_exact(4)
            .enumerate()
            .filter_map(|(i, word)| {
                let word = u32::from_le_bytes(word.try_into().ok()?);
                let distance = i64::from((word << 6) as i32 >> 6) * 4;
                let is = word & 0x7c00_0000 == 0x1400_0000;
                is.then(|| start.checked_add(i as u64 * 4)?.checked_add_signed(distance)).flatten()
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_jumps_are_found() {
        let none = |_| None;
        let code = [0x90, 0xe8, 0x10, 0, 0, 0, 0xe9, 0xf5, 0xff, 0xff, 0xff, 0xe8, 1];
        assert_eq!(targets(Architecture::X86_64, &code, 0x1000, none), [0x1016, 0x1000]);
        assert_eq!(targets(Architecture::X86_64, &[0xe8], 0, none), [] as [u64; 0]);
        let code = [0xff, 0x15, 0, 1, 0, 0, 0xff, 0x25, 2, 1, 0, 0];
        let slot = |at| (at == 0x1106).then_some(0x77);
        assert_eq!(targets(Architecture::X86_64, &code, 0x1000, slot), [0x77]);
        let mut code = Vec::new();
        for word in [0x9400_0004_u32, 0x17ff_ffff, 0xd503_201f] {
            code.extend(word.to_le_bytes());
        }
        assert_eq!(targets(Architecture::Aarch64, &code, 0x1000, none), [0x1010, 0x1000]);
        assert_eq!(targets(Architecture::Riscv64, &code, 0x1000, none), [] as [u64; 0]);
    }
}
