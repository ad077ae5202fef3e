//! armlet with no operating system: the library for firmware, what it is made of, and the firmware of `targets/` under
//! QEMU.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::model::Known;
use crate::process::{Failed, Steps, cargo_with, finish, in_parallel, output, root, say};
use crate::setup::NONE;
use crate::{model, rust_firmware};

/// A build of the library, and what the compiler is told. Most are for memory with the MMU on; the strict one is the
/// target's default, which works with the MMU off and alignment checking on.
#[derive(Clone, Copy)]
pub(crate) struct Build<'a> {
    pub(crate) name: &'a str,
    pub(crate) flags: &'static str,
    /// Features that choose weight formats, each after a comma.
    pub(crate) formats: &'a str,
}

const NORMAL_MEMORY: &str = "--cfg armlet_normal_memory -C target-feature=-strict-align";
pub(crate) const ARMV8: Build<'static> = Build { name: "armv8-a", flags: NORMAL_MEMORY, formats: "" };
pub(crate) const DOTPROD: Build<'static> = Build {
    name: "dotprod",
    flags: "--cfg armlet_normal_memory -C target-feature=-strict-align,+dotprod,+fp16",
    formats: "",
};
const STRICT: Build<'static> = Build { name: "strict", flags: "", formats: "" };
/// The formats of a Q4_K_M file, whatever its widths, in the place of those that a build has by itself. In full size alone: its
/// kernels are those of the others.
const Q4_K_M: Build<'static> = Build { name: "q4_k_m", flags: NORMAL_MEMORY, formats: ",q4_k,q6_k,q5_0,q8_0" };

/// Most bytes of code and read-only data that the library adds to the firmware for C, and where all of its functions are called;
/// and of its variables.
const MOST_CODE: usize = 256 << 10;
const MOST_OF_ALL: usize = 272 << 10;
const MOST_DATA: usize = 4 << 10;
/// Most bytes of stack, which the header says too.
const MOST_STACK: u64 = 32 << 10;
/// What the library may need of others.
const MAY_NEED: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "armlet_panic"];
/// Functions that may call a panic handler, and why: none does.
const MAY_PANIC: [&str; 0] = [];
/// Single bytes that a kernel may load: the format of a cache and whether a span is of sinks are bytes.
const BYTE_LOADS: usize = 8;

impl Build<'_> {
    fn folder(&self) -> PathBuf {
        root().join("target/firmware").join(self.name)
    }

    fn library(&self) -> PathBuf {
        self.folder().join(NONE).join("firmware/libarmlet.a")
    }

    pub(crate) fn build(&self) -> Result<(), Failed> {
        let features = format!("capi,panic-handler{}", self.formats);
        let features = ["--no-default-features", "--features", &features];
        let kind = ["--target", NONE, "--profile", "firmware", "--crate-type", "staticlib"];
        let args = [&["rustc", "--lib"][..], &features, &kind].concat();
        let (flags, folder) = (format!("{} -C force-unwind-tables=no", self.flags), self.folder());
        cargo_with(&args, &[("RUSTFLAGS", &flags), ("CARGO_TARGET_DIR", &folder.to_string_lossy())])
    }

    /// All functions of the library in one program, nothing else, and nothing that they do not reach.
    pub(crate) fn whole(&self) -> Result<Whole, Failed> {
        self.linked("whole.elf", &functions()?)
    }

    /// These functions of the library in one program.
    fn linked(&self, program: &str, functions: &[String]) -> Result<Whole, Failed> {
        let program = self.folder().join(program);
        let mut ld = binutil("ld");
        ld.args(["--gc-sections", "-static", "-e", "armlet_plan", "--defsym=armlet_panic=0", "-o"]).arg(&program);
        ld.args(functions.iter().flat_map(|name| ["-u", name])).arg(self.library());
        output(&mut ld)?;
        let symbols = output(binutil("nm").arg(&program))?;
        let code = output(binutil("objdump").args(["-d", "--no-show-raw-insn"]).arg(&program))?;
        let sizes = output(binutil("size").args(["-A", "-d"]).arg(&program))?;
        Ok(Whole { symbols, code, sizes })
    }

    /// What an image must have or do for the library's sake.
    fn needs(&self) -> Result<Vec<String>, Failed> {
        let listing = output(binutil("nm").args(["--undefined-only", "-A"]).arg(self.library()))?;
        let own = listing.lines().filter(|line| line.contains(":armlet-"));
        Ok(own.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
    }
}

