//! One table of the document: finds its keys and reads them by type.
//!
//! A reader reports what is wrong and gives `None`, so that the caller goes on
//! and finds the other mistakes too.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Spec, TABLES};
use super::nearest::{list, nearest, suggest};
use super::problem::Sink;
use super::values::{self, Limits};
use crate::glob::Subject;
use crate::text::printable;

/// A table of the document, with its unknown keys already reported.
pub(super) struct Table<'a> {
    sink: &'a Sink<'a>,
    spec: &'static Spec,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

/// A string of the document and where it stands.
pub(super) struct Text<'a> {
    pub(super) value: &'a str,
    pub(super) span: Range<usize>,
}

impl<'a> Table<'a> {
    /// `span` is that of the header: where to point for what is missing.
    pub(super) fn open(
        sink: &'a Sink<'a>,
        spec: &'static Spec,
        span: Range<usize>,
        entries: &'a DeTable<'a>,
    ) -> Self {
        let table = Self { sink, spec, span, entries };
        for key in entries.keys() {
            if !spec.keys.contains(&key.get_ref().as_ref()) {
                table.report_unknown(key);
            }
        }
        table
    }

    fn report_unknown(&self, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let given = key.get_ref().as_ref();
        let elsewhere: Vec<String> = TABLES
            .iter()
            .filter(|other| other.keys.contains(&given))
            .map(|other| other.header())
            .collect();
        let elsewhere: Vec<&str> = elsewhere.iter().map(String::as_str).collect();
        let header = self.spec.header();
        let right =
            if nearest(given, self.spec.keys.iter().copied()).is_none() && !elsewhere.is_empty() {
                format!("it belongs in {}", list(&elsewhere))
            } else {
                suggest(given, "its keys are", self.spec.keys)
            };
        let shown = printable(given.as_bytes());
        let message = format!("unknown key `{shown}` in `{header}`; {right}");
        self.sink.report(key.span(), format!("{}.{shown}", self.spec.name), message);
    }

    /// Reports a problem with a key at a place.
    pub(super) fn report_at(&self, span: Range<usize>, key: &str, message: String) {
        self.sink.report(span, format!("{}.{key}", self.spec.name), message);
    }

    /// Reports a problem with the table as a whole.
    pub(super) fn report(&self, key: &str, message: String) {
        self.report_at(self.span.clone(), key, message);
    }

    /// The line on which a byte of the text stands.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.sink.line(offset)
    }

    /// The value of a key, with its place.
    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.get(key)
    }

    /// Whether the key is given, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, right: &str) {
        let message = format!("`{key}` is {}; {right}", values::type_name(value.get_ref()));
        self.report_at(value.span(), key, message);
    }

    /// A string that is not empty; `example` shows one.
    pub(super) fn text(&self, key: &str, example: &str) -> Option<Text<'a>> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, &format!("use a string, such as \"{example}\""));
            return None;
        };
        if text.is_empty() {
            let message = format!("`{key}` is empty; write such as \"{example}\"");
            self.report_at(value.span(), key, message);
            return None;
        }
        Some(Text { value: text, span: value.span() })
    }

    /// A duration within limits.
    pub(super) fn duration(&self, key: &str, limits: &Limits) -> Option<Duration> {
        const RIGHT: &str = "use a number with a unit, such as \"5s\"";
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, RIGHT);
            return None;
        };
        let shown = printable(text.as_bytes());
        let Ok(duration) = humantime::parse_duration(text) else {
            let message = format!("`{key}` is \"{shown}\", which is no duration; {RIGHT}");
            self.report_at(value.span(), key, message);
            return None;
        };
        if !(limits.min..=limits.max).contains(&duration) {
            let message = format!("`{key}` is \"{shown}\"; it must be {}", limits.words);
            self.report_at(value.span(), key, message);
            return None;
        }
        Some(duration)
    }

    /// A whole number from `min` to `max`.
    pub(super) fn integer(&self, key: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.get(key)?;
        let words = if max == i64::MAX {
            format!("a whole number, {min} or more")
        } else {
            format!("a whole number from {min} to {max}")
        };
        let DeValue::Integer(given) = value.get_ref() else {
            self.wrong_type(key, value, &format!("use {words}"));
            return None;
        };
        let number = i64::from_str_radix(given.as_str(), given.radix()).ok();
        if let Some(number) = number.filter(|n| (min..=max).contains(n)) {
            return Some(number);
        }
        self.report_at(value.span(), key, format!("`{key}` is {given}; it must be {words}"));
        None
    }

    /// A share: above 0, at most 1.
    pub(super) fn share(&self, key: &str) -> Option<f64> {
        self.part(key, "above 0 and at most 1", |share| share > 0.0 && share <= 1.0)
    }

    /// A share that may be none: from 0 to 1.
    pub(super) fn share_or_none(&self, key: &str) -> Option<f64> {
        self.part(key, "from 0 to 1", |share| (0.0..=1.0).contains(&share))
    }

    fn part(&self, key: &str, words: &str, fits: fn(f64) -> bool) -> Option<f64> {
        let value = self.get(key)?;
        let given = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => {
                self.wrong_type(key, value, &format!("use a number {words}, such as 0.01"));
                return None;
            }
        };
        if let Some(share) = given.parse().ok().filter(|share| fits(*share)) {
            return Some(share);
        }
        let message = format!("`{key}` is {given}; it must be {words}");
        self.report_at(value.span(), key, message);
        None
    }

    /// One of a set of words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let Some(given) = value.get_ref().as_str() else {
            self.wrong_type(key, value, &format!("use one of {}", list(&words)));
            return None;
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == given) {
            return Some(*choice);
        }
        let shown = printable(given.as_bytes());
        let right = suggest(given, "use one of", &words);
        self.report_at(value.span(), key, format!("`{key}` is \"{shown}\"; {right}"));
        None
    }

    /// A glob.
    pub(super) fn glob(&self, key: &str, subject: Subject, example: &str) -> Option<String> {
        let text = self.text(key, example)?;
        self.checked_glob(key, &text, subject)
    }

    /// A list of globs; empty where the key is left out.
    pub(super) fn globs(&self, key: &str, subject: Subject, example: &str) -> Vec<String> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let right = format!("use a list of strings, such as [\"{example}\"]");
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &right);
            return Vec::new();
        };
        let mut globs = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_str() {
                None => {
                    let what = values::type_name(item.get_ref());
                    let message = format!("`{key}` holds {what}; {right}");
                    self.report_at(item.span(), key, message);
                }
                Some("") => {
                    let message = format!("`{key}` holds an empty string; {right}");
                    self.report_at(item.span(), key, message);
                }
                Some(text) => {
                    let text = Text { value: text, span: item.span() };
                    globs.extend(self.checked_glob(key, &text, subject));
                }
            }
        }
        globs
    }

    fn checked_glob(&self, key: &str, text: &Text<'_>, subject: Subject) -> Option<String> {
        match values::check_glob(text.value, subject) {
            Ok(()) => Some(text.value.to_owned()),
            Err(why) => {
                let shown = printable(text.value.as_bytes());
                let message = format!("`{key}` is \"{shown}\", a bad glob: {why}");
                self.report_at(text.span.clone(), key, message);
                None
            }
        }
    }
}
