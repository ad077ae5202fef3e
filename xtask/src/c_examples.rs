//! The C API as its users see it: both examples, built in every way there is, say the same everywhere.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::dist::{self, at};
use crate::model;
use crate::process::{Failed, Steps, cargo, finish, in_parallel, output, root, say};
use crate::setup::GNU;

/// What the examples must compile without.
const WARNINGS: [&str; 6] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"];
/// Example, its source, and its language.
const EXAMPLES: [(&str, &str, &str); 2] = [("chat", "chat.c", "-std=c99"), ("chat_cpp", "chat.cpp", "-std=c++11")];
/// What the tiny model is asked. It goes on for long enough.
const TINY: [&str; 5] = ["-p", "Tell me.", "-i", "-n", "48"];
/// The cores of aarch64 that are emulated here: all that another has, one of these has.
const CORES: [&str; 2] = ["cortex-a53", "max"];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let (host, deep) = (dist::host()?, steps.deep);
    let model = folder().join("tiny.gguf");
    steps.step("a tiny model", || tiny(&model))?;
    // On an aarch64 machine the two are one. What the gate has of the library on aarch64 is the firmware, and `it`.
    let cross = (deep && host != GNU).then(|| Target::new(GNU, Some("qemu-aarch64")));
    let native = Target::new(&host, None);
    let mut said = None;
    for target in [Some(&native), cross.as_ref()].into_iter().flatten() {
        let triple = &target.triple;
        // What users have is built with LTO, which takes longer.
        let profile = if deep { "release" } else { model::TESTED };
        steps.step(&format!("the library for C on {triple}"), || exports(&dist::build(triple, profile)?))?;
        let mut programs = Vec::new();
        steps.step(&format!("C and C++ on {triple}"), || {
            programs = target.programs()?;
            Ok(())
        })?;
        steps.step(&format!("what they say on {triple}"), || target.say_alike(&programs, &model, &mut said, deep))?;
    }
    steps.step("sessions and errors", || {
        sessions(&native.program("cmake", "chat"), &model)?;
        errors(&native.program("cmake", "chat"), &model)
    })?;
    if cfg!(target_arch = "x86_64") {
        steps.step("valgrind", || valgrind(&native, &model, deep))?;
    }
    steps.step("address and undefined behaviour sanitizers", || sanitizers(&native, &model))?;
    steps.step("the real model", || real(&native))
}

/// Where all this is built.
fn folder() -> PathBuf {
    root().join("target/c")
}

pub(crate) fn tiny(path: &Path) -> Result<(), Failed> {
    fs::create_dir_all(folder()).map_err(at(&folder()))?;
    let path = path.to_string_lossy();
    // As `cargo test` built it, with the features that both packages ask of what they depend on.
    cargo(&[&["build", "--examples"], &model::PACKAGES[..]].concat())?;
    output(Command::new("target/debug/examples/tiny").arg(&*path)).map(drop)
}

/// The shared library exports what the header declares, no more and no less, under its name.
fn exports(folder: &Path) -> Result<(), Failed> {
    let library = folder.join("lib/libarmlet.so");
    let symbols = output(Command::new("readelf").args(["--dyn-syms", "--wide"]).arg(&library))?;
    // Num: Value Size Type Bind Vis Ndx Name
    let mut found: Vec<&str> = symbols
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() == 8 && ["GLOBAL", "WEAK"].contains(&row[4]) && row[6] != "UND")
        .map(|row| row[7])
        .collect();
    let header = folder.join("include/armlet.h");
    let header = fs::read_to_string(&header).map_err(at(&header))?;
    let mut declared: Vec<&str> = header.lines().filter_map(declaration).collect();
    found.sort_unstable();
    declared.sort_unstable();
    if found.is_empty() || found != declared {
        return Err(Failed(format!("the library exports {found:?}, and the header declares {declared:?}")));
    }
    let soname = dist::soname()?;
    let dynamic = output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(&library))?;
    if dynamic.contains(&format!("soname: [{soname}]")) { Ok(()) } else { Err(Failed(format!("no {soname}"))) }
}

/// The function that a line of the header begins to declare; `armlet_panic` is the firmware's own.
fn declaration(line: &str) -> Option<&str> {
    let (before, _) = line.split_once('(')?;
    let name = before.rsplit([' ', '*']).next()?;
    let declares = before.starts_with(|c: char| c.is_ascii_lowercase()) && !before.starts_with("typedef");
    (declares && name.starts_with("armlet_") && name != "armlet_panic").then_some(name)
}

