//! What a demangled symbol says of tokio's tasks.
//!
//! Rust has two manglings. With v0 the name of a function tells the types that it was
//! compiled for; with the legacy one it does not, but the name of the code that drops
//! a value tells of what type that is.

/// What a function is to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `OwnedTasks::bind_inner`: puts a new task into its runtime's list.
    Bind,
    /// `Harness::complete`: a task has ended.
    Complete,
    /// `raw::poll`, the first of a task's table of functions.
    Poll,
    /// Another one of that table.
    Table,
}

/// Functions of `raw` that a task's table has, besides `poll` and `schedule`, which
/// knows no type of future.
const TABLE: [&str; 5] =
    ["dealloc", "try_read_output", "drop_join_handle_slow", "drop_abort_handle", "shutdown"];

const RAW: &str = "tokio::runtime::task::raw::";
const CORE: &str = "tokio::runtime::task::core::";

/// Wrappers around the future that was meant.
const WRAPPERS: [&str; 5] = [
    "core::pin::Pin<",
    "alloc::boxed::Box<",
    "tracing::instrument::Instrumented<",
    "tracing::instrument::WithDispatch<",
    "tokio::task::coop::unconstrained::Unconstrained<",
];

/// Whether a symbol can be of interest, before it is demangled.
pub fn may_matter(mangled: &str) -> bool {
    mangled.contains("7runtime4task") || mangled.contains("runtime..task")
}

/// What this function is.
pub fn part(name: &str) -> Option<Part> {
    let generic = name.trim_start_matches('<');
    if let Some(rest) = generic.strip_prefix("tokio::runtime::task::list::OwnedTasks<") {
        return (last_segment(rest) == "bind_inner").then_some(Part::Bind);
    }
    if let Some(rest) = generic.strip_prefix("tokio::runtime::task::harness::Harness<") {
        return (last_segment(rest) == "complete").then_some(Part::Complete);
    }
    let function = name.strip_prefix(RAW)?;
    let function = function.split_once("::<").map_or(function, |(function, _)| function);
    match function {
        "poll" => Some(Part::Poll),
        other => TABLE.contains(&other).then_some(Part::Table),
    }
}

/// The type of future that a function of the table was compiled for, where its name says it.
pub fn of_table(name: &str) -> Option<&str> {
    let (_, generics) = name.strip_prefix(RAW)?.split_once("::<")?;
    first(generics)
}

/// The type of future whose task, or part of it, a function drops.
pub fn of_drop(name: &str) -> Option<&str> {
    let mut rest = name;
    while let Some(at) = rest.find(CORE) {
        rest = &rest[at + CORE.len()..];
        let found = ["Cell<", "CoreStage<", "Stage<", "Core<"]
            .iter()
            .find_map(|part| rest.strip_prefix(part))
            .and_then(first);
        // The legacy mangling writes the names of parameters.
        if let Some(found) = found.filter(|t| t.len() > 1) {
            return Some(found);
        }
    }
    None
}

/// It is work for a thread of its own (`spawn_blocking`), which is no async task.
pub fn is_blocking(future: &str) -> bool {
    future.starts_with("tokio::runtime::blocking::task::BlockingTask<")
}

/// The future itself, without wrappers.
pub fn unwrapped(future: &str) -> &str {
    let mut future = future.trim();
    while let Some(inner) = WRAPPERS.iter().find_map(|w| future.strip_prefix(w)) {
        let Some(inner) = first(inner) else { break };
        if inner.starts_with("dyn ") {
            break;
        }
        future = inner;
    }
    future
}

/// The function whose future it is: `app::Server::beat` of `<app::Server>::beat::{closure#0}`
/// and of `app::Server::beat::{{closure}}`.
pub fn function(future: &str) -> String {
    let mut name = unwrapped(future);
    while let Some((head, last)) = name.rsplit_once("::") {
        if !(last.starts_with('{') && last.ends_with('}')) {
            break;
        }
        name = head;
    }
    // An inherent method: v0 writes its type in brackets.
    if let Some((kind, method)) = name.strip_prefix('<').and_then(split_bracket)
        && !kind.contains(" as ")
    {
        return format!("{kind}{method}");
    }
    name.to_owned()
}

