//! The `leakwatch` binary: hands the command line to [`leakwatch::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    leakwatch::cli::main()
}
