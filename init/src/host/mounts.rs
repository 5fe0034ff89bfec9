//! Mounting and unmounting.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether something is mounted on `path`: its device differs from its parent's, or it is bound from elsewhere.
pub fn is_mount_point(path: &Path) -> bool {
    let devices = (std::fs::metadata(path), std::fs::metadata(path.join("..")));
    matches!(devices, (Ok(own), Ok(parent)) if own.dev() != parent.dev()) || mounted(path)
}

/// Mount points, in the order in which they were mounted.
pub fn list() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path))).collect()
}

fn mounted(path: &Path) -> bool {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    list().contains(&path)
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// Mounts a tmpfs with `mode`.
///
/// # Errors
/// Those of mount(2).
pub fn tmpfs(target: &Path, mode: u32, size: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let data = format!("mode={mode:o},size={size}");
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(data.as_str()))?)
}

/// Mounts an overlay of `lower` and `upper` (with `work` beside it, on the same file system).
///
/// # Errors
/// Those of mount(2).
pub fn overlay(lower: &Path, upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let data = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    Ok(mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(data.as_str()))?)
}

/// Makes `source` visible at `target` too.
///
/// # Errors
/// Those of mount(2).
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Mounts the ext4 file system of the machine's state on `target`: no device files, no set-user-ID programs, and no
/// write for each read.
///
/// # Errors
/// Those of mount(2).
pub fn state(source: &Path, target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    Ok(mount(Some(source), target, Some("ext4"), flags, None::<&str>)?)
}

/// Mounts `source` read-only, with no device files and no set-user-ID programs.
///
/// # Errors
/// Those of mount(2).
pub fn read_only(source: &Path, target: &Path, file_system: &str) -> io::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    Ok(mount(Some(source), target, Some(file_system), flags, None::<&str>)?)
}

/// Mounts media that anybody may have made, by the first of `kinds` (a file system and its options) that takes it:
/// read-only, with no device files, no programs, no set-user-ID, and no symbolic link on it followed.
///
/// # Errors
/// Those of mount(2) for the first of `kinds`.
pub fn foreign(device: &Path, target: &Path, kinds: &[(&str, Option<&str>)]) -> io::Result<()> {
    // nix has no name for the last one (Linux 5.10).
    let flags = MsFlags::MS_RDONLY
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NOEXEC
        | MsFlags::from_bits_retain(nix::libc::MS_NOSYMFOLLOW);
    let mut first = None;
    for (kind, options) in kinds {
        match mount(Some(device), target, Some(*kind), flags, *options) {
            Ok(()) => return Ok(()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or(nix::Error::EINVAL).into())
}

/// Unmounts `target`.
///
/// # Errors
/// Those of umount2(2); a target that is busy, unless `lazily`.
pub fn unmount(target: &Path, lazily: bool) -> io::Result<()> {
    let flags = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    Ok(umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_a_mount_point_and_a_new_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(folder.path()));
        assert!(list().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape("/mnt/a\\040b\\134c"), "/mnt/a b\\c");
    }
}
