#!/usr/bin/env python3
"""Writes src/unicode/table.rs: the class of every code point, in two levels.

    python3 src/tokenizer/unicode/generate.py           write the table
    python3 src/tokenizer/unicode/generate.py --check   exit with 1 if the checked-in table differs

The data is the Unicode Character Database of VERSION, which Python 3.13 has
in its standard library. Any other Python 3 needs the backport of it:

    python3 -m venv .venv && .venv/bin/pip install unicodedata2==15.1.0
    .venv/bin/python src/tokenizer/unicode/generate.py

VERSION is the one llama.cpp's own table is made from: move it only together
with llama.cpp's, or words of the newer scripts split differently there.
"""

import sys
import unicodedata
from pathlib import Path

VERSION = "15.1.0"
TABLE = Path(__file__).resolve().parent / "table.rs"

CODE_POINTS = 0x110000
BLOCK = 256  # code points in a block: with half or twice as many the table is no smaller
LONGEST = 32  # code points in a run

# The numbers are those that `Class::from_code` in src/unicode.rs reads.
OTHER, LETTER, NUMBER, PUNCTUATION, SYMBOL, MARK, WHITESPACE = range(7)
MAJOR = {"L": LETTER, "N": NUMBER, "P": PUNCTUATION, "S": SYMBOL, "M": MARK, "Z": WHITESPACE}
# White_Space is all the separators (Z) and these six controls.
WHITESPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}


def database():
    """The Unicode Character Database of exactly VERSION."""
    if unicodedata.unidata_version == VERSION:
        return unicodedata
    try:
        import unicodedata2
    except ImportError:
        unicodedata2 = None
    if unicodedata2 is None or unicodedata2.unidata_version != VERSION:
        sys.exit(f"needs Python 3.13 or unicodedata2=={VERSION}: see the top of {__file__}")
    return unicodedata2


def classes(ucd):
    """The class of every code point, one byte each."""
    return bytes(
        WHITESPACE if code in WHITESPACE_CONTROLS
        else MAJOR.get(ucd.category(chr(code))[0], OTHER)
        for code in range(CODE_POINTS)
    )


def two_levels(table):
    """The distinct blocks, and for each place the number of its block."""
    numbers = {}
    index = [
        numbers.setdefault(table[at:at + BLOCK], len(numbers))
        for at in range(0, CODE_POINTS, BLOCK)
    ]
    assert len(numbers) <= 256, "a block's number no longer fits a byte: choose another BLOCK"
    return list(numbers), index


def longest_run(index, block):
    """Start and end of the longest run of `block` in the index, its tail left out."""
    best, start = (0, 0), 0
    for at, number in enumerate(index):
        if number != block:
            best, start = max(best, (start, at), key=lambda run: run[1] - run[0]), at + 1
    return best


def runs(block):
    """The block as runs of one class: in each byte the class, and 8 times one less than the run's length."""
    out, start = [], 0
    for at in range(1, BLOCK + 1):
        if at == BLOCK or block[at] != block[start] or at - start == LONGEST:
            out.append((at - start - 1) * 8 + block[start])
            start = at
    return out


def rows(numbers, width):
    """The numbers as lines of a Rust array."""
    lines = (numbers[at:at + width] for at in range(0, len(numbers), width))
    return ",\n    ".join(",".join(map(str, line)) for line in lines)


def rust(blocks, index):
    """The text of src/unicode/table.rs."""
    empty = blocks.index(bytes([OTHER]) * BLOCK)
    gap_start, gap_end = longest_run(index, empty)
    while index[-1] == empty:
        index.pop()
    index = index[:gap_start] + index[gap_end:]
    encoded = [runs(block) for block in blocks]
    starts = [sum(map(len, encoded[:i])) for i in range(len(encoded))]
    flat = [byte for block in encoded for byte in block]
    return f"""\
//! The class of every code point of Unicode {VERSION}, in two levels.
//!
//! Written by `src/tokenizer/unicode/generate.py` from the Unicode Character Database: do not
//! edit, run that script. Read only through [`super::class`].

/// The version of Unicode the classes are taken from.
#[cfg(test)]
pub(super) const UNICODE_VERSION: &str = "{VERSION}";

/// Code points in a block.
pub(super) const BLOCK_LEN: usize = {BLOCK};

/// The first place left out of [`INDEX`]: from here on all is of no class...
pub(super) const GAP_START: usize = {gap_start};

/// ...up to this place, where the index goes on.
pub(super) const GAP_END: usize = {gap_end};

/// For each place, so for each {BLOCK} code points, the number of their block.
#[rustfmt::skip]
pub(super) static INDEX: [u8; {len(index)}] = [
    {rows(index, 24)},
];

/// For each distinct block, where its runs start.
#[rustfmt::skip]
pub(super) static STARTS: [u16; {len(starts)}] = [
    {rows(starts, 20)},
];

/// The runs of one class that the blocks consist of: the class, and 8 times one less than the number of code points.
#[rustfmt::skip]
pub(super) static RUNS: [u8; {len(flat)}] = [
    {rows(flat, 26)},
];
"""


def main():
    text = rust(*two_levels(classes(database())))
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if TABLE.read_text() == text else f"{TABLE} is not what this script writes")
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(text)


if __name__ == "__main__":
    main()
