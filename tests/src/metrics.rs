//! The text format of Prometheus, read as strictly as Prometheus reads it.

use std::collections::BTreeMap;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric name.
    pub name: String,
    /// Labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape(pub Vec<Sample>);

impl Scrape {
    /// Reads a whole page.
    ///
    /// # Panics
    /// A line is malformed.
    #[track_caller]
    pub fn read(page: &str) -> Self {
        let lines = page.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        Self(lines.map(|l| sample(l).unwrap_or_else(|| panic!("malformed: {l:?}"))).collect())
    }

    /// Samples of `name` that have all of `labels`.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let has = |s: &Sample| labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|x| x == v));
        self.0.iter().filter(move |s| s.name == name && has(s))
    }

    /// The value of the one such sample; `None` where there is none.
    ///
    /// # Panics
    /// There are several.
    #[track_caller]
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values: Vec<f64> = self.all(name, labels).map(|s| s.value).collect();
        assert!(values.len() < 2, "{name}{labels:?} has {} samples", values.len());
        values.first().copied()
    }

    /// The sum of such samples; `None` where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.all(name, labels).map(|s| s.value).reduce(|a, b| a + b)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = match rest.trim() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        v => v.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unescaped() {
        let scrape = Scrape::read("# HELP a b\na{u=\"x\\\"\\\\\\n}\",k=\"v\"} 3\nb 1e3\nc +Inf\n");
        assert_eq!(scrape.one("a", &[("u", "x\"\\\n}")]), Some(3.0));
        assert_eq!(scrape.one("b", &[]), Some(1000.0));
        assert_eq!(scrape.one("a", &[("k", "w")]), None);
        assert!(sample("a{u=\"\\x\"} 1").is_none());
    }
}
