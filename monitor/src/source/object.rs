//! The object with the BPF programs: read, and handed to the kernel with its maps.

use std::borrow::Cow;
use std::io;

use aya::programs::Program;
use aya::{Btf, Ebpf, EbpfLoader};
use leakwatch_common::Offsets;

use super::btf::BtfError;
use super::costs::Runs;
use super::sizes::Sizes;
use super::{btf, offsets, roles};

/// Replaces the embedded object, for a rebuilt one under test.
pub const OBJECT_VARIABLE: &str = "LEAKWATCH_BPF_OBJECT";

static PREBUILT: &[u8] =
    aya::include_bytes_aligned!("../../../monitor-ebpf/prebuilt/leakwatch.bpf.o");

/// An atomic addition of a program is also a barrier, so that programs may dispute over the
/// places of `NEAR`. Else all births are in `BIRTHS`.
const ADDITION_ORDERS: bool = cfg!(target_arch = "x86_64");

/// What went wrong before any program could be tried.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// No type information, or an unknown kernel.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya's own reading of the type information.
    #[error("kernel type information: {0}")]
    AyaBtf(#[from] aya::BtfError),
    /// The object was refused: usually the maps, for want of privilege.
    #[error("loading the BPF object")]
    Load(#[from] aya::EbpfError),
    /// `LEAKWATCH_BPF_OBJECT` cannot be read.
    #[error("reading the BPF object {path}")]
    Object {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The object is not the one this agent was built with.
    #[error("the BPF object has no {0}: it is not of this version of leakwatch")]
    Missing(&'static str),
    /// A map could not be used.
    #[error("a BPF map")]
    Map(#[from] aya::maps::MapError),
}

/// The object once more, with maps of its own.
///
/// # Errors
/// See [`BpfError`].
pub(super) fn loaded_object(sizes: &Sizes) -> Result<Ebpf, BpfError> {
    let offsets = offsets::resolve(&btf::Btf::of_running_kernel()?)?;
    load_with(&Btf::from_sys_fs()?, &offsets, sizes)
}

/// The object, for this kernel and with maps of these sizes.
///
/// # Errors
/// See [`BpfError`].
pub(super) fn load_with(btf: &Btf, offsets: &Offsets, sizes: &Sizes) -> Result<Ebpf, BpfError> {
    load_walking(btf, offsets, sizes, u32::MAX)
}

/// As [`load_with`], and follows a `close_range`, and descriptors that come by one message,
/// over so many numbers at most.
///
/// # Errors
/// See [`BpfError`].
pub(super) fn load_walking(
    btf: &Btf,
    offsets: &Offsets,
    sizes: &Sizes,
    walk: u32,
) -> Result<Ebpf, BpfError> {
    let object = match std::env::var(OBJECT_VARIABLE) {
        Ok(path) => {
            Cow::Owned(std::fs::read(&path).map_err(|source| BpfError::Object { path, source })?)
        }
        Err(_) => Cow::Borrowed(PREBUILT),
    };
    let roles = roles::by_number();
    let mut loader = EbpfLoader::new();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    if !ADDITION_ORDERS {
        loader.map_max_entries("NEAR", 1);
    }
    Ok(loader
        .btf(Some(btf))
        .override_global("OFFSETS", offsets, true)
        .override_global("ROLES", roles.as_slice(), true)
        .override_global("WALK", &walk, true)
        .override_global("ADDITION_ORDERS", &u32::from(ADDITION_ORDERS), true)
        .load(&object)?)
}

/// What the kernel says of each program that is loaded.
pub(super) fn statistics(ebpf: &Ebpf) -> Vec<(String, Runs)> {
    ebpf.programs()
        .filter_map(|(name, p)| {
            let info = p.info().ok()?;
            let runs = Runs { time: info.run_time(), runs: info.run_count() };
            Some((name.to_string(), runs))
        })
        .collect()
}

/// A program by its name.
///
/// # Errors
/// The object has none of this name and kind.
pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, BpfError>
where
    &'a mut T: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name).and_then(|p| p.try_into().ok()).ok_or(BpfError::Missing(name))
}
