//! The sentences on a stack that does not tell all, and what would help.

use super::pin::Pinned;
use super::skipped;
use super::trail::End;
use crate::source::frame::Frame;

/// Of a hidden frame only the function is known.
pub fn hides_the_line(frame: &Frame, inner: &[Frame]) -> String {
    let called = inner.last().map_or("a function", |f| f.function.as_str());
    format!(
        "of {} the first line is given, not the one that calls {called}: the C library keeps no \
         frame pointer",
        frame.function
    )
}

/// Why no frame is the program's own.
pub fn why_none(frames: &[Frame], pinned: &Pinned) -> String {
    let last = frames.iter().rev().find_map(|f| f.module.as_deref());
    let last = last.map_or("code of no file", |m| m.rsplit('/').next().unwrap_or(m));
    if let Some(end) = &pinned.unwound {
        return why_none_unwound(last, end, pinned);
    }
    let Some(language) = &pinned.language else {
        return format!(
            "the stack ends in {last}, before the program's own frames: what is built without \
             frame pointers hides its callers. Build the program and its libraries with \
             `-fno-omit-frame-pointer` (Rust: `-C force-frame-pointers=yes`); the C library has \
             them in {WITH_POINTERS}"
        );
    };
    if pinned.publishes() {
        return format!(
            "the program publishes its own functions, but the stack ends in {last} before them: \
             {} and the C library must be built with frame pointers, as in {WITH_POINTERS}",
            language.name()
        );
    }
    let ends_there = frames.last().and_then(|f| f.module.as_deref()).is_some_and(skipped::hides);
    let also = format!(
        "; and this stack ends in the C library: that and {} must be built with frame pointers, \
         as in {WITH_POINTERS}",
        language.name()
    );
    language.how_to_see() + if ends_there { &also } else { "" }
}

/// The same where call frame information was followed.
fn why_none_unwound(last: &str, end: &End, pinned: &Pinned) -> String {
    let ended = match end {
        End::Lost(why) => format!("; it ends in {last}: {why}"),
        End::Full => format!("; more than {} frames are not followed", pinned.places.len()),
        End::Left | End::Bottom => String::new(),
    };
    match &pinned.language {
        Some(language) if !pinned.publishes() => language.how_to_see() + &ended,
        Some(language) => format!(
            "the program publishes its own functions, and none of them is on the stack: what was \
             there is of {} alone{ended}",
            language.name()
        ),
        None => format!("no function of the program itself is on the stack{ended}"),
    }
}

/// Distributions that build their packages so.
const WITH_POINTERS: &str = "Fedora 38, Ubuntu 24.04 and later ones";
