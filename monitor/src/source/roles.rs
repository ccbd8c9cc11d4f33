//! The role table: what each system call of this architecture does to
//! descriptors. The programs hold no system-call number.

use leakwatch_common::{KernelKind as K, MAX_SYSCALLS, Role};

const fn role(what: u8, kind: K, arg: u8) -> Role {
    Role { what, kind: kind as u8, arg }
}

/// `(system-call number, role)` for the architecture this was built for.
///
/// For [`Role::RETURNS_FD`] of kind `Other`, `arg` 0 says that argument 0 is a
/// descriptor whose kind the new one shares (dup); 1 that it is not.
fn table() -> Vec<(u32, Role)> {
    use Role as R;
    let opens = |k: K| role(R::RETURNS_FD, k, 1);
    let everywhere: Vec<(libc::c_long, Role)> = vec![
        (libc::SYS_openat, opens(K::File)),
        (libc::SYS_openat2, opens(K::File)),
        (libc::SYS_open_by_handle_at, opens(K::File)),
        (libc::SYS_open_tree, opens(K::File)),
        (libc::SYS_memfd_secret, opens(K::Memfd)),
        (libc::SYS_memfd_create, opens(K::Memfd)),
        (libc::SYS_socket, opens(K::Socket)),
        (libc::SYS_accept, opens(K::Socket)),
        (libc::SYS_accept4, opens(K::Socket)),
        (libc::SYS_socketpair, role(R::WRITES_PAIR, K::Socket, 3)),
        (libc::SYS_pipe2, role(R::WRITES_PAIR, K::Pipe, 0)),
        (libc::SYS_dup, role(R::RETURNS_FD, K::Other, 0)),
        (libc::SYS_dup3, role(R::DUP_ONTO, K::Other, 0)),
        (libc::SYS_fcntl, role(R::FCNTL, K::Other, 0)),
        (libc::SYS_epoll_create1, opens(K::Epoll)),
        (libc::SYS_eventfd2, opens(K::Eventfd)),
        (libc::SYS_timerfd_create, opens(K::Timerfd)),
        (libc::SYS_signalfd4, role(R::RETURNS_FD_IF_NEW, K::Signalfd, 0)),
        (libc::SYS_inotify_init1, opens(K::Inotify)),
        (libc::SYS_fanotify_init, opens(K::Inotify)),
        (libc::SYS_perf_event_open, opens(K::Perf)),
        (libc::SYS_bpf, role(R::BPF, K::Bpf, 0)),
        (libc::SYS_io_uring_setup, opens(K::IoUring)),
        (libc::SYS_userfaultfd, opens(K::Other)),
        (libc::SYS_pidfd_open, opens(K::Pidfd)),
        (libc::SYS_pidfd_getfd, opens(K::Other)),
        (libc::SYS_mq_open, opens(K::Other)),
        (libc::SYS_fsopen, opens(K::Other)),
        (libc::SYS_fspick, opens(K::Other)),
        (libc::SYS_fsmount, opens(K::Other)),
        (libc::SYS_landlock_create_ruleset, opens(K::Other)),
        (libc::SYS_recvmsg, role(R::RECEIVES, K::Other, 0)),
        (libc::SYS_clone, role(R::CLONE, K::Pidfd, 0)),
        (libc::SYS_clone3, role(R::CLONE, K::Pidfd, 1)),
        (libc::SYS_close, role(R::CLOSE, K::Other, 0)),
        (libc::SYS_close_range, role(R::CLOSE_RANGE, K::Other, 0)),
    ];
    // The older calls, which newer architectures never had.
    #[cfg(target_arch = "x86_64")]
    let older = vec![
        (libc::SYS_open, opens(K::File)),
        (libc::SYS_creat, opens(K::File)),
        (libc::SYS_pipe, role(R::WRITES_PAIR, K::Pipe, 0)),
        (libc::SYS_dup2, role(R::DUP_ONTO, K::Other, 0)),
        (libc::SYS_epoll_create, opens(K::Epoll)),
        (libc::SYS_eventfd, opens(K::Eventfd)),
        (libc::SYS_signalfd, role(R::RETURNS_FD_IF_NEW, K::Signalfd, 0)),
        (libc::SYS_inotify_init, opens(K::Inotify)),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let older = Vec::new();
    everywhere.into_iter().chain(older).map(|(n, r)| (n as u32, r)).collect()
}

/// The role of every system-call number, as the programs look it up.
pub fn by_number() -> Vec<u32> {
    let mut roles = vec![0; MAX_SYSCALLS as usize];
    for (number, role) in table() {
        if let Some(place) = roles.get_mut(number as usize) {
            *place = role.pack();
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_have_a_place() {
        let mut numbers: Vec<u32> = table().iter().map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[0] != w[1]));
        assert!(numbers.iter().all(|n| *n < MAX_SYSCALLS));
        let roles = by_number();
        assert_eq!(roles.len(), MAX_SYSCALLS as usize);
        assert_eq!(roles.iter().filter(|r| **r != 0).count(), numbers.len());
        assert!(table().iter().all(|(n, r)| Role::unpack(roles[*n as usize]) == *r));
    }
}
