//! The BPF programs of leakwatch.
//!
//! Probes and a census, in `probe/`. They count and remember; they judge
//! nothing. What they share with the agent is in `leakwatch-common`, what they
//! share with each other in [`maps`], and how they read the kernel in [`kernel`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(clippy::needless_pass_by_value, reason = "the probe macros pass contexts so")]

mod births;
mod copies;
mod filekind;
mod kernel;
mod maps;
mod near;
mod probe {
    mod asynctask;
    mod census;
    mod owner;
    mod passed;
    mod processes;
    mod syscall;
    mod table;
    mod task;
}
mod table;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only (`kernel/bpf/verifier.c:
/// gpl_only`); the programs are offered under either licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