fn binutil(name: &str) -> Command {
    Command::new(format!("aarch64-linux-gnu-{name}"))
}

/// The functions that the firmware for C calls.
fn functions_of_chat() -> Result<Vec<String>, Failed> {
    let text = std::fs::read_to_string(root().join("targets/chat/main.c")).map_err(|e| Failed(e.to_string()))?;
    let called = |name: &String| text.contains(&format!("{name}("));
    Ok(functions()?.into_iter().filter(called).collect())
}

/// The functions that the header declares.
fn functions() -> Result<Vec<String>, Failed> {
    let header = std::fs::read_to_string(root().join("include/armlet.h")).map_err(|e| Failed(e.to_string()))?;
    let name = |line: &str| {
        let (before, _) = line.split_once('(').filter(|_| !line.starts_with(['/', ' ', '#', 't']))?;
        let name = before.split([' ', '*']).next_back()?;
        name.starts_with("armlet_").then(|| name.to_owned()).filter(|name| name != "armlet_panic")
    };
    Ok(header.lines().filter_map(name).collect())
}

/// A program that is the library and no more.
pub(crate) struct Whole {
    symbols: String,
    code: String,
    sizes: String,
}

impl Whole {
    /// Bytes of code and read-only data.
    pub(crate) fn code_bytes(&self) -> usize {
        self.bytes(&[".text", ".rodata"])
    }

    /// Bytes of the sections whose names start so.
    fn bytes(&self, names: &[&str]) -> usize {
        let words = self.sizes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let wanted = words.filter(|w| w.first().is_some_and(|name| names.iter().any(|n| name.starts_with(n))));
        wanted.filter_map(|w| w.get(1)?.parse::<usize>().ok()).sum()
    }

    /// The lines of code of each function.
    fn by_function(&self) -> impl Iterator<Item = (&str, &str)> {
        self.code.split("\n\n").filter_map(|text| {
            let (head, body) = text.trim_start().split_once('\n')?;
            Some((head.split_once('<')?.1.trim_end_matches(">:"), body))
        })
    }

    /// Functions that call one which panics.
    fn panicking(&self) -> Vec<&str> {
        let is_panic =
            |name: &str| name.contains("panic") || name.contains("_fail") || name.contains("rust_begin_unwind");
        // A place within a function is no call, and one without a name of its own is given as far from another.
        let target =
            |line: &str| line.split_once('<')?.1.strip_suffix('>').filter(|to| !to.contains('+')).map(is_panic);
        let calls = |body: &str| body.lines().any(|line| target(line).unwrap_or(false));
        self.by_function().filter(|(name, body)| !is_panic(name) && calls(body)).map(|(name, _)| name).collect()
    }

    /// Of each kernel the single bytes that it loads.
    fn byte_loads(&self) -> Vec<(&str, usize)> {
        let loads = ["ldrb", "ldurb", "ldrsb", "ldursb"];
        let count = |body: &str| body.split_whitespace().filter(|word| loads.contains(word)).count();
        let kernels = self.by_function().filter(|(name, _)| name.contains("arch") && name.contains("kernels"));
        kernels.map(|(name, body)| (name, count(body))).collect()
    }
}

/// Everything.
pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let deep = steps.deep;
    // Each is one thread for most of its time, and has a folder of its own.
    let builds = [ARMV8, DOTPROD, STRICT, Q4_K_M];
    let builds = if deep { &builds[..] } else { &builds[..3] };
    steps.step("the libraries for firmware", || in_parallel(builds, Build::build).map(drop))?;
    steps.step("the check of byte loads sees them", || {
        let most = STRICT.whole()?.byte_loads().iter().map(|(_, n)| *n).max().unwrap_or(0);
        require(most > 100, || format!("the default build loads {most} bytes one by one in its worst kernel"))
    })?;
    steps.step("the self-test under QEMU", self_tests)?;
    let mut figures = Vec::new();
    steps.step("an answer with no operating system", || {
        figures = answers(deep)?;
        Ok(())
    })?;
    for build in builds.iter().filter(|build| build.name != STRICT.name) {
        steps.step(&format!("what the library is made of, {}", build.name), || made_of(*build))?;
    }
    if deep {
        // Of its two minutes the decoder of its log takes one; clippy sees all of it in the gate.
        rust_firmware::run(steps)?;
    }
    say(figures.join(" | "));
    Ok(())
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed(why())) }
}

