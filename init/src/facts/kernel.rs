//! The running kernel: its version, its file systems, its modules.

use std::collections::BTreeSet;
use std::fmt;

use super::Modules;

/// Modules whose presence is looked up. A file system's is also seen by [`Kernel::filesystems`].
pub const WATCHED: &[&str] = &[
    "br_netfilter",
    "bridge",
    "dm_verity",
    "erofs",
    "loop",
    "nf_conntrack",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_reject_ipv4",
    "overlay",
    "veth",
    "vxlan",
    "wireguard",
];

/// What is known of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`, such as `6.12.57+deb13-amd64`.
    pub release: String,
    /// `/proc/filesystems`, without those whose module isn't loaded.
    pub filesystems: BTreeSet<String>,
    /// Each of [`WATCHED`].
    pub modules: Modules,
}

impl Kernel {
    /// The version in the release's text; none if it has none.
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.release)
    }

    /// Where `module` is; a file system that the kernel already knows needs no module.
    pub fn presence(&self, module: &str) -> Presence {
        if self.filesystems.contains(module) {
            return Presence::BuiltIn;
        }
        self.modules.get(module).copied().unwrap_or(Presence::Unknown)
    }
}

/// Where a kernel module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Part of the kernel.
    BuiltIn,
    /// In the kernel now.
    Loaded,
    /// In `/lib/modules`, loaded when needed.
    Loadable,
    /// Neither in the kernel nor in `/lib/modules`.
    Missing,
    /// This kernel has no lists in `/lib/modules`, so nobody can say what is built in.
    Unknown,
}

/// Major and minor number of a kernel version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Reads `6.12` from `6.12.57+deb13-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split('.');
        let major = numbers.next()?.parse().ok()?;
        let rest = numbers.next()?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Version(major, rest[..digits].parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_kind_of_release() {
        assert_eq!(Version::parse("6.12.57+deb13-amd64"), Some(Version(6, 12)));
        assert_eq!(Version::parse("7.2-rc1"), Some(Version(7, 2)));
        assert_eq!(Version::parse("5.15.167.4-microsoft-standard-WSL2"), Some(Version(5, 15)));
        assert_eq!(Version::parse("6"), None);
        assert_eq!(Version::parse("6.x"), None);
        assert!(Version(5, 4) < Version(5, 13) && Version(5, 13) < Version(6, 1));
    }

    #[test]
    fn a_known_file_system_needs_no_module() {
        let kernel = Kernel {
            release: "6.12.0".into(),
            filesystems: ["overlay".to_owned()].into(),
            modules: [("overlay".to_owned(), Presence::Missing), ("veth".to_owned(), Presence::Missing)].into(),
        };
        assert_eq!(kernel.presence("overlay"), Presence::BuiltIn);
        assert_eq!(kernel.presence("veth"), Presence::Missing);
        assert_eq!(kernel.presence("unheard_of"), Presence::Unknown);
    }

    #[test]
    fn the_list_is_sorted_and_has_no_doubles() {
        assert!(WATCHED.is_sorted_by(|a, b| a < b));
    }
}
