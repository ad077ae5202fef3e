//! The library for C, as a folder that can be put anywhere: `target/dist/TRIPLE`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failed, Steps, cargo, output, root, say, version};

/// Files that are made of others, by replacing `@NAME@`: where each goes, and what it is made of.
const TEMPLATES: [(&str, &str); 4] = [
    ("lib/pkgconfig/armlet.pc", include_str!("../dist/armlet.pc.in")),
    ("lib/cmake/armlet/armletConfig.cmake", include_str!("../dist/armletConfig.cmake.in")),
    ("lib/cmake/armlet/armletConfigVersion.cmake", include_str!("../dist/armletConfigVersion.cmake.in")),
    ("share/doc/armlet/README", include_str!("../dist/README.in")),
];
/// Files that are copied: where from, where to.
const COPIES: [(&str, &str); 3] = [
    ("include/armlet.h", "include/armlet.h"),
    ("LICENSE-MIT", "share/doc/armlet/LICENSE-MIT"),
    ("LICENSE-APACHE", "share/doc/armlet/LICENSE-APACHE"),
];

pub(crate) fn run(steps: &mut Steps, triple: Option<&str>) -> Result<(), Failed> {
    let triple = triple.map_or_else(host, |triple| Ok(triple.into()))?;
    steps.step(&format!("the library for C on {triple}"), || {
        say(format!("    {}", build(&triple, "release")?.display()));
        Ok(())
    })
}

/// This machine's target.
pub(crate) fn host() -> Result<String, Failed> {
    let about = output(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(String::from).ok_or_else(|| Failed(format!("no host in {about:?}")))
}

/// The name by which programs find the shared library.
pub(crate) fn soname() -> Result<String, Failed> {
    Ok(format!("libarmlet.so.{}", version()?[0]))
}

/// Builds both libraries and puts the folder together.
pub(crate) fn build(triple: &str, profile: &str) -> Result<PathBuf, Failed> {
    let built = root().join("target").join(triple).join(profile);
    let libs = built.join("libarmlet.libs");
    let soname = soname()?;
    cargo(
        &[
            &["rustc", "--lib", "--profile", profile, "--target", triple][..],
            &["--no-default-features", "--features", "capi,std"],
            &["--crate-type", "staticlib,cdylib", "--"],
            &[
                "-C",
                &format!("link-arg=-Wl,-soname,{soname}"),
                "--print",
                &format!("native-static-libs={}", libs.display()),
            ],
        ]
        .concat(),
    )?;
    let folder = root().join("target/dist").join(triple);
    // Nothing of an older version stays.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(at(&folder))?;
    }
    let [major, minor, patch] = version()?;
    let version = format!("{major}.{minor}.{patch}");
    let shared = format!("libarmlet.so.{version}");
    copy(&built.join("libarmlet.a"), &folder.join("lib/libarmlet.a"))?;
    copy(&built.join("libarmlet.so"), &folder.join("lib").join(&shared))?;
    for (name, to) in [(soname.as_str(), shared.as_str()), ("libarmlet.so", &soname)] {
        let link = folder.join("lib").join(name);
        symlink(to, &link).map_err(at(&link))?;
    }
    for (from, to) in COPIES {
        copy(&root().join(from), &folder.join(to))?;
    }
    let libs = fs::read_to_string(&libs).map_err(at(&libs))?;
    let libs = native_libs(&libs);
    let values = [
        ("@VERSION@", version.as_str()),
        ("@MAJOR@", &major),
        ("@MINOR@", &minor),
        ("@TRIPLE@", triple),
        ("@SONAME@", &soname),
        ("@LIBS@", &libs.join(" ")),
        ("@LIBS_LIST@", &libs.join(";")),
    ];
    for (to, template) in TEMPLATES {
        let text = values.iter().fold(template.to_string(), |text, (name, value)| text.replace(name, value));
        let to = folder.join(to);
        parent(&to)?;
        fs::write(&to, text).map_err(at(&to))?;
    }
    Ok(folder)
}

/// What a program that is linked with the static library needs, without what every C compiler adds by itself: named, that
/// would keep a program from being wholly static.
fn native_libs(printed: &str) -> Vec<&str> {
    printed.split_whitespace().filter(|lib| !["-lgcc_s", "-lc"].contains(lib)).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    parent(to)?;
    fs::copy(from, to).map(drop).map_err(at(from))
}

fn parent(path: &Path) -> Result<(), Failed> {
    path.parent().map_or(Ok(()), |folder| fs::create_dir_all(folder).map_err(at(folder)))
}

/// An error with the file's name.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Failed {
    move |e| Failed(format!("{}: {e}", path.display()))
}
