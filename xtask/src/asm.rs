//! Finding the loops that multiply in a disassembly, without knowing what they look like.

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Instruction<'a> {
    address: u64,
    mnemonic: &'a str,
    operands: &'a str,
}

/// A loop that has no loop inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    /// Addresses of its instructions.
    pub(crate) addresses: Vec<u64>,
    /// Products that one pass computes: of integers if there are any, else of binary16, else of larger floats.
    pub(crate) products: u32,
    /// Assembler source that jumps to its own start.
    pub(crate) source: String,
}

/// The innermost loops with vector multiplications in what `llvm-objdump -d --no-show-raw-insn` prints.
pub(crate) fn loops(disassembly: &str) -> Vec<Loop> {
    let code: Vec<_> = disassembly.lines().filter_map(instruction).collect();
    let mut ranges: Vec<_> =
        code.iter().enumerate().filter_map(|(end, i)| Some((start(&code, end, i)?, end))).collect();
    let inner = ranges.clone();
    let holds = |(a, b): (usize, usize), (c, d): (usize, usize)| (a, b) != (c, d) && a <= c && d <= b;
    ranges.retain(|outer| !inner.iter().any(|inner| holds(*outer, *inner)));
    ranges.into_iter().filter_map(|(start, end)| multiplying(&code[start..=end])).collect()
}

/// An address, a colon, a tab, a mnemonic, a tab, operands.
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (address, rest) = line.trim().split_once(':')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (mnemonic, operands) = rest.trim().split_once('\t').unwrap_or((rest.trim(), ""));
    // Not data between functions, nor what the disassembler does not know.
    let known = mnemonic.starts_with(|c: char| c.is_ascii_lowercase());
    known.then_some(Instruction { address, mnemonic, operands })
}

impl<'a> Instruction<'a> {
    fn is_branch(&self) -> bool {
        self.mnemonic == "b"
            || self.mnemonic.starts_with("b.")
            || ["cbz", "cbnz", "tbz", "tbnz"].contains(&self.mnemonic)
    }

    /// Where a branch goes: the last operand, `0x24ed60 <name+0x117c>`; and the operands before it.
    fn target(&self) -> Option<(u64, &'a str)> {
        let plain = self.operands.split(" <").next()?;
        let (before, target) = plain.split_at(plain.rfind("0x")?);
        self.is_branch().then_some((u64::from_str_radix(target.trim_start_matches("0x"), 16).ok()?, before))
    }

    /// Products, and what they are of.
    fn products(&self) -> Option<(u32, Of)> {
        let result = self.operands.split([',', ' ']).next()?;
        let lanes = |sizes: [(&str, u32); 3]| sizes.into_iter().find_map(|(s, n)| result.ends_with(s).then_some(n));
        let widening = ["smull", "smlal", "umull", "umlal", "smlsl", "umlsl"];
        match self.mnemonic {
            "sdot" | "udot" | "usdot" | "sudot" => Some((16, Of::Integers)),
            "smmla" | "ummla" | "usmmla" => Some((32, Of::Integers)),
            "mul" | "mla" => Some((lanes([(".16b", 16), (".8h", 8), (".4s", 4)])?, Of::Integers)),
            "fmul" | "fmla" | "fmls" if result.ends_with(".8h") => Some((8, Of::Halves)),
            "fmla" | "fmls" => Some((lanes([(".8h", 8), (".4s", 4), (".2d", 2)])?, Of::Floats)),
            m if widening.contains(&m.trim_end_matches('2')) => {
                Some((lanes([(".8h", 8), (".4s", 4), (".2d", 2)])?, Of::Integers))
            }
            _ => None,
        }
    }
}

/// Index of the instruction that the branch at `end` goes back to.
fn start(code: &[Instruction<'_>], end: usize, branch: &Instruction<'_>) -> Option<usize> {
    let target = branch.target().filter(|(target, _)| *target <= branch.address)?.0;
    code[..=end].binary_search_by_key(&target, |i| i.address).ok()
}

/// What is multiplied. What stands first is the scaling of what stands later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Floats,
    Halves,
    Integers,
}

/// The loop, if it multiplies vectors, and calls nothing.
fn multiplying(code: &[Instruction<'_>]) -> Option<Loop> {
    if code.iter().any(|i| i.mnemonic.starts_with("bl")) {
        return None;
    }
    let products: Vec<_> = code.iter().filter_map(Instruction::products).collect();
    let of = products.iter().map(|(_, of)| *of).max()?;
    let products = products.iter().filter(|(_, o)| *o == of).map(|(n, _)| n).sum();
    let mut source = String::from("again:\n");
    for i in code {
        let operands = i.target().map_or(i.operands.to_string(), |(_, before)| format!("{before}again"));
        source += &format!("\t{}\t{operands}\n", i.mnemonic);
    }
    (products > 0).then(|| Loop { addresses: code.iter().map(|i| i.address).collect(), products, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
program:\tfile format elf64-littleaarch64

0000000000001000 <f>:
    1000:      \tmov\tx0, #0
    1004:      \tld1\t{ v3.h }[2], [x14], #2
    1008:      \tldp\tq6, q19, [x12], #32
    100c:      \tsdot\tv5.4s, v6.16b, v19.16b
    1010:      \tsdot\tv20.4s, v6.16b, v19.16b
    1014:      \tfmla\tv2.4s, v3.4s, v1.4s
    1018:      \tsubs\tx11, x11, #1
    101c:      \tb.ne\t0x1004 <f+0x4>
    1020:      \tcbnz\tx9, 0x1000 <f>
    1024:      \tfmla\tv1.4s, v2.4s, v3.s[0]
    1028:      \ttbnz\tw9, #0x3, 0x1024 <f+0x24>
    102c:      \tsmull2\tv1.8h, v2.16b, v3.16b
    1030:      \tadd\tx1, x1, #1
    1034:      \tb\t0x1030 <f+0x30>
    1038: 00 00 00 00 \t<unknown>
    103c:      \tfmul\tv1.8h, v2.8h, v3.8h
    1040:      \tfmla\tv1.8h, v2.8h, v3.8h
    1044:      \tfmla\tv4.4s, v2.4s, v3.s[0]
    1048:      \tb.ne\t0x103c <f+0x3c>
    104c:      \tfmla\tv4.4s, v2.4s, v3.s[0]
    1050:      \tbl\t0x2000 <g>
    1054:      \tb.ne\t0x104c <f+0x4c>
";

    #[test]
    fn the_innermost_loops_that_multiply() {
        let found = loops(SAMPLE);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!((found[2].addresses[0], found[2].products), (0x103c, 16));
        // Of integers where there are any: the scaling is not counted.
        assert_eq!((found[0].addresses[0], found[0].addresses.len(), found[0].products), (0x1004, 7, 32));
        assert!(found[0].source.starts_with("again:\n\tld1\t{ v3.h }[2], [x14], #2\n"));
        assert!(found[0].source.ends_with("\tb.ne\tagain\n"));
        assert_eq!((&found[1].addresses[..], found[1].products), (&[0x1024, 0x1028][..], 4));
        assert!(found[1].source.ends_with("\ttbnz\tw9, #0x3, again\n"));
    }
}
