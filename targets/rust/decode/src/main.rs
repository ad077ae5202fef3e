//! `decode ELF`: the `defmt` frames on stdin as lines, with the texts that only the ELF file has.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use defmt_decoder::{DecodeError, Table};

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: decode ELF < FRAMES")?;
    let table = Table::parse(&std::fs::read(path)?)?.context("the file has no .defmt section")?;
    let mut decoder = table.new_stream_decoder();
    let (mut stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut bytes = [0; 4096];
    loop {
        match stdin.read(&mut bytes)? {
            0 => return Ok(()),
            n => decoder.received(&bytes[..n]),
        }
        loop {
            match decoder.decode() {
                Ok(frame) => writeln!(stdout, "{}", frame.display(false))?,
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => bail!("the frames are malformed, or of another ELF file"),
            }
        }
    }
}
