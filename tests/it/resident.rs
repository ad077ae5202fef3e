//! Where a model's bytes are: `--no-mmap` and `--mlock`; and what is shown, and ends, while a command works.

use std::os::unix::process::CommandExt;

use rustix::process::Signal;

use crate::cli::{Folder, armlet, fails, ok, tiny};
use crate::common::pty::Terminal;

#[test]
fn a_copy_or_locked_pages_answer_the_same() {
    let f = Folder::new();
    let model = tiny(&f);
    let complete = ["complete", "-m", &model, "-p", "ABAB", "-n", "8", "--temp", "0", "-t", "1"];
    let expected = ok(&complete);
    for more in [&["--no-mmap"][..], &["--mlock"], &["--no-mmap", "--mlock"]] {
        assert_eq!(ok(&[&complete[..], more].concat()), expected);
        ok(&[&["chat", "-m", &model, "-p", "A", "-n", "2"][..], more].concat());
        ok(&[&["tokenize", "-m", &model, "-p", "A"][..], more].concat());
        ok(&[&["bench", "-m", &model, "-p", "4", "-n", "0", "-r", "1"][..], more].concat());
    }
    let memory = |more: &[&str]| {
        let said = ok(&[&["plan", "-m", &model][..], more].concat());
        said.lines().find(|line| line.starts_with("memory: ")).unwrap().to_string()
    };
    let mapped = memory(&[]);
    assert_eq!(memory(&["--no-mmap"]), mapped.replacen("file", "copy of the file", 1));
    assert_eq!(memory(&["--mlock"]), mapped.replacen("file", "file, locked", 1));
}

/// A file with a hole is longer than any memory.
#[test]
fn a_copy_that_does_not_fit_is_refused() {
    let f = Folder::new();
    let model = tiny(&f);
    std::fs::File::options().append(true).open(&model).unwrap().set_len(1 << 40).unwrap();
    let complete = ["complete", "-m", &model, "-p", "A", "-n", "1"];
    ok(&complete);
    let output = armlet().args(complete).arg("--no-mmap").output().unwrap();
    fails(&output, 1, "--no-mmap: a copy of the model takes 1048576 MiB");
}

#[cfg(target_os = "linux")]
#[test]
#[allow(unsafe_code)]
fn a_lock_that_is_not_allowed_names_the_limit() {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let f = Folder::new();
    let model = tiny(&f);
    let mut command = armlet();
    command.args(["complete", "-m", &model, "-p", "A", "-n", "1", "--mlock"]);
    // SAFETY: two system calls, which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(|| {
            // Root may lock whatever the limit is; others cannot, and need not, give that up.
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
            let none = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
            if libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        })
    };
    fails(&command.output().unwrap(), 1, "RLIMIT_MEMLOCK allows 1 MiB (ulimit -l)");
}

#[test]
fn bench_shows_that_it_works_and_stops() {
    let f = Folder::new();
    let model = tiny(&f);
    let bench = |more: &[&str]| {
        let mut command = armlet();
        command.args(["bench", "-m", &model, "-t", "1", "-r", "10000"]).args(more);
        Terminal::new(&mut command)
    };
    for (more, shown) in [(&["-p", "16", "-n", "0"][..], "reading a prompt ["), (&["--compare-mha"], "measuring [")] {
        let mut t = bench(more);
        t.expect(shown);
        t.send("\x03");
        assert_eq!(t.ends(), 130);
    }
}

/// A command that reads a pipe, given behind its words, ends with `code` when `signal` comes.
pub(crate) fn ends_by(f: &Folder, words: &[&str], signal: Signal, code: i32) {
    let pipe = f.path("pipe");
    if !pipe.exists() {
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    }
    let mut t = Terminal::new(armlet().args(words).arg(&pipe));
    // As soon as the program reads it.
    let writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    t.signal(signal);
    assert_eq!(t.ends(), code, "{words:?}");
    drop(writer);
}

/// What waits, and has nothing to finish, ends at once: with an exit code, and not by the signal.
#[test]
fn signals_end_what_has_nothing_to_finish() {
    let f = Folder::new();
    let model = tiny(&f);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        for command in ["tokenize", "complete", "perplexity"] {
            ends_by(&f, &[command, "-m", &model, "-f"], signal, code);
        }
    }
}

#[test]
fn ctrl_c_stops_a_perplexity() {
    let f = Folder::new();
    let (model, text) = (tiny(&f), f.write("text", "AB".repeat(200_000).as_bytes()));
    for (more, shown) in [(&["-c", "16"][..], "[2]"), (&["-c", "16", "--stream"], "[1000]")] {
        let mut t = Terminal::new(armlet().args(["perplexity", "-m", &model, "-t", "1", "-f", &text]).args(more));
        t.expect(shown);
        t.send("\x03");
        assert_eq!(t.ends(), 130);
    }
}
