//! Where `/` is: the machine's own root, or a folder that stands for it.

use std::path::{Path, PathBuf};

/// The root below which every absolute path of [`crate::paths`] is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The machine's own root.
    pub fn system() -> Self {
        Root(PathBuf::from("/"))
    }

    /// Another root: `/sysroot` in the initrd, a temporary folder in tests.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Root(path.into())
    }

    /// `absolute` below this root. A path that is not absolute is taken as one.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_below_the_root() {
        assert_eq!(Root::at("/sysroot").path("/etc/hostname"), PathBuf::from("/sysroot/etc/hostname"));
        assert_eq!(Root::system().path("/etc"), PathBuf::from("/etc"));
    }
}
