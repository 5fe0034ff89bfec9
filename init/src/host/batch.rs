//! Many files at once, so that a power cut leaves of each either the old or the new one.
//!
//! What costs is the disk's cache flush. So a batch stages all its files under temporary names, syncs the file system
//! once, renames them in order, and syncs once more: two flushes, however many files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::files::{fill, temporary_beside};

/// Files staged but not yet in place.
#[derive(Debug, Default)]
pub struct Batch {
    staged: Vec<PathBuf>,
    /// Tests: how many operations still happen before the power is cut.
    #[cfg(test)]
    pub(crate) until_cut: Option<u32>,
}

impl Batch {
    /// Stages `contents` for `path`. A stale temporary file of an earlier try is replaced.
    ///
    /// # Errors
    /// The directory is missing or not writable, or the disk is full.
    pub fn stage(&mut self, path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
        let temporary = self.clear(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&temporary)?;
        #[cfg(test)]
        if self.until_cut == Some(0) {
            // What a power cut leaves of a write that was under way.
            io::Write::write_all(&mut file, &contents[..contents.len() / 2])?;
        }
        self.power()?;
        // From here on it is this batch's to remove, whatever comes.
        self.staged.push(path.to_owned());
        fill(&mut file, contents)?;
        // The process's umask may have taken bits away; it can't have added any.
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Puts everything staged in place, in order, and returns when it is on disk. All of it has to be on one file
    /// system. When this fails, each file is either the old or the new one, and what is not in place goes with the batch.
    ///
    /// # Errors
    /// The file system can't be synced or a rename fails.
    pub fn commit(&mut self) -> io::Result<()> {
        let Some(first) = self.staged.first() else { return Ok(()) };
        let disk = File::open(first.parent().unwrap_or(Path::new("/")))?;
        self.power()?;
        nix::unistd::syncfs(&disk)?;
        self.rename()?;
        nix::unistd::syncfs(&disk)?;
        Ok(())
    }

    /// Puts everything staged in place without waiting for the disk: for a tmpfs.
    ///
    /// # Errors
    /// A rename fails.
    pub fn commit_volatile(&mut self) -> io::Result<()> {
        self.rename()
    }

    fn rename(&mut self) -> io::Result<()> {
        for place in 0..self.staged.len() {
            self.power()?;
            let path = &self.staged[place];
            fs::rename(temporary_beside(path)?, path)?;
        }
        self.staged.clear();
        Ok(())
    }

    /// Removes a stale temporary file for `path`, and names it.
    fn clear(&mut self, path: &Path) -> io::Result<PathBuf> {
        let temporary = temporary_beside(path)?;
        self.power()?;
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(temporary),
        }
    }

    /// One operation more: tests cut the power here.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests cut the power here"))]
    pub(super) fn power(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(left) = &mut self.until_cut {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("power cut"))?;
        }
        Ok(())
    }
}

impl Drop for Batch {
    /// What was staged and is not in place may be secret, and takes room on a disk that may be full. After a power cut
    /// the next boot's plan removes it.
    fn drop(&mut self) {
        #[cfg(test)]
        if self.until_cut == Some(0) {
            return;
        }
        for temporary in self.staged.iter().filter_map(|path| temporary_beside(path).ok()) {
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::space;

    #[test]
    fn a_full_disk_leaves_nothing_of_what_was_staged() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("old"), "old").unwrap();
        let mut batch = Batch::default();
        batch.stage(&place("key"), b"secret", 0o600).unwrap();
        let full = space::only(3, || batch.stage(&place("old"), b"secret", 0o600)).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        drop(batch);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(place("old")).unwrap(), b"old");
    }

    #[test]
    fn what_could_not_be_put_in_place_is_removed_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("taken")).unwrap();
        let mut batch = Batch::default();
        for name in ["first", "taken", "last"] {
            batch.stage(&place(name), b"secret", 0o600).unwrap();
        }
        assert!(batch.commit().is_err(), "a folder is in the way");
        drop(batch);
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["first", "taken"]);
    }

    #[test]
    fn the_mode_holds_from_the_start_and_nothing_is_left_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        fs::write(temporary_beside(&path).unwrap(), "torn").unwrap();
        let mut batch = Batch::default();
        batch.stage(&path, b"secret", 0o600).unwrap();
        let staged = fs::metadata(temporary_beside(&path).unwrap()).unwrap();
        assert_eq!(staged.permissions().mode() & 0o7777, 0o600);
        batch.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn until_it_is_committed_the_old_file_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut batch = Batch::default();
        batch.stage(&path, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        batch.commit_volatile().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
