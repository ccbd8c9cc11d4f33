//! The kernel's type information: megabytes of it, of kernels that are to come.

use crate::source::btf::Btf;
use crate::source::offsets;

/// `data` as `/sys/kernel/btf/vmlinux`.
pub fn btf(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec(), "the fuzzer's") else { return };
    let _ = offsets::resolve(&btf);
    for (of, member) in [("a", "x"), ("a", "y.z"), ("a", "z"), ("task_struct", "tgid"), ("a", "")] {
        let offset = btf.offset(of, member).ok();
        assert_eq!(offset, btf.offset(of, member).ok(), "{of}.{member} is not what it was");
        if offset.is_some() {
            let mut names = member.split('.').chain([of]);
            assert!(names.all(|name| has(data, name)), "{of}.{member} is not in it");
        }
    }
}

/// The name stands in the string section, or at least somewhere.
fn has(data: &[u8], name: &str) -> bool {
    let name = [name.as_bytes(), b"\0"].concat();
    data.windows(name.len()).any(|w| w == name)
}
