//! Files that must survive a power cut: whole and old, or whole and new, never between.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{clock, wait};

pub use crate::paths::temporary_beside;

/// Between looks whether a lock is free.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Replaces `path` by `contents`: a temporary file in the same directory with `mode` from its creation, fsync, rename,
/// fsync of the directory.
///
/// # Errors
/// Those of the steps; the old file is then still there, and the temporary one is removed.
pub fn write_atomic(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let result = write_new(&temporary, contents, mode).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result?;
    sync_parent(path)
}

/// Replaces `path` by `contents` on a file system that goes at power-off: [`write_atomic`] without its fsyncs, which
/// cost time and keep nothing there.
///
/// # Errors
/// Those of the steps; the old file is then still there, and the temporary one is removed.
pub fn write_volatile(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let result = create_new(&temporary, contents, mode).and_then(|_| std::fs::rename(&temporary, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// Makes a folder with `mode`, if there is none yet. Its parent has to exist: a missing one means a file system that
/// is not mounted.
///
/// # Errors
/// Those of mkdir(2) and chmod(2).
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets permission bits.
///
/// # Errors
/// Those of chmod(2).
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The entries of a folder, in no order.
///
/// # Errors
/// Those of opendir(3) and readdir(3).
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Whether there is anything at `path`.
pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Like [`write_atomic`], but leaves a file alone that already has these contents and this mode. True when it wrote.
///
/// # Errors
/// As [`write_atomic`]; and those of reading the file that is there.
pub fn ensure(path: &Path, contents: &[u8], mode: u32) -> io::Result<bool> {
    let same = match std::fs::metadata(path) {
        Ok(found) if found.len() == contents.len() as u64 && found.permissions().mode() & 0o7777 == mode => {
            std::fs::read(path)? == contents
        }
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !same {
        write_atomic(path, contents, mode)?;
    }
    Ok(!same)
}

/// The contents of a file, or none when it does not exist.
///
/// # Errors
/// Every other reason not to read it.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file and makes that last. A file that is not there is no error.
///
/// # Errors
/// Those of unlink and of the directory's fsync.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A lock on a folder that is there, for as long as it is held; other processes and threads wait for it. It is of what in
/// the folder is changed by more than one of them, and goes with the process.
///
/// # Errors
/// The folder can't be opened, or another holds the lock for longer than `patience`.
pub fn lock_folder(folder: &Path, patience: Duration) -> io::Result<Flock<File>> {
    let mut file = File::open(folder)?;
    let start = clock::monotonic();
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => return Err(error.into()),
        };
        if clock::monotonic().saturating_sub(start) >= patience {
            let why = format!("another process holds its lock for more than {} s", patience.as_secs());
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        wait::pause_for(LOCK_PAUSE);
    }
}

/// Makes the entries of `path`'s directory last.
///
/// # Errors
/// A directory that can't be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    // Of a name without a folder the parent is empty, which nothing can be opened by.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(if path.is_absolute() { "/" } else { "." })))?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    create_new(path, contents, mode)?.sync_all()
}

fn create_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The process's umask may have taken bits away; it can't have added any.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    fill(&mut file, contents)?;
    Ok(file)
}

/// Writes all of it to a new file.
pub(super) fn fill(file: &mut File, contents: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    let (contents, full) = {
        let (fits, rest) = contents.split_at(space::take(contents.len()));
        (fits, !rest.is_empty())
    };
    file.write_all(contents)?;
    #[cfg(test)]
    if full {
        return Err(Errno::ENOSPC.into());
    }
    Ok(())
}

/// How much room a disk has, for tests.
#[cfg(test)]
pub(crate) mod space {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// In `what`, on this thread, there is room for so many bytes, and none comes free.
    pub(crate) fn only<T>(bytes: usize, what: impl FnOnce() -> T) -> T {
        LEFT.set(Some(bytes));
        let came = what();
        LEFT.set(None);
        came
    }

    pub(super) fn take(wanted: usize) -> usize {
        let Some(left) = LEFT.get() else { return wanted };
        let taken = wanted.min(left);
        LEFT.set(Some(left - taken));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_contents_and_mode_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(folder.path().join(".key.kubeboot-new"), "torn").unwrap();
        write_atomic(&path, b"one", 0o644).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_atomic(&path, b"old", 0o600).unwrap();
        for write in [write_atomic, write_volatile] {
            let full = space::only(2, || write(&path, b"secret", 0o600)).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_name_without_a_folder_is_in_this_one() {
        assert!(sync_parent(Path::new("kubeconfig")).is_ok());
    }

    #[test]
    fn ensure_writes_only_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(ensure(&path, b"a", 0o644).unwrap());
        assert!(!ensure(&path, b"a", 0o644).unwrap());
        assert!(ensure(&path, b"b", 0o644).unwrap());
        assert!(ensure(&path, b"b", 0o600).unwrap());
    }

    #[test]
    fn a_folders_lock_is_one_holders_and_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path(), Duration::ZERO).unwrap();
        let late = lock_folder(folder.path(), Duration::from_millis(30)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        drop(held);
        assert!(lock_folder(folder.path(), Duration::ZERO).is_ok());
        assert!(lock_folder(&folder.path().join("none"), Duration::ZERO).is_err());
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_optional(&folder.path().join("none")).unwrap().is_none());
        assert!(read_optional(folder.path()).is_err());
    }
}
