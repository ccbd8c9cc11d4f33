//! An opener's stack as people read it.

use crate::detection::verdict::{Frame, Role};

/// A line of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row<'a> {
    /// A frame.
    Frame(&'a Frame),
    /// So many frames of the C library and of language runtimes, and the names of
    /// their modules.
    Folded(usize, Vec<&'a str>),
}

/// Folds what is no news. Where no frame is named as the opener nothing is folded,
/// for then those are all there is.
pub(super) fn rows(frames: &[Frame]) -> Vec<Row<'_>> {
    let named = frames.iter().any(|f| f.role == Role::Opener);
    let mut rows = Vec::new();
    for frame in frames {
        if !(named && frame.role == Role::Runtime) {
            rows.push(Row::Frame(frame));
            continue;
        }
        let module = frame.module.as_deref().map(file_name);
        match rows.last_mut() {
            Some(Row::Folded(count, modules)) => {
                *count += 1;
                modules.extend(module.filter(|m| !modules.contains(m)));
            }
            _ => rows.push(Row::Folded(1, module.into_iter().collect())),
        }
    }
    rows
}

/// `3 frames of libc.so.6, python3.13`
pub(super) fn folded(count: usize, modules: &[&str]) -> String {
    let frames = if count == 1 { "frame" } else { "frames" };
    match modules {
        [] => format!("{count} {frames} of the runtime"),
        _ => format!("{count} {frames} of {}", modules.join(", ")),
    }
}

/// Where a frame is: file and line, else the module.
pub(super) fn place(frame: &Frame) -> Option<String> {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => Some(format!("{file}:{line}")),
        (Some(file), None) => Some(file.clone()),
        (None, _) => frame.module.clone(),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(role: Role, module: &str) -> Frame {
        Frame { role, module: Some(module.into()), ..Frame::default() }
    }

    #[test]
    fn runs_of_the_runtime_fold() {
        let libc = frame(Role::Runtime, "/usr/lib/libc.so.6");
        let python = frame(Role::Runtime, "/usr/bin/python3");
        let (opener, program) = (frame(Role::Opener, "/a"), frame(Role::Program, "/a"));
        let all = [&libc, &python, &python, &opener, &libc, &program].map(Clone::clone);
        let want = [
            Row::Folded(3, vec!["libc.so.6", "python3"]),
            Row::Frame(&opener),
            Row::Folded(1, vec!["libc.so.6"]),
            Row::Frame(&program),
        ];
        assert_eq!(rows(&all), want);
        assert_eq!(folded(3, &["libc.so.6", "python3"]), "3 frames of libc.so.6, python3");
        assert_eq!(folded(1, &[]), "1 frame of the runtime");
        let alone = [libc.clone(), python.clone()];
        assert_eq!(rows(&alone), [Row::Frame(&libc), Row::Frame(&python)], "all there is");
    }

    #[test]
    fn the_place_is_the_nearest_known() {
        let mut frame = frame(Role::Opener, "/usr/bin/app");
        assert_eq!(place(&frame).as_deref(), Some("/usr/bin/app"));
        frame.file = Some("app.c".into());
        assert_eq!(place(&frame).as_deref(), Some("app.c"));
        frame.line = Some(7);
        assert_eq!(place(&frame).as_deref(), Some("app.c:7"));
        assert_eq!(place(&Frame::default()), None);
    }
}
