//! A folder that stands for a machine, for tests.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::root::Root;
use crate::certificates::Unix;
use crate::plan::Step;

/// The moment of tests.
pub(crate) const NOW: Unix = 1_800_000_000;

/// A machine whose `/var` was just made. Where there is one, on a tmpfs: the disk under it is not what is tested.
pub(crate) fn machine() -> (TempDir, Root) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let root = Root::at(folder.path());
    for path in ["/dev", "/etc/kubernetes", "/run/kubeboot", "/var"] {
        std::fs::create_dir_all(root.path(path)).unwrap();
    }
    (folder, root)
}

/// Every regular file below the root, by path.
pub(crate) fn files(root: &Root) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.path("/")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_symlink() {
                continue;
            }
            if path.is_file() {
                let name = format!("/{}", path.strip_prefix(root.path("/")).unwrap().display());
                files.insert(name, std::fs::read(&path).unwrap());
            } else {
                folders.push(path);
            }
        }
    }
    files
}

/// Steps with their reasons, a line each.
pub(crate) fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step} ({})", step.because())).collect::<Vec<_>>().join("\n")
}
