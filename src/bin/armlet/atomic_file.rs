//! Atomic writes: a file is written under a temporary name, synced to the disk, and renamed.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::error::Failure;
use crate::fatal;

/// How the names of temporary files begin; six letters or digits follow.
const TEMPORARY: &str = ".armlet-tmp-";

/// Who may read a new file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    /// Its owner alone: there is a conversation in it.
    Private,
    /// Those whom the umask allows to.
    Shared,
}

/// Replaces the file at `path` by what `write` writes; a new file is for its owner alone. Whatever happens, `path` has
/// either its old content or all of the new. A symbolic link is followed, and the file keeps its owner and permissions.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let target = Target::new(path)?;
    target.replace(Access::Private, |out| write(out).map_err(|e| failed(path, e)), |_| Ok(()))
}

/// The same for what is computed first, and is for everybody: a file that cannot be written fails before that.
pub(crate) fn replace_by(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    Target::new(path)?.replace(Access::Shared, write, |_| Ok(()))
}

/// A place that a file can be written to.
pub(crate) struct Target<'p> {
    /// As the user gave it.
    given: &'p Path,
    /// The file itself, where `given` is a link.
    path: PathBuf,
    folder: PathBuf,
    /// What is there now.
    before: Option<Metadata>,
}

impl<'p> Target<'p> {
    /// Refuses what is no place for a file: a device, a pipe or a folder, a file that may not be written, a link to
    /// nothing, a missing folder.
    pub(crate) fn new(given: &'p Path) -> Result<Self, Failure> {
        let before = match given.metadata() {
            Ok(found) => Some(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Failure::file(given, e)),
        };
        if before.is_none() && given.is_symlink() {
            let to = given.read_link().unwrap_or_default();
            let why =
                format!("a link to {}, which does not exist; remove the link, or give another name", to.display());
            return Err(Failure::file(given, why));
        }
        // A rename would replace a device or a pipe by a file.
        if before.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(Failure::file(given, "not a regular file; give another name"));
        }
        let path = given.canonicalize().unwrap_or(given.to_path_buf());
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        if !folder.is_dir() {
            return Err(Failure::file(given, format!("there is no folder {}", folder.display())));
        }
        if let Some(before) = &before {
            // Root may write to it all the same, so the permissions are looked at first.
            if before.permissions().readonly() {
                return Err(Failure::file(given, "it is read-only; chmod u+w makes it writable"));
            }
            File::options().append(true).open(&path).map_err(|e| Failure::file(given, e))?;
        }
        Ok(Target { given, path, folder, before })
    }

    /// Replaces the file by what `write` writes, if `check` finds it in order.
    pub(crate) fn replace(
        &self,
        access: Access,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
        check: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let fail = |e| failed(self.given, e);
        let temporary = temporary(&self.folder, access).map_err(fail)?;
        if let Some(before) = &self.before {
            like(temporary.as_file(), before, access).map_err(fail)?;
        }
        // The file itself: errors of the other have the temporary name.
        let mut out = BufWriter::with_capacity(1 << 20, temporary.as_file());
        write(&mut out)?;
        out.into_inner().map_err(|e| fail(e.into_error()))?;
        check(temporary.path())?;
        finish(temporary, &self.path).map_err(fail)
    }

    /// An error if no file can be made in the folder.
    pub(crate) fn check_folder(&self) -> Result<(), Failure> {
        temporary(&self.folder, Access::Private).map(drop).map_err(|e| failed(self.given, e))
    }

    /// The file itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Gives a file the owner and the permissions of another. An empty one was there for its name alone: what is private then
/// stays so.
fn like(file: &File, before: &Metadata, access: Access) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = file.metadata()?;
        // Where only root may do so, the file becomes ours: whoever may write to the folder may do that anyway.
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            let group = || fchown(file, None, Some(before.gid()));
            let _ = fchown(file, Some(before.uid()), Some(before.gid())).or_else(|_| group());
        }
    }
    if before.len() == 0 && matches!(access, Access::Private) {
        return Ok(());
    }
    file.set_permissions(before.permissions())
}

/// Why the file at `path` was not written.
pub(crate) fn failed(path: &Path, e: io::Error) -> Failure {
    if e.kind() == io::ErrorKind::Interrupted { Failure::Interrupted } else { Failure::file(path, e) }
}

