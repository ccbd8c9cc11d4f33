//! `cargo xtask verify-ebpf`: is the checked-in BPF object what the sources say?

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::object::{self, Record};
use crate::shell::{self, say};
use crate::toolchain::Toolchain;
use crate::workspace;

/// Rebuilds the object and compares. Other versions of the compiler or the linker
/// give other bytes; then the rebuilt object is loaded into the kernel instead.
///
/// # Errors
/// When the inputs are not those of the record, when the bytes differ, or when the
/// rebuilt object does not load. Each says what to do.
pub fn run() -> Result<()> {
    let recorded = Record::read(&workspace::prebuilt_record())?;
    let path = workspace::prebuilt_object();
    let checked_in = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;

    // Cheap and without a toolchain, so first.
    let inputs = object::inputs_digest()?;
    if inputs != recorded.inputs {
        bail!(
            "the BPF sources changed after the object was built (digest {inputs}, recorded {}): \
             run `cargo xtask build-ebpf` and commit monitor-ebpf/prebuilt/",
            recorded.inputs
        );
    }
    let toolchain = Toolchain::find(Some(&recorded.compiler))?;
    let on_disk = Record::of(&checked_in, &toolchain)?;
    if on_disk.object != recorded.object {
        bail!(
            "{} is not the object that its record names: run `cargo xtask build-ebpf`",
            path.display()
        );
    }

    let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
    let rebuilt = temporary.path().join("leakwatch.bpf.o");
    let built = object::build(&toolchain)?;
    fs::copy(&built, &rebuilt).with_context(|| format!("cannot copy {}", built.display()))?;
    let bytes = fs::read(&rebuilt).with_context(|| format!("cannot read {}", rebuilt.display()))?;

    if toolchain.version == recorded.compiler && toolchain.linker == recorded.linker {
        if bytes != checked_in {
            bail!(
                "the rebuilt object differs from the checked-in one ({} bytes, {} checked in): \
                 run `cargo xtask build-ebpf` and commit monitor-ebpf/prebuilt/",
                bytes.len(),
                checked_in.len()
            );
        }
        say(&format!("rebuilt: the same {} bytes", bytes.len()));
        return Ok(());
    }
    say(&format!(
        "bytes cannot be compared: the object was built with {} and {}, here are {} and {}; \
         loading the rebuilt object instead",
        recorded.compiler, recorded.linker, toolchain.version, toolchain.linker
    ));
    load(&rebuilt)
}

/// Has the agent load `object` and say what works.
fn load(object: &Path) -> Result<()> {
    shell::run(&mut shell::cargo(["build", "--locked", "--package", "leakwatch"]))?;
    let mut doctor = shell::command(workspace::debug_agent());
    doctor.args(["doctor", "--json"]).env("LEAKWATCH_BPF_OBJECT", object);
    let report = shell::capture(&mut doctor).context("the rebuilt object does not load")?;
    say(&report);
    say("rebuilt: another object, and it loads");
    Ok(())
}
