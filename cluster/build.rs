//! A number of the source, which boards compare: a version is the same for long, and what two versions of a program exchange is
//! not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the program is built of, beside this package's folder.
const SOURCE: [&str; 5] = ["../src", "src", "Cargo.toml", "../Cargo.toml", "../Cargo.lock"];

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for path in SOURCE {
        println!("cargo::rerun-if-changed={path}");
        add(Path::new(path), &mut files)?;
    }
    files.sort();
    // FNV-1a (Fowler, Noll and Vo), of names and what is in them.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for file in files {
        let name = file.to_string_lossy().into_owned().into_bytes();
        for byte in name.into_iter().chain(fs::read(&file)?) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=ARMLET_SOURCE={hash:016x}");
    Ok(())
}

/// Adds a file, or all that are below a folder.
fn add(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    // An editor's own files are none of the source.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_source = [".rs", ".toml", ".lock", ".html", ".css", ".js", ".py"].iter().any(|end| name.ends_with(end));
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            add(&entry?.path(), files)?;
        }
    } else if is_source && !name.starts_with('.') {
        files.push(path.to_path_buf());
    }
    Ok(())
}
