//! Builds the fixtures of the suite `openers`: one whose frames must be found by the frame
//! pointers, which cargo cannot ask of one package alone, and one without any.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "fixtures/opener.rs";
const C_SOURCE: &str = "fixtures/forgets.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed={C_SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let out = |name| PathBuf::from(variable("OUT_DIR")).join(name);
    if variable("TARGET") != variable("HOST") {
        // Another machine's suites do not start them, and its library is built by cargo.
        for out in ["opener", "forgets", "forgets-plain"].map(out) {
            fs::write(&out, "").unwrap_or_else(|e| panic!("cannot write {}: {e}", out.display()));
        }
        return;
    }
    for (name, debug) in [("forgets", "-g"), ("forgets-plain", "-g0")] {
        // As distributions build. The linker of every Rust build is this compiler.
        let built = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
            .current_dir(variable("CARGO_MANIFEST_DIR"))
            .args(["-O2", "-fomit-frame-pointer", debug, "-Wl,--build-id=sha1", "-o"])
            .arg(out(name))
            .arg(C_SOURCE)
            .status()
            .unwrap_or_else(|e| panic!("cannot start the C compiler cc: {e}"));
        assert!(built.success(), "cc could not build {C_SOURCE}");
    }
    let out = out("opener");
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
