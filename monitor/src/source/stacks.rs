//! Stacks as the kernel keeps them: return addresses by number.

use super::bpf::Bpf;

/// The addresses of one, innermost first; `None` where there is no such stack.
pub fn read(bpf: &Bpf, id: u32) -> Option<Vec<u64>> {
    let trace = bpf.stacks.get(&id, 0).ok()?;
    Some(trace.frames().iter().map(|f| f.ip).take_while(|ip| is_user_code(*ip)).collect())
}

/// Code built without frame pointers makes the kernel follow whatever lies on
/// the stack: the first address that can be none (below the guard pages, or
/// past user space, `arch/x86/include/asm/page_64_types.h`) ends the trace.
fn is_user_code(ip: u64) -> bool {
    (0x1_0000..0x7fff_ffff_f000).contains(&ip)
}
