//! Why a seat can't be used at this boot, and what becomes of its release: it depends on whose fault that is.
//!
//! | whose fault | how it is known | fate |
//! | --- | --- | --- |
//! | the release's own | its file has the digest that was staged, and no machine could use those bytes | condemned |
//! | this copy's | the file is gone, or has another digest than was staged | discarded: stage it anew |
//! | the situation's | everything else: another OS image, another key, the floor, a disk that does not answer | passed over |
//!
//! What is passed over is not recorded, and looked at anew at each boot. A block that does not verify and a disk that
//! does not answer are one and the same I/O error to a reader of dm-verity. Were that error a verdict, a loose cable at
//! one boot would take from a machine the very release that its data needs, and the floor would let no older one run in
//! its place. So the file is read once more, whole, without dm-verity: only another digest than the staged one proves
//! that its bytes are bad. A proof is recorded, also of a committed release: bytes don't heal, and the table lets nobody
//! stage over a committed slot, so that the slot could never be mended.

use std::io;

use super::Transition;
use crate::release::ReadError;
use crate::release::rules::Refusal;

/// Why a seat can't be used at this boot.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The table's digest is none, so it names no file.
    #[error("its digest in the slot table is none")]
    NoDigest,
    /// The file can't be read, or is no release that a trusted key signed.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What is wrong.
        error: ReadError,
    },
    /// A genuine release that may not run here.
    #[error("{0}")]
    Refused(Refusal),
    /// A block of the image could not be read through dm-verity.
    #[error("can't read all of {path} through dm-verity: {error}, from byte {offset} of {length} on")]
    Block {
        /// The file.
        path: String,
        /// Where the reading ended, in bytes.
        offset: u64,
        /// How much there is to read, in bytes.
        length: u64,
        /// What the kernel says: it does not tell a block that does not verify from a disk that does not answer.
        error: io::Error,
    },
    /// The release can't be mounted, or the devices for it can't be made.
    #[error("can't mount {path}: {error}")]
    Mount {
        /// The file.
        path: String,
        /// What was said.
        error: io::Error,
    },
    /// A trial whose try can't be counted must not be made: it could be made for ever.
    #[error("its try can't be counted: {0}")]
    Uncounted(String),
}

/// What a slot's file was found to be, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDisk {
    /// It has the digest that was staged.
    AsStaged,
    /// It has another one.
    Changed,
    /// It is not there.
    Gone,
    /// It can't be read to its end.
    Unreadable,
}

/// What becomes of the release in a slot that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is its own fault: [`Transition::Condemn`].
    Condemn,
    /// It is this copy's: [`Transition::Discard`].
    Discard,
    /// It is the situation's: nothing is recorded, and the next boot may find it usable.
    PassOver,
}

impl Unusable {
    /// True if the file's bytes may be at fault, so that they are worth reading whole.
    #[must_use]
    pub fn doubts_bytes(&self) -> bool {
        match self {
            Unusable::NoDigest | Unusable::Read { .. } | Unusable::Block { .. } | Unusable::Mount { .. } => true,
            Unusable::Refused(_) | Unusable::Uncounted(_) => false,
        }
    }

    /// What becomes of the release. `file` is what the slot's file was found to be; none if nobody looked.
    #[must_use]
    pub fn fate(&self, file: Option<&OnDisk>) -> Fate {
        match (self, file) {
            (Unusable::Refused(_) | Unusable::Uncounted(_), _) => Fate::PassOver,
            (_, Some(OnDisk::Changed | OnDisk::Gone)) => Fate::Discard,
            (Unusable::Read { error, .. }, Some(OnDisk::AsStaged)) if error.is_own_fault() => Fate::Condemn,
            // Of bytes that are as they were staged, what can't be read or mounted now may be another time.
            (_, Some(OnDisk::AsStaged | OnDisk::Unreadable) | None) => Fate::PassOver,
        }
    }
}

impl Fate {
    /// What the table has to record; nothing of a release that is only passed over.
    #[must_use]
    pub fn transition(&self, unusable: &Unusable) -> Option<Transition> {
        match self {
            Fate::Condemn => Some(Transition::Condemn { verdict: unusable.to_string() }),
            Fate::Discard => Some(Transition::Discard {
                damage: format!("its copy on this disk is damaged ({unusable}). Fix: stage the release anew"),
            }),
            Fate::PassOver => None,
        }
    }
}
