//! Builds, runs and tests leakwatch: `cargo xtask COMMAND`.

mod bench;
mod build;
mod build_ebpf;
mod corpus;
mod cross;
mod fuzz;
mod lint;
mod object;
mod python;
mod run;
mod setup;
mod shell;
mod soak;
mod test;
mod toolchain;
mod verify_ebpf;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs and tests leakwatch.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the agent in release mode, with the checked-in BPF object
    Build,
    /// Build the agent and start `leakwatch watch`; arguments after `--` go to it
    Run {
        /// Arguments of `leakwatch watch`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Everything that must hold: setup, lint, verify-ebpf, unit tests, suites, aarch64, kernels
    Test,
    /// Formatting, clippy on both targets, dependencies, MSRV, tidiness, docs, rules
    Lint,
    /// Measure the cost of the agent and write docs/overhead.md
    Bench(bench::Options),
    /// Judge the labelled corpus and write its tables into docs/detection.md
    Corpus(corpus::Options),
    /// Wear an agent out for a while and judge what has become of it; as root
    Soak(soak::Options),
    /// Fuzz what parses outside bytes; installs cargo-fuzz where it is missing
    Fuzz(fuzz::Options),
    /// Install what the tests need: Debian packages, a newer Python below target/, bpf-linker,
    /// cargo-deny
    Setup,
    /// Build the BPF object and check it in under monitor-ebpf/prebuilt/
    BuildEbpf,
    /// Rebuild the BPF object and compare it with the checked-in one
    VerifyEbpf,
    /// Run the kernel suite inside real kernels, in VMs under software emulation
    Vm(vm::Options),
    /// The init of such a VM
    #[command(hide = true)]
    VmGuest(vm::GuestOptions),
    /// One workload of the bench, in a process of its own
    #[command(hide = true)]
    Load(bench::load::Options),
    /// A process of the bench that holds descriptors until its stdin closes
    #[command(hide = true)]
    Hold(bench::hold::Options),
    /// Processes of the bench that do so together
    #[command(hide = true)]
    Crowd(bench::crowd::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build => build::run(),
        Command::Run { args } => run::run(&args),
        Command::Corpus(options) => corpus::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Test => test::run(),
        Command::Lint => lint::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Setup => setup::run(),
        Command::BuildEbpf => build_ebpf::run(),
        Command::VerifyEbpf => verify_ebpf::run(),
        Command::Vm(options) => vm::run(&options),
        Command::VmGuest(options) => vm::guest(&options),
        Command::Load(options) => bench::load::run(&options),
        Command::Hold(options) => bench::hold::run(&options),
        Command::Crowd(options) => bench::crowd::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
