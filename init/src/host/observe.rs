//! Reads what is on disk into a value that the pure rooms judge.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::root::Root;
use crate::paths;
use crate::plan::sight::{Amount, Entry, Etcd, Sight};

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

/// Looks how much there is of etcd's data.
pub fn etcd(root: &Root) -> Etcd {
    Etcd { database: database(root), log: log(root) }
}

fn database(root: &Root) -> Amount {
    match std::fs::symlink_metadata(root.path(paths::ETCD_DATABASE)) {
        Ok(found) if found.is_file() => Ok(found.len()),
        Ok(_) => Err("no regular file".to_owned()),
        Err(error) => nothing(&error),
    }
}

fn log(root: &Root) -> Amount {
    let files = match super::files::list(&root.path(paths::ETCD_LOG)) {
        Ok(files) => files,
        Err(error) => return nothing(&error),
    };
    let files = files.iter().filter(|file| file.extension().is_some_and(|end| end == "wal"));
    files.map(|file| std::fs::metadata(file).map(|found| found.len()).or_else(|error| nothing(&error))).sum()
}

/// What is not there amounts to nothing; what can't be looked at says why.
fn nothing(error: &io::Error) -> Amount {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(format!("unreadable: {error}")),
    }
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
    fn etcds_data_is_counted_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert_eq!(etcd(&root), Etcd { database: Ok(0), log: Ok(0) });
        for path in [paths::ETCD_DATABASE, "/var/lib/etcd/member/wal/0.wal", "/var/lib/etcd/member/wal/1.tmp"] {
            std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
            std::fs::write(root.path(path), "12345").unwrap();
        }
        std::fs::write(root.path("/var/lib/etcd/member/wal/1.wal"), "12").unwrap();
        assert_eq!(etcd(&root), Etcd { database: Ok(5), log: Ok(7) });
        std::fs::remove_dir_all(root.path(paths::ETCD_LOG)).unwrap();
        std::fs::write(root.path(paths::ETCD_LOG), "no folder").unwrap();
        assert!(etcd(&root).log.unwrap_err().starts_with("unreadable: "));
    }

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
