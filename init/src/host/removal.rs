//! Removing whole folders, however deep they are and whatever a pod made in them.
//!
//! A pod can nest folders in its volumes deeper than any path, stack or table of file descriptors goes. So nothing here
//! descends: what lies below the second level is moved up to the first before it is looked into. Each folder is moved at
//! most once, at most four descriptors are open, and after a power cut what was moved is found where it is looked for.
//! Symbolic links are removed, not followed, and where something is mounted the removal stops: what is mounted there is
//! somebody else's.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::NixPath;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What a folder is called once it was moved up, before the number of its inode, which no other folder there has.
const MOVED: &str = ".kubeboot-removed-";

/// Removes a folder with everything below it, or a file. Nothing there is no error. Symbolic links are not followed.
///
/// # Errors
/// Those of unlink(2) and rmdir(2), with the name; something is mounted on the folder or below it. What was removed
/// before stays removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{} can't be removed", path.display())));
    };
    let parent = match File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let remove = || {
        if remove_leaf(&parent, name, None)? {
            return Ok(());
        }
        remove_below(&open_folder(&parent, name)?, &[])?;
        Ok(unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?)
    };
    remove().map_err(|error| named(path.as_os_str(), &error))
}

/// Removes everything in a folder but `kept`, names in it, and makes that last. A folder that is not there is no error.
///
/// # Errors
/// As [`remove_tree`], and those of the folder's fsync.
pub fn empty_folder(folder: &Path, kept: &[&OsStr]) -> io::Result<()> {
    let top = match File::open(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    remove_below(&top, kept).map_err(|error| named(folder.as_os_str(), &error))?;
    top.sync_all()
}

/// Passes over `top` until one finds nothing that is not `kept`. Each must have removed or moved something.
fn remove_below(top: &impl AsFd, kept: &[&OsStr]) -> io::Result<()> {
    loop {
        let (mut left, mut progress) = (None, false);
        for_each(top, |name, kind| {
            let shown = OsStr::from_bytes(name.to_bytes());
            if kept.contains(&shown) {
                return Ok(());
            }
            let gone = remove_leaf(top, name, kind).map_err(|error| named(shown, &error))?;
            if !gone {
                left = Some(shown.to_owned());
                progress |= flatten(top, name).map_err(|error| named(shown, &error))?;
            }
            progress |= gone;
            Ok(())
        })?;
        match left {
            None => return Ok(()),
            Some(_) if progress => {}
            Some(name) => return Err(named(&name, &io::Error::other("expected it to become empty, and it does not"))),
        }
    }
}

/// Removes the folder `name` of `top` after moving up what it has: its folders go to `top`, the rest away. True when
/// anything changed; the folder itself may still be there, for another pass.
fn flatten(top: &impl AsFd, name: &CStr) -> io::Result<bool> {
    let folder = open_folder(top, name)?;
    let mut changed = false;
    for_each_numbered(&folder, |inner, kind, inode| {
        let gone = remove_leaf(&folder, inner, kind)?;
        changed |= gone || move_up(&folder, inner, top, inode)?;
        Ok(())
    })?;
    match unlinkat(top, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(changed),
        Err(error) => Err(error.into()),
    }
}

/// Moves a folder to `top`. False when it has to stay for now: another has the name, or there is no room for one more.
fn move_up(from: &impl AsFd, name: &CStr, top: &impl AsFd, inode: u64) -> io::Result<bool> {
    match renameat(from, name, top, format!("{MOVED}{inode}").as_str()) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EMLINK | Errno::ENOSPC | Errno::EDQUOT) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever is no folder, or an empty one. False when it is a folder with something in it.
fn remove_leaf<P: NixPath + ?Sized>(at: &impl AsFd, name: &P, kind: Option<Type>) -> io::Result<bool> {
    if kind != Some(Type::Directory) {
        match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(true),
            Err(Errno::EISDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match unlinkat(at, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(Errno::EBUSY) => Err(mounted()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder itself: through no symbolic link, and not the one that is mounted on it.
fn open_folder<P: NixPath + ?Sized>(at: &impl AsFd, name: &P) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(at, name, how) {
        Err(Errno::EXDEV) => Err(mounted()),
        result => Ok(result?),
    }
}

fn mounted() -> io::Error {
    io::Error::new(ErrorKind::CrossesDevices, "expected nothing mounted there, found a mount point")
}

/// Calls `each` with name and kind of every entry but `.` and `..`, without keeping them.
fn for_each(folder: &impl AsFd, mut each: impl FnMut(&CStr, Option<Type>) -> io::Result<()>) -> io::Result<()> {
    for_each_numbered(folder, |name, kind, _| each(name, kind))
}

/// [`for_each`], with the entry's inode too.
fn for_each_numbered(
    folder: &impl AsFd,
    mut each: impl FnMut(&CStr, Option<Type>, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut entries = Dir::from_fd(folder.as_fd().try_clone_to_owned()?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            each(name, entry.file_type(), entry.ino())?;
        }
    }
    Ok(())
}

fn named(name: &OsStr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", name.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::fcntl::openat;
    use nix::sys::stat::{Mode, mkdirat};

    use super::*;

    /// Makes `levels` folders in one another below `folder`, with a file at the bottom: no path reaches it.
    pub(crate) fn nest(folder: &Path, levels: usize, name: &str) {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut at: OwnedFd = File::open(folder).unwrap().into();
        for _ in 0..levels {
            mkdirat(&at, name, Mode::S_IRWXU).unwrap();
            at = openat(&at, name, flags, Mode::empty()).unwrap();
        }
        openat(&at, "bottom", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap();
    }

    #[test]
    fn folders_of_any_depth_go() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 5000, &"n".repeat(255));
        nest(&tree, 1500, "short");
        fs::write(tree.join("file"), "x").unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn wide_folders_on_many_levels_go() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        for (a, b) in (0..20).flat_map(|a| (0..20).map(move |b| (a, b))) {
            fs::create_dir_all(tree.join(format!("{a}/{b}/c/d"))).unwrap();
            fs::write(tree.join(format!("{a}/{b}/c/file")), "x").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn what_an_earlier_removal_moved_up_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(tree.join("a/b")).unwrap());
        fs::create_dir_all(tree.join(format!("{MOVED}{inode}/full"))).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        fs::create_dir_all(tree.join("deep/er")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        for link in ["link", "deep/link", "deep/er/link"] {
            symlink(&outside, tree.join(link)).unwrap();
        }
        symlink(&tree, folder.path().join("to-tree")).unwrap();
        remove_tree(&folder.path().join("to-tree")).unwrap();
        assert!(tree.join("deep/er").exists(), "a link is removed, not what it leads to");
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&tree.join("below/nothing")).unwrap();
    }

    /// /proc stands for whatever may be mounted below: nothing of it is listed, let alone removed.
    #[test]
    fn a_mount_point_is_not_entered() {
        let root = File::open("/").unwrap();
        assert_eq!(open_folder(&root, "proc").unwrap_err().kind(), ErrorKind::CrossesDevices);
        let folder = tempfile::tempdir().unwrap();
        symlink("/proc", folder.path().join("link")).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let at = File::open(folder.path()).unwrap();
        assert!(open_folder(&at, "link").is_err());
        assert!(open_folder(&at, "folder").is_ok());
    }

    #[test]
    fn a_folder_is_emptied_but_for_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        nest(folder.path(), 100, "deep");
        for name in ["kept", "gone"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        empty_folder(folder.path(), &[OsStr::new("kept")]).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        empty_folder(&folder.path().join("none"), &[]).unwrap();
    }
}
