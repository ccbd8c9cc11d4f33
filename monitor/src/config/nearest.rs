//! The right word nearest to a wrong one.

/// The most similar of `words`, if any is similar enough to be what was meant.
pub(super) fn nearest<'w>(
    given: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    // Half of the letters: `interval` finds `census_interval`, noise finds nothing.
    const ENOUGH: f64 = 0.5;
    // The measure is quadratic, and no word of ours is as long as this.
    if given.len() > 100 {
        return None;
    }
    let given = given.to_lowercase();
    words
        .into_iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(&given, &word.to_lowercase()), word))
        .filter(|(score, _)| *score >= ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// "did you mean `x`?", or else all the words there are.
pub(super) fn suggest(given: &str, what: &str, words: &[&str]) -> String {
    match nearest(given, words.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("{what} {}", list(words)),
    }
}

/// "`a`, `b` and `c`".
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}
