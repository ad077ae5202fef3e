//! The project's chores: `cargo xtask setup` installs what the tests need, `cargo xtask test` runs them.

mod answers;
mod asm;
mod attack;
mod board_hosts;
mod board_insns;
mod board_program;
mod boards;
mod c_examples;
mod clients;
mod coverage;
mod deb;
mod dist;
mod firmware;
mod formats;
mod fuzz;
mod gate;
mod header;
mod icount;
mod insns;
mod launcher;
mod limits;
mod mca;
mod miri;
mod model;
mod package;
mod page;
mod process;
mod qemu;
mod rust_firmware;
mod sanitizers;
mod sd_card;
mod setup;
mod sizes;
mod users;

use std::process::ExitCode;

use process::Steps;

const HELP: &str = "usage: cargo xtask COMMAND

  setup     install what the tests need: QEMU, C compilers, valgrind, Rust's targets and Miri, the model
  test      setup, then every test, each in a size that fits into twenty minutes: what CI runs
            [PART] runs one part alone; [--deep] runs the full sizes
  lint      that part of the tests; so are model, c, firmware, coverage and sanitizers
  attack    malformed files through every command that reads one: no panic, signal or hang, little memory
            [--files N], 100000 by default; [--seed S]; [--every]: each through all of its
            commands; [--program FILE]: another build than that of the tests
  header    writes include/armlet.h from src/capi
  dist      the library for C, static and shared, with what pkg-config and CMake want, to target/dist/TRIPLE;
            then the static programs for aarch64 and x86-64 with manual pages and completions, as tarballs and
            Debian packages, with SHA256SUMS, to target/dist, and `cargo publish --dry-run`;
            [--target TRIPLE] only that library
  deb       installs, runs, upgrades and removes the arm64 package in a Debian made by debootstrap; needs root
  sd-card   the first token of a long prompt from a disk of 20 MB/s; needs root and cgroups of version 1
  clients   the server, as the clients of other projects have it: openai and ollama of PyPI, openai of npm, curl; and
            documents of random schemas, which jsonschema of PyPI validates
  users     many people and one server: as the model was trained, as multi-head attention with the same memory, and
            [--llama-server PROGRAM], to benches/record/users.md
  answers   what it costs to keep an answer to a schema, and what drafts gain, to benches/record/answers.md
  page      the server's page in Chromium: answers, what is kept, hostile text, a keyboard, a phone
  boards    several boards over MPI: processes of this machine that answer, do not fit, are killed or silent;
            [--deep] adds emulated cores in one job, and hosts that are network namespaces, which need root
  board-insns  millions of instructions per token of the board that has most to do, to benches/record/board-insns.md
  quick     the tests that need neither QEMU nor the model
  insns     millions of instructions per token on emulated cores, as a table
            [--cpu LIST] [--phase LIST] [--type LIST | --model FILE]; everything takes ten minutes;
            --random counts a model of random weights instead, in every weight format: half an hour;
            --check compares with what is allowed, by default one cheap cell
  mca       bytes of weights per cycle of each decode loop, by llvm-mca, to benches/record/mca.md
  sizes     bytes of the library for firmware by weight format, to benches/record/sizes.md
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut steps = Steps::default();
    let result = match args[..] {
        ["setup"] => setup::run(&mut steps),
        ["test", ref options @ ..] => {
            let deep = options.contains(&"--deep");
            let parts: Vec<&str> = options.iter().copied().filter(|o| *o != "--deep").collect();
            let part = match parts[..] {
                [] => None,
                [name] => match gate::part(name) {
                    None => return usage(&format!("test: there is no part {name}")),
                    part => part,
                },
                _ => return usage("test: one part, or all"),
            };
            steps = Steps::new(deep);
            gate::run(&mut steps, part)
        }
        [name @ ("lint" | "model" | "c" | "firmware" | "coverage" | "sanitizers")] => {
            gate::run(&mut steps, gate::part(name))
        }
        ["quick"] => gate::quick(&mut steps),
        ["dist"] => dist::run(&mut steps, None).and_then(|()| package::run(&mut steps)),
        ["sd-card"] => sd_card::run(&mut steps),
        ["clients"] => clients::run(&mut steps),
        ["users"] => users::run(&mut steps, None),
        ["users", "--llama-server", program] => users::run(&mut steps, Some(program)),
        ["answers"] => answers::run(&mut steps),
        ["page"] => page::run(&mut steps),
        ["boards", ref options @ ..] if matches!(options, [] | ["--deep"]) => {
            steps = Steps::new(!options.is_empty());
            gate::run(&mut steps, gate::part("boards"))
        }
        ["board-insns"] => setup::run(&mut steps).and_then(|()| board_insns::run(&mut steps, true)),
        ["deb"] => deb::run(&mut steps),
        ["dist", "--target", triple] => dist::run(&mut steps, Some(triple)),
        ["attack", ref options @ ..] => match attack::Options::parse(options) {
            Ok(options) => attack::run(&mut steps, &options),
            Err(why) => return usage(&why),
        },
        ["header"] => steps.step("include/armlet.h", header::write),
        ["mca"] => mca::run(&mut steps),
        ["sizes"] => sizes::run(&mut steps),
        ["insns", ref options @ ..] => match insns::Options::parse(options) {
            Ok(options) => setup::run(&mut steps).and_then(|()| insns::run(&mut steps, &options)),
            Err(why) => return usage(&why),
        },
        ["help" | "--help" | "-h"] | [] => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        _ => return usage("no such command"),
    };
    steps.end(result)
}

fn help() -> String {
    let parts: String = gate::PARTS.iter().map(|part| format!("  {:8}  {}\n", part.name, part.about)).collect();
    format!("{HELP}\nparts of `cargo xtask test`:\n\n{parts}")
}

fn usage(why: &str) -> ExitCode {
    eprint!("xtask: {why}\n\n{}", help());
    ExitCode::from(2)
}
