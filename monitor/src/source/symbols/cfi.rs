//! Call frame information: what compilers write down of every function for exceptions
//! and debuggers, frame pointer or not (DWARF 5, 6.4; LSB 5.0, 10.6). This runs inside the
//! confined process ([`super::confined`]).

use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EhFrameHdr, EhFrameOffset, Encoding, EndianSlice,
    EvaluationResult, FrameDescriptionEntry, LittleEndian, ParsedEhFrameHdr, Register,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value,
};
use object::read::ReadRef;
use object::{Object, ObjectSection, ObjectSegment};

use super::trail::{CODE, COUNT, End, Question, STACK, Standing, Trail, Walk};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Largest section that is read, bytes: those of browsers have 20 MiB.
const MAX_SECTION: u64 = 256 << 20;
/// Operations of one expression, at most; compilers write four.
const MAX_OPERATIONS: u32 = 1_000;
/// Of an index, bytes: two numbers.
const SMALLEST_ENTRY: usize = 4;
/// As everywhere where Rust or C runs on 64 bits.
const ADDRESS_SIZE: u8 = 8;

/// Follows the stack for as long as it is in the code of this file, or in code of none
/// that was called by it.
///
/// # Errors
/// The file is none, or of another machine.
pub fn follow<'a, R: ReadRef<'a>>(file: R, question: &Question) -> Result<Trail, String> {
    let elf = object::File::parse(file).map_err(|e| e.to_string())?;
    if !elf.is_64() || !elf.is_little_endian() {
        return Err("it is no file of 64 bits, little-endian".to_owned());
    }
    let segments: Vec<(u64, u64, u64)> = elf
        .segments()
        .map(|s| {
            let (offset, size) = s.file_range();
            (offset, size, s.address())
        })
        .collect();
    let loaded = |offset: u64| {
        segments.iter().find_map(|(start, size, address)| {
            let inside = offset.checked_sub(*start).filter(|at| at < size)?;
            address.checked_add(inside)
        })
    };
    let tables = Tables::of(&elf);
    let mut context = UnwindContext::new();
    let mut walk = Walk::new(question);
    loop {
        if walk.is_full() {
            return Ok(walk.ended(End::Full));
        }
        let gone = match walk.file_offset() {
            Some(offset) => match loaded(offset).map(|at| tables.caller(at, &walk, &mut context)) {
                Some(Caller::Is(caller)) => walk.go(caller),
                Some(Caller::Nobody) => return Ok(walk.ended(End::Bottom)),
                Some(Caller::Unsaid(why)) => Err(why),
                // Written by hand, and without a word of it.
                Some(Caller::Undescribed) | None => walk.go_from_undescribed(),
            },
            None if walk.is_in_made_code() => walk.go_from_made_code(),
            None => return Ok(walk.ended(End::Left)),
        };
        if let Err(why) = gone {
            return Ok(walk.ended(End::Lost(why)));
        }
    }
}

/// Who called a function.
enum Caller {
    Is(Standing),
    /// It is the outermost.
    Nobody,
    /// It is described, and that does not tell; why.
    Unsaid(String),
    /// There is no word of it.
    Undescribed,
}

/// The sections, and where they are loaded.
struct Tables<'a> {
    bases: BaseAddresses,
    index: Option<ParsedEhFrameHdr<Bytes<'a>>>,
    exceptions: Option<EhFrame<Bytes<'a>>>,
    debug: Option<DebugFrame<Bytes<'a>>>,
}

