//! Files that others replace: looked at now and then, read when they changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Most bytes that are read of one.
const LARGEST: u64 = 64 << 10;

/// A file, and what it was like when it was read.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<[i64; 4]>,
    looked: bool,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Watched { path, seen: None, looked: false }
    }

    /// The contents, if this is another file than at the last look, or has been written to since. The first look tells
    /// of a missing file too.
    pub(super) fn changed(&mut self) -> Option<io::Result<Vec<u8>>> {
        let first = !std::mem::replace(&mut self.looked, true);
        let read = File::open(&self.path).and_then(|file| {
            let print = print(&file.metadata()?);
            if self.seen == Some(print) {
                return Ok(None);
            }
            let mut contents = Vec::new();
            file.take(LARGEST).read_to_end(&mut contents)?;
            self.seen = Some(print);
            Ok(Some(contents))
        });
        match read {
            Ok(contents) => contents.map(Ok),
            Err(error) => {
                let told = self.seen.take().is_some() || first;
                let context = io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
                told.then_some(Err(context))
            }
        }
    }
}

fn print(file: &Metadata) -> [i64; 4] {
    [file.ino().cast_signed(), file.mtime(), file.mtime_nsec(), file.size().cast_signed()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_it_is_another_and_its_absence_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut watched = Watched::new(path.clone());
        assert!(watched.changed().unwrap().is_err());
        assert!(watched.changed().is_none());
        crate::host::files::write_volatile(&path, b"one", 0o644).unwrap();
        assert_eq!(watched.changed().unwrap().unwrap(), b"one");
        assert!(watched.changed().is_none());
        crate::host::files::write_volatile(&path, b"two", 0o644).unwrap();
        assert_eq!(watched.changed().unwrap().unwrap(), b"two");
        std::fs::remove_file(&path).unwrap();
        assert!(watched.changed().unwrap().is_err());
        assert!(watched.changed().is_none());
    }
}
