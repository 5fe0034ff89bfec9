//! Why `/var` can't be used, and the words for it.

use super::{MIB, TABLE_BYTES, VAR, VAR_BYTES};
use crate::words::Block;

/// Why `/var` can't be used. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The disk that carries the root, or its partitions, can't be told; why.
    Unknown(String),
    /// The root and its hash tree are on several disks; their names.
    Disks(Vec<String>),
    /// Several partitions of the disk have the label.
    Several {
        /// The disk.
        disk: String,
        /// The partitions.
        partitions: Vec<String>,
    },
    /// The disk has no room for it.
    NoRoom {
        /// The disk.
        disk: String,
        /// Its size.
        bytes: u64,
        /// What is free behind its last partition.
        behind: u64,
        /// What the next image needs of that; 0 when that was set aside before.
        next: u64,
        /// A size of the disk that is enough.
        enough: u64,
    },
    /// There is room for it, and it was not made.
    NotMade {
        /// The disk.
        disk: String,
        /// What systemd-repart says; none when it was not asked.
        said: Option<String>,
    },
    /// Its file system has errors that are not repaired without being asked to.
    Damaged {
        /// The partition.
        device: String,
        /// What e2fsck said.
        said: String,
    },
    /// Its file system can't be mounted.
    Unmountable {
        /// The partition.
        device: String,
        /// What the kernel said.
        said: String,
        /// What e2fsck said, when it could not check it.
        check: Option<String>,
    },
}

impl Trouble {
    /// What people are told.
    pub fn block(&self) -> Block {
        match self {
            Trouble::Unknown(_) | Trouble::Disks(_) | Trouble::Several { .. } => self.not_found(),
            Trouble::NoRoom { .. } | Trouble::NotMade { .. } => self.not_made(),
            Trouble::Damaged { .. } | Trouble::Unmountable { .. } => self.damaged(),
        }
    }

    fn not_found(&self) -> Block {
        let fix = match self {
            Trouble::Disks(_) => "detach every disk with a copy of this image but one, and start the machine again.",
            Trouble::Several { .. } => {
                "give every one but the machine's own another label, and start the machine again."
            }
            _ => "boot the image from a disk of its own, partitioned as it was built.",
        };
        Block {
            what: "This machine's state (/var) can't be found".to_owned(),
            why: vec![self.reason()],
            state: "Nothing was changed on any disk.".to_owned(),
            fix: vec![fix.to_owned()],
        }
    }

    fn not_made(&self) -> Block {
        let (what, fix) = match self {
            Trouble::NoRoom { enough, .. } => (
                "The disk is too small for this machine's state (/var)",
                format!("enlarge the disk to {} MiB or more, and start the machine again.", enough.div_ceil(MIB)),
            ),
            _ => (
                "The partition for this machine's state (/var) could not be made",
                "remove the cause, or boot the image from another disk.".to_owned(),
            ),
        };
        let state = "The disk is as it was: the partitions that lack are made all at once.".to_owned();
        Block { what: what.to_owned(), why: vec![self.reason()], state, fix: vec![fix] }
    }

    fn damaged(&self) -> Block {
        Block {
            what: "This machine's state (/var) is damaged".to_owned(),
            why: vec![self.reason()],
            state: "It is not mounted, and it is never formatted again.".to_owned(),
            fix: vec![
                "start the machine once with fsck.repair=yes on its kernel command line: it repairs what it can, and \
                 drops what it can't,"
                    .to_owned(),
                "or restore the disk from a backup,".to_owned(),
                "or start over with a new disk.".to_owned(),
            ],
        }
    }

    /// What was found, on one line.
    fn reason(&self) -> String {
        match self {
            Trouble::Unknown(why) => why.clone(),
            Trouble::Disks(disks) => {
                format!("the root and its hash tree are on {}: disks that carry the same image", disks.join(" and "))
            }
            Trouble::Several { disk, partitions } => {
                format!("{disk} has several partitions labelled {VAR}: {}", partitions.join(", "))
            }
            Trouble::NoRoom { disk, bytes, behind, next, .. } => {
                let parts = match next {
                    0 => String::new(),
                    next => format!("{} MiB for the next image, ", next / MIB),
                };
                format!(
                    "{disk} has {} MiB, of which {} MiB are free behind its last partition. kubeboot needs {} MiB \
                     there: {} MiB for /var, {parts}{} MiB for the partition table",
                    bytes / MIB,
                    behind / MIB,
                    (VAR_BYTES + next + TABLE_BYTES) / MIB,
                    VAR_BYTES / MIB,
                    TABLE_BYTES / MIB,
                )
            }
            Trouble::NotMade { disk, said } => {
                let said = said.as_ref().map(|said| format!(". systemd-repart says: {said}")).unwrap_or_default();
                format!("{disk} has room for a partition labelled {VAR}, and has none{said}")
            }
            Trouble::Damaged { device, said } => {
                format!("e2fsck found errors on {device} ({VAR}) that it does not repair by itself: {said}")
            }
            Trouble::Unmountable { device, said, check } => {
                let check = check.as_ref().map(|said| format!(". e2fsck says: {said}")).unwrap_or_default();
                format!("{device} ({VAR}) can't be mounted as ext4: {said}{check}")
            }
        }
    }
}
