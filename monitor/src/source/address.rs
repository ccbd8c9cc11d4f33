//! Maps by kernel address, which the census asks once per descriptor.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from the address of a `struct file`.
pub type AddressMap<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

/// Spreads kernel addresses: they are multiples of the size of `struct file` and
/// nobody can choose them, so one multiplication does what SipHash would.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        let product = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
