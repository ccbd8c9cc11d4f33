//! A walk up a stack: where it stands, what it may read, how it goes on, and where it
//! has been. Plain arithmetic on a copy; what a file says of its functions is [`super::cfi`].

use serde::{Deserialize, Serialize};

/// The numbers that DWARF gives the registers (x86-64 psABI 1.0, figure 3.36).
#[cfg(target_arch = "x86_64")]
mod numbers {
    pub const COUNT: usize = 17;
    pub const FRAME: u16 = 6;
    pub const STACK: u16 = 7;
    /// Where the instruction is, or is to be returned to.
    pub const CODE: u16 = 16;
    pub const SAVED: [u16; 6] = [3, 6, 12, 13, 14, 15];
    /// Where a call leaves what is to be returned to; here it is on the stack.
    pub const LINK: Option<u16> = None;
    /// Bits of an address.
    pub const ADDRESS: u64 = u64::MAX;
}

/// Those of arm64 (DWARF for the Arm 64-bit architecture, 4.1).
#[cfg(not(target_arch = "x86_64"))]
mod numbers {
    pub const COUNT: usize = 33;
    pub const FRAME: u16 = 29;
    pub const STACK: u16 = 31;
    pub const CODE: u16 = 32;
    pub const SAVED: [u16; 11] = [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
    pub const LINK: Option<u16> = Some(30);
    /// The rest can be a signature of the return address.
    pub const ADDRESS: u64 = (1 << 48) - 1;
}
use numbers::{ADDRESS, LINK, SAVED};
pub use numbers::{CODE, COUNT, FRAME, STACK};

/// Words above the stack pointer, of code without any description, among which a return
/// address is looked for: that of CPython 3.12 for x86-64 is in the second.
const NEAR: u64 = 4;

/// From here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// First one past it.
    pub end: u64,
}

impl Span {
    fn has(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Part of a file that is mapped to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// Where.
    pub span: Span,
    /// From where in the file on.
    pub offset: u64,
}

/// Registers of one frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// By the numbers of DWARF; none where it is not known.
    pub registers: Vec<Option<u64>>,
    /// A call is to be returned to here: the function is that of the byte before.
    pub returned: bool,
}

impl Standing {
    /// Of those that are known.
    pub fn of(known: &[(u16, u64)]) -> Self {
        let mut registers = vec![None; COUNT];
        for (number, value) in known {
            if let Some(register) = registers.get_mut(usize::from(*number)) {
                *register = Some(*value);
            }
        }
        Self { registers, returned: false }
    }

    /// A register.
    pub fn get(&self, number: u16) -> Option<u64> {
        self.registers.get(usize::from(number)).copied().flatten()
    }

    /// An address within the instruction that is being executed.
    pub fn at(&self) -> Option<u64> {
        let at = self.get(CODE)?;
        if self.returned { at.checked_sub(1) } else { Some(at) }
    }

    /// What a function leaves as it was where nothing is said of it.
    pub fn kept(&self) -> Self {
        let mut registers = vec![None; COUNT];
        for number in SAVED {
            registers[usize::from(number)] = self.get(number);
        }
        Self { registers, returned: true }
    }
}

/// A piece of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// Address of the first.
    pub start: u64,
    /// In order.
    pub words: Vec<u64>,
}

impl Words {
    /// The word at an address, where that is one of a word.
    pub fn read(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(self.start).filter(|at| at % 8 == 0)?;
        self.words.get(usize::try_from(at / 8).ok()?).copied()
    }
}

/// What the confined reader of a file is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// In the file's own code.
    pub from: Standing,
    /// The stack.
    pub stack: Words,
    /// Where the file is mapped.
    pub here: Vec<Mapped>,
    /// All that may be executed, as far as any word of the stack points to it.
    pub code: Vec<Span>,
    /// That of it which is of no file.
    pub made: Vec<Span>,
    /// Frames that are still wanted.
    pub most: usize,
}

/// Why a walk ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It goes on in code of another file.
    Left,
    /// The function that nobody called.
    Bottom,
    /// So many were wanted.
    Full,
    /// It cannot go on; why.
    Lost(String),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// Return addresses, innermost first; that which it began at is not among them.
    pub addresses: Vec<u64>,
    /// Where it stands.
    pub at: Standing,
    /// Why it goes no further.
    pub end: End,
}

/// A walk on its way.
pub struct Walk<'a> {
    /// What it may know.
    pub question: &'a Question,
    /// Where it stands.
    pub at: Standing,
    addresses: Vec<u64>,
}

impl<'a> Walk<'a> {
    /// Begins.
    pub fn new(question: &'a Question) -> Self {
        Self { question, at: question.from.clone(), addresses: Vec::new() }
    }

    /// It has come as far as was wanted.
    pub fn is_full(&self) -> bool {
        self.addresses.len() >= self.question.most
    }

    /// It stands in code that is of no file.
    pub fn is_in_made_code(&self) -> bool {
        self.at.at().is_some_and(|at| self.question.made.iter().any(|s| s.has(at)))
    }

    /// Where in the file it stands.
    pub fn file_offset(&self) -> Option<u64> {
        let at = self.at.at()?;
        let mapped = self.question.here.iter().find(|m| m.span.has(at))?;
        (at - mapped.span.start).checked_add(mapped.offset)
    }

