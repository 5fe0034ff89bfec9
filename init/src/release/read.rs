//! Opens a release file: everything is checked but the image's bytes, which dm-verity or [`Envelope::check_image`]
//! checks.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::manifest::{Digest, Manifest, ManifestError};
use super::signature::{KeyId, Keys, SignatureError};
use super::trailer::{self, Extent, Trailer, TrailerError};

/// A genuine release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Who signed it.
    pub key: KeyId,
    /// The whole file's length in bytes.
    pub length: u64,
}

/// Why a file is no genuine release.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the release file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not end as a release does.
    #[error(transparent)]
    Trailer(#[from] TrailerError),
    /// Its signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// What was signed makes no sense.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The image is not the one that was signed.
    #[error("the release's image is damaged: its SHA-256 is {found}. Expected {expected}, as signed")]
    Image {
        /// As signed.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
}

impl ReadError {
    /// True if no machine could use the very bytes that were read. False for what is this image's or this disk's to
    /// mend: a key that the image does not trust (any more, or yet), a format of the future, an I/O error.
    #[must_use]
    pub fn is_own_fault(&self) -> bool {
        match self {
            ReadError::Io(_) => false,
            ReadError::Trailer(error) => !matches!(error, TrailerError::Format(_)),
            ReadError::Signature(error) => matches!(error, SignatureError::Malformed | SignatureError::Mismatch),
            ReadError::Manifest(error) => !matches!(error, ManifestError::Format(_)),
            ReadError::Image { .. } => true,
        }
    }
}

/// Opens a release file. Nothing in the manifest is looked at before its signature was found good.
///
/// # Errors
/// The file is no release that one of `keys` signed.
pub fn read(file: &mut (impl Read + Seek), keys: &Keys) -> Result<Envelope, ReadError> {
    let length = file.seek(SeekFrom::End(0))?;
    let end = length.checked_sub(trailer::LENGTH as u64).ok_or(TrailerError::NoMagic)?;
    let bytes = read_extent(file, Extent { offset: end, length: trailer::LENGTH as u64 })?;
    let trailer = Trailer::parse(&bytes, length)?;
    let signed = read_extent(file, trailer.manifest)?;
    let signature = read_extent(file, trailer.signature)?;
    let signature = str::from_utf8(&signature).map_err(|_| SignatureError::Malformed)?;
    let key = keys.verify(&signed, signature)?;
    let manifest = Manifest::parse(&signed)?;
    manifest.check_layout(&trailer)?;
    Ok(Envelope { manifest, key, length })
}

/// The trailer's limits keep these short.
fn read_extent(file: &mut (impl Read + Seek), extent: Extent) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = Vec::new();
    file.take(extent.length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == extent.length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Envelope {
    /// Reads the whole image and compares it with its signed digest.
    ///
    /// # Errors
    /// It cannot be read, or is not what was signed.
    pub fn check_image(&self, file: &mut (impl Read + Seek)) -> Result<(), ReadError> {
        file.seek(SeekFrom::Start(0))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut image = file.take(self.manifest.erofs.length);
        loop {
            let read = image.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let (expected, found) = (self.manifest.erofs.sha256, Digest(hash.finalize().into()));
        if expected == found { Ok(()) } else { Err(ReadError::Image { expected, found }) }
    }
}