/// A system that programs are built for, and how they are run here.
struct Target {
    triple: String,
    /// What the names of its compilers begin with.
    tools: String,
    emulator: Option<&'static str>,
}

/// One of the examples, and the way in which it was built.
struct Program {
    way: &'static str,
    name: &'static str,
}

impl Target {
    fn new(triple: &str, emulator: Option<&'static str>) -> Self {
        let tools = emulator.map_or(String::new(), |_| format!("{}-", triple.replacen("-unknown", "", 1)));
        Target { triple: triple.into(), tools, emulator }
    }

    /// The library as it would be after an archive was unpacked: not where it was made.
    fn installed(&self) -> PathBuf {
        folder().join(&self.triple).join("installed")
    }

    fn program(&self, way: &str, name: &str) -> PathBuf {
        folder().join(&self.triple).join(way).join(name)
    }

    /// The compiler of a language of [`EXAMPLES`].
    fn compiler(&self, language: &str) -> String {
        format!("{}{}", self.tools, if language.contains("++") { "g++" } else { "gcc" })
    }

    /// Builds the examples in four ways.
    fn programs(&self) -> Result<Vec<Program>, Failed> {
        let place = folder().join(&self.triple);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(at(&place))?;
        }
        fs::create_dir_all(&place).map_err(at(&place))?;
        let made = root().join("target/dist").join(&self.triple);
        output(Command::new("cp").arg("-a").arg(made).arg(self.installed()))?;

        let path = format!("-Wl,-rpath,{}", self.installed().join("lib").display());
        self.with_pkg_config("pkg-config", &[], &[&path])?;
        self.with_pkg_config("pkg-config-static", &["--static"], &["-static"])?;
        self.with_cmake("cmake", "OFF")?;
        self.with_cmake("cmake-shared", "ON")?;
        let ways = ["pkg-config", "pkg-config-static", "cmake", "cmake-shared"];
        Ok(ways.into_iter().flat_map(|way| EXAMPLES.map(|(name, ..)| Program { way, name })).collect())
    }

    fn with_pkg_config(&self, way: &str, ask: &[&str], flags: &[&str]) -> Result<(), Failed> {
        let mut config = Command::new("pkg-config");
        config.env("PKG_CONFIG_PATH", self.installed().join("lib/pkgconfig"));
        let said = output(config.args(ask).args(["--cflags", "--libs", "armlet"]))?;
        let said: Vec<&str> = said.split_whitespace().chain(flags.iter().copied()).collect();
        for (name, source, language) in EXAMPLES {
            self.compile(way, name, source, language, &said)?;
        }
        Ok(())
    }

    fn compile(&self, way: &str, name: &str, source: &str, language: &str, flags: &[&str]) -> Result<(), Failed> {
        let program = self.program(way, name);
        let place = folder().join(&self.triple).join(way);
        fs::create_dir_all(&place).map_err(at(&place))?;
        let mut compiler = Command::new(self.compiler(language));
        compiler.args([language, "-O2", "-g", "-pthread"]).args(WARNINGS).arg("-o").arg(program);
        output(compiler.arg(Path::new("examples/c").join(source)).args(flags)).map(drop)
    }

    fn with_cmake(&self, way: &str, shared: &str) -> Result<(), Failed> {
        let place = folder().join(&self.triple).join(way);
        let warnings = WARNINGS.join(" ");
        let mut configure = Command::new("cmake");
        configure.args(["-S", "examples/c", "-B"]).arg(&place);
        configure.arg(format!("-DCMAKE_PREFIX_PATH={}", self.installed().display()));
        configure.args([format!("-DCMAKE_C_FLAGS={warnings}"), format!("-DCMAKE_CXX_FLAGS={warnings}")]);
        configure.args([format!("-DBUILD_SHARED_LIBS={shared}"), "-DCMAKE_BUILD_TYPE=RelWithDebInfo".into()]);
        if self.emulator.is_some() {
            configure.args(["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]);
            configure.arg(format!("-DCMAKE_C_COMPILER={}", self.compiler("c")));
            configure.arg(format!("-DCMAKE_CXX_COMPILER={}", self.compiler("c++")));
        }
        output(&mut configure)?;
        output(Command::new("cmake").arg("--build").arg(&place)).map(drop)
    }

    /// The runs of a program: with every number of workers, on every emulated core. Of the ways in which it can be built
    /// one has all of them; so have the others in full size.
    fn runs<'p>(&self, program: &'p Program, deep: bool) -> Vec<Run<'p>> {
        let mut workers = if program.name == "chat" { &[""][..] } else { &["-w1", "-w2", "-w3"] };
        let mut cores = if self.emulator.is_some() { &CORES[..] } else { &["this machine"] };
        if !deep && program.way != "cmake" {
            (workers, cores) = (&workers[workers.len() - 1..], &cores[cores.len() - 1..]);
        }
        let of_core = |core: &'static str| workers.iter().map(move |workers| Run { program, core, workers });
        cores.iter().flat_map(|core| of_core(core)).collect()
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let path = self.program(run.program.way, run.program.name);
        let Some(emulator) = self.emulator else { return Command::new(path) };
        let mut command = Command::new(emulator);
        let system = format!("/usr/{}", self.tools.trim_end_matches('-'));
        command.args(["-L", &system, "-cpu", run.core]).arg(path);
        command
    }

    /// All programs give the same tokens, whatever the number of workers, and those that others gave before.
    fn say_alike(
        &self,
        programs: &[Program],
        model: &Path,
        said: &mut Option<String>,
        deep: bool,
    ) -> Result<(), Failed> {
        let runs: Vec<_> = programs.iter().flat_map(|program| self.runs(program, deep)).collect();
        let found = in_parallel(&runs, |run| {
            let mut command = self.command(run);
            ids(command.arg(model).args(TINY).args(Some(run.workers).filter(|w| !w.is_empty())))
        })?;
        for (Run { program, core, workers }, found) in runs.iter().zip(found) {
            let expected = said.get_or_insert_with(|| found.clone());
            if found != *expected {
                let Program { way, name } = program;
                return Err(Failed(format!("{name} {workers} of {way} on {core} gave {found}, and others {expected}")));
            }
        }
        Ok(())
    }
}