    /// Goes on to the caller.
    ///
    /// # Errors
    /// Why it cannot: it would lead to no code, or down the stack again, which has no end.
    pub fn go(&mut self, mut caller: Standing) -> Result<(), String> {
        let to = caller.get(CODE).map(|address| address & ADDRESS);
        let Some(to) = to.filter(|to| self.is_code(to.wrapping_sub(1))) else {
            let to = to.map_or_else(String::new, |to| format!(" at {to:#x}"));
            return Err(format!("the return address lies in no code{to}"));
        };
        let up = match (self.at.get(STACK), caller.get(STACK)) {
            // On arm64 a function that calls none needs no room.
            (Some(before), Some(now)) => now > before || now == before && !self.at.returned,
            _ => false,
        };
        if !up {
            return Err("the stack does not go on upwards".to_owned());
        }
        caller.registers[usize::from(CODE)] = Some(to);
        self.at = caller;
        self.addresses.push(to);
        Ok(())
    }

    /// Goes on from code that somebody wrote by hand and did not describe: from a system
    /// call by where it is to return to, for what calls but the kernel need keep nothing
    /// else on its stack (`clone3` of glibc); else by the frame pointer.
    ///
    /// # Errors
    /// Neither is there, or leads anywhere.
    pub fn go_from_undescribed(&mut self) -> Result<(), String> {
        let leaf = if self.at.returned { None } else { self.out_of_leaf() };
        let caller = leaf.or_else(|| self.by_frame_pointer());
        self.go(caller.ok_or("nothing says where the caller is")?)
    }

    /// Goes on from code that is of no file, of which nothing is known: by the frame
    /// pointer, or else where the nearest return address into a file is.
    ///
    /// # Errors
    /// Neither leads on.
    pub fn go_from_made_code(&mut self) -> Result<(), String> {
        let nearest = |walk: &Self| {
            let sp = walk.at.get(STACK)?;
            let at = (0..NEAR).filter_map(|n| sp.checked_add(8 * n)).find(|at| {
                let word = walk.question.stack.read(*at).map(|w| w.wrapping_sub(1));
                let file = |w: u64| walk.is_code(w) && !walk.question.made.iter().any(|s| s.has(w));
                word.is_some_and(file)
            })?;
            let mut caller = walk.at.kept();
            caller.registers[usize::from(CODE)] = walk.question.stack.read(at);
            caller.registers[usize::from(STACK)] = at.checked_add(8);
            Some(caller)
        };
        let caller = self.by_frame_pointer().or_else(|| nearest(self));
        let caller = caller.ok_or("nothing says who called the code that the program made")?;
        self.go(caller)
    }

    /// The caller of a function that has not moved the stack pointer.
    fn out_of_leaf(&self) -> Option<Standing> {
        let sp = self.at.get(STACK)?;
        let (to, above) = match LINK {
            Some(link) => (self.at.get(link)?, sp),
            None => (self.question.stack.read(sp)?, sp.checked_add(8)?),
        };
        if !self.is_code((to & ADDRESS).wrapping_sub(1)) {
            return None;
        }
        let mut caller = self.at.kept();
        caller.registers[usize::from(STACK)] = Some(above);
        caller.registers[usize::from(CODE)] = Some(to);
        Some(caller)
    }

    /// The frame pointer with the return address behind it, if they can be such.
    fn by_frame_pointer(&self) -> Option<Standing> {
        let (sp, frame) = (self.at.get(STACK)?, self.at.get(FRAME)?);
        if frame < sp {
            return None;
        }
        let to = self.question.stack.read(frame.checked_add(8)?)?;
        if !self.is_code((to & ADDRESS).wrapping_sub(1)) {
            return None;
        }
        let mut caller = self.at.kept();
        caller.registers[usize::from(FRAME)] = self.question.stack.read(frame);
        caller.registers[usize::from(STACK)] = frame.checked_add(16);
        caller.registers[usize::from(CODE)] = Some(to);
        Some(caller)
    }

    fn is_code(&self, address: u64) -> bool {
        self.question.code.iter().any(|s| s.has(address))
    }

    /// What has come of it.
    pub fn ended(self, end: End) -> Trail {
        Trail { addresses: self.addresses, at: self.at, end }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// In code from 0x1000 to 0x2000 with this word on top of the stack; the frame pointer
    /// leads to 0x1500.
    fn question(top: u64) -> Question {
        Question {
            from: Standing::of(&[(CODE, 0x1010), (STACK, 0x7000), (FRAME, 0x7010)]),
            stack: Words { start: 0x7000, words: vec![top, 0, 0x7040, 0x1500] },
            here: Vec::new(),
            code: vec![Span { start: 0x1000, end: 0x2000 }],
            made: Vec::new(),
            most: 9,
        }
    }

    #[test]
    fn a_system_call_that_nothing_describes_returns_to_the_top_of_the_stack() {
        let question = question(0x1234);
        let mut walk = Walk::new(&question);
        walk.go_from_undescribed().unwrap();
        assert_eq!(walk.addresses, [0x1234]);
        let kept = [STACK, FRAME].map(|number| walk.at.get(number));
        assert_eq!(kept, [Some(0x7008), Some(0x7010)]);
        // A function that called another one has more there.
        walk.go_from_undescribed().unwrap();
        assert_eq!(walk.addresses, [0x1234, 0x1500]);
    }

    #[test]
    fn what_is_no_return_address_is_not_taken_for_one() {
        let question = question(0x9999);
        let mut walk = Walk::new(&question);
        walk.go_from_undescribed().unwrap();
        assert_eq!(walk.addresses, [0x1500]);
    }
}