impl<'a> Tables<'a> {
    /// Whatever there is of them.
    fn of<R: ReadRef<'a>>(elf: &object::File<'a, R>) -> Self {
        let section = |name: &str| {
            let section = elf.section_by_name(name).filter(|s| s.size() <= MAX_SECTION)?;
            Some((section.address(), section.data().ok()?))
        };
        let mut bases = BaseAddresses::default();
        if let Some((address, _)) = section(".text") {
            bases = bases.set_text(address);
        }
        let exceptions = section(".eh_frame").map(|(address, data)| {
            bases = bases.clone().set_eh_frame(address);
            let mut frames = EhFrame::new(data, LittleEndian);
            frames.set_address_size(ADDRESS_SIZE);
            frames.set_vendor(VENDOR);
            frames
        });
        let index = section(".eh_frame_hdr").and_then(|(address, data)| {
            bases = bases.clone().set_eh_frame_hdr(address);
            let index = EhFrameHdr::new(data, LittleEndian).parse(&bases, ADDRESS_SIZE).ok()?;
            // gimli's search multiplies what the file gives as their number, unchecked.
            let entries = index.table()?.iter(&bases).size_hint().1?;
            (entries <= data.len() / SMALLEST_ENTRY).then_some(index)
        });
        let debug = section(".debug_frame").map(|(_, data)| {
            let mut frames = DebugFrame::new(data, LittleEndian);
            frames.set_address_size(ADDRESS_SIZE);
            frames.set_vendor(VENDOR);
            frames
        });
        Self { bases, index, exceptions, debug }
    }

    fn caller(&self, at: u64, walk: &Walk<'_>, context: &mut UnwindContext<usize>) -> Caller {
        if let Some(frames) = &self.exceptions {
            let cie = EhFrame::cie_from_offset;
            let found = match &self.index {
                Some(index) => self.indexed(index, frames, at),
                None => frames.fde_for_address(&self.bases, at, cie).ok(),
            };
            if let Some(function) = found {
                return self.by(&function, frames, at, walk, context);
            }
        }
        if let Some(frames) = &self.debug
            && let Ok(function) =
                frames.fde_for_address(&self.bases, at, DebugFrame::cie_from_offset)
        {
            return self.by(&function, frames, at, walk, context);
        }
        Caller::Undescribed
    }

    /// By the index, which is sorted.
    fn indexed(
        &self,
        index: &ParsedEhFrameHdr<Bytes<'a>>,
        frames: &EhFrame<Bytes<'a>>,
        at: u64,
    ) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        let entry = index.table()?.lookup(at, &self.bases).ok()?.direct().ok()?;
        // gimli's own subtraction overflows where the entry lies before the section.
        let offset = entry.checked_sub(index.eh_frame_ptr().direct().ok()?)?;
        let offset = EhFrameOffset(usize::try_from(offset).ok()?);
        let function = frames.fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset);
        function.ok().filter(|f| f.contains(at))
    }

    fn by<S: UnwindSection<Bytes<'a>>>(
        &self,
        function: &FrameDescriptionEntry<Bytes<'a>>,
        frames: &S,
        at: u64,
        walk: &Walk<'_>,
        context: &mut UnwindContext<usize>,
    ) -> Caller {
        let row = match function.unwind_info_for_address(frames, &self.bases, context, at) {
            Ok(row) => row,
            Err(e) => return Caller::Unsaid(format!("its call frame information is bad: {e}")),
        };
        let here = Here { frames, encoding: function.cie().encoding(), walk };
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                walk.at.get(register.0).and_then(|base| base.checked_add_signed(*offset))
            }
            CfaRule::Expression(e) => here.value(e, None),
        };
        let Some(cfa) = cfa else {
            return Caller::Unsaid("its call frame information asks for what is not known".into());
        };
        let mut caller = walk.at.kept();
        for number in 0..COUNT as u16 {
            let Some(rule) = row.register(Register(number)) else { continue };
            let value = match rule {
                RegisterRule::SameValue => walk.at.get(number),
                RegisterRule::Offset(n) => cfa.checked_add_signed(n).and_then(|at| here.read(at)),
                RegisterRule::ValOffset(n) => cfa.checked_add_signed(n),
                RegisterRule::Register(from) => walk.at.get(from.0),
                RegisterRule::Expression(e) => {
                    here.value(&e, Some(cfa)).and_then(|at| here.read(at))
                }
                RegisterRule::ValExpression(e) => here.value(&e, Some(cfa)),
                RegisterRule::Constant(value) => Some(value),
                RegisterRule::Undefined | RegisterRule::Architectural => None,
            };
            caller.registers[usize::from(number)] = value;
        }
        let link = function.cie().return_address_register();
        let to = match row.register(link) {
            // Said to be unknown: nobody called it (DWARF 5, 6.4.4).
            Some(RegisterRule::Undefined) => return Caller::Nobody,
            Some(_) => caller.get(link.0),
            // Still in its register, where there is one.
            None => walk.at.get(link.0).filter(|_| link.0 != CODE),
        };
        match to {
            None => return Caller::Unsaid(BEYOND.to_owned()),
            Some(0) => return Caller::Nobody,
            Some(_) => {}
        }
        caller.registers[usize::from(CODE)] = to;
        caller.registers[usize::from(STACK)] = Some(cfa);
        // What a signal interrupted did not call anybody.
        caller.returned = !function.is_signal_trampoline();
        Caller::Is(caller)
    }
}

/// Why a return address can be missing.
const BEYOND: &str = "the stack goes on beyond what was copied of it";

/// Return addresses may be signed on arm64.
const VENDOR: gimli::Vendor =
    if cfg!(target_arch = "aarch64") { gimli::Vendor::AArch64 } else { gimli::Vendor::Default };

/// What an expression may ask for.
struct Here<'w, 'q, S> {
    frames: &'w S,
    encoding: Encoding,
    walk: &'w Walk<'q>,
}

impl<S> Here<'_, '_, S> {
    fn read(&self, address: u64) -> Option<u64> {
        self.walk.question.stack.read(address)
    }

    fn value<'a>(&self, of: &UnwindExpression<usize>, first: Option<u64>) -> Option<u64>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        let mut run = of.get(self.frames).ok()?.evaluation(self.encoding);
        run.set_max_iterations(MAX_OPERATIONS);
        if let Some(first) = first {
            run.set_initial_value(first);
        }
        let mut wants = run.evaluate().ok()?;
        loop {
            wants = match wants {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size: ADDRESS_SIZE, .. } => {
                    run.resume_with_memory(Value::Generic(self.read(address)?)).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.walk.at.get(register.0)?;
                    run.resume_with_register(Value::Generic(value)).ok()?
                }
                _ => return None,
            };
        }
        run.value_result()?.to_u64(u64::MAX).ok()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "cfi_tests.rs"]
mod tests;
