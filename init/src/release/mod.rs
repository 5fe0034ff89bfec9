//! The release file: one signed, versioned file with every binary that a node's Kubernetes needs.
//!
//! ```text
//! ┌────────────────────┐ 0
//! │ erofs image        │   manifest.erofs.length bytes, zero padding to 4096
//! ├────────────────────┤ manifest.verity.hash_offset
//! │ dm-verity hash tree│   no superblock: the signed manifest has the parameters
//! ├────────────────────┤ trailer.manifest
//! │ manifest, JSON     │
//! ├────────────────────┤ trailer.signature
//! │ signature          │   minisign's text form, over the manifest's bytes
//! ├────────────────────┤ length − 64
//! │ trailer, 64 bytes  │
//! └────────────────────┘ length
//! ```
//!
//! The image comes first so that the kernel can mount the file as it is. Only the manifest is signed; it has the
//! image's digest and the root hash of its tree. [`read()`] checks everything but the image's bytes, [`rules`] say
//! whether a genuine release may be used here.

pub mod date;
pub mod manifest;
mod read;
pub mod rules;
pub mod signature;
pub mod trailer;
pub mod verity;
mod version;

pub use manifest::Manifest;
pub use read::{Envelope, ReadError, read};
pub use signature::Keys;
pub use trailer::Trailer;
pub use version::{Version, VersionError};

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
