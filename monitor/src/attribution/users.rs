//! User names of user ids, for match rules that give a name.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;

use crate::source::model::KernelStr;

/// Names of the user ids that were asked for.
///
/// A `DynamicUser=` exists only while its service runs, so nothing is resolved
/// ahead, and ids that no process has any more are forgotten.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: HashMap<u32, (Option<Vec<u8>>, u64)>,
    turn: u64,
    /// Told, so that the system is not asked: whoever judges a record of another
    /// machine, or of another day, must not.
    told: Option<BTreeMap<u32, KernelStr>>,
}

impl Users {
    /// Names from here on.
    pub(super) fn tell(&mut self, names: BTreeMap<u32, KernelStr>) {
        self.told = Some(names);
    }

    /// The name of `uid`; `None` where it has none.
    pub(super) fn name(&mut self, uid: u32) -> Option<&[u8]> {
        if let Some(told) = &self.told {
            return told.get(&uid).map(KernelStr::as_bytes);
        }
        let turn = self.turn;
        let entry = self.names.entry(uid).or_insert_with(|| (name_of(uid), turn));
        entry.1 = turn;
        entry.0.as_deref()
    }

    /// Ends a census: forgets the ids that were not asked for in it.
    pub(super) fn turn(&mut self) {
        let turn = self.turn;
        self.names.retain(|_, (_, used)| *used == turn);
        self.turn += 1;
    }
}

/// Asks the system's user database (files, LDAP, systemd: whatever is set up) for
/// the name of a user id; `None` where it has none.
pub fn name_of(uid: u32) -> Option<Vec<u8>> {
    let mut buffer = vec![0 as libc::c_char; 1024];
    loop {
        // SAFETY: `passwd` is a C struct of integers and pointers, for which all
        // zeroes is a valid value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to live values of the right type, and the
        // length is that of the buffer.
        let rc = unsafe {
            libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        if rc == libc::ERANGE && buffer.len() < 1 << 20 {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if rc != 0 || found.is_null() || entry.pw_name.is_null() {
            return None;
        }
        // SAFETY: on success `pw_name` is a C string inside `buffer`, which is
        // still alive and unchanged.
        return Some(unsafe { CStr::from_ptr(entry.pw_name) }.to_bytes().to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_root_and_forgets_who_is_not_asked_for() {
        let mut users = Users::default();
        assert_eq!(users.name(0), Some(&b"root"[..]));
        assert_eq!(users.name(4_000_000_123), None);
        users.turn();
        users.name(0);
        users.turn();
        assert_eq!(users.names.len(), 1);
    }

    #[test]
    fn whoever_was_told_asks_nobody() {
        let mut users = Users::default();
        users.tell(BTreeMap::from([(7, "svc".into())]));
        assert_eq!(users.name(7), Some(&b"svc"[..]));
        assert_eq!(users.name(0), None);
    }
}
