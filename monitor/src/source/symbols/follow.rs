//! Follows a copied stack from file to file. Each file is read by a confined process of
//! its own, which follows the stack for as long as it is in that file.

use super::maps::Mapping;
use super::pin::{Pinned, Within};
use super::reader;
use super::trail::{CODE, End, Mapped, Question, STACK, Span, Standing, Trail, Walk, Words};
use super::worker::Beat;
use crate::source::copies::Copy;

/// Return addresses, at most. Those that matter are the first ones.
const MAX_FRAMES: usize = 64;
/// Changes from one file to another, at most: each takes a process.
const MAX_FILES: usize = 24;

/// The return addresses of a copied stack, innermost first, and why there are no more.
pub fn follow(ground: &Pinned, copy: &Copy, beat: &Beat) -> (Vec<u64>, End) {
    let mut question = match begin(ground, copy) {
        Ok(question) => question,
        Err(end) => return (Vec::new(), end),
    };
    let bottom = question.from.get(STACK);
    let (addresses, end) = walk(ground, &mut question, beat);
    let top = question.from.get(STACK);
    tracing::debug!(
        program = ground.modules.iter().find(|m| m.is_exe).map(|m| &*m.path),
        pid = copy.pid,
        fd = copy.fd,
        frames = addresses.len(),
        bytes = top.zip(bottom).map(|(top, bottom)| top.saturating_sub(bottom)),
        ?end,
        "a stack was unwound"
    );
    (addresses, end)
}

/// What the first file is asked.
fn begin(ground: &Pinned, copy: &Copy) -> Result<Question, End> {
    let from = Standing::of(&copy.registers);
    if from.get(CODE).is_none() {
        return Err(End::Lost("its registers are not known".to_owned()));
    }
    let mappings = || ground.mappings.iter();
    Ok(Question {
        from,
        stack: Words { start: copy.start, words: copy.words.clone() },
        here: Vec::new(),
        code: mappings().map(|(m, _)| span(m)).collect(),
        made: mappings().filter(|(_, w)| *w == Within::Made).map(|(m, _)| span(m)).collect(),
        most: 0,
    })
}

fn span(m: &Mapping) -> Span {
    Span { start: m.start, end: m.end }
}

/// From file to file; `question` is left where it ends.
fn walk(ground: &Pinned, question: &mut Question, beat: &Beat) -> (Vec<u64>, End) {
    let mut addresses: Vec<u64> = question.from.get(CODE).into_iter().collect();
    let mappings = || ground.mappings.iter();
    for _ in 0..MAX_FILES {
        question.most = MAX_FRAMES.saturating_sub(addresses.len());
        let at = question.from.at();
        let within = mappings().find(|(m, _)| at.is_some_and(|at| (m.start..m.end).contains(&at)));
        let trail = match within {
            None => return (addresses, End::Lost("it leads out of the code".to_owned())),
            Some((_, Within::Module(number))) => {
                beat.now();
                let of_file = mappings().filter(|(_, w)| *w == Within::Module(*number));
                let part = |m: &Mapping| Mapped { span: span(m), offset: m.offset };
                question.here = of_file.map(|(m, _)| part(m)).collect();
                let module = &ground.modules[*number];
                let file = module.open(ground.root.as_ref()).map(|(_, file)| file);
                let read =
                    file.and_then(|f| reader::read_trail(&f, question).map_err(|e| e.to_string()));
                read.unwrap_or_else(|why| {
                    let end = End::Lost(format!("{}: {why}", module.path));
                    Walk::new(question).ended(end)
                })
            }
            Some((_, Within::Made | Within::Named(_))) => out_of_made_code(question),
        };
        addresses.extend(trail.addresses);
        question.from = trail.at;
        if trail.end != End::Left {
            return (addresses, trail.end);
        }
    }
    (addresses, End::Lost("it changes between files too often".to_owned()))
}

/// One step, which needs no file.
fn out_of_made_code(question: &Question) -> Trail {
    let mut walk = Walk::new(question);
    if walk.is_full() {
        return walk.ended(End::Full);
    }
    let end = walk.go_from_made_code().map_or_else(End::Lost, |()| End::Left);
    walk.ended(end)
}