fn made_of(build: Build<'_>) -> Result<(), Failed> {
    let whole = build.whole()?;
    let (code, data) = (whole.code_bytes(), whole.bytes(&[".data", ".bss", ".got"]));
    say(format!("{code} bytes of code and read-only data, {data} of variables"));
    require((1..=MOST_OF_ALL).contains(&code) && data <= MOST_DATA, || {
        format!("at most {MOST_OF_ALL} and {MOST_DATA} are allowed")
    })?;
    let of_chat = build.linked("chat.elf", &functions_of_chat()?)?.code_bytes();
    say(format!("{of_chat} bytes where the functions of the firmware for C are called alone"));
    require((1..=MOST_CODE).contains(&of_chat), || format!("at most {MOST_CODE} are allowed"))?;
    let needs = build.needs()?;
    say(format!("needs {}", needs.join(" ")));
    require(!needs.is_empty() && needs.iter().all(|n| MAY_NEED.contains(&n.as_str())), || {
        format!("only {} may be needed", MAY_NEED.join(" "))
    })?;
    let allocators = ["malloc", "calloc", "realloc", "__rust_alloc", "__rdl_alloc", "__rg_alloc"];
    let allocates = whole.symbols.split_whitespace().find(|word| allocators.iter().any(|a| word.contains(a)));
    require(allocates.is_none(), || format!("there is an allocator: {allocates:?}"))?;
    let panicking = whole.panicking();
    require(panicking == MAY_PANIC, || format!("functions that may panic: {panicking:?}, not {MAY_PANIC:?}"))?;
    let loads = whole.byte_loads();
    let wrong: Vec<_> = loads.iter().filter(|(_, n)| *n > BYTE_LOADS).collect();
    require(loads.len() >= 6 && wrong.is_empty(), || format!("kernels that load bytes one by one: {wrong:?}"))
}

/// A board under QEMU.
#[derive(Clone, Copy)]
struct Machine {
    board: &'static str,
    cpu: &'static str,
    /// After `-M board`: where it starts.
    level: &'static str,
    cores: usize,
    /// How QEMU runs its cores.
    thread: &'static str,
    /// The raw image instead of the ELF file.
    raw: bool,
    strict: bool,
    answers: Known,
}

const VIRT: Machine = Machine {
    board: "virt",
    cpu: "cortex-a53",
    level: "",
    cores: 1,
    thread: "single",
    raw: true,
    strict: false,
    answers: Known::SmolLm2,
};
const PI: Machine = Machine { board: "raspi3b", cores: 4, raw: false, ..VIRT };

impl Machine {
    fn name(&self) -> String {
        let image = if self.raw { "raw image" } else { "ELF" };
        let strict = if self.strict { ", MMU off, alignment checked" } else { "" };
        let Machine { board, cpu, level, cores, thread, .. } = self;
        format!("{}: {board}{level} {cpu}, {cores} cores, {thread}, {image}{strict}", self.answers.name())
    }

