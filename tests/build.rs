//! Builds the fixture of the suite `openers`: its frames must be found by the frame
//! pointers, which cargo cannot ask of one package alone.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "fixtures/opener.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("opener");
    if variable("TARGET") != variable("HOST") {
        // Another machine's suites do not start it, and its library is built by cargo.
        fs::write(&out, "").unwrap_or_else(|e| panic!("cannot write {}: {e}", out.display()));
        return;
    }
    let built = Command::new(variable("RUSTC"))
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .args(["--edition", "2024", "--crate-name", "opener_fixture", "--target"])
        .arg(variable("TARGET"))
        .args(["-g", "-C", "force-frame-pointers=yes", "-C", "opt-level=0"])
        .args(["-C", "link-arg=-Wl,--build-id=sha1", "-o"])
        .arg(&out)
        .arg(SOURCE)
        .status()
        .unwrap_or_else(|e| panic!("cannot start rustc: {e}"));
    assert!(built.success(), "rustc could not build {SOURCE}");
}
