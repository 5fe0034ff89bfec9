//! The last 64 bytes of a release file: where its manifest and signature are.

/// How a trailer starts.
pub const MAGIC: &[u8; 16] = b"KUBEBOOT-RELEASE";
/// The only format there is.
pub const FORMAT: u32 = 1;
/// A trailer's length in bytes.
pub const LENGTH: usize = 64;
/// The longest manifest that is read, in bytes.
pub const MANIFEST_LIMIT: u64 = 64 * 1024;
/// The longest signature that is read, in bytes.
pub const SIGNATURE_LIMIT: u64 = 4 * 1024;

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// How long it is; never 0.
    pub length: u64,
}

/// A trailer that fits its file: the manifest, then the signature, then the trailer, with nothing between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The manifest, at most [`MANIFEST_LIMIT`].
    pub manifest: Extent,
    /// The signature, at most [`SIGNATURE_LIMIT`].
    pub signature: Extent,
}

/// Bytes that are no trailer of that file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    /// Another kind of file, or one that was cut off.
    #[error("this is no release file: it does not end in a release trailer (cut off, or another kind of file)")]
    NoMagic,
    /// A format of the future.
    #[error("the release file has format {0}, and this kubeboot reads format 1. Fix: upgrade kubeboot first")]
    Format(u32),
    /// Bytes that must be 0 are not.
    #[error("the release file is damaged: reserved bytes of its trailer are not zero")]
    Reserved,
    /// The parts do not fit the file or each other.
    #[error(
        "the release file is damaged: its trailer puts {part} at offset {offset}, {length} bytes long, which does not fit a file of {file} bytes"
    )]
    Misplaced {
        /// Which part.
        part: &'static str,
        /// Where the trailer says it is.
        offset: u64,
        /// How long the trailer says it is.
        length: u64,
        /// The file's length.
        file: u64,
    },
}

impl Trailer {
    /// Reads the last [`LENGTH`] bytes of a file of `file` bytes.
    ///
    /// # Errors
    /// They are no trailer, or one that does not fit that file.
    pub fn parse(bytes: &[u8], file: u64) -> Result<Self, TrailerError> {
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| TrailerError::NoMagic)?;
        if !bytes.starts_with(MAGIC) {
            return Err(TrailerError::NoMagic);
        }
        let format = u32::from_le_bytes(part(bytes, 16));
        if format != FORMAT {
            return Err(TrailerError::Format(format));
        }
        if part::<4>(bytes, 20) != [0; 4] || part::<8>(bytes, 56) != [0; 8] {
            return Err(TrailerError::Reserved);
        }
        let number = |at| u64::from_le_bytes(part(bytes, at));
        let manifest = Extent { offset: number(24), length: number(32) };
        let signature = Extent { offset: number(40), length: number(48) };
        check("the signature", signature, SIGNATURE_LIMIT, file.checked_sub(LENGTH as u64), file)?;
        check("the manifest", manifest, MANIFEST_LIMIT, Some(signature.offset), file)?;
        Ok(Self { manifest, signature })
    }

    /// The trailer's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..20].copy_from_slice(&FORMAT.to_le_bytes());
        let numbers = [self.manifest.offset, self.manifest.length, self.signature.offset, self.signature.length];
        for (slot, number) in bytes[24..56].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// `N` bytes from `at`; both are constants within the trailer.
fn part<const N: usize>(bytes: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// Whether an extent has a sane length and ends exactly at `end`.
fn check(part: &'static str, extent: Extent, limit: u64, end: Option<u64>, file: u64) -> Result<(), TrailerError> {
    let Extent { offset, length } = extent;
    let fits = (1..=limit).contains(&length) && end.is_some() && offset.checked_add(length) == end;
    if fits { Ok(()) } else { Err(TrailerError::Misplaced { part, offset, length, file }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: u64 = 10_000;

    fn trailer() -> Trailer {
        let signature = Extent { offset: FILE - LENGTH as u64 - 200, length: 200 };
        Trailer { manifest: Extent { offset: signature.offset - 1000, length: 1000 }, signature }
    }

    #[test]
    fn a_trailer_comes_back() {
        assert_eq!(Trailer::parse(&trailer().to_bytes(), FILE), Ok(trailer()));
    }

    #[test]
    fn a_later_format_asks_for_an_upgrade() {
        let mut bytes = trailer().to_bytes();
        bytes[16] = 2;
        assert_eq!(Trailer::parse(&bytes, FILE), Err(TrailerError::Format(2)));
    }

    #[test]
    fn a_file_of_another_length_is_noticed() {
        for file in [0, 63, FILE - 1, FILE + 1, u64::MAX] {
            assert!(
                matches!(Trailer::parse(&trailer().to_bytes(), file), Err(TrailerError::Misplaced { .. })),
                "{file}"
            );
        }
    }

    #[test]
    fn extents_that_would_wrap_around_are_refused() {
        let signature = Extent { offset: u64::MAX - 99, length: 200 };
        let bytes = Trailer { signature, ..trailer() }.to_bytes();
        assert!(matches!(Trailer::parse(&bytes, 164), Err(TrailerError::Misplaced { part: "the signature", .. })));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(at in 0..LENGTH, change in 1..=u8::MAX) {
            let mut bytes = trailer().to_bytes();
            bytes[at] ^= change;
            prop_assert!(Trailer::parse(&bytes, FILE).is_err());
        }

        #[test]
        fn what_parses_fits_and_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 40), file: u64) {
            let mut whole = trailer().to_bytes();
            whole[24..].copy_from_slice(&bytes);
            if let Ok(trailer) = Trailer::parse(&whole, file) {
                prop_assert_eq!(trailer.to_bytes(), whole);
            }
        }

        #[test]
        fn every_layout_comes_back(start in 0..u64::MAX / 2, manifest in 1..=MANIFEST_LIMIT, signature in 1..=SIGNATURE_LIMIT) {
            let manifest = Extent { offset: start, length: manifest };
            let signature = Extent { offset: start + manifest.length, length: signature };
            let trailer = Trailer { manifest, signature };
            let file = signature.offset + signature.length + LENGTH as u64;
            prop_assert_eq!(Trailer::parse(&trailer.to_bytes(), file), Ok(trailer));
        }
    }
}