    fn build(&self) -> Build<'static> {
        match self {
            Machine { answers: Known::Gemma3, .. } => Q4_K_M,
            Machine { strict: true, .. } => STRICT,
            Machine { cpu: "cortex-a76", .. } => DOTPROD,
            _ => ARMV8,
        }
    }

    /// Builds an application for it.
    fn make(&self, app: &str, settings: &[&str]) -> Result<PathBuf, Failed> {
        let (library, header) = (self.build().library(), root().join("include"));
        let strict = u8::from(self.strict);
        let mut make = Command::new("make");
        make.arg("-C").arg(root().join("targets")).args(["--no-print-directory", "-j2"]).args(settings);
        make.arg(format!("APP={app}")).arg(format!("BOARD={}", self.board)).arg(format!("CPU={}", self.cpu));
        make.arg(format!("STRICT={strict}")).arg(format!("LIBARMLET={}", library.display()));
        output(make.arg(format!("HEADER={}", header.display())))?;
        let folder = format!("targets/build/{}-{}{}", self.board, self.cpu, if self.strict { "-strict" } else { "" });
        Ok(root().join(folder).join(app).with_extension(if self.raw { "img" } else { "elf" }))
    }

    /// Runs an image, `input` at its serial port; gives what it printed, and its exit code.
    fn run(&self, image: &std::path::Path, extra: &[String], input: &str) -> Result<(String, Option<i32>), Failed> {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native", "-M", &format!("{}{}", self.board, self.level)]);
        qemu.args(["-accel", &format!("tcg,thread={}", self.thread), "-kernel"]).arg(image).args(extra);
        if self.board == "virt" {
            let memory = if self.answers == Known::SmolLm2 { "256M" } else { "512M" };
            qemu.args(["-cpu", self.cpu, "-m", memory, "-smp", &self.cores.to_string()]);
        }
        // Whatever hangs ends.
        let mut child = Command::new("timeout");
        child.arg("300").arg(qemu.get_program()).args(qemu.get_args()).current_dir(root());
        let mut child = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Failed(format!("cannot run QEMU: {e}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A firmware that ends before it has read all is no error.
            let _ = stdin.write_all(input.as_bytes());
        }
        let out = finish(child).map_err(|e| Failed(e.to_string()))?;
        Ok((String::from_utf8_lossy(&out.stdout).replace('\r', ""), out.status.code()))
    }
}

/// Makes an application for each machine, one after the other because some share a folder, and gives what `f` makes of
/// each: those that are one thread of QEMU beside each other, then the others alone.
fn on_each<R: Send>(
    machines: &[Machine],
    app: &str,
    settings: &[&str],
    f: impl Fn(&Machine, &Path) -> Result<R, Failed> + Sync,
) -> Result<Vec<R>, Failed> {
    let made = machines.iter().map(|machine| Ok((*machine, machine.make(app, settings)?)));
    let made = made.collect::<Result<Vec<_>, Failed>>()?;
    let (single, multi): (Vec<_>, Vec<_>) = made.into_iter().partition(|(machine, _)| machine.thread == "single");
    let mut found = in_parallel(&single, |(machine, image)| f(machine, image))?;
    for (machine, image) in &multi {
        found.push(f(machine, image)?);
    }
    Ok(found)
}

fn self_tests() -> Result<(), Failed> {
    let four = Machine { cores: 4, ..VIRT };
    let all = [
        VIRT,
        four,
        Machine { cpu: "cortex-a72", thread: "multi", raw: false, ..four },
        Machine { cpu: "cortex-a76", ..four },
        Machine { level: ",virtualization=on", ..four },
        Machine { level: ",secure=on", raw: false, ..four },
        Machine { strict: true, ..VIRT },
        PI,
        Machine { raw: true, ..PI },
        Machine { strict: true, ..PI },
    ];
    on_each(&all, "selftest", &[], |machine, image| {
        let (text, code) = machine.run(image, &[], "\necho abc\nexit\n")?;
        let all = text.lines().any(|l| l.split_whitespace().eq(["cores", &machine.cores.to_string()]));
        require(code == Some(0) && all, || format!("{}: ended with {code:?}:\n{text}", machine.name()))
    })?;
    let faults = ["undefined", "null", "text", "stack", "core"];
    let image = four.make("selftest", &[])?;
    in_parallel(&faults, |fault| {
        let (text, code) = four.run(&image, &[], &format!("\nfault {fault}\n"))?;
        require(code == Some(2) && text.contains("FAULT"), || format!("fault {fault}: {code:?}:\n{text}"))
    })?;
    // A board that is not emulated here is built all the same.
    Machine { board: "raspi4b", cpu: "cortex-a72", ..VIRT }.make("selftest", &[]).map(drop)
}

