//! `cargo xtask build-ebpf`.

use std::fs;

use anyhow::{Context, Result};

use crate::object::{self, Record};
use crate::shell::say;
use crate::toolchain::Toolchain;
use crate::workspace;

/// Builds the BPF object and puts it and its record where the agent embeds it.
pub fn run() -> Result<()> {
    let toolchain = Toolchain::find(None)?;
    say(&format!("compiler: {} ({})", toolchain.version, toolchain.rustc.display()));
    say(&format!("linker:   {}", toolchain.linker));
    let built = object::build(&toolchain)?;
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let record = Record::of(&bytes, &toolchain)?;
    let object = workspace::prebuilt_object();
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(&object, &bytes).with_context(|| format!("cannot write {}", object.display()))?;
    record.write(&workspace::prebuilt_record())?;
    say(&format!("{} bytes, sha256 {}", bytes.len(), record.object));
    say(&format!("written to {}", object.display()));
    Ok(())
}
