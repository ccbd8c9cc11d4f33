//! Where the debug file of a module may lie: what a debugger wants, kept apart.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::pin::{FileKey, here, inside, key, regular};

/// Where debug files lie, on every distribution.
const DEBUG: &str = "/usr/lib/debug";

/// The places, the surest first: by build id, then as GDB seeks by the name that the
/// module gives.
fn candidates(module: &Path, answer: &Answer) -> Vec<PathBuf> {
    let mut places = Vec::new();
    // A build id that is a path would lead elsewhere; hexadecimal digits do not.
    if let Some((head, tail)) = answer.build_id.as_deref().and_then(|id| id.split_at_checked(2)) {
        places.push(format!("{DEBUG}/.build-id/{head}/{tail}.debug").into());
    }
    let link = answer.debug_link.as_deref().filter(|l| !l.contains('/') && !l.starts_with('.'));
    if let (Some(link), Some(dir)) = (link, module.parent()) {
        places.push(dir.join(link));
        places.push(dir.join(".debug").join(link));
        if let Ok(inner) = dir.strip_prefix("/") {
            places.push(Path::new(DEBUG).join(inner).join(link));
        }
    }
    places
}

/// Debug files of a module, open: those that the process itself could open, then
/// ours. Only a build id proves that one belongs to the module, so without one there
/// is nothing to look for; that it is the same, the caller checks.
pub fn find(module: &Path, answer: &Answer, root: Option<&OwnedFd>) -> Vec<(FileKey, File)> {
    if answer.build_id.is_none() {
        return Vec::new();
    }
    let mut found: Vec<(FileKey, File)> = Vec::new();
    for place in candidates(module, answer) {
        for opened in [inside(root, &place), here(&place)].into_iter().flatten() {
            let file = File::from(opened);
            let Ok(about) = regular(&file) else { continue };
            let key = key(&about);
            if found.iter().all(|(known, _)| *known != key) {
                found.push((key, file));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_gdb() {
        let answer = Answer {
            build_id: Some("abcdef01".into()),
            debug_link: Some("app.debug".into()),
            ..Answer::default()
        };
        let places = candidates(Path::new("/usr/bin/app"), &answer);
        let want = [
            "/usr/lib/debug/.build-id/ab/cdef01.debug",
            "/usr/bin/app.debug",
            "/usr/bin/.debug/app.debug",
            "/usr/lib/debug/usr/bin/app.debug",
        ];
        assert_eq!(places, want.map(PathBuf::from));
    }

    #[test]
    fn a_link_that_is_a_path_leads_nowhere() {
        for link in ["../../etc/shadow", "/etc/shadow", "..", "."] {
            let answer = Answer { debug_link: Some(link.into()), ..Answer::default() };
            assert_eq!(
                candidates(Path::new("/usr/bin/app"), &answer),
                [] as [PathBuf; 0],
                "{link}"
            );
        }
        let short = Answer { build_id: Some("a".into()), ..Answer::default() };
        assert_eq!(candidates(Path::new("/app"), &short), [] as [PathBuf; 0]);
    }
}