const PROMPT: &str = "What is the capital of France?";

/// The figures of a scripted chat.
fn chat(machine: &Machine, image: &Path) -> Result<BTreeMap<String, String>, Failed> {
    let file = machine.answers.file()?;
    let len = std::fs::metadata(&file).map_err(|e| Failed(format!("{}: {e}", file.display())))?.len();
    let file = file.display();
    let at = if machine.board == "virt" { ["0x48000000", "0x401ffff0"] } else { ["0x8000000", "0x7fff0"] };
    let extra = if machine.board == "virt" && machine.raw {
        vec!["-initrd".into(), file.to_string()]
    } else {
        let model = format!("loader,file={file},addr={},force-raw=on", at[0]);
        let bytes = format!("loader,addr={},data={len},data-len=8", at[1]);
        vec!["-device".into(), model, "-device".into(), bytes]
    };
    let (text, code) = machine.run(image, &extra, "")?;
    require(code == Some(0), || format!("{}: ended with {code:?}:\n{text}", machine.name()))?;
    // A figure a line: its name, of one word or of three, and the rest.
    let split = |line: &str| {
        let words = if line.contains(" core ") { 3 } else { 1 };
        let at = line.match_indices(' ').nth(words - 1)?.0;
        Some((line.get(..at)?.to_owned(), line.get(at + 1..)?.trim().to_owned()))
    };
    say(format!("{}:\n{text}", machine.name()));
    Ok(text.lines().filter_map(split).collect())
}

/// The model answers alike wherever it runs, and within its means.
fn answers(deep: bool) -> Result<Vec<String>, Failed> {
    let tokens = if deep { 12 } else { 4 };
    let four = Machine { cores: 4, thread: "multi", ..VIRT };
    let mut machines = vec![
        VIRT,
        four,
        Machine { cpu: "cortex-a76", ..VIRT },
        Machine { strict: true, ..VIRT },
        Machine { raw: true, ..PI },
    ];
    if deep {
        let virtualized = Machine { level: ",virtualization=on", ..VIRT };
        machines.extend([Machine { cpu: "cortex-a72", raw: false, ..VIRT }, virtualized, PI]);
    }
    let mut figures = answers_of(Known::SmolLm2, &machines, tokens)?;
    if deep {
        // A quarter of a gigabyte to fetch: not in the gate. After the others, one of which has the same folder.
        figures.extend(answers_of(Known::Gemma3, &[Machine { answers: Known::Gemma3, ..VIRT }], tokens)?);
    }
    Ok(figures)
}

/// A model's answers on machines: figures of each.
fn answers_of(known: Known, machines: &[Machine], tokens: usize) -> Result<Vec<String>, Failed> {
    let want = model::greedy_ids(known, PROMPT, tokens)?;
    let settings = [format!("PROMPT={PROMPT}"), format!("TOKENS={tokens}")];
    on_each(machines, "chat", &settings.each_ref().map(String::as_str), |machine, image| {
        let found = chat(machine, image)?;
        let figure = |name: &str| found.get(name).map_or("", String::as_str);
        let number = |name: &str| figure(name).parse::<u64>().unwrap_or(u64::MAX);
        let ids = [figure("prompt_ids"), figure("answer_ids")].map(str::to_owned);
        require(ids == want, || format!("{}: tokens {ids:?}, on this machine {want:?}", machine.name()))?;
        let busy = (0..machine.cores).all(|core| number(&format!("tiles core {core}")) > 0) || machine.cores == 1;
        require(number("cores") == machine.cores as u64 && busy, || format!("{}: idle cores", machine.name()))?;
        require(number("uneven_tiles") <= 1, || "cores have unequal shares".into())?;
        let stack = found.iter().filter(|(name, _)| name.starts_with("stack_used")).filter_map(|(_, n)| n.parse().ok());
        let stack = stack.max().unwrap_or(u64::MAX);
        require(stack <= MOST_STACK && number("stack_limit") == MOST_STACK, || {
            format!("{}: {stack} bytes of stack", machine.name())
        })?;
        Ok(format!("{}: stack {stack}, arena {}", machine.name(), figure("arena_bytes")))
    })
}
