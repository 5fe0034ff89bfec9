//! The manifest: what a release says of itself, in JSON. It counts only when its signature does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::date::Moment;
use super::verity::{BLOCK, tree_blocks};
use super::{Trailer, Version};

/// The only format there is. A release that an older kubeboot could misread gets a higher one.
pub const FORMAT: u32 = 1;

/// Thirty-two bytes, written as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// What a release says of itself. Fields that a later kubeboot adds are ignored by an earlier one; what must not be
/// ignored raises `format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Kubernetes' version, `1.37.2`.
    pub kubernetes: String,
    /// Which build of it.
    pub build: u32,
    /// Both together.
    pub version: Version,
    /// When its sources were made (an input of the build, not the clock).
    pub created: Moment,
    /// After this it is not staged any more. A staged one still boots.
    pub expires: Moment,
    /// The lowest version that may be upgraded to this one.
    pub minimum: Version,
    /// The lowest version that may follow this one, once committed.
    pub floor: Version,
    /// Which OS images it runs on.
    pub os: OsRange,
    /// The image with the binaries.
    pub erofs: Image,
    /// How the image is checked while it is in use.
    pub verity: Verity,
    /// What is inside: name and version.
    pub components: BTreeMap<String, String>,
}

/// OS images by their interface level, a number that rises when a release could notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsRange {
    /// The lowest level that will do.
    pub min: u32,
    /// The highest level that is known to do.
    pub max: u32,
}

/// The erofs image at the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its length in bytes, without padding.
    pub length: u64,
    /// Of those bytes.
    pub sha256: Digest,
}

/// dm-verity's parameters: format 1, no superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// Always `sha256`.
    pub algorithm: String,
    /// What everything else follows from.
    pub root_hash: Digest,
    /// Hashed before every block.
    pub salt: Digest,
    /// Always 4096.
    pub data_block_size: u64,
    /// Always 4096.
    pub hash_block_size: u64,
    /// Blocks of the padded image.
    pub data_blocks: u64,
    /// Where the tree starts in the file, in bytes: right after the padded image.
    pub hash_offset: u64,
}

/// A manifest that this kubeboot does not use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("the release's manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A format of the future.
    #[error(
        "the release's manifest has format {0}, and this kubeboot reads format {FORMAT}. Fix: upgrade kubeboot first"
    )]
    Format(u32),
    /// Fields contradict each other or the file.
    #[error("the release's manifest contradicts {against}: {field} is {found}. Expected {expected}")]
    Contradiction {
        /// Itself, or the file.
        against: &'static str,
        /// By its path.
        field: &'static str,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl Manifest {
    /// Reads a manifest and checks it against itself.
    ///
    /// # Errors
    /// It is malformed, of another format, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        // The format comes first: what else a later one means is unknown.
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u32,
        }
        let OnlyFormat { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(ManifestError::Format(format));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check_itself()?;
        Ok(manifest)
    }

    /// The manifest as it is signed.
    ///
    /// # Errors
    /// Never for a manifest of this type; serde_json's signature has one.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn check_itself(&self) -> Result<(), ManifestError> {
        const ITSELF: &str = "itself";
        let verity = &self.verity;
        let block = BLOCK as u64;
        equal(ITSELF, "kubernetes", &self.version.kubernetes(), &self.kubernetes)?;
        equal(ITSELF, "build", &self.version.build, &self.build)?;
        equal(ITSELF, "verity.algorithm", &"sha256", &verity.algorithm.as_str())?;
        equal(ITSELF, "verity.data_block_size", &block, &verity.data_block_size)?;
        equal(ITSELF, "verity.hash_block_size", &block, &verity.hash_block_size)?;
        // An image that starts with no block at all has no tree; one of 16 TiB is a number gone wrong.
        let blocks = self.erofs.length.div_ceil(block);
        if blocks == 0 || blocks > u64::from(u32::MAX) {
            return Err(contradiction(ITSELF, "erofs.length", "1 byte to 16 TiB", self.erofs.length));
        }
        equal(ITSELF, "verity.data_blocks", &blocks, &verity.data_blocks)?;
        equal(ITSELF, "verity.hash_offset", &(blocks * block), &verity.hash_offset)?;
        if self.minimum > self.version {
            return Err(contradiction(ITSELF, "minimum", format!("at most {}", self.version), self.minimum));
        }
        if self.floor > self.version {
            return Err(contradiction(ITSELF, "floor", format!("at most {}", self.version), self.floor));
        }
        if self.os.min > self.os.max {
            return Err(contradiction(ITSELF, "os.min", format!("at most {}", self.os.max), self.os.min));
        }
        Ok(())
    }

    /// Checks that image and tree fill the file up to the manifest exactly.
    ///
    /// # Errors
    /// They do not.
    pub fn check_layout(&self, trailer: &Trailer) -> Result<(), ManifestError> {
        let end = self.verity.hash_offset + tree_blocks(self.verity.data_blocks) * BLOCK as u64;
        equal("the file", "verity.hash_offset + the tree's length", &trailer.manifest.offset, &end)
    }
}

fn equal<T: PartialEq + fmt::Display>(
    against: &'static str,
    field: &'static str,
    expected: &T,
    found: &T,
) -> Result<(), ManifestError> {
    if expected == found { Ok(()) } else { Err(contradiction(against, field, expected, found)) }
}

fn contradiction(
    against: &'static str,
    field: &'static str,
    expected: impl fmt::Display,
    found: impl fmt::Display,
) -> ManifestError {
    ManifestError::Contradiction { against, field, expected: expected.to_string(), found: found.to_string() }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digest = [0; 32];
        if text.len() != 64 {
            return Err(DigestError);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}