/// Syncs a temporary file and renames it to `path`.
pub(crate) fn finish(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    // The new name is on the disk only when the folder is synced too. Systems on which a folder cannot be opened do so
    // by themselves.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

/// A temporary file in `folder`; it is deleted when dropped. While it is there, it is locked.
pub(crate) fn temporary(folder: &Path, access: Access) -> io::Result<NamedTempFile> {
    remove_dead(folder);
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    if let Access::Shared = access {
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }
    loop {
        let file = builder.tempfile_in(folder).map_err(|e| without_path(&e))?;
        // Another process may have taken it for one that is left over, before it was locked.
        if lock(file.as_file()) && file.path().exists() {
            fatal::partial(file.path());
            return Ok(file);
        }
    }
}

/// A temporary folder in `folder`, and its lock.
pub(crate) fn temporary_folder(folder: &Path) -> io::Result<(TempDir, File)> {
    remove_dead(folder);
    loop {
        let made = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(folder).map_err(|e| without_path(&e))?;
        let opened = File::open(made.path())?;
        if lock(&opened) && made.path().exists() {
            return Ok((made, opened));
        }
    }
}

/// Locks a temporary file; false if another process has. File systems without locks are as if all were ours.
fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// The error without the temporary name, which is not what the user gave.
fn without_path(e: &io::Error) -> io::Error {
    e.kind().into()
}

/// Removes the temporary files of processes that were killed. Those of living ones are locked.
pub(crate) fn remove_dead(folder: &Path) {
    let is_temporary = |name: &str| {
        let end = name.strip_prefix(TEMPORARY);
        end.is_some_and(|end| end.len() == 6 && end.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(is_temporary) {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type());
        let is_folder = kind.as_ref().is_ok_and(|kind| kind.is_dir());
        if !is_folder && !kind.is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Where nothing can be locked, nobody can be known to be dead.
        // The lock is held until it is gone: nobody else makes a file of this name and locks it meanwhile.
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            // What cannot be removed does no harm.
            let _ = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that fails after `left` bytes, as if the power failed.
    struct Stops<'a> {
        out: &'a mut dyn Write,
        left: usize,
    }

    impl Write for Stops<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.left);
            if n == 0 && !bytes.is_empty() {
                return Err(io::Error::other("no power"));
            }
            self.left -= n;
            self.out.write(&bytes[..n])
        }
        fn flush(&mut self) -> io::Result<()> {
            self.out.flush()
        }
    }

    /// After a failure at any byte the old content is there, and a temporary file that is left over does no harm.
    #[test]
    fn a_power_cut_leaves_the_old_or_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        let (old, new) = (vec![1u8; 300], (0..=255u8).cycle().take(700).collect::<Vec<_>>());
        replace(&path, |out| out.write_all(&old)).unwrap();
        for left in 0..new.len() {
            let result = replace(&path, |out| Stops { out, left }.write_all(&new));
            assert!(result.is_err() && std::fs::read(&path).unwrap() == old, "{left}");
            // Not even the program is there to take its temporary file away.
            let mut lost = temporary(folder.path(), Access::Private).unwrap();
            lost.write_all(&new[..left]).unwrap();
            lost.keep().unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), old);
        replace(&path, |out| Stops { out, left: new.len() }.write_all(&new)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), new);
        // What the programs left that died.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_rights_stay_as_they_are() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("session"), folder.path().join("link"));
        replace(&path, |out| out.write_all(b"old")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, |out| out.write_all(b"new")).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_conversation_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let (private, shared, plain) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        replace(&private, |out| out.write_all(b"secret")).unwrap();
        replace_by(&shared, |_| Ok(())).unwrap();
        std::fs::write(&plain, "").unwrap();
        assert_eq!((mode(&private), mode(&shared)), (0o600, mode(&plain)));
        for kept in [0o640, 0o604] {
            std::fs::set_permissions(&private, PermissionsExt::from_mode(kept)).unwrap();
            replace(&private, |out| out.write_all(b"secret")).unwrap();
            assert_eq!(mode(&private), kept);
        }
    }

    /// Only root may give files away; for others the owner is their own anyway.
    #[cfg(unix)]
    #[test]
    fn a_file_keeps_its_owner() {
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let owner = |path: &Path| path.metadata().map(|m| (m.uid(), m.gid())).unwrap();
        let given = chown(&path, Some(12), Some(34)).is_ok();
        let before = owner(&path);
        assert!(!given || before == (12, 34));
        replace(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!((owner(&path), std::fs::read(&path).unwrap()), (before, b"new".to_vec()));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_place_for_a_file_is_said_before_anything_is_written() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("locked"), "old").unwrap();
        std::fs::set_permissions(at("locked"), PermissionsExt::from_mode(0o444)).unwrap();
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        for (name, what) in [
            ("locked", "read-only"),
            ("dangling", "a link to "),
            ("folder", "not a regular file"),
            ("none/x", "there is no folder "),
        ] {
            let path = at(name);
            let Err(Failure::Error(why)) = replace(&path, |_| panic!("{name} is written")) else { panic!("{name}") };
            assert!(why.starts_with(path.to_str().unwrap()) && why.contains(what) && !why.contains(TEMPORARY), "{why}");
        }
        assert_eq!(std::fs::read(at("locked")).unwrap(), b"old");
        assert!(at("dangling").is_symlink());
    }

    /// Temporary files of living processes are locked, and left alone; so is what only looks like one.
    #[test]
    fn only_what_the_dead_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let names =
            [".armlet-tmp-aB3xyz", ".armlet-tmp-aB3xy", ".armlet-history", "armlet-tmp-aB3xyz", ".armlet-tmp-aB3x.z"];
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        std::fs::create_dir_all(folder.path().join(".armlet-tmp-folder/x")).unwrap();
        let alive = temporary(folder.path(), Access::Shared).unwrap();
        let (alive_too, _lock) = temporary_folder(folder.path()).unwrap();
        remove_dead(folder.path());
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        let mut expected: Vec<_> = names[1..].iter().map(|name| folder.path().join(name)).collect();
        expected.extend([alive.path().to_path_buf(), alive_too.path().to_path_buf()]);
        expected.sort();
        assert_eq!(left, expected);
    }
}
