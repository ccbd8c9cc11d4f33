//! The targets without a fuzzer: their seeds, and mutations of them that are the
//! same on every run.

use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, Target};

/// Mutated inputs of each target.
const MUTATIONS: usize = 3000;
/// Seeds are to be small: they are read on every run of the unit tests.
const LONGEST_SEED: usize = 16 * 1024;

fn below(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(dir)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// xorshift64*: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}

/// One to four of: a bit flipped, a byte replaced, bytes cut out, doubled, or
/// taken from another seed.
fn mutate(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    const TELLING: [u8; 12] =
        [0, 0xff, 0x7f, 0x80, b'/', b':', b'%', b'\n', b'"', b'[', b'9', b' '];
    let mut data = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(data.len());
        let end = (at + 1 + numbers.below(16)).min(data.len());
        match numbers.below(5) {
            0 if !data.is_empty() => data[at] ^= 1 << numbers.below(8),
            1 if !data.is_empty() => data[at] = TELLING[numbers.below(TELLING.len())],
            2 if !data.is_empty() => drop(data.drain(at..end)),
            3 if !data.is_empty() => {
                let again = data[at..end].to_vec();
                drop(data.splice(at..at, again));
            }
            _ => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                let to = (from + 1 + numbers.below(32)).min(other.len());
                drop(data.splice(at..at, other[from..to].iter().copied()));
            }
        }
    }
    data
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let targets: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&below("seeds")), targets);
    let programs: Vec<String> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&below("fuzz_targets")), programs);
    let manifest = fs::read_to_string(below("Cargo.toml")).unwrap();
    for name in &targets {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "fuzz/Cargo.toml has no {path}");
        let program = fs::read_to_string(below("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("fuzzing::{name}(data)")), "{program}");
    }
}

#[test]
fn invariants_hold_for_seeds_and_their_mutations() {
    let panicked = std::thread::scope(|scope| {
        let runs: Vec<_> = TARGETS
            .iter()
            .map(|(name, target)| scope.spawn(move || replay(name, *target)))
            .collect();
        runs.into_iter().filter_map(|run| run.join().err()).count()
    });
    assert_eq!(panicked, 0, "the output above has the inputs");
}

fn replay(name: &str, target: Target) {
    let dir = below("seeds").join(name);
    let seeds: Vec<Vec<u8>> =
        names(&dir).iter().map(|seed| fs::read(dir.join(seed)).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seed");
    let mut numbers = Numbers(0x1eaf_0000 + name.len() as u64);
    let mutations = (0..MUTATIONS).map(|_| mutate(&seeds, &mut numbers));
    for data in seeds.iter().cloned().chain([Vec::new()]).chain(mutations) {
        assert!(data.len() <= 2 * LONGEST_SEED, "{name}: {} bytes", data.len());
        let outcome = std::panic::catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "{name} fails for b\"{}\"", data.escape_ascii());
    }
}
