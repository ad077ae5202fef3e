//! One program at a time has a session.
//!
//! The lock is on a file of its own beside the session, because a save replaces the session's file. It is the system's lock:
//! it ends with the process, however that ends, and a lock's file that is left over does no harm.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use rustix::fs::OFlags;

use crate::atomic_file::Target;
use crate::error::Failure;
use crate::fatal;

/// The right to write a session, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Held, not read.
    _lock: File,
    path: PathBuf,
}

impl Claim {
    /// Claims the session at `path`, which may not exist yet.
    ///
    /// An error if another program has it, or if it is no place that can be written to: this is known before a question is
    /// answered, not after.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let target = Target::new(path)?;
        target.check_folder()?;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.path().file_name().unwrap_or_default());
        name.push(".lock");
        let lock = target.path().with_file_name(name);
        loop {
            // A pipe would have the program wait, and a link would be followed.
            if lock.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(Failure::file(&lock, "not a regular file; remove it"));
            }
            let mut options = File::options();
            #[cfg(unix)]
            {
                use std::os::unix::fs::OpenOptionsExt;
                options.mode(0o600).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
            }
            let opened = match options.append(true).create(true).open(&lock) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    remove_foreign(&lock, e)?;
                    continue;
                }
                opened => opened.map_err(|e| Failure::file(&lock, e))?,
            };
            match opened.try_lock() {
                Ok(()) if !is_at(&opened, &lock) => continue,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let why = "another armlet has this session; end it first, or give another name to --session";
                    return Err(Failure::file(path, why));
                }
                Err(TryLockError::Error(e)) => {
                    log::warn!("{}: it cannot be locked ({e}); use it in one program at a time", path.display());
                }
            }
            fatal::locked(&lock);
            return Ok(Claim { _lock: opened, path: lock });
        }
    }
}

/// Removes a lock's file that another user has left, if no program holds it and the folder lets us; `e` is why it cannot be
/// opened.
fn remove_foreign(lock: &Path, e: io::Error) -> Result<(), Failure> {
    #[cfg(unix)]
    if let Ok(found) = lock.metadata() {
        use std::os::unix::fs::MetadataExt;
        let locks = || std::fs::read_to_string("/proc/locks").ok();
        // A list that changes while it is read may leave some out.
        let is_held = (0..8).any(|_| locks().is_none_or(|locks| holds(&locks, found.ino())));
        if !is_held && std::fs::remove_file(lock).is_ok() {
            return Ok(());
        }
        let why = if is_held { "is in use by" } else { "was left by" };
        return Err(Failure::file(lock, format!("this lock {why} an armlet of user {}: {e}", found.uid())));
    }
    Err(Failure::file(lock, e))
}

/// Whether a list like `/proc/locks` has a lock of a whole file with this number.
#[cfg(unix)]
fn holds(locks: &str, inode: u64) -> bool {
    let file = |line: &str| line.split_whitespace().find_map(|word| word.rsplit_once(':')?.1.parse::<u64>().ok());
    // 1: FLOCK  ADVISORY  WRITE 814 08:02:1442 0 EOF
    locks.lines().filter_map(|line| line.split_once(": ")).any(|(_, rest)| file(rest) == Some(inode))
}

/// Whether a file is still the one at a path: another program may have removed it before it was locked.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |m: io::Result<std::fs::Metadata>| m.map(|m| (m.dev(), m.ino())).ok();
        id(file.metadata()) == id(path.metadata())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While it is locked, so that it is nobody else's.
        if fatal::unlocked(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn locks_of_the_system_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::new(&folder.path().join("chat")).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&claim.path.metadata().unwrap());
        let locks = || std::fs::read_to_string("/proc/locks").unwrap();
        // A list that changes while it is read may leave some out.
        assert!((0..100).any(|_| holds(&locks(), inode)) && !holds(&locks(), u64::MAX));
        drop(claim);
        assert!(!holds("1: FLOCK  ADVISORY  WRITE 814 08:02:1442 0 EOF\n", 814));
        assert!(holds("1: -> FLOCK  ADVISORY  WRITE 814 08:02:1442 0 EOF\n", 1442));
    }

    #[test]
    fn a_session_has_one_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat");
        for _ in 0..2 {
            let claim = Claim::new(&path).unwrap();
            assert!(matches!(Claim::new(&path), Err(Failure::Error(why)) if why.contains("another armlet")));
            // By another name it is the same.
            #[cfg(unix)]
            {
                std::fs::write(&path, "a session").unwrap();
                let link = folder.path().join("link");
                std::os::unix::fs::symlink(&path, &link).unwrap();
                assert!(Claim::new(&link).is_err());
                std::fs::remove_file(link).unwrap();
                std::fs::remove_file(&path).unwrap();
            }
            drop(claim);
            // What a killed process leaves.
            std::fs::write(folder.path().join(".chat.lock"), "").unwrap();
        }
        drop(Claim::new(&path).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