fn last_segment(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// The first of a list of types, which ends with a bracket.
fn first(list: &str) -> Option<&str> {
    let end = end(list, true)?;
    Some(list[..end].trim()).filter(|t| !t.is_empty())
}

/// `A<B>` and `::c` of `A<B>>::c`.
fn split_bracket(text: &str) -> Option<(&str, &str)> {
    let end = end(text, false)?;
    Some((&text[..end], &text[end + 1..]))
}

/// Where the bracket closes that is open at the start; or where a comma comes before.
fn end(text: &str, or_comma: bool) -> Option<usize> {
    let mut depth = 0_u32;
    let mut before = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            b'>' if before == b'-' => {}
            b'>' if depth == 0 => return Some(at),
            b'>' | b')' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 && or_comma => return Some(at),
            _ => {}
        }
        before = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demangled(mangled: &str) -> String {
        format!("{:#}", rustc_demangle::demangle(mangled))
    }

    #[test]
    fn functions_have_parts() {
        for (name, want) in [
            ("tokio::runtime::task::list::OwnedTasks<S>::bind_inner", Some(Part::Bind)),
            (
                "<tokio::runtime::task::list::OwnedTasks<alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle>>>::bind_inner",
                Some(Part::Bind),
            ),
            ("tokio::runtime::task::list::OwnedTasks<S>::bind", None),
            ("tokio::runtime::task::list::LocalOwnedTasks<S>::bind_inner", None),
            ("tokio::runtime::task::harness::Harness<T,S>::complete", Some(Part::Complete)),
            (
                "<tokio::runtime::task::harness::Harness<app::beat::{closure#0}, alloc::sync::Arc<x::Handle>>>::complete",
                Some(Part::Complete),
            ),
            ("tokio::runtime::task::harness::Harness<T,S>::complete::{{closure}}", None),
            ("tokio::runtime::task::raw::poll", Some(Part::Poll)),
            ("tokio::runtime::task::raw::poll::<app::beat::{closure#0}, x::S>", Some(Part::Poll)),
            ("tokio::runtime::task::raw::dealloc", Some(Part::Table)),
            ("tokio::runtime::task::raw::schedule", None),
            ("tokio::runtime::task::raw::RawTask::dealloc", None),
            ("app::tokio::runtime::task::raw::poll", None),
        ] {
            assert_eq!(part(name), want, "{name}");
        }
    }

    #[test]
    fn v0_names_tell_the_future() {
        let name = "tokio::runtime::task::raw::poll::<<exp::heart::Pulse>::send::{closure#0}, alloc::sync::Arc<tokio::runtime::scheduler::current_thread::Handle>>";
        let future = of_table(name).unwrap();
        assert_eq!(future, "<exp::heart::Pulse>::send::{closure#0}");
        assert_eq!(function(future), "exp::heart::Pulse::send");
        assert_eq!(of_table("tokio::runtime::task::raw::poll"), None);
        let callback = "tokio::runtime::task::raw::poll::<app::Map<fn(u8) -> u8, app::A>, x::S>";
        assert_eq!(of_table(callback), Some("app::Map<fn(u8) -> u8, app::A>"));
    }

    #[test]
    fn legacy_names_of_drops_tell_the_future() {
        let of = |inner: &str| of_drop(inner).map(function);
        let drop = "core::ptr::drop_in_place<alloc::boxed::Box<tokio::runtime::task::core::Cell<exp::heart::beat::{{closure}},alloc::sync::Arc<tokio::runtime::scheduler::current_thread::Handle>>>>";
        assert_eq!(of(drop).as_deref(), Some("exp::heart::beat"));
        let drop = "core::ptr::drop_in_place<tokio::runtime::task::core::Stage<exp::Server::start::{{closure}}>>";
        assert_eq!(of(drop).as_deref(), Some("exp::Server::start"));
        assert_eq!(of("tokio::runtime::task::core::Core<T,S>::poll"), None);
        assert_eq!(of("core::ptr::drop_in_place<tokio::runtime::task::core::Trailer>"), None);
    }

    #[test]
    fn closures_and_wrappers_are_folded() {
        for (future, want) in [
            ("app::main::{{closure}}::{{closure}}", "app::main"),
            ("app::main::{closure#0}::{closure#2}", "app::main"),
            ("app::serve::{async_fn_env#0}", "app::serve"),
            ("core::pin::Pin<alloc::boxed::Box<app::big::{{closure}}>>", "app::big"),
            ("tracing::instrument::Instrumented<app::f::{closure#0}>", "app::f"),
            (
                "core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future+Output = ()>>",
                "alloc::boxed::Box<dyn core::future::future::Future+Output = ()>",
            ),
            ("<app::S as app::Run>::go::{closure#0}", "<app::S as app::Run>::go"),
            ("<app::S<app::T>>::go::{closure#0}", "app::S<app::T>::go"),
            ("app::Plain", "app::Plain"),
        ] {
            assert_eq!(function(future), want);
        }
        assert!(is_blocking("tokio::runtime::blocking::task::BlockingTask<app::f::{{closure}}>"));
        assert!(!is_blocking("app::BlockingTask"));
    }

    #[test]
    fn both_manglings_are_read() {
        let legacy = "_ZN5tokio7runtime4task3raw4poll17h0123456789abcdefE";
        let v0 = "_RINvNtNtNtCs1_5tokio7runtime4task3raw4pollNCNvCs2_3app4beat0NtCs3_1x1SE";
        assert!(may_matter(legacy) && may_matter(v0));
        assert_eq!(part(&demangled(legacy)), Some(Part::Poll));
        assert_eq!(part(&demangled(v0)), Some(Part::Poll));
        assert_eq!(of_table(&demangled(v0)).map(function).as_deref(), Some("app::beat"));
        assert!(!may_matter("_ZN3app4main17h0123456789abcdefE"));
    }

    #[test]
    fn nonsense_is_no_name() {
        for name in ["", "<", "tokio::runtime::task::raw::poll::<", "x>>", "<<<>"] {
            let _ = (part(name), of_table(name), of_drop(name), function(name));
        }
        assert_eq!(of_drop("tokio::runtime::task::core::Stage<"), None);
        assert_eq!(of_drop("tokio::runtime::task::core::Stage<)>"), None);
    }
}
