//! Reads what is on disk into a value that the pure rooms judge.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::root::Root;
use crate::plan::sight::{Entry, Sight};

/// The largest file that is read: everything of ours is far smaller, and a damaged disk must not fill the memory.
const LARGEST: u64 = 4 << 20;

/// Looks at every path.
pub fn look<'a>(root: &Root, paths: impl IntoIterator<Item = &'a str>) -> Sight {
    let mut sight = Sight::default();
    for path in paths {
        sight.note(path, entry(&root.path(path)));
    }
    sight
}

fn entry(path: &Path) -> Entry {
    match read(path) {
        Ok(entry) => entry,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Entry::Missing,
        Err(error) => Entry::Unreadable(error.to_string()),
    }
}

fn read(path: &Path) -> io::Result<Entry> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_dir() {
        return Ok(Entry::Directory { mode });
    }
    if metadata.is_symlink() {
        let target = std::fs::read_link(path)?.to_string_lossy().into_owned();
        let contents =
            std::fs::metadata(path).and_then(|reached| contents(path, reached.len(), reached.is_file())).ok();
        return Ok(Entry::Link { target, contents });
    }
    Ok(Entry::File { mode, contents: contents(path, metadata.len(), metadata.is_file())? })
}

fn contents(path: &Path, length: u64, regular: bool) -> io::Result<Zeroizing<Vec<u8>>> {
    if !regular {
        return Err(io::Error::other("expected a regular file"));
    }
    if length > LARGEST {
        return Err(io::Error::other(format!("expected at most {LARGEST} bytes, found {length}")));
    }
    std::fs::read(path).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_directories_links_and_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::write(root.path("/file"), "text").unwrap();
        std::fs::create_dir(root.path("/directory")).unwrap();
        std::os::unix::fs::symlink("file", root.path("/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path("/dangling")).unwrap();
        let sight = look(&root, ["/file", "/directory", "/link", "/dangling", "/nothing", "/file/below"]);
        assert_eq!(sight.contents("/file"), Some(&b"text"[..]));
        assert_eq!(sight.contents("/link"), Some(&b"text"[..]));
        assert!(matches!(sight.at("/directory"), Entry::Directory { .. }));
        assert!(matches!(sight.at("/dangling"), Entry::Link { contents: None, .. }));
        assert_eq!(sight.present().collect::<Vec<_>>(), ["/dangling", "/directory", "/file", "/link"]);
    }
}
