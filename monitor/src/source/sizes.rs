//! Sizes of the BPF maps that a test may make too small on purpose.
//!
//! Every map has a bound, and what happens at the bound must be seen to be right:
//! counts exact, losses counted. With the real sizes that would take a host of a
//! hundred thousand descriptors.

/// `LEAKWATCH_MAP_ENTRIES="NEAR=1,BIRTHS=64,STACKS=16,TASKS=4096,PROCESSES=64"`: entries
/// of these maps, and bytes of the rings `TASKS` and `COPIES`. For tests, hence no setting.
pub const VARIABLE: &str = "LEAKWATCH_MAP_ENTRIES";

/// The maps that hit their bound by what the host does.
const MAPS: [&str; 7] = ["BIRTHS", "COPIES", "NEAR", "PROCESSES", "STACKS", "TASKS", "TOKIO_TASKS"];

/// Largest size: the real ones are below.
const MOST: u32 = 1 << 24;

/// Map and size.
pub type Sizes = Vec<(&'static str, u32)>;

/// The variable is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE}: {what}; write it as BIRTHS=64,STACKS=16 with any of {}, each a number from 1 \
     to {MOST}, or unset it",
    MAPS.join(", ")
)]
pub struct SizeError {
    what: String,
}

/// What the environment says; nothing in most lives.
///
/// # Errors
/// It says something else than sizes.
pub fn of_environment() -> Result<Sizes, SizeError> {
    match std::env::var_os(VARIABLE) {
        None => Ok(Sizes::new()),
        Some(text) => parse(&text.to_string_lossy()),
    }
}

fn parse(text: &str) -> Result<Sizes, SizeError> {
    let mut sizes = Sizes::new();
    for item in text.split(',').map(str::trim) {
        let wrong = |why: &str| {
            let item = crate::text::printable(item.as_bytes());
            SizeError { what: format!("`{item}` {why}") }
        };
        let (name, size) = item.split_once('=').ok_or_else(|| wrong("is not NAME=SIZE"))?;
        let name = MAPS.into_iter().find(|map| *map == name);
        let name = name.ok_or_else(|| wrong("names no map whose size can be set"))?;
        let size = size.parse().ok().filter(|size| (1..=MOST).contains(size));
        let size = size.ok_or_else(|| wrong("has no usable size"))?;
        if sizes.iter().any(|(known, _)| *known == name) {
            return Err(wrong("is given twice"));
        }
        sizes.push((name, size));
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(parse("BIRTHS=64, TASKS=4096"), Ok(vec![("BIRTHS", 64), ("TASKS", 4096)]));
        for (text, why) in [
            ("", "`` is not NAME=SIZE"),
            ("BIRTHS", "`BIRTHS` is not NAME=SIZE"),
            ("births=64", "`births=64` names no map"),
            ("ROLES=1", "`ROLES=1` names no map"),
            ("BIRTHS=0", "`BIRTHS=0` has no usable size"),
            ("BIRTHS=-1", "`BIRTHS=-1` has no usable size"),
            ("BIRTHS=99999999", "`BIRTHS=99999999` has no usable size"),
            ("TASKS=1,TASKS=1", "`TASKS=1` is given twice"),
            ("\x1b=1", "`\\u{1b}=1` names no map"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.starts_with(VARIABLE) && said.contains(why), "{text:?}: {said}");
            assert!(said.contains("write it as BIRTHS=64"), "{said}");
        }
    }
}
