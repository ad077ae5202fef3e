//! Atomic writes: a file is written under a temporary name, synced to the disk, and renamed.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::Failure;

/// Replaces the file at `path` by what `write` writes. Whatever happens, `path` has either its old content or all of the
/// new. A symbolic link is followed, and the file keeps its permissions.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    replace_by(path, |out| write(out).map_err(|e| failed(path, e)))
}

/// The same for what is computed first: a file that cannot be written fails before that.
pub(crate) fn replace_by(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fail = |e| failed(path, e);
    let before = path.metadata().ok();
    // A rename would replace a device or a pipe by a file.
    if before.as_ref().is_some_and(|m| !m.is_file()) {
        return Err(Failure::file(path, "not a regular file; give another name"));
    }
    let target = path.canonicalize().unwrap_or(path.to_path_buf());
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = temporary(folder).map_err(fail)?;
    if let Some(before) = before {
        temporary.as_file().set_permissions(before.permissions()).map_err(fail)?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    write(&mut out)?;
    let temporary = out.into_inner().map_err(|e| fail(e.into_error()))?;
    finish(temporary, &target).map_err(fail)
}

/// Why the file at `path` was not written.
pub(crate) fn failed(path: &Path, e: io::Error) -> Failure {
    if e.kind() == io::ErrorKind::Interrupted { Failure::Interrupted } else { Failure::file(path, e) }
}

/// Syncs a temporary file and renames it to `path`.
pub(crate) fn finish(temporary: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    // The new name is on the disk only when the folder is synced too. Systems on which a folder cannot be opened do so
    // by themselves.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

/// A temporary file in `folder`, with the permissions of a new file; it is deleted when dropped.
pub(crate) fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".armlet-").tempfile_in(folder)
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
            let mut lost = temporary(folder.path()).unwrap();
            lost.write_all(&new[..left]).unwrap();
            lost.keep().unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), old);
        replace(&path, |out| Stops { out, left: new.len() }.write_all(&new)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), new);
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
}