/// A run of a program: on an emulated core or here, and the option that sets its workers.
struct Run<'p> {
    program: &'p Program,
    core: &'static str,
    workers: &'static str,
}

/// The tokens that a command prints: more than a few.
fn ids(command: &mut Command) -> Result<String, Failed> {
    let text = output(command)?.trim().to_string();
    let numbers = text.split(' ').all(|id| id.parse::<u32>().is_ok());
    if numbers && text.split(' ').count() > 4 { Ok(text) } else { Err(Failed(format!("{command:?} gave {text:?}"))) }
}

/// Runs a program with this on its stdin.
fn talk(command: &mut Command, text: &str) -> Result<Output, Failed> {
    let failed = |e| Failed(format!("cannot run the program: {e}"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(failed)?;
    // A program that has ended already reads nothing, which is no failure of this.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    finish(child).map_err(failed)
}

/// A conversation in two parts is the conversation.
fn sessions(chat: &Path, model: &Path) -> Result<(), Failed> {
    let file = folder().join("session");
    let _ = fs::remove_file(&file);
    let say = |text: &str, session: &[&Path]| {
        let mut command = Command::new(chat);
        command.arg(model).args(["-i", "-n", "24", "-s", "Be brief."]).args(session);
        let said = talk(&mut command, text)?;
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if said.status.success() { Ok(out.into_owned()) } else { Err(Failed(format!("{} and {err}", said.status))) }
    };
    let whole = say("One.\nTwo.\nThree.\n", &[])?;
    let kept = [Path::new("-f"), &file];
    let parts = [say("One.\n", &kept)?, say("Two.\n", &kept)?, say("Three.\n", &kept)?];
    if whole.lines().count() == 3 && parts.concat() == whole {
        return Ok(());
    }
    Err(Failed(format!("a conversation said {whole:?}, and in parts {parts:?}")))
}

/// What goes wrong ends with 1 and is said in one or two lines.
fn errors(chat: &Path, model: &Path) -> Result<(), Failed> {
    let missing = root().join("no such file");
    let text = root().join("README.md");
    let garbage = ["-f", &text.to_string_lossy()];
    let kept = folder().join("session");
    let other = ["-c", "64", "-f", &kept.to_string_lossy()];
    let long = "x".repeat(5000);
    let cases: [(&Path, &[&str], &str, &str); 7] = [
        (&missing, &[], "", "No such file or directory"),
        (&text, &[], "", "chat: armlet_plan: the model's file is malformed"),
        (
            model,
            &["-b", if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" }],
            "",
            "chat: armlet_init: this CPU or this build has no such backend",
        ),
        (model, &["-c", "1"], "", "chat: armlet_plan: a value is out of range"),
        (model, &garbage, "", "chat: armlet_restore: not a saved state, or a damaged one"),
        (model, &other, "", "chat: armlet_restore: the saved state belongs to another model or configuration"),
        (model, &[], &long, "chat: armlet_chat_turn: the text is not UTF-8 or too long"),
    ];
    for (model, options, text, expected) in cases {
        let mut command = Command::new(chat);
        let said = talk(command.arg(model).args(options), text)?;
        let err = String::from_utf8_lossy(&said.stderr);
        if said.status.code() != Some(1) || !err.contains(expected) || err.lines().count() > 2 {
            return Err(Failed(format!("{command:?} ended with {} and said {err:?}, not {expected:?}", said.status)));
        }
    }
    Ok(())
}

/// Nothing is read that was not written, and nothing is left. The backends are those that valgrind 3.19 knows.
fn valgrind(native: &Target, model: &Path, deep: bool) -> Result<(), Failed> {
    let all = ["scalar", "avx2"].iter().flat_map(|backend| {
        let ways = ["cmake", "cmake-shared"].iter();
        ways.flat_map(move |way| EXAMPLES.map(|(name, ..)| (*backend, *way, name)))
    });
    let few = [("avx2", "cmake", "chat"), ("scalar", "cmake-shared", "chat_cpp")];
    let runs: Vec<_> = all.filter(|run| deep || few.contains(run)).collect();
    in_parallel(&runs, |(backend, way, name)| {
        let session = folder().join(format!("valgrind-{backend}-{way}.session"));
        let _ = fs::remove_file(&session);
        // A conversation, and going on with it.
        for _ in 0..if *name == "chat" { 2 } else { 1 } {
            let mut command = Command::new("valgrind");
            command.args(["--quiet", "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=9"]);
            command.arg("--errors-for-leak-kinds=all").arg(native.program(way, name)).arg(model);
            command.args(["-b", backend, "-n", "12", "-p", "Tell me."]);
            match *name {
                "chat" => command.arg("-f").arg(&session),
                _ => command.args(["-w", "2"]),
            };
            output(&mut command)?;
        }
        Ok(())
    })
    .map(drop)
}

/// The examples with the sanitizers that see the caller's side, and the library's where it writes the caller's memory.
fn sanitizers(native: &Target, model: &Path) -> Result<(), Failed> {
    let library = native.installed().join("lib/libarmlet.a").to_string_lossy().into_owned();
    let include = format!("-I{}", native.installed().join("include").display());
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", &include, &library, "-lm"];
    let session = folder().join("sanitizers.session");
    let _ = fs::remove_file(&session);
    for (name, source, language) in EXAMPLES {
        native.compile("sanitizers", name, source, language, &flags)?;
        for _ in 0..2 {
            let mut command = Command::new(native.program("sanitizers", name));
            command.arg(model).args(TINY);
            match name {
                "chat" => command.arg("-f").arg(&session),
                _ => command.args(["-w", "3"]),
            };
            output(&mut command)?;
        }
    }
    let chat = native.program("sanitizers", EXAMPLES[0].0);
    sessions(&chat, model)?;
    errors(&chat, model)
}

/// Instructions, without which the program takes those of the model's template and C none, and a question.
const SYSTEM: &str = "You answer questions about geography.";
const QUESTION: &str = "What is the capital of France?";

/// C, C++ and the program give one answer to a question, and it is right.
fn real(native: &Target) -> Result<(), Failed> {
    let file = model::shipped()?;
    let ask = |way: &str, name: &str, options: &[&str]| {
        let mut command = Command::new(native.program(way, name));
        command.arg(&file).args(["-s", SYSTEM, "-p", QUESTION, "-n", "48"]).args(options);
        command
    };
    for penalty in ["1", "1.3"] {
        let text = output(&mut ask("cmake", "chat", &["-r", penalty]))?;
        let mut program = model::native();
        program.arg("chat").arg("-m").arg(&file).args(["--system", SYSTEM, "-p", QUESTION, "-n", "48"]);
        let reference = output(program.args(["--temp", "0", "--repeat-penalty", penalty]))?;
        say(format!("    {}", text.trim()));
        if text.trim() != reference.trim() || !text.contains("Paris") {
            return Err(Failed(format!("C answers {text:?}, and the program {reference:?}")));
        }
    }
    let expected = ids(&mut ask("cmake", "chat", &["-i"]))?;
    for (way, workers) in [("cmake", "1"), ("cmake", "2"), ("pkg-config", "2"), ("pkg-config-static", "2")] {
        let found = ids(&mut ask(way, "chat_cpp", &["-i", "-w", workers]))?;
        if found != expected {
            return Err(Failed(format!("{workers} workers of {way} gave {found}, and C {expected}")));
        }
    }
    Ok(())
}
