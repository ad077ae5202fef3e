//! What the program that is packed must keep to: its size, that it is static, and that it starts at once on every core.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::dist::at;
use crate::icount;
use crate::package::{ARCHS, ARM64, build_small, program};
use crate::process::{Failed, Steps, output, say};
use crate::qemu::CPUS;
use crate::setup;

/// The most bytes of a program with everything: 8 MiB.
const MOST_BYTES: u64 = 8 << 20;
/// The most instructions of `armlet --version` on an emulated core.
const MOST_INSTRUCTIONS: u64 = 3_000_000;

pub(crate) fn check(steps: &mut Steps) -> Result<(), Failed> {
    for arch in &ARCHS {
        steps.step(&format!("size of the program for {}", arch.triple), || size(&program(arch), MOST_BYTES))?;
        steps.step(&format!("its size without what is large, for {}", arch.triple), || {
            size(&build_small(arch)?, arch.small)
        })?;
    }
    steps.step("start on every core", start)
}

/// Small enough, and static.
fn size(program: &Path, most: u64) -> Result<(), Failed> {
    let bytes = fs::metadata(program).map_err(at(program))?.len();
    say(format!("    {bytes} bytes of {most}"));
    if bytes > most {
        return Err(Failed(format!("{}: {bytes} bytes are more than {most}", program.display())));
    }
    setup::packages(&[(&["readelf", "--version"], "binutils")])?;
    let about = output(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(program))?;
    match about.lines().find(|line| line.contains("INTERP") || line.contains("(NEEDED)")) {
        Some(line) => Err(Failed(format!("{} is not static: {}", program.display(), line.trim()))),
        None => Ok(()),
    }
}

/// `armlet --version` costs next to nothing.
fn start() -> Result<(), Failed> {
    setup::packages(&[(&["qemu-aarch64", "--version"], "qemu-user")])?;
    let plugin = icount::plugin()?;
    for (cpu, _) in CPUS {
        let instructions = icount::whole(&plugin, cpu, &program(&ARM64), &["--version"])?;
        say(format!("    {cpu}: {instructions} instructions of {MOST_INSTRUCTIONS}"));
        if instructions > MOST_INSTRUCTIONS {
            let why =
                format!("armlet --version on {cpu}: {instructions} instructions are more than {MOST_INSTRUCTIONS}");
            return Err(Failed(why));
        }
    }
    Ok(())
}
